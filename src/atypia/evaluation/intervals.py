"""Intervals from resampling patients.

Figures of one patient resemble one another, so the patient, not the patch, is what is drawn with
replacement: the cluster bootstrap (Davison and Hinkley, Bootstrap Methods and their Application,
1997, section 3.8; Field and Welsh, JRSS B 69, 2007), with percentile intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from atypia.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import FloatArray, Measures

    Statistic: TypeAlias = Callable[[FloatArray], Measures]
    """Weights (R, N) to measures whose first axis is R."""

LEVEL = 0.95
RESAMPLES = 2000
# A chunk of weights takes 8 MB, whatever the number of samples.
_CHUNK_ELEMENTS = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """A measure (or an array of them), its interval, and the resamples without a value."""

    value: FloatArray
    low: FloatArray
    high: FloatArray
    undefined: NDArray[np.int64]
    """In how many resamples the measure was undefined; the interval is of the others."""


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


def resample(
    statistic: Statistic, patients: NDArray[np.generic], resamples: int, seed: int
) -> Measures:
    """`statistic` of every resample; the first axis of each measure is `resamples`.

    Raises:
        InputError: Fewer than one resample.
    """
    if resamples < 1:
        raise InputError(f"expected at least one resample of patients but got {resamples}.")
    chunks = [statistic(weights) for weights in patient_weights(patients, resamples, seed)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def percentile_interval(samples: FloatArray, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """Percentile interval over the first axis, of what is not NaN; NaN where nothing is left."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    flat = samples.reshape(len(samples), -1)
    bounds = np.full((2, flat.shape[1]), np.nan)
    for i, column in enumerate(flat.T):
        defined = column[~np.isnan(column)]
        if len(defined):
            bounds[:, i] = np.quantile(defined, tails)
    low, high = bounds.reshape(2, *samples.shape[1:])
    return low, high


def estimate(
    statistic: Statistic,
    patients: NDArray[np.generic],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, Estimate]:
    """Measures with intervals from resampling patients.

    Args:
        statistic: Weights (R, N) to measures.
        patients: (N,) the patient of each sample. One patient alone gives no interval (NaN).
        resamples: Number of resamples of patients.
        seed: Seed of the resampling. Tables of the same patients get the same resamples.
        level: Coverage, 0 to 1.
    """
    value = statistic(np.ones((1, len(patients))))
    samples = resample(statistic, patients, resamples, seed)
    single = len(np.unique(patients)) < 2
    estimates = {}
    for name, sample in samples.items():
        low, high = percentile_interval(np.full_like(sample, np.nan) if single else sample, level)
        estimates[name] = Estimate(value[name][0], low, high, np.isnan(sample).sum(0))
    return estimates


def measure(estimate: Estimate, index: int | tuple[()] = ()) -> dict[str, float | int | None]:
    """Write an estimate, or one of an array of them, as ``metrics.json`` holds it."""
    return {
        "value": finite_or_none(estimate.value[index]),
        "low": finite_or_none(estimate.low[index]),
        "high": finite_or_none(estimate.high[index]),
        "undefined": int(estimate.undefined[index]),
    }


def finite_or_none(value: Any) -> float | None:
    """Make a float that strict JSON can hold: NaN becomes None."""
    return float(value) if math.isfinite(value) else None
