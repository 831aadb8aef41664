r"""Intervals that carry the error of counting and the errors of the model.

Of n figures of a slide, k are called atypical. With a true fraction π, a sensitivity s and a false
positive rate f on this slide, the chance that a figure is called so is q = π s + (1 − π) f.

The estimate is the mean of π given k, where π varies over patients as the labels of the training
patients do (an empirical Bayes prior: Efron and Morris, JASA 70, 1975). It is what a survival model
wants as its covariate: an expected true value instead of one with noise, which would draw the
hazard ratio towards 1 (regression calibration: Prentice, Biometrika 69, 1982). The plain share is
biased by the model's errors. The usual correction (:func:`rogan_gladen`) is not, until it is held
to 0 to 1, but it varies so much that it is farther from the truth for most patients.

Its interval inverts the test "is k too small, or too large, for this π?". The chance of k or fewer
calls is averaged over what s and f may be on a new patient (Cousins and Highland, NIM A 320,
1992), figures on the edge counting half (mid-p: Lancaster, JASA 56, 1961), and compared with the
same chance at π = 0, so that a count below the expected number of mistakes does not shrink the
interval to nothing (CLs: Read, Journal of Physics G 28, 2002); likewise at π = 1 from above. As
functions of π these are confidence distributions, one for each limit; a density times a fraction
combines draws from those of both (melded intervals: Fay, Proschan and Brittain, Biometrics 71,
2015).

The counts are taken as Poisson. Figures that cluster vary more from section to section than these
intervals hold: these are of the tissue that was counted, not of the whole tumour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import scipy  # loads scipy.stats, which takes a second, where it is used
from scipy import special

from atypia.evaluation.intervals import LEVEL

if TYPE_CHECKING:
    from atypia.biomarker.error_model import Rates
    from atypia.evaluation.metrics import FloatArray

_GRID: Final = np.sin(np.linspace(0, np.pi / 2, 241)) ** 2  # finer at both ends
_STEPS: Final = 20_000
_NEXT_TO_NOTHING: Final = 1e-300


@dataclass(frozen=True)
class Measure:
    """A value with its interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None

    def scaled(self, factor: float) -> Measure:
        """All three times a factor."""
        return Measure(
            *(None if x is None else x * factor for x in (self.value, self.low, self.high))
        )


@dataclass(frozen=True)
class FractionDistribution:
    """What is known of a true fraction: an estimate, and a confidence distribution per limit."""

    value: float
    below: FloatArray
    """(G,) confidence that the fraction is at most each point of the grid, for lower limits."""
    above: FloatArray
    """(G,) likewise, for upper limits."""

    def interval(self, level: float = LEVEL) -> Measure:
        """Give the value and its central interval."""
        tail = (1 - level) / 2
        low = float(self.lower(np.array(tail)))
        high = float(self.upper(np.array(1 - tail)))
        # The interval is free of the prior; where the two disagree, the interval counts.
        return Measure(min(max(self.value, low), high), low, high)

    def lower(self, confidence: FloatArray) -> FloatArray:
        """Lower limits of one-sided intervals, of the shape of `confidence` (tail areas)."""
        return np.asarray(np.interp(confidence, self.below, _GRID, left=0.0, right=1.0))

    def upper(self, confidence: FloatArray) -> FloatArray:
        """Upper limits of one-sided intervals, of the shape of `confidence`."""
        return np.asarray(np.interp(confidence, self.above, _GRID, left=0.0, right=1.0))


def poisson_interval(count: int, level: float = LEVEL) -> Measure:
    """Exact interval of a Poisson mean (Garwood, Biometrika 28, 1936)."""
    tail = (1 - level) / 2
    low = scipy.stats.chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return Measure(float(count), float(low), float(scipy.stats.chi2.isf(tail, 2 * count + 2) / 2))


def binomial_interval(count: int, total: int, level: float = LEVEL) -> Measure:
    """Exact interval of a share (Clopper and Pearson, Biometrika 26, 1934); None of nothing."""
    if total == 0:
        return Measure(None, None, None)
    tail = (1 - level) / 2
    low = scipy.stats.beta.ppf(tail, count, total - count + 1) if count else 0.0
    high = scipy.stats.beta.isf(tail, count + 1, total - count) if count < total else 1.0
    return Measure(count / total, float(low), float(high))


def rogan_gladen(called: int, total: int, rates: Rates) -> float:
    """Correct a share by the mean rates, held to 0 to 1; NaN where they do not differ.

    Rogan and Gladen, American Journal of Epidemiology 107, 1978; the "adjusted count" of Forman,
    Data Mining and Knowledge Discovery 17, 2008. Given to compare with; see :func:`true_fraction`.
    """
    youden = rates.sensitivity - rates.false_positive_rate
    if youden <= 0:
        return float("nan")
    return float(np.clip((called / total - rates.false_positive_rate) / youden, 0, 1))


def true_fraction(called: int, total: int, rates: Rates) -> FractionDistribution:
    """Estimate the true fraction behind `called` of `total` figures (at least 1), by a model."""
    rate = _GRID[:, None] * rates.sensitivity_draws + (1 - _GRID[:, None]) * (
        rates.false_positive_draws
    )  # (G, D) chance that a figure is called so
    fewer, exactly, more = _mean_chances(called, total, rate)
    too_small, too_large = fewer + exactly / 2, more + exactly / 2  # mid-p of each tail
    edges = np.concatenate([[0.0], (_GRID[1:] + _GRID[:-1]) / 2, [1.0]])
    weight = np.diff(scipy.stats.beta.cdf(edges, *rates.prior)) * exactly
    return FractionDistribution(
        float(weight @ _GRID / weight.sum()),
        below=np.maximum.accumulate(too_large / too_large[-1]),
        above=np.maximum.accumulate(1 - too_small / too_small[0]),
    )


def joint_density(
    total: int,
    area_mm2: float,
    fraction: FractionDistribution | None,
    level: float = LEVEL,
    draws: int = 20_000,
    seed: int = 0,
) -> Measure:
    """Density of the figures that truly are so: the density of all times the true fraction.

    `fraction` is None without figures.
    """
    counted = poisson_interval(total, level)
    if fraction is None:
        return Measure(0.0, 0.0, counted.high).scaled(1 / area_mm2)
    rng = np.random.default_rng(seed)
    confidence, counts = rng.random(draws), rng.gamma(total + 0.5, size=draws)
    low = np.quantile(fraction.lower(confidence) * counts, (1 - level) / 2)
    high = np.quantile(fraction.upper(confidence) * counts, (1 + level) / 2)
    value = min(max(fraction.value * total, low), high)
    return Measure(float(value), float(low), float(high)).scaled(1 / area_mm2)


def _mean_chances(
    called: int, total: int, rate: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Average P(K < called), P(K = called), P(K > called) of a binomial K over rates (G, D).

    They are looked up: known at some thousand points, most of them where they change, and from
    there interpolated on the logarithms.
    """
    odds = np.exp(np.linspace(-30, 30, 1001))
    changing = scipy.stats.beta.ppf(odds / (1 + odds), called + 0.5, total - called + 0.5)
    known = np.unique(np.concatenate([np.linspace(0, 1, 513), changing]))
    chances = (
        special.bdtr(called - 1, total, known) if called else np.zeros_like(known),
        scipy.stats.binom.pmf(called, total, known),
        special.bdtr(total - called - 1, total, 1 - known)
        if called < total
        else np.zeros_like(known),
    )
    place = (rate * _STEPS + 0.5).astype(np.intp)
    fine = np.linspace(0, 1, _STEPS + 1)
    fewer, exactly, more = (
        np.exp(np.interp(fine, known, np.log(np.maximum(chance, _NEXT_TO_NOTHING))))
        for chance in chances
    )
    return fewer[place].mean(axis=1), exactly[place].mean(axis=1), more[place].mean(axis=1)
