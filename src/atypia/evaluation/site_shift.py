"""How far a site is from where a model was calibrated, from few labelled figures of its own.

What is found at a site is drawn towards what was shipped, the more so the fewer figures there are
(empirical Bayes: Efron and Morris, JASA 70, 1975): with a variance V of what was found and a
variance of S**2 over sites, a share of S**2 / (S**2 + V) of the difference stays. Figures of one
patient resemble one another, so V sums influences patient by patient (Liang and Zeger, Biometrika
73, 1986); with few patients such a sum may be too small, and the figures' own is taken then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from atypia.evaluation.metrics import BoolArray, FloatArray

LEAST_FIGURES: Final = 20
"""Fewer labelled figures change nothing."""
LEAST_OF_A_SIDE: Final = 5
"""Fewer atypical, or normal, figures move no threshold."""
SPREAD_OF_EVIDENCE: Final = 0.2
"""SD of the shift of evidence over sites, in nats, at which adapted thresholds gain most on AMi-Br
(``benchmarks/adapt.py --choose``); it is 0.3 over scanners and laboratories."""
_Z_95 = 1.96
_Z_SPEAKS = 0.674
"""Three to one: what was shipped is kept unless it is on the wrong side at these odds."""
_STEPS = 50


@dataclass(frozen=True)
class SiteShift:
    """A difference between a site and what was shipped, drawn towards none."""

    found: float
    """As the site's figures alone have it."""
    value: float
    """Drawn towards 0."""
    low: float
    """95 % interval of `value`."""
    high: float

    @classmethod
    def drawn(cls, found: float, variance: float, spread: float) -> SiteShift:
        """Draw what was found, with its variance, towards 0; `spread` is the SD over sites."""
        share = spread**2 / (spread**2 + variance)
        half = _Z_95 * math.sqrt(share * variance)
        return cls(found, share * found, share * found - half, share * found + half)

    @property
    def speaks(self) -> bool:
        """Whether the figures speak against what was shipped, at odds of three to one."""
        return abs(self.value) > (self.high - self.low) / 2 / _Z_95 * _Z_SPEAKS


def clustered_variance(influences: FloatArray, patients: NDArray[np.generic]) -> float:
    """Variance of an estimate from the influences (N,) of figures, those of a patient together."""
    _, patient = np.unique(patients, return_inverse=True)
    n = int(patient.max()) + 1
    together = float((np.bincount(patient, influences) ** 2).sum()) * n / max(n - 1, 1)
    return max(together, float((influences**2).sum()))


def evidence_shift(
    p_atypical: FloatArray,
    is_atypical: BoolArray,
    patients: NDArray[np.generic],
    weights: FloatArray,
    prevalence: float,
) -> tuple[float, float]:
    """Find by how much the same p_atypical is more evidence, or less, at a site than it was.

    Where probabilities are calibrated at a `prevalence` of atypical figures, the odds of a figure
    divided by those of the prevalence are the likelihood ratio of its answer. At the site its
    logarithm is larger by the number that is found here: by logistic regression of the label with
    the logit as it is and a free intercept, less the logit of the site's own prevalence (the
    density ratio model of Qin, Biometrika 85, 1998). More atypical figures alone move nothing.

    Args:
        p_atypical: (N,).
        is_atypical: (N,) both kinds among them.
        patients: (N,).
        weights: (N,) how many figures of the site each stands for, in any unit.
        prevalence: Share of atypical figures where the probabilities were calibrated.

    Returns:
        The shift in nats, and its variance.
    """
    from scipy.special import expit, logit

    scores = logit(np.clip(p_atypical, 1e-6, 1 - 1e-6))
    n, y, w = len(scores), is_atypical.astype(np.float64), weights / weights.mean()
    intercept = 0.0
    for _ in range(_STEPS):
        p = expit(scores + intercept)
        step = float((w * (y - p)).sum() / (w * p * (1 - p)).sum())
        intercept += float(np.clip(step, -1, 1))
    p = expit(scores + intercept)
    share = float(((w * y).sum() + prevalence) / (n + 1))
    information, spread = (w * p * (1 - p)).sum(), n * share * (1 - share)
    influences = w * ((y - p) / information - (y - share) / spread)
    shift = intercept - float(logit(share)) + float(logit(prevalence))
    return shift, clustered_variance(influences, patients)
