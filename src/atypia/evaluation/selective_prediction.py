"""Answers withheld: how much better the model is when it may say "I don't know".

Figures are sorted by how sure the model is of its answer, and only the surest share of them (the
coverage) is answered (selective classification: Geifman and El-Yaniv, NeurIPS 2017).

Shapes and weights are those of :mod:`atypia.evaluation.metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import digamma, logit

from atypia.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray

COVERAGES: Final = (1.0, 0.9, 0.8, 0.7)
"""Shares of answered figures that are told in ``metrics.json``."""


def subtype_confidence(
    probabilities: NDArray[np.floating[Any]], predicted: IntArray | None = None
) -> FloatArray:
    """How sure the model is of a subtype: the probability that it gives it, (N,).

    Args:
        probabilities: (N, 8).
        predicted: (N,) the subtypes that are answered; None answers the most probable ones.
    """
    if predicted is None:
        return np.asarray(probabilities.max(axis=1), dtype=np.float64)
    return np.asarray(probabilities[np.arange(len(predicted)), predicted], dtype=np.float64)


def binary_confidence(p_atypical: NDArray[np.floating[Any]], threshold: float) -> FloatArray:
    """How sure the model is that a figure is atypical or that it is not, (N,), from 0 up.

    Args:
        p_atypical: (N,), 0 to 1.
        threshold: A figure is called atypical from this p_atypical on, 0 to 1.

    Returns:
        Distance of p_atypical from the threshold in logits, so that a threshold of 0.1 has as much
        room below as above.
    """
    # 0 and 1 would be infinitely far away, even from a threshold of 0 or 1.
    tiny = np.finfo(np.float64).eps
    clipped = np.clip([threshold, *p_atypical], tiny, 1 - tiny)
    return np.asarray(np.abs(logit(clipped[1:]) - logit(clipped[0])))


def abstain(
    probabilities: NDArray[np.floating[Any]], minimum: float, predicted: IntArray | None = None
) -> BoolArray:
    """Tell which figures the model had better not answer, (N,).

    Args:
        probabilities: (N, 8).
        minimum: Least :func:`subtype_confidence` of an answer, 0 to 1.
        predicted: (N,) the subtypes that are answered; None answers the most probable ones.

    Raises:
        InputError: `minimum` is no probability.
    """
    if not 0 <= minimum <= 1:
        raise InputError(f"expected a minimum confidence from 0 to 1 but got {minimum}.")
    return np.asarray(subtype_confidence(probabilities, predicted) < minimum)


def selective_curve(confidence: FloatArray, correct: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Coverage and accuracy at every distinct confidence, coverage ascending to 1.

    Args:
        confidence: (N,) any increasing score.
        correct: (N,) whether the answer is right.
    """
    order, last_of_tie = _surest_first(confidence)
    answered = last_of_tie + 1.0
    return answered / len(order), np.cumsum(correct[order])[last_of_tie] / answered


def aurc(
    confidence: FloatArray, correct: BoolArray, weights: FloatArray | None = None
) -> FloatArray:
    """Area under the risk-coverage curve: mean share of errors over all coverages k/N, (R,).

    0 is best; a confidence that says nothing gives the error rate. Answers of equal confidence
    count as in any order: the mean over all orders (closed form by harmonic numbers).

    Args:
        confidence: (N,) any increasing score.
        correct: (N,) whether the answer is right.
        weights: (R, N), not negative.

    Returns:
        (R,); NaN where nothing has weight.
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

    The share is at least `coverage`: of equal confidences all are answered or none.

    Args:
        confidence: (N,) any increasing score.
        coverage: Share of the weight to answer, above 0 to 1.
        weights: (R, N), not negative.
    """
    order, last_of_tie = _surest_first(confidence)
    weights = np.ones((1, len(order))) if weights is None else weights
    answered = weights[:, order].cumsum(axis=1)[:, last_of_tie]
    enough = answered >= (coverage - 1e-9) * answered[:, -1:]  # sums are not exact
    least_confidence = confidence[order][last_of_tie][enough.argmax(axis=1)]
    return np.where(confidence >= least_confidence[:, None], weights, 0.0)


def _surest_first(confidence: FloatArray) -> tuple[IntArray, IntArray]:
    """Order from the highest confidence down, and the last place of each distinct one in it."""
    order = np.argsort(-confidence, kind="stable")
    return order, np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
