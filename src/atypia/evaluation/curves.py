"""Points of curves to plot; the measures themselves are in :mod:`atypia.evaluation.metrics`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atypia.evaluation.metrics import ECE_BINS, calibration_bins, top_label

if TYPE_CHECKING:
    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram; arrays of one entry per bin, NaN in an empty bin."""

    edges: FloatArray
    """(bins + 1,) from 0 to 1."""
    confidence: FloatArray
    accuracy: FloatArray
    count: IntArray


def reliability_curve(
    truth: IntArray, probabilities: FloatArray, bins: int = ECE_BINS
) -> Reliability:
    """Accuracy against confidence of the top label: (N,) truth, (N, C) probabilities."""
    confidence, correct = top_label(truth, probabilities)
    return observed_frequency(correct, confidence, bins)


def observed_frequency(
    positive: BoolArray, probability: FloatArray, bins: int = ECE_BINS
) -> Reliability:
    """Share of positives (N,) against their probability (N,), in bins of equal width."""
    bin_of = calibration_bins(probability, bins)
    count = np.bincount(bin_of, minlength=bins)
    per_sample = np.divide(1.0, count, out=np.full(bins, np.nan), where=count > 0)
    return Reliability(
        edges=np.linspace(0, 1, bins + 1),
        confidence=np.bincount(bin_of, probability, minlength=bins) * per_sample,
        accuracy=np.bincount(bin_of, positive, minlength=bins) * per_sample,
        count=count,
    )


def roc_points(positive: BoolArray, score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Give the false and true positive rate at every distinct threshold, (0, 0) to (1, 1).

    Straight lines between the points enclose exactly :func:`metrics.roc_auc`. Empty arrays where
    there are no positives or no negatives.
    """
    true_positive, false_positive = _called_at_thresholds(positive, score)
    if not (true_positive[-1] and false_positive[-1]):
        return np.empty(0), np.empty(0)
    return false_positive / false_positive[-1], true_positive / true_positive[-1]


def pr_points(positive: BoolArray, score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Give recall and precision at every distinct threshold, recall ascending from 0.

    Draw it as steps (``where="pre"``): the area under them is :func:`metrics.average_precision`.
    The first point repeats the first precision at recall 0. Empty arrays without positives.
    """
    true_positive, false_positive = _called_at_thresholds(positive, score)
    if not true_positive[-1]:
        return np.empty(0), np.empty(0)
    precision = true_positive[1:] / (true_positive[1:] + false_positive[1:])
    return true_positive / true_positive[-1], np.concatenate([precision[:1], precision])


def _called_at_thresholds(positive: BoolArray, score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Positives and negatives at or above each distinct score, highest first, after a zero."""
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    true_positive = np.cumsum(positive[order])[last_of_tie]
    called = last_of_tie + 1.0
    return (
        np.concatenate([[0.0], true_positive]),
        np.concatenate([[0.0], called - true_positive]),
    )
