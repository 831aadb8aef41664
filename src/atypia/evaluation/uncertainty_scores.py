"""Measures of the model's uncertainty: calibration, abstention, prediction sets.

Abstention is selective classification (Geifman and El-Yaniv, NeurIPS 2017): figures are sorted by
how sure the model is of them, and only the surest share, the coverage, is answered. Shapes and
weights are those of :mod:`atypia.evaluation.metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import digamma, logit

from atypia.core.errors import InputError
from atypia.core.labels import SUBTYPES
from atypia.evaluation import metrics
from atypia.evaluation.curves import observed_frequency, reliability_curve
from atypia.evaluation.intervals import OF, estimate, finite_or_none, measure
from atypia.evaluation.prediction_sets import SET_OVERALL, set_measures

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from atypia.evaluation.curves import Reliability
    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray, Measures
    from atypia.evaluation.predictions import Predictions

DEFAULT_THRESHOLD: Final = 0.5
COVERAGES: Final = (1.0, 0.9, 0.8, 0.7)
"""Shares of answered figures that ``metrics.json`` lists."""


def subtype_confidence(
    probabilities: NDArray[np.floating[Any]], predicted: IntArray | None = None
) -> FloatArray:
    """How sure the model is of the `predicted` subtypes, else of the most probable ones: (N,)."""
    if predicted is None:
        return np.asarray(probabilities.max(axis=1), dtype=np.float64)
    return np.asarray(probabilities[np.arange(len(predicted)), predicted], dtype=np.float64)


def binary_confidence(p_atypical: NDArray[np.floating[Any]], threshold: float) -> FloatArray:
    """How sure the model is that a figure is atypical or that it is not, (N,), from 0 up.

    Distance of p_atypical (N,) from the threshold in logits, so that a threshold of 0.1 has as much
    room below as above.
    """
    # 0 and 1 would be infinitely far away, even from a threshold of 0 or 1.
    tiny = np.finfo(np.float64).eps
    clipped = np.clip([threshold, *p_atypical], tiny, 1 - tiny)
    return np.asarray(np.abs(logit(clipped[1:]) - logit(clipped[0])))


def abstain(
    probabilities: NDArray[np.floating[Any]], minimum: float, predicted: IntArray | None = None
) -> BoolArray:
    """Mark the figures that are left unanswered, (N,): :func:`subtype_confidence` below `minimum`.

    Raises:
        InputError: `minimum` is no probability.
    """
    if not 0 <= minimum <= 1:
        raise InputError(f"expected a minimum confidence from 0 to 1 but got {minimum}.")
    return np.asarray(subtype_confidence(probabilities, predicted) < minimum)


def selective_curve(confidence: FloatArray, correct: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Coverage and accuracy at every distinct confidence (N,), coverage ascending to 1."""
    order, last_of_tie = _surest_first(confidence)
    answered = last_of_tie + 1.0
    return answered / len(order), np.cumsum(correct[order])[last_of_tie] / answered


def aurc(
    confidence: FloatArray, correct: BoolArray, weights: FloatArray | None = None
) -> FloatArray:
    """Area under the risk-coverage curve: mean share of errors over all coverages k/N, (R,).

    0 is best; a confidence without information gives the error rate. Predictions of equal
    confidence count as in any order: the mean over all orders (closed form by harmonic numbers).
    NaN where nothing has weight.

    Args:
        confidence: (N,) any increasing score.
        correct: (N,) whether the answer is right.
        weights: (R, N), not negative.
    """
    order, last_of_tie = _surest_first(confidence)
    weights = np.ones((1, len(order))) if weights is None else weights[:, order]
    first_of_tie = np.concatenate([[0], last_of_tie[:-1] + 1])
    size = np.add.reduceat(weights, first_of_tie, axis=1)  # (R, distinct confidences)
    errors = np.add.reduceat(np.where(correct[order], 0.0, weights), first_of_tie, axis=1)
    answered, wrong = size.cumsum(axis=1), errors.cumsum(axis=1)
    rate = np.divide(errors, size, out=np.zeros_like(size), where=size > 0)
    # In a tie of k after W answers with E errors the risk at the j-th is (E + j rate) / (W + j).
    # Its sum over j is k rate + (E - W rate) (H(W + k) - H(W)).
    before, wrong_before = answered - size, wrong - errors
    harmonic = digamma(answered + 1) - digamma(before + 1)
    area = (errors + (wrong_before - before * rate) * harmonic).sum(axis=1)
    total = answered[:, -1]
    undefined: FloatArray = np.full(len(area), np.nan)
    np.divide(area, total, out=undefined, where=total > 0)
    return undefined


def answered_weights(
    confidence: FloatArray, coverage: float, weights: FloatArray | None = None
) -> FloatArray:
    """Weights (R, N) of the surest share of the samples; the others weigh 0.

    The share is at least `coverage` (above 0, to 1) of the weight: of equal confidences (N,) all
    are answered or none.
    """
    order, last_of_tie = _surest_first(confidence)
    weights = np.ones((1, len(order))) if weights is None else weights
    answered = weights[:, order].cumsum(axis=1)[:, last_of_tie]
    enough = answered >= (coverage - 1e-9) * answered[:, -1:]  # sums are not exact
    least_confidence = confidence[order][last_of_tie][enough.argmax(axis=1)]
    return np.where(confidence >= least_confidence[:, None], weights, 0.0)


def calibration(
    scored: Predictions, truth: IntArray | None, atypical: BoolArray, resamples: int, seed: int
) -> dict[str, Any]:
    """Reliability tables of the predicted subtype and of p_atypical, and the latter's ECE.

    `truth` (N,) holds subtypes, None where the label is atypical or normal only.
    """

    def statistic(weights: FloatArray) -> Measures:
        return metrics.calibration_measures(atypical, scored.p_atypical, weights)

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

    Where the operating point behind ``predicted_atypical`` is not known, the call at
    :data:`DEFAULT_THRESHOLD` is measured. Other arguments as for :func:`calibration`.
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

    `alpha` is one minus their nominal coverage, where it is known.
    """
    if not scored.has_set.any():
        return {}
    truth, rows = truth[scored.has_set], scored.take(scored.has_set)

    def statistic(weights: FloatArray) -> Measures:
        return set_measures(truth, rows.predicted, rows.sets, weights)

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
            of = answered.sum(axis=1)
            measures |= {
                f"accuracy {coverage}": metrics.ratio(answered @ correct, of),
                f"accuracy {coverage}{OF}": of,
            }
            for ending in ("", OF):
                balanced = measures_of(answered)[f"balanced_accuracy{ending}"]
                measures[f"balanced_accuracy {coverage}{ending}"] = balanced
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


def _surest_first(confidence: FloatArray) -> tuple[IntArray, IntArray]:
    """Order from the highest confidence down, and the last place of each distinct one in it."""
    order = np.argsort(-confidence, kind="stable")
    return order, np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
