"""What ``metrics.json`` tells of the model's own doubts: calibration, abstention, sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.labels import SUBTYPES
from atypia.evaluation import metrics
from atypia.evaluation.curves import observed_frequency, reliability_curve
from atypia.evaluation.intervals import estimate, finite_or_none, measure
from atypia.evaluation.prediction_sets import SET_OVERALL, set_measures
from atypia.evaluation.selective_prediction import (
    COVERAGES,
    answered_weights,
    aurc,
    binary_confidence,
    subtype_confidence,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from atypia.evaluation.curves import Reliability
    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray, Measures
    from atypia.evaluation.predictions import Predictions

DEFAULT_THRESHOLD: Final = 0.5


def calibration(
    scored: Predictions, truth: IntArray | None, atypical: BoolArray, resamples: int, seed: int
) -> dict[str, Any]:
    """Reliability tables of the predicted subtype and of p_atypical, and the latter's ECE.

    Args:
        scored: The N rows that have a label.
        truth: (N,) subtype indices; None where the label is atypical or normal only.
        atypical: (N,) truth.
        resamples: Resamples of patients for the intervals.
        seed: Seed of the resampling.
    """

    def statistic(weights: FloatArray) -> Measures:
        return {"ece": metrics.binary_ece(atypical, scored.p_atypical, weights)}

    ece = estimate(statistic, scored.patients, resamples, seed)["ece"]
    return {
        "subtypes": {"bins": _rows(reliability_curve(truth, scored.probabilities))}
        if truth is not None
        else {},
        "binary": {
            "ece": measure(ece),
            "bins": _rows(observed_frequency(atypical, scored.p_atypical)),
        },
    }


def selective(
    scored: Predictions,
    truth: IntArray | None,
    atypical: BoolArray,
    threshold: float | None,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Area under the risk-coverage curve, and what is reached at some coverages.

    Args:
        scored: The N rows that have a label.
        truth: (N,) subtype indices; None where the label is atypical or normal only.
        atypical: (N,) truth.
        threshold: The operating point behind ``predicted_atypical``; where it is not known, the
            call at :data:`DEFAULT_THRESHOLD` is measured.
        resamples: Resamples of patients for the intervals.
        seed: Seed of the resampling.
    """
    threshold = DEFAULT_THRESHOLD if threshold is None else threshold
    called = scored.p_atypical >= threshold
    result: dict[str, Any] = {
        "subtypes": {},
        "binary": {
            "threshold": threshold,
            **_selective(
                binary_confidence(scored.p_atypical, threshold),
                called == atypical,
                lambda weights: metrics.binary_measures(atypical, called, weights),
                scored.patients,
                resamples,
                seed,
            ),
        },
    }
    if truth is not None:
        result["subtypes"] = _selective(
            subtype_confidence(scored.probabilities, scored.predicted),
            scored.predicted == truth,
            lambda weights: metrics.agreement_measures(truth, scored.predicted, weights),
            scored.patients,
            resamples,
            seed,
        )
    return result


def conformal(
    scored: Predictions, truth: IntArray, alpha: float | None, resamples: int, seed: int
) -> dict[str, Any]:
    """Coverage and size of the prediction sets; empty where no row has one.

    Args:
        scored: The N rows that have a label.
        truth: (N,) subtype indices.
        alpha: What the sets promise, where it is known.
        resamples: Resamples of patients for the intervals.
        seed: Seed of the resampling.
    """
    if not scored.has_set.any():
        return {}
    truth, rows = truth[scored.has_set], scored.take(scored.has_set)

    def statistic(weights: FloatArray) -> Measures:
        return set_measures(truth, rows.sets, weights)

    estimates = estimate(statistic, rows.patients, resamples, seed)
    return {
        "alpha": alpha,
        "n": len(rows),
        "n_patients": len(np.unique(rows.patients)),
        "n_without_set": len(scored) - len(rows),
        **{name: measure(estimates[name]) for name in SET_OVERALL},
        "per_class": {
            subtype: {
                "n": int((truth == c).sum()),
                "n_patients": len(np.unique(rows.patients[truth == c])),
                "coverage": measure(estimates["class_coverage"], c),
                "mean_size": measure(estimates["class_mean_size"], c),
            }
            for c, subtype in enumerate(SUBTYPES)
        },
    }


def _selective(
    confidence: FloatArray,
    correct: BoolArray,
    measures_of: Callable[[FloatArray], Measures],
    patients: NDArray[np.generic],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    def statistic(weights: FloatArray) -> Measures:
        measures = {"aurc": aurc(confidence, correct, weights)}
        for coverage in COVERAGES:
            answered = answered_weights(confidence, coverage, weights)
            with np.errstate(invalid="ignore"):  # 0/0 is NaN
                measures[f"accuracy {coverage}"] = (answered @ correct) / answered.sum(axis=1)
            balanced = measures_of(answered)["balanced_accuracy"]
            measures[f"balanced_accuracy {coverage}"] = balanced
        return measures

    estimates = estimate(statistic, patients, resamples, seed)
    return {
        "aurc": measure(estimates["aurc"]),
        "at_coverage": [
            {
                "coverage": coverage,
                "n": int(answered_weights(confidence, coverage).sum()),
                **{
                    name: measure(estimates[f"{name} {coverage}"])
                    for name in ("accuracy", "balanced_accuracy")
                },
            }
            for coverage in COVERAGES
        ],
    }


def _rows(curve: Reliability) -> list[dict[str, Any]]:
    """Bins of a reliability diagram, as JSON holds them."""
    return [
        {
            "from": float(low),
            "to": float(high),
            "n": int(count),
            "mean_probability": finite_or_none(confidence),
            "observed": finite_or_none(accuracy),
        }
        for low, high, count, confidence, accuracy in zip(
            curve.edges[:-1],
            curve.edges[1:],
            curve.count,
            curve.confidence,
            curve.accuracy,
            strict=True,
        )
    ]
