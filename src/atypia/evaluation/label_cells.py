"""The figures that raters label alike, and those that they do not.

What two raters agree on are the cleanest labels there are, if of the easier figures; where they
disagree, the model's answers show whom it has learned to follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.labels import N_ATYPICAL
from atypia.evaluation import metrics
from atypia.evaluation.intervals import RESAMPLES, estimate, measure
from atypia.evaluation.predictions import AGREED, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray, Measures
    from atypia.evaluation.predictions import Predictions

NEITHER: Final = "neither"


def rater_cells(
    predictions: Predictions, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Measure the model where the raters agree, and see with whom it sides where they do not.

    Args:
        predictions: The table; rows that fewer than two raters labelled are left out.
        resamples: Resamples of patients for the intervals.
        seed: Seed of the resampling.

    Returns:
        ``agreed`` and ``disagreed`` (None where there are no such rows), each with ``n``,
        ``n_patients`` and ``against``: per rater, or ``agreed``, the model's ``accuracy``,
        ``kappa``, ``balanced_accuracy`` and ``binary_balanced_accuracy``. ``disagreed`` also has
        ``sides``: per rater, and ``neither``, the number and share of the model's answers.
    """
    cells: dict[str, Any] = {"agreed": None, "disagreed": None}
    if len(predictions.labels) < 2:
        return cells
    agreed = predictions.subtypes_of(AGREED)
    for name, chosen in zip(cells, agreed_and_not(predictions), strict=True):
        if not chosen.any():
            continue
        rows = predictions.take(chosen)
        truths = {AGREED: agreed[chosen]} if name == "agreed" else rows.labels
        cells[name] = {
            "n": len(rows),
            "n_patients": len(np.unique(rows.patients)),
            "against": {
                rater: _against(
                    rows.take(truth != UNKNOWN), truth[truth != UNKNOWN], resamples, seed
                )
                for rater, truth in truths.items()
                if (truth != UNKNOWN).any()
            },
        }
        if name == "disagreed":
            sides = {rater: rows.predicted == truth for rater, truth in rows.labels.items()}
            sides[NEITHER] = ~np.any(list(sides.values()), axis=0)
            cells[name]["sides"] = shares(sides, rows.patients, resamples, seed)
    return cells


def agreed_and_not(rows: Predictions) -> tuple[BoolArray, BoolArray]:
    """Rows that two or more raters labelled: those they label alike, and the others."""
    agreed = rows.subtypes_of(AGREED) != UNKNOWN
    twice = (np.stack(list(rows.labels.values())) != UNKNOWN).sum(0) > 1
    return agreed, twice & ~agreed


def shares(
    groups: Mapping[str, BoolArray], patients: NDArray[np.str_], resamples: int, seed: int
) -> dict[str, Any]:
    """Count the rows in each group and give their share, with intervals."""

    def statistic(weights: FloatArray) -> Measures:
        return {name: weights @ inside / weights.sum(1) for name, inside in groups.items()}

    estimates = estimate(statistic, patients, resamples, seed)
    return {
        name: {"n": int(inside.sum()), "share": measure(estimates[name])}
        for name, inside in groups.items()
    }


def _against(rows: Predictions, truth: IntArray, resamples: int, seed: int) -> dict[str, Any]:
    def statistic(weights: FloatArray) -> Measures:
        every = metrics.agreement_measures(truth, rows.predicted, weights)
        binary = metrics.binary_measures(truth < N_ATYPICAL, rows.predicted_atypical, weights)
        return {
            **{name: every[name] for name in ("accuracy", "kappa", "balanced_accuracy")},
            "binary_balanced_accuracy": binary["balanced_accuracy"],
        }

    estimates = estimate(statistic, rows.patients, resamples, seed)
    return {"n": len(rows)} | {name: measure(value) for name, value in estimates.items()}
