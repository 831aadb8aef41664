"""Measures with intervals of counting; :mod:`atypia.biomarker.correction` adds the model's errors.

Counts are taken as Poisson. Figures that cluster vary more from section to section than these
intervals hold: these are of the tissue that was counted, not of the whole tumour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy  # loads scipy.stats, which takes a second, where it is used

from atypia.evaluation.intervals import LEVEL

if TYPE_CHECKING:
    from atypia.evaluation.metrics import FloatArray


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


def joint_density(
    total: int,
    area_mm2: float,
    share: float,
    shares: FloatArray,
    level: float = LEVEL,
    seed: int = 0,
) -> Measure:
    """Density of the figures that truly are so: the density of all times their true share.

    `share` has the draws `shares` (D,), which are joined with draws of the density of all; without
    figures there are none, and the upper limit is that of all figures.
    """
    counted = poisson_interval(total, level)
    if not len(shares):
        return Measure(0.0, 0.0, counted.high).scaled(1 / area_mm2)
    counts = np.random.default_rng(seed).gamma(total + 0.5, size=len(shares)) * shares
    low, high = np.quantile(counts, [(1 - level) / 2, (1 + level) / 2])
    value = total * share
    return Measure(value, min(float(low), value), max(float(high), value)).scaled(1 / area_mm2)
