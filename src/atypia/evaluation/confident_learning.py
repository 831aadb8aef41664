"""Confident learning: which labels are wrong, and how many, from out-of-sample probabilities.

Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels",
Journal of Artificial Intelligence Research 70, 2021. A sample is counted towards a class when its
probability is at least that class's own threshold, the mean probability among the samples that
were labelled so: a rare class that is never given a large probability is counted fairly, and a
model that is too sure of a class does not find it everywhere. Shapes as in
:mod:`atypia.evaluation.metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atypia.evaluation.metrics import ratio, unit_weights
from atypia.evaluation.predictions import UNKNOWN

if TYPE_CHECKING:
    from atypia.evaluation.metrics import FloatArray, IntArray, Measures

# A mean of equal numbers may exceed them by its rounding.
_ROUNDING = 1e-6


def class_thresholds(
    labels: IntArray, probabilities: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """Mean probability of each class among the samples labelled so, (R, C); NaN where none is.

    Args:
        labels: (N,) class indices as given, wrong ones among them.
        probabilities: (N, C), out of sample.
        weights: (R, N), not negative.
    """
    one_hot = _one_hot(labels, probabilities)
    weights = unit_weights(weights, len(labels))
    return ratio(weights @ (one_hot * probabilities), weights @ one_hot)


def confident_classes(probabilities: FloatArray, thresholds: FloatArray) -> IntArray:
    """Most probable of the classes whose threshold a sample reaches: (N, C), (R, C) to (R, N).

    ``UNKNOWN`` where a sample reaches none, as always for a class without threshold.
    """
    best = np.full((len(thresholds), len(probabilities)), -1.0)
    chosen = np.full(best.shape, UNKNOWN, dtype=np.int64)
    for c, (p, threshold) in enumerate(zip(probabilities.T, thresholds.T, strict=True)):
        better = (p >= threshold[:, None] - _ROUNDING) & (p > best)
        chosen = np.where(better, c, chosen)
        best = np.where(better, p, best)
    return chosen


def confident_joint(
    labels: IntArray, confident: IntArray, n_classes: int, weights: FloatArray | None = None
) -> FloatArray:
    """Count labels (rows) against confident classes (columns): (N,), (R, N) to (R, C, C).

    What is off the diagonal are the label issues.
    """
    weights = unit_weights(weights, len(labels))
    counted = confident != UNKNOWN
    row = np.broadcast_to(np.arange(len(confident))[:, None], confident.shape)
    cell = (row * n_classes + labels) * n_classes + confident
    size = len(confident) * n_classes**2
    counts = np.bincount(cell[counted], weights[counted], minlength=size).astype(np.float64)
    return counts.reshape(-1, n_classes, n_classes)


def estimated_joint(counts: FloatArray, label_counts: FloatArray) -> FloatArray:
    """Estimate the joint distribution (R, C, C) of given (rows) and true (columns) labels.

    The confident joint `counts` (R, C, C), its rows scaled to `label_counts` (R, C), the weight of
    the samples with each label. A label of which no sample is confident gives no reason for doubt.
    """
    nothing = counts.sum(2) == 0
    counts = counts + nothing[:, :, None] * np.eye(counts.shape[1])
    of_all = label_counts / label_counts.sum(1, keepdims=True)
    joint: FloatArray = counts / counts.sum(2, keepdims=True) * of_all[:, :, None]
    return joint


def noise_measures(
    labels: IntArray, probabilities: FloatArray, weights: FloatArray | None = None
) -> Measures:
    """Estimate how much of the labels is wrong; arguments as for :func:`class_thresholds`.

    Returns:
        ``joint`` (R, C, C) as of :func:`estimated_joint`; ``wrong`` (R,) the share of all labels
        that are wrong; ``given_wrong`` (R, C) the share of the samples with a label that are of
        another class; ``true_missed`` (R, C) the share of the samples of a class with another
        label. NaN where a class has no samples.
    """
    weights = unit_weights(weights, len(labels))
    confident = confident_classes(probabilities, class_thresholds(labels, probabilities, weights))
    counts = confident_joint(labels, confident, probabilities.shape[1], weights)
    joint = estimated_joint(counts, weights @ _one_hot(labels, probabilities))
    right = np.diagonal(joint, axis1=1, axis2=2)
    return {
        "joint": joint,
        "wrong": 1 - right.sum(1),
        "given_wrong": 1 - ratio(right, joint.sum(2)),
        "true_missed": 1 - ratio(right, joint.sum(1)),
    }


def normalized_margin(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Quality of each label, (N,) from 0 to 1: half of one plus its lead over the best other class.

    Below 0.5 another class is more probable. Unlike the probability of the label alone, it
    separates a figure with one strong rival from a figure that the model cannot place at all (Kuan
    and Mueller, "Model-agnostic label quality scoring to detect real-world label errors", ICML
    DataPerf workshop, 2022).
    """
    given = _one_hot(labels, probabilities) == 1
    best_other = np.where(given, -np.inf, probabilities).max(1)
    quality: FloatArray = (1 + probabilities[given] - best_other) / 2
    return quality


def _one_hot(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            "Expected one label per row of probabilities but got shapes "
            f"{labels.shape} and {probabilities.shape}."
        )
    return np.eye(probabilities.shape[1])[labels]
