"""Answers to patients, scored: each measure with an interval, models compared in pairs."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.evaluation import metrics
from atypia.evaluation.intervals import (
    OF,
    RESAMPLES,
    VARIANCE,
    described,
    difference,
    estimate,
    measure,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import FloatArray, IntArray, Measures


def score_patients(
    truth: IntArray,
    answers: Mapping[str, FloatArray],
    patients: NDArray[np.str_],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score models that answer the same patients, and the difference of each pair, "A minus B".

    With two classes the second one is looked for; else ``auc`` is the mean over the classes, one
    against the rest, and only it and the log loss are measured.

    Args:
        truth: (P,) class index.
        answers: Model to probabilities (P, C).
        patients: (P,) each once.
        resamples: As for :func:`atypia.evaluation.intervals.estimate`.
        seed: As there.
    """
    estimates = {
        name: estimate(partial(_measures, truth, p), patients, resamples, seed)
        for name, p in sorted(answers.items())
    }
    return {
        "n_patients": len(truth),
        "interval": described(resamples, seed),
        "models": {
            name: {kind: measure(found) for kind, found in sorted(own.items())}
            for name, own in estimates.items()
        },
        "differences": {
            f"{a} minus {b}": {
                kind: measure(difference(estimates[a][kind], estimates[b][kind]))
                for kind in sorted(estimates[a])
            }
            for a, b in combinations(answers, 2)
        },
    }


def _measures(truth: IntArray, p: FloatArray, weights: FloatArray) -> Measures:
    right = np.clip(p[np.arange(len(truth)), truth], 1e-12, 1)
    log_loss = -(weights @ np.log(right)) / weights.sum(axis=1)
    if p.shape[1] > 2:
        # Without a patient a class may be gone, which then counts for nothing.
        every = metrics.subtype_measures(truth, p.argmax(axis=1), p, weights)
        return {
            "auc": every["mean_auc"],
            f"auc{OF}": every[f"mean_auc{OF}"],
            f"auc{VARIANCE}": every[f"mean_auc{VARIANCE}"],
            "log_loss": log_loss,
        }
    positive = truth == 1
    called = metrics.binary_measures(positive, p[:, 1] >= 0.5, weights)
    return {
        **metrics.auc_measures(positive, p[:, 1], weights),
        "average_precision": metrics.average_precision(positive, p[:, 1], weights),
        f"average_precision{OF}": weights @ positive,
        **metrics.only(called, ["balanced_accuracy"]),
        "log_loss": log_loss,
    }
