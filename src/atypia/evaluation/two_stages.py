"""The answer in two stages: which side a figure is on, and which subtype of that side it is.

Any model of the eight subtypes has both: p(side) is the sum of its four, and p(subtype | side) is
p(subtype) / p(side). Given the side that is right, the second stage is judged on its own, so that
it shows whether a mistake was one of the side or of the subtype; two-stage models and flat ones are
measured alike. The log-loss of the eight is that of the side plus the mean, over all figures, of
that within the figure's side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.labels import N_ATYPICAL, N_SUBTYPES
from atypia.evaluation import metrics
from atypia.evaluation.intervals import estimate, measure

if TYPE_CHECKING:
    from atypia.evaluation.intervals import Statistic
    from atypia.evaluation.metrics import FloatArray, IntArray, Measures
    from atypia.evaluation.predictions import Predictions

SIDES: Final = {
    "atypical_subtypes": slice(0, N_ATYPICAL),
    "normal_subtypes": slice(N_ATYPICAL, N_SUBTYPES),
}
OF_SIDE: Final = ("auc", "balanced_accuracy", "log_loss")
OF_SUBTYPES: Final = ("mean_auc", "balanced_accuracy", "log_loss")


def given_side(probabilities: FloatArray, side: slice) -> FloatArray:
    """p(subtype | side), (N, 4), from p(subtype), (N, 8); all alike where the side has none."""
    own = probabilities[:, side]
    total = own.sum(axis=1, keepdims=True)
    alike = np.full_like(own, 1 / own.shape[1])
    return np.asarray(np.divide(own, total, out=alike, where=total > 0))


def stage_statistic(scored: Predictions, truth: IntArray) -> Statistic:
    """Weights (R, N) to the measures of each stage, named ``side.auc`` and so on.

    The side is judged by the sums of the subtypes' probabilities; its balanced accuracy is that of
    the calls ``predicted_atypical``. Of the subtypes of a side the most probable one is the answer.
    A side without figures has no measures.
    """
    atypical = truth < N_ATYPICAL
    p_side = scored.probabilities[:, SIDES["atypical_subtypes"]].sum(axis=1).clip(0, 1)
    two = np.stack([1 - p_side, p_side], axis=1)
    parts = []
    for name, side in SIDES.items():
        rows = (truth >= side.start) & (truth < side.stop)
        if rows.any():
            own = given_side(scored.probabilities[rows], side)
            parts.append((name, rows, truth[rows] - side.start, own))

    def statistic(weights: FloatArray) -> Measures:
        calls = metrics.binary_measures(atypical, scored.predicted_atypical, weights)
        measures = {
            "side.auc": metrics.roc_auc(atypical, p_side, weights),
            "side.balanced_accuracy": calls["balanced_accuracy"],
            "side.log_loss": metrics.log_loss(atypical.astype(np.int64), two, weights),
        }
        for name, rows, subtypes, probabilities in parts:
            every = metrics.subtype_measures(
                subtypes, probabilities.argmax(axis=1), probabilities, weights[:, rows]
            )
            measures |= {f"{name}.{m}": every[m] for m in OF_SUBTYPES}
        return measures

    return statistic


def stages(scored: Predictions, truth: IntArray, resamples: int, seed: int) -> dict[str, Any]:
    """Score both stages, with intervals from resampling patients.

    Args:
        scored: N rows with a label.
        truth: (N,) subtype indices.
        resamples: Resamples of patients.
        seed: Of the resampling.

    Returns:
        ``side``, ``atypical_subtypes``, ``normal_subtypes``: each ``n``, ``n_patients`` and the
        measures :data:`OF_SIDE` or :data:`OF_SUBTYPES`; a side without figures is left out.
    """
    estimates = estimate(stage_statistic(scored, truth), scored.patients, resamples, seed)
    rows = {"side": truth >= 0} | {
        name: (truth >= side.start) & (truth < side.stop) for name, side in SIDES.items()
    }
    return {
        stage: {
            "n": int(mine.sum()),
            "n_patients": len(np.unique(scored.patients[mine])),
            **{
                name.removeprefix(f"{stage}."): measure(value)
                for name, value in estimates.items()
                if name.startswith(f"{stage}.")
            },
        }
        for stage, mine in rows.items()
        if mine.any()
    }
