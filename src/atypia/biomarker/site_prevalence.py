r"""How often figures are atypical at a site, from probabilities alone.

A model's probabilities hold for figures as often atypical as those that it was calibrated on. At a
site where they are atypical more or less often, and otherwise alike, the odds of every figure are
those of the model times one factor, :math:`e^c`. It is found from the figures themselves, by the
maximum of the likelihood that they give to the site's prevalence: what Saerens, Latinne and
Decaestecker (Neural Computation 14, 2002) find by EM, and what needs calibrated probabilities
(Alexandari, Kundaje and Shrikumar, ICML 2020).

Only the prevalence is the site's. Patients of one site differ by what their figures look like, and
the probabilities show that by themselves: a factor for each patient would count it twice. Hence
patients are what the estimate is of: each counts for n / (n + 10) of its n figures, a further one
stands for the prevalence of the calibration, which keeps a site of one patient stable, and the
spread is that of resampled patients (Bayesian bootstrap: Rubin, Annals of Statistics 9, 1981).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import expit, logit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from atypia.evaluation.metrics import FloatArray

_HALF_WEIGHT: Final = 10
_GRID: Final = np.linspace(-6, 6, 241)


def patient_weights(figures: NDArray[np.integer | np.floating]) -> FloatArray:
    """How much each patient (P,) counts, up to 1, by its number of figures."""
    return np.asarray(figures / (figures + _HALF_WEIGHT))


def site_shift(
    log_odds: FloatArray,
    patients: NDArray[np.integer],
    prevalence: float,
    prior_patients: float,
    draws: int,
    rng: np.random.Generator,
) -> tuple[float, FloatArray]:
    """Find the logarithm of the factor, and draws (D,) of what else it may be.

    Args:
        log_odds: (N,) of calibrated probabilities; at least one.
        patients: (N,) whose figures they are: numbers from 0 on.
        prevalence: That of the calibration, above 0 and below 1.
        prior_patients: How many patients stand for it.
        draws: D.
        rng: Draws patients.
    """
    figures = np.bincount(patients)
    at = expit(logit(prevalence) + _GRID)  # the prevalence that each shift means
    share = np.stack([np.bincount(patients, expit(log_odds + shift)) for shift in _GRID], axis=1)
    excess = patient_weights(figures)[:, None] * (share / figures[:, None] - at)
    drawn = rng.exponential(size=(draws, len(figures)))
    weights = np.concatenate([np.ones((1, len(figures))), drawn])
    found = _falls_below_zero(weights @ excess + prior_patients * (prevalence - at))
    return float(found[0]), found[1:]


def _falls_below_zero(values: FloatArray) -> FloatArray:
    """Where functions (D, G) on the grid, each above zero and then below, cross it."""
    after = np.clip((values > 0).sum(axis=1), 1, len(_GRID) - 1)
    row = np.arange(len(values))
    left, right = values[row, after - 1], values[row, after]
    step = np.clip(left / np.where(left == right, 1, left - right), 0, 1)
    return np.asarray(_GRID[after - 1] + step * (_GRID[after] - _GRID[after - 1]))
