"""The truth behind several raters' votes, none of whom is the reference.

A latent class model of two classes (Dawid and Skene, Applied Statistics 28, 1979; of two readers
and more in diagnostics: Hui and Walter, Biometrics 36, 1980): a figure is atypical or normal, each
rater has a sensitivity and a specificity, and errs independently of the others given the truth.
With three raters the model is just identified. Where raters err alike, on figures that are hard
for everyone, it takes what they share for the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.errors import InputError
from atypia.evaluation.predictions import UNKNOWN

if TYPE_CHECKING:
    from atypia.evaluation.metrics import FloatArray, IntArray

MIN_RATERS: Final = 3
_ITERATIONS: Final = 5000
_TOLERANCE: Final = 1e-9


@dataclass(frozen=True)
class LatentTruth:
    """The truth that R raters see, each with errors, on N figures."""

    prevalence: float
    """Share of the figures that are atypical."""
    sensitivity: FloatArray
    """(R,) share of the atypical figures that each rater calls so."""
    specificity: FloatArray
    """(R,) share of the normal figures that each rater calls so."""
    p_atypical: FloatArray
    """(N,) probability that each figure is atypical, given the votes on it."""


def latent_truth(votes: IntArray) -> LatentTruth:
    """Fit the model by maximum likelihood: EM from the share of the votes.

    `votes` (R, N) are 1 (atypical), 0 (normal) or :data:`UNKNOWN`. A figure without a vote gets the
    prevalence.

    Raises:
        InputError: Fewer than three raters, or one who calls all figures alike.
    """
    given = votes != UNKNOWN
    cast = [set(np.unique(rater[known])) for rater, known in zip(votes, given, strict=True)]
    if len(votes) < MIN_RATERS or any(given_by != {0, 1} for given_by in cast):
        raise InputError(
            f"expected atypical and normal calls of each of at least {MIN_RATERS} raters to find "
            f"the truth behind them but got {len(votes)} raters with the calls {cast}."
        )
    calls = {call: np.where(given, votes == call, 0).astype(np.float64) for call in (1, 0)}
    truth = (calls[1].sum(axis=0) + 0.5) / (given.sum(axis=0) + 1)
    for _ in range(_ITERATIONS):
        prevalence = float(truth.mean())
        sensitivity = (calls[1] @ truth) / (given @ truth)
        specificity = (calls[0] @ (1 - truth)) / (given @ (1 - truth))
        log_odds = np.log(prevalence / (1 - prevalence)) + (
            _log_ratio(sensitivity, 1 - specificity) @ calls[1]
            + _log_ratio(1 - sensitivity, specificity) @ calls[0]
        )
        before, truth = truth, 1 / (1 + np.exp(-log_odds))
        if np.abs(truth - before).max() < _TOLERANCE:
            break
    return LatentTruth(prevalence, sensitivity, specificity, truth)


def _log_ratio(among_atypical: FloatArray, among_normal: FloatArray) -> FloatArray:
    """Log of the ratio of two shares, held away from 0 and 1."""
    low, high = 1e-9, 1 - 1e-9
    return np.asarray(
        np.log(np.clip(among_atypical, low, high)) - np.log(np.clip(among_normal, low, high))
    )
