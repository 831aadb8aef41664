"""Intervals of measures, with the patient as the unit.

Figures of one patient resemble one another, so the patient, not the figure, is what is left out and
what is counted:

- The standard error is the jackknife's, which leaves out one patient at a time (Efron and Stein,
  Annals of Statistics 9, 1981). Few patients carry most of it where a class is rare; its degrees of
  freedom, 2n / (kurtosis of the patients' influences − 1), are then few, and the quantiles of
  Student's t far out (Satterthwaite, Biometrics Bulletin 2, 1946). The interval is symmetric on the
  logit scale of the measure's range, on the log scale where it has no upper end.
- An area under the ROC curve near 1 of a class with few figures has hardly any jackknife error. The
  error that as many independent figures would have (Hanley and McNeil, Radiology 143, 1982) joins
  it with the weight of :data:`_MODEL_FREEDOM` degrees of freedom.
- Where no patient moves a measure (none or all of the figures are right), the exact interval of
  Clopper and Pearson (Biometrika 26, 1934) for the effective number of figures (Kish, Survey
  Sampling, 1965; Korn and Graubard, Survey Methodology 24, 1998) is given: no interval has width 0.
- The calibration error of few figures is too large on average, since a gap of chance counts
  whatever its sign. The vector of gaps is taken for normal, with the jackknife's covariance, around
  a multiple of the observed one. The value is the multiple that on average gives the observed
  calibration error; the interval holds those that give a larger one in 2.5 to 97.5 % (inversion of
  a test).

``benchmarks/coverage.py`` measures how often they hold the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import scipy  # loads scipy.special, a quarter of a second, where it is used

from atypia.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import FloatArray, IntArray, Measures

    Statistic: TypeAlias = Callable[[FloatArray], Measures]
    """Weights (R, N) to measures whose first axis is R."""

LEVEL = 0.95
RESAMPLES = 2000
METHOD: Final = "jackknife over patients, Student's t on the logit scale; exact at 0 and at all"

OF: Final = "/of"
"""Ending of the name of a measure's denominators: the weight of the figures that it is a share of.

With one axis more than the measure they are the parts of a mean of shares.
"""
VARIANCE: Final = "/variance"
"""Ending of the name of the variance that a measure would have if all figures were independent."""
GAPS: Final = "/gaps"
"""Ending of the name of the signed gaps (R, bins) whose absolute values add up to a measure."""

_RANGES: Final = {
    **dict.fromkeys(("auc", "average_precision", "accuracy", "f1", "aurc", "ece"), (0.0, 1.0)),
    **dict.fromkeys(("wrong", "given_wrong", "true_missed", "joint"), (0.0, 1.0)),
    **dict.fromkeys(("kappa", "mcc", "pearson", "spearman"), (-1.0, 1.0)),
    "brier": (0.0, 2.0),
    "log_loss": (0.0, math.inf),
    "mean_size": (0.0, 8.0),
}
"""Ranges of measures by how their names end; shares, which have denominators, are from 0 to 1."""
_MODEL_FREEDOM: Final = 3
_MOST_GROUPS: Final = 1000
_NOTHING: Final = 1e-9
# A chunk of weights takes 8 MB, whatever the number of samples.
_CHUNK_ELEMENTS = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """A measure (or an array of them) with its interval."""

    value: FloatArray
    low: FloatArray
    high: FloatArray
    undefined: IntArray
    """Without how many of the patients the measure would be undefined."""
    without: FloatArray
    """The measure without each patient (first axis)."""
    number: FloatArray
    """Effective number of the figures behind it, where those of a patient are all alike."""
    range: tuple[float, float]
    p: FloatArray | None = None
    """Of a difference: two-sided p-value of none."""


def estimate(
    statistic: Statistic,
    patients: NDArray[np.generic],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, Estimate]:
    """Measures with intervals; see the module for how.

    Args:
        statistic: Weights (R, N) to measures, by name, beside them those named with :data:`OF`,
            :data:`VARIANCE` and :data:`GAPS`. It must not give differences, which are made by
            :func:`difference`.
        patients: (N,) the patient of each sample. One patient alone gives no interval (NaN).
        resamples: Random draws behind the interval of a calibration error.
        seed: Seed of these draws.
        level: Coverage, 0 to 1.

    Raises:
        InputError: Fewer than one resample.
    """
    if resamples < 1:
        raise InputError(f"expected at least one resample but got {resamples}.")
    rows = _leaving_out(statistic, patients)
    estimates = {}
    for name, values in rows.items():
        if name.endswith((OF, VARIANCE, GAPS)):
            continue
        value, without = values[0], values[1:]
        bounds = _range(name, rows)
        if (value < bounds[0] - _NOTHING).any():
            raise ValueError(
                f"Expected {name} within {bounds}: differences are made by difference()."
            )
        number = _effective_number(rows.get(name + OF, rows[OF]), value.ndim)
        if len(without) < 2:
            low, high = np.full((2, *value.shape), np.nan)
        elif name + GAPS in rows:
            value, low, high = _calibration_error(rows[name + GAPS], number, resamples, seed, level)
        else:
            variance = rows[name + VARIANCE][0] if name + VARIANCE in rows else None
            low, high, _ = _interval(value, without, number, bounds, level, variance)
        undefined = np.isnan(without).sum(0)
        estimates[name] = Estimate(value, low, high, undefined, without, number, bounds)
    return estimates


def difference(of: Estimate, minus: Estimate, level: float = LEVEL) -> Estimate:
    """Difference of two estimates over the same patients, with its interval and p-value.

    What makes a patient hard for both cancels out: the influence of a patient on the difference is
    the difference of the influences.
    """
    value, without = of.value - minus.value, of.without - minus.without
    number = np.minimum(of.number, minus.number)
    bounds = of.range[0] - minus.range[1], of.range[1] - minus.range[0]
    low, high, p = _interval(value, without, number, bounds, level, paired=True)
    return Estimate(value, low, high, np.isnan(without).sum(0), without, number, bounds, p)


def measure(estimate: Estimate, index: int | tuple[()] = ()) -> dict[str, float | int | None]:
    """Write an estimate, or one of an array of them, as ``metrics.json`` holds it."""
    written = {
        "value": finite_or_none(estimate.value[index]),
        "low": finite_or_none(estimate.low[index]),
        "high": finite_or_none(estimate.high[index]),
    }
    p = {} if estimate.p is None else {"p": finite_or_none(estimate.p[index])}
    return {**written, **p, "undefined": int(estimate.undefined[index])}


def described(resamples: int, seed: int) -> dict[str, Any]:
    """Describe the intervals as ``metrics.json`` does."""
    return {
        "level": LEVEL,
        "method": METHOD,
        "resamples": resamples,
        "seed": seed,
        "unit": "patient",
    }


def finite_or_none(value: Any) -> float | None:
    """Make a float that strict JSON can hold: NaN becomes None."""
    return float(value) if math.isfinite(value) else None


def patient_weights(
    patients: NDArray[np.generic], resamples: int, seed: int
) -> Iterator[FloatArray]:
    """Draw patients (N,) with replacement and yield sample weights in chunks of shape (r, N).

    The draw depends only on the sorted set of patients, `resamples` and `seed`: two tables with
    the same patients get the same resamples, whatever the order of their rows.
    """
    names, patient_of = np.unique(patients, return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=resamples
    )  # (R, patients)
    step = max(1, _CHUNK_ELEMENTS // len(patients))
    for first in range(0, resamples, step):
        yield draws[first : first + step].astype(np.float64)[:, patient_of]


def _leaving_out(statistic: Statistic, patients: NDArray[np.generic]) -> Measures:
    """`statistic` of everything, then without each patient; under :data:`OF` the figures left.

    Above 1,000 patients, groups of patients are left out.
    """
    _, group = np.unique(patients, return_inverse=True)
    group = group % _MOST_GROUPS
    groups = int(group.max()) + 1
    groups = groups if groups > 1 else 0
    step = max(1, _CHUNK_ELEMENTS // len(group))
    chunks = []
    for first in range(-1, groups, step):  # group -1 is nobody
        left_out = np.arange(first, min(first + step, groups))
        weights = (group != left_out[:, None]).astype(np.float64)
        chunks.append({**statistic(weights), OF: weights.sum(1)})
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _range(name: str, rows: Mapping[str, FloatArray]) -> tuple[float, float]:
    if name + OF in rows:
        return 0.0, 1.0
    fitting = (found for ending, found in _RANGES.items() if name.endswith(ending))
    return next(fitting, (-math.inf, math.inf))


def _effective_number(of: FloatArray, ndim: int) -> FloatArray:
    """Kish's number: (sum of m)² / sum of m², where m are the figures of a patient.

    Of a mean of C shares that are defined: C² / the sum of the inverse numbers.
    """
    own = np.maximum(of[0] - of[1:], 0)
    number = own.sum(0) ** 2 / np.maximum((own**2).sum(0), _NOTHING)
    if of.ndim - 1 == ndim:
        return np.asarray(number)
    defined = number > 0
    inverse = np.where(defined, 1 / np.maximum(number, _NOTHING), 0).sum(-1)
    return np.asarray(defined.sum(-1) ** 2 / np.maximum(inverse, _NOTHING))


def _interval(
    value: FloatArray,
    without: FloatArray,
    number: FloatArray,
    bounds: tuple[float, float],
    level: float,
    variance: FloatArray | None = None,
    *,
    paired: bool = False,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Low and high end, and the p-value of 0."""
    defined = ~np.isnan(without)
    n = defined.sum(0)
    mean = np.where(defined, without, 0).sum(0) / np.maximum(n, 1)
    influence = np.where(defined, without - mean, 0)
    squares = (influence**2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        kurtosis = n * (influence**4).sum(0) / squares**2
        freedom = np.clip(np.nan_to_num(2 * n / (kurtosis - 1), nan=1.0), 1, np.maximum(n - 1, 1))
        error = np.sqrt((n - 1) / n * squares)
        still = ~(error > _NOTHING) | (n < len(without))
        if variance is not None:
            error = np.sqrt(error**2 + variance * _MODEL_FREEDOM / (freedom + _MODEL_FREEDOM))
            freedom = freedom + _MODEL_FREEDOM
        half = scipy.special.stdtrit(freedom, (1 + level) / 2) * error
        p = np.where(still, np.where(value == 0, 1.0, np.nan),
                     2 * scipy.special.stdtr(freedom, -np.abs(value) / error))  # fmt: skip
        lowest, highest = bounds
        if paired or math.isinf(lowest):
            low, high = np.maximum(value - half, lowest), np.minimum(value + half, highest)
        elif math.isinf(highest):
            factor = np.exp(half / (value - lowest))
            low, high = lowest + (value - lowest) / factor, lowest + (value - lowest) * factor
        else:
            width = highest - lowest
            place = (value - lowest) / width
            half = half / width / (place * (1 - place))
            ends = scipy.special.logit(place) + np.array([-half, half])
            low, high = lowest + width * scipy.special.expit(ends)
        # What no figure has shown may still be so in this share of them, at worst at either end.
        still |= (value <= lowest) | (value >= highest)
        unseen = 1 - ((1 - level) / 2) ** (1 / np.maximum(number, _NOTHING))
        low = np.where(still, value - unseen * (value - lowest), low)
        high = np.where(still, value + unseen * (highest - value), high)
    return low, high, p


def _calibration_error(
    gaps: FloatArray, number: FloatArray, resamples: int, seed: int, level: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Value, low and high end from the gaps (1 + groups, bins)."""
    observed, without = gaps[0], gaps[1:]
    plain = np.abs(observed).sum()
    n = len(without)
    influence = (without - without.mean(0)) * math.sqrt((n - 1) / n)
    candidates = np.linspace(0, 2.5, 51)
    # Mean of the absolute value of a normal variable (folded normal distribution), bin by bin.
    error = np.maximum(np.sqrt((influence**2).sum(0)), _NOTHING)
    z = candidates[:, None] * np.abs(observed) / error
    height = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    expected = error * (2 * height + z * (1 - 2 * scipy.special.ndtr(-z)))
    value = np.interp(plain, expected.sum(1), candidates * plain)

    noise = np.random.default_rng(seed).standard_normal((resamples, n)) @ influence
    larger = [(np.abs(c * observed + noise).sum(1) > plain).mean() for c in candidates]
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.interp(tails, np.maximum.accumulate(larger), candidates * plain)
    unseen = 1 - ((1 - level) / 2) ** (1 / max(float(number), _NOTHING))
    return value, np.minimum(low, value), np.maximum(high, plain if plain > _NOTHING else unseen)
