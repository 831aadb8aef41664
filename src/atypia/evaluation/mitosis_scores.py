"""How well look-alikes are kept apart from mitotic figures: the measures of a guard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.evaluation import metrics
from atypia.evaluation.intervals import LEVEL, RESAMPLES, estimate, measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from atypia.evaluation.metrics import BoolArray, FloatArray, Measures

FALSE_REJECTIONS: Final = (0.005, 0.01, 0.02, 0.05)
"""Shares of the mitotic figures that are rejected, at which look-alikes are counted."""
DEFINITIONS: Final = {
    "auc": "chance that a mitotic figure has a higher p_mitosis than a look-alike",
    "at_threshold": "false_rejection: share of the mitotic figures below the threshold, which was "
    "fixed out of fold; rejected: share of the look-alikes below it",
    "rejected_at": "share of the look-alikes that are rejected where so many figures are, on the "
    "ROC curve of the same patients: it chooses no threshold",
}


def score_mitoses(
    p_mitosis: FloatArray,
    mitosis: BoolArray,
    patients: NDArray[np.str_],
    domains: NDArray[np.str_],
    rejected: BoolArray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score probabilities of a mitotic figure, all arguments (N,), with intervals over patients.

    Args:
        p_mitosis: The probabilities.
        mitosis: Whether it is one; the others are look-alikes.
        patients: Whose cell it is.
        domains: Each is measured by itself, too.
        rejected: Whether p_mitosis is below the threshold.
        resamples: As for :func:`atypia.evaluation.intervals.estimate`.
        seed: As there.
    """
    scores = _scores(p_mitosis, mitosis, patients, rejected, resamples, seed)
    groups = {}
    for name in np.unique(domains):
        at = domains == name
        own = p_mitosis[at], mitosis[at], patients[at], rejected[at]
        groups[str(name)] = _scores(*own, resamples, seed)
    interval = {"level": LEVEL, "resamples": resamples, "seed": seed, "unit": "patient"}
    return {"kind": "mitosis", "interval": interval, "definitions": DEFINITIONS, **scores} | {
        "groups": {"domain": groups}
    }


def _scores(
    p_mitosis: FloatArray,
    mitosis: BoolArray,
    patients: NDArray[np.str_],
    rejected: BoolArray,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    def statistic(weights: FloatArray) -> Measures:
        n = len(weights)
        at = {
            f"{rate}": metrics.sensitivity_at(~mitosis, -p_mitosis, np.full(n, rate), weights)
            for rate in FALSE_REJECTIONS
        }
        binary = metrics.binary_measures(~mitosis, rejected, weights)
        return {
            "auc": metrics.roc_auc(mitosis, p_mitosis, weights),
            "false_rejection": 1 - binary["specificity"],
            "rejected": binary["sensitivity"],
            **at,
        }

    found = {k: measure(v) for k, v in estimate(statistic, patients, resamples, seed).items()}
    return {
        "n": len(mitosis),
        "n_patients": len(set(patients)),
        "n_look_alikes": int((~mitosis).sum()),
        "auc": found["auc"],
        "at_threshold": {name: found[name] for name in ("false_rejection", "rejected")},
        "rejected_at": {f"{rate}": found[f"{rate}"] for rate in FALSE_REJECTIONS},
    }
