"""Answers to patients, scored: each measure with an interval, models compared in pairs."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.evaluation import metrics
from atypia.evaluation.intervals import LEVEL, RESAMPLES, estimate, measure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import FloatArray, IntArray, Measures

_DIFFERENCE = " minus "


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

    def statistic(weights: FloatArray) -> Measures:
        every = {
            f"{name}/{kind}": values
            for name, p in answers.items()
            for kind, values in _measures(truth, p, weights).items()
        }
        kinds = {key.partition("/")[2] for key in every}
        pairs = {
            f"{a}{_DIFFERENCE}{b}/{kind}": every[f"{a}/{kind}"] - every[f"{b}/{kind}"]
            for a, b in combinations(answers, 2)
            for kind in kinds
        }
        return every | pairs

    estimates = estimate(statistic, patients, resamples, seed)
    scored: dict[str, Any] = {
        "n_patients": len(truth),
        "interval": {"level": LEVEL, "resamples": resamples, "seed": seed, "unit": "patient"},
        "models": {},
        "differences": {},
    }
    for key in sorted(estimates):
        name, _, kind = key.partition("/")
        group = scored["differences" if _DIFFERENCE in name else "models"]
        group.setdefault(name, {})[kind] = measure(estimates[key])
    return scored


def _measures(truth: IntArray, p: FloatArray, weights: FloatArray) -> Measures:
    right = np.clip(p[np.arange(len(truth)), truth], 1e-12, 1)
    log_loss = -(weights @ np.log(right)) / weights.sum(axis=1)
    if p.shape[1] > 2:
        # A resample may lack a class, which then counts for nothing.
        return {
            "auc": np.nanmean(metrics.one_vs_rest_auc(truth, p, weights), axis=1),
            "log_loss": log_loss,
        }
    positive = truth == 1
    called = metrics.binary_measures(positive, p[:, 1] >= 0.5, weights)
    return {
        "auc": metrics.roc_auc(positive, p[:, 1], weights),
        "average_precision": metrics.average_precision(positive, p[:, 1], weights),
        "balanced_accuracy": called["balanced_accuracy"],
        "log_loss": log_loss,
    }
