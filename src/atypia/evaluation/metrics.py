"""Measures of a classifier as pure functions of weighted samples.

Every function takes ``weights`` of shape (R, N): R weightings of the same N samples. One row of
ones (the default) gives the plain measure; the counts of a bootstrap give R resampled measures in
one go, since a sample that was drawn k times is a sample of weight k.

Shapes: R weightings, N samples, C classes. A measure that is undefined (no positive sample, no
predicted sample, ...) is NaN, never 0. A mean over classes is taken over the classes for which
it is defined, as in scikit-learn. What an interval needs beside a measure (the weight that it is a
share of, and so on) has the measure's name with an ending of :mod:`atypia.evaluation.intervals`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from atypia.core.labels import N_SUBTYPES
from atypia.evaluation.intervals import GAPS, OF, VARIANCE

if TYPE_CHECKING:
    from collections.abc import Iterable

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
Measures: TypeAlias = dict[str, FloatArray]
"""Measures by name; the first axis of every array is R."""

OVERALL = (
    "mean_auc",
    "balanced_accuracy",
    "macro_f1",
    "accuracy",
    "mcc",
    "kappa",
    "log_loss",
    "brier",
    "ece",
)
PER_CLASS = ("auc", "average_precision", "sensitivity", "specificity", "ppv", "npv", "f1")
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece"})
ECE_BINS = 15


def roc_auc(
    positive: BoolArray, score: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """Area under the ROC curve: how often a positive scores above a negative, a tie counting half.

    The weighted Mann-Whitney statistic (Hanley and McNeil, Radiology 143, 1982).

    Args:
        positive: (N,) truth.
        score: (N,) any increasing score.
        weights: (R, N), not negative.

    Returns:
        (R,); NaN where the positives or the negatives have no weight.
    """
    _expect_same_length(positive, score)
    weights = unit_weights(weights, len(score))
    order, start, end = _tie_groups(score)
    positive = positive[order]
    sorted_weights = weights[:, order]
    negatives_before = _cumulative(np.where(positive, 0.0, sorted_weights))  # (R, N + 1)
    at = np.flatnonzero(positive)
    below_or_half_tied = (negatives_before[:, start[at]] + negatives_before[:, end[at]]) / 2
    positive_weights = sorted_weights[:, at]
    wins = np.einsum("rp,rp->r", positive_weights, below_or_half_tied)
    return ratio(wins, positive_weights.sum(1) * negatives_before[:, -1])


def sensitivity_at(
    positive: BoolArray,
    score: FloatArray,
    false_positive_rate: FloatArray,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Sensitivity where the ROC curve reaches a false positive rate: (R,).

    Straight lines join the points of the curve, as in :func:`roc_auc`; where it rises, its top
    counts. Arguments as there, `false_positive_rate` (R,) is of each weighting.
    """
    _expect_same_length(positive, score)
    weights = unit_weights(weights, len(score))
    order, start, _ = _tie_groups(-score)
    corners = np.append(np.unique(start), len(score))
    rates = []
    for of_class in (~positive, positive):
        called = _cumulative(np.where(of_class, weights, 0.0)[:, order])[:, corners]
        rates.append(ratio(called, called[:, -1:]))
    curves = zip(false_positive_rate, *rates, strict=True)
    return np.array([np.interp(at, x, y) for at, x, y in curves])


def average_precision(
    positive: BoolArray, score: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """Average precision: precision at each distinct threshold, weighted by the gain in recall.

    As in scikit-learn, without interpolation. Arguments as for :func:`roc_auc`; NaN where the
    positives have no weight.
    """
    _expect_same_length(positive, score)
    weights = unit_weights(weights, len(score))
    order, start, _ = _tie_groups(score)
    positive = positive[order]
    sorted_weights = weights[:, order]
    before = _cumulative(sorted_weights)
    at = np.flatnonzero(positive)
    positive_weights = sorted_weights[:, at]
    positives_before = _cumulative(positive_weights)
    # The positives from the start of each tie group upwards, counted among positives only.
    group = np.searchsorted(at, start[at])
    true_positives = positives_before[:, -1:] - positives_before[:, group]
    called_positive = before[:, -1:] - before[:, start[at]]
    precision = np.nan_to_num(ratio(true_positives, called_positive))  # 0/0 only at weight 0
    return ratio(np.einsum("rp,rp->r", positive_weights, precision), positives_before[:, -1])


def one_vs_rest_auc(
    truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """:func:`roc_auc` of each class against all others: (N,), (N, C) to (R, C)."""
    return np.stack(
        [roc_auc(truth == c, p, weights) for c, p in enumerate(probabilities.T)], axis=1
    )


def one_vs_rest_average_precision(
    truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """:func:`average_precision` of each class against all others: (N,), (N, C) to (R, C)."""
    return np.stack(
        [average_precision(truth == c, p, weights) for c, p in enumerate(probabilities.T)], axis=1
    )


def confusion_matrix(
    truth: IntArray,
    predicted: IntArray,
    weights: FloatArray | None = None,
    n_classes: int = N_SUBTYPES,
) -> FloatArray:
    """Confusion matrices (R, C, C): rows are the truth, columns the prediction."""
    _expect_same_length(truth, predicted)
    weights = unit_weights(weights, len(truth))
    cells = np.zeros((len(truth), n_classes * n_classes))
    cells[np.arange(len(truth)), truth * n_classes + predicted] = 1
    return (weights @ cells).reshape(-1, n_classes, n_classes)


def sensitivity(confusion: FloatArray) -> FloatArray:
    """Share of each class that is called so (recall): (R, C, C) to (R, C)."""
    return ratio(_diagonal(confusion), confusion.sum(2))


def specificity(confusion: FloatArray) -> FloatArray:
    """Share of all others that are not called so: (R, C, C) to (R, C)."""
    true_positive, false_positive, false_negative, total = _counts(confusion)
    negative = total - true_positive - false_negative
    return ratio(negative - false_positive, negative)


def ppv(confusion: FloatArray) -> FloatArray:
    """Share of the samples called so that are so (precision): (R, C, C) to (R, C)."""
    return ratio(_diagonal(confusion), confusion.sum(1))


def npv(confusion: FloatArray) -> FloatArray:
    """Share of the samples not called so that are not so: (R, C, C) to (R, C)."""
    true_positive, false_positive, false_negative, total = _counts(confusion)
    called_negative = total - true_positive - false_positive
    return ratio(called_negative - false_negative, called_negative)


def f1(confusion: FloatArray) -> FloatArray:
    """Harmonic mean of sensitivity and PPV; NaN where a class neither occurs nor is predicted."""
    true_positive, false_positive, false_negative, _ = _counts(confusion)
    return ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative)


def accuracy(confusion: FloatArray) -> FloatArray:
    """Share of samples on the diagonal: (R, C, C) to (R,)."""
    return ratio(_diagonal(confusion).sum(1), confusion.sum((1, 2)))


def balanced_accuracy(confusion: FloatArray) -> FloatArray:
    """Mean sensitivity over the classes that occur: (R, C, C) to (R,)."""
    return mean_of_defined(sensitivity(confusion))


def macro_f1(confusion: FloatArray) -> FloatArray:
    """Mean F1 over the classes that occur or are predicted: (R, C, C) to (R,)."""
    return mean_of_defined(f1(confusion))


def mcc(confusion: FloatArray) -> FloatArray:
    """Matthews correlation for many classes: (R, C, C) to (R,).

    Gorodkin, Computational Biology and Chemistry 28, 2004. NaN where truth or prediction is
    constant (scikit-learn gives 0 there).
    """
    true, called = confusion.sum(2), confusion.sum(1)
    total = confusion.sum((1, 2))
    covariance = _diagonal(confusion).sum(1) * total - (true * called).sum(1)
    variances = (total**2 - (true**2).sum(1)) * (total**2 - (called**2).sum(1))
    return ratio(covariance, np.sqrt(variances))


def kappa(confusion: FloatArray) -> FloatArray:
    """Cohen's kappa, unweighted: (R, C, C) to (R,). NaN where chance agreement is complete.

    Cohen, Educational and Psychological Measurement 20, 1960.
    """
    total = confusion.sum((1, 2))
    agreement = _diagonal(confusion).sum(1) * total
    by_chance = (confusion.sum(2) * confusion.sum(1)).sum(1)
    return ratio(agreement - by_chance, total**2 - by_chance)


def pearson(x: FloatArray, y: FloatArray) -> FloatArray:
    """Pearson correlation along the last axis, over the pairs without NaN: (R, C) twice to (R,).

    NaN where fewer than three pairs are left or one side is constant.
    """
    defined = ~(np.isnan(x) | np.isnan(y))
    n = defined.sum(-1, keepdims=True)
    dx, dy = (np.where(defined, v, 0.0) for v in (x, y))
    dx, dy = (
        np.where(defined, v - v.sum(-1, keepdims=True) / np.maximum(n, 1), 0.0) for v in (dx, dy)
    )
    deviations = np.sqrt((dx**2).sum(-1) * (dy**2).sum(-1))
    return ratio((dx * dy).sum(-1), np.where(n[..., 0] >= 3, deviations, 0.0))


def log_loss(
    truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """Mean of -ln p(truth) in nats, p held to at least 2.2e-16 as in scikit-learn: to (R,)."""
    _expect_same_length(truth, probabilities)
    tiny = np.finfo(np.float64).eps
    of_truth = np.clip(probabilities[np.arange(len(truth)), truth], tiny, 1 - tiny)
    return _weighted_mean(-np.log(of_truth), weights)


def brier(
    truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """Brier score in its sum form, 0 to 2: mean over samples of the sum over classes: to (R,).

    Brier, Monthly Weather Review 78, 1950. It is twice the usual binary score for two classes.
    """
    _expect_same_length(truth, probabilities)
    one_hot = np.eye(probabilities.shape[1])[truth]
    return _weighted_mean(((probabilities - one_hot) ** 2).sum(1), weights)


def auc_measures(positive: BoolArray, score: FloatArray, weights: FloatArray) -> Measures:
    """:func:`roc_auc` as ``auc``, and what its interval needs; arguments as there."""
    auc = roc_auc(positive, score, weights)
    return _auc_parts(auc, weights @ positive, weights @ ~positive)


def _auc_parts(auc: FloatArray, of: FloatArray, others: FloatArray) -> Measures:
    return {
        "auc": auc,
        f"auc{OF}": np.minimum(of, others),
        f"auc{VARIANCE}": auc_variance(auc, of, others),
    }


def auc_variance(auc: FloatArray, of: FloatArray, others: FloatArray) -> FloatArray:
    """Variance of an AUC between so many independent positives and negatives; all of one shape.

    Hanley and McNeil, Radiology 143, 1982.
    """
    squared = auc**2
    two_positives = auc / (2 - auc) - squared
    two_negatives = 2 * squared / (1 + auc) - squared
    spread = auc - squared + (of - 1) * two_positives + (others - 1) * two_negatives
    return np.maximum(ratio(spread, of * others), 0)


def ece(
    truth: IntArray,
    probabilities: FloatArray,
    weights: FloatArray | None = None,
    bins: int = ECE_BINS,
) -> FloatArray:
    """Compute the expected calibration error of the top label, `bins` bins of equal width: (R,).

    Mean over bins, by their share of samples, of ``|accuracy - mean confidence|``, where confidence
    is the largest probability (Guo et al., ICML 2017).
    """
    confidence, correct = top_label(truth, probabilities)
    return binary_ece(correct, confidence, weights, bins)


def binary_ece(
    positive: BoolArray,
    probability: FloatArray,
    weights: FloatArray | None = None,
    bins: int = ECE_BINS,
) -> FloatArray:
    """Compute the calibration error of the probability (N,) of the positive class: (R,).

    Mean over bins of equal width, by their share of samples, of
    ``|share of positives - mean probability|`` (Naeini, Cooper and Hauskrecht, AAAI 2015).
    """
    return calibration_measures(positive, probability, weights, bins)["ece"]


def calibration_measures(
    positive: BoolArray,
    probability: FloatArray,
    weights: FloatArray | None = None,
    bins: int = ECE_BINS,
) -> Measures:
    """:func:`binary_ece` as ``ece`` (R,), and its gap in each bin (R, bins), weighted by share."""
    _expect_same_length(positive, probability)
    weights = unit_weights(weights, len(positive))
    gap = np.zeros((len(positive), bins))
    gap[np.arange(len(positive)), calibration_bins(probability, bins)] = positive - probability
    gaps = ratio(weights @ gap, weights.sum(1, keepdims=True))
    return {"ece": np.abs(gaps).sum(1), f"ece{GAPS}": gaps}


def subtype_measures(
    truth: IntArray,
    predicted: IntArray,
    probabilities: FloatArray,
    weights: FloatArray | None = None,
) -> Measures:
    """Measures of a subtype classifier: :data:`OVERALL` (R,) and :data:`PER_CLASS` (R, C).

    All but the average precision, which few need and costs as much as all others together.
    `truth` and `predicted` are (N,) class indices, rows of `probabilities` (N, C) sum to 1.
    """
    weights = unit_weights(weights, len(truth))
    of = weights @ np.eye(probabilities.shape[1])[truth]
    auc = one_vs_rest_auc(truth, probabilities, weights)
    parts = _auc_parts(auc, of, of.sum(1, keepdims=True) - of)
    confidence, correct = top_label(truth, probabilities)
    return {
        "mean_auc": mean_of_defined(auc),
        f"mean_auc{OF}": parts[f"auc{OF}"],
        f"mean_auc{VARIANCE}": _variance_of_mean(parts[f"auc{VARIANCE}"]),
        **parts,
        "log_loss": log_loss(truth, probabilities, weights),
        "brier": brier(truth, probabilities, weights),
        **calibration_measures(correct, confidence, weights),
        **agreement_measures(truth, predicted, weights, probabilities.shape[1]),
    }


def agreement_measures(
    truth: IntArray,
    predicted: IntArray,
    weights: FloatArray | None = None,
    n_classes: int = N_SUBTYPES,
) -> Measures:
    """Compute what needs no probabilities; `predicted` may be another rater's labels."""
    confusion = confusion_matrix(truth, predicted, weights, n_classes)
    true, called, total = confusion.sum(2), confusion.sum(1), confusion.sum((1, 2))
    return {
        "balanced_accuracy": balanced_accuracy(confusion),
        f"balanced_accuracy{OF}": true,
        "macro_f1": macro_f1(confusion),
        f"macro_f1{OF}": (true + called) / 2,
        "accuracy": accuracy(confusion),
        f"accuracy{OF}": total,
        "mcc": mcc(confusion),
        "kappa": kappa(confusion),
        "sensitivity": sensitivity(confusion),
        f"sensitivity{OF}": true,
        "specificity": specificity(confusion),
        f"specificity{OF}": total[:, None] - true,
        "ppv": ppv(confusion),
        f"ppv{OF}": called,
        "npv": npv(confusion),
        f"npv{OF}": total[:, None] - called,
        "f1": f1(confusion),
        f"f1{OF}": (true + called) / 2,
    }


def binary_measures(
    atypical: BoolArray, called_atypical: BoolArray, weights: FloatArray | None = None
) -> Measures:
    """Measures of an atypical/normal call, atypical being the positive class; each (R,).

    The balanced accuracy is NaN, not one half of itself, where one of the two classes is missing.
    """
    confusion = confusion_matrix(
        atypical.astype(np.int64), called_atypical.astype(np.int64), weights, n_classes=2
    )
    specificity_, sensitivity_ = sensitivity(confusion).T
    true, called = confusion.sum(2), confusion.sum(1)
    return {
        "balanced_accuracy": (sensitivity_ + specificity_) / 2,
        f"balanced_accuracy{OF}": true,
        "sensitivity": sensitivity_,
        f"sensitivity{OF}": true[:, 1],
        "specificity": specificity_,
        f"specificity{OF}": true[:, 0],
        "ppv": ppv(confusion)[:, 1],
        f"ppv{OF}": called[:, 1],
        "npv": ppv(confusion)[:, 0],
        f"npv{OF}": called[:, 0],
        "f1": f1(confusion)[:, 1],
        "kappa": kappa(confusion),
        f"f1{OF}": (true + called)[:, 1] / 2,
    }


def only(measures: Measures, names: Iterable[str]) -> Measures:
    """Pick the measures of these names, with what belongs to their intervals."""
    every = {name + ending for name in names for ending in ("", OF, VARIANCE, GAPS)}
    return {name: values for name, values in measures.items() if name in every}


def unit_weights(weights: FloatArray | None, n: int) -> FloatArray:
    """Weights (R, N) as given; one row of ones for None."""
    if weights is None:
        return np.ones((1, n))
    if weights.ndim != 2 or weights.shape[1] != n:
        raise ValueError(f"Expected weights of shape (R, {n}) but got {weights.shape}.")
    return weights


def _expect_same_length(truth: NDArray[np.generic], other: NDArray[np.generic]) -> None:
    if truth.ndim != 1 or len(truth) != len(other):
        raise ValueError(
            f"Expected one truth per sample but got shapes {truth.shape} and {other.shape}."
        )


def _tie_groups(score: FloatArray) -> tuple[IntArray, IntArray, IntArray]:
    """Ascending order, and for each place in it where its group of equal scores starts and ends."""
    order = np.argsort(score, kind="stable")
    ascending = score[order]
    return (
        order,
        np.searchsorted(ascending, ascending, side="left"),
        np.searchsorted(ascending, ascending, side="right"),
    )


def _cumulative(values: FloatArray) -> FloatArray:
    """Sum the first 0, 1, ..., N columns: (R, N) to (R, N + 1)."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def top_label(truth: IntArray, probabilities: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Give the largest probability of each sample, and whether its class is the truth; (N,)."""
    _expect_same_length(truth, probabilities)
    return probabilities.max(1), probabilities.argmax(1) == truth


def calibration_bins(probability: FloatArray, bins: int = ECE_BINS) -> IntArray:
    """Sort probabilities (N,) into `bins` bins of equal width, right edge included: (N,)."""
    return np.digitize(probability, np.linspace(0, 1, bins + 1)[1:-1], right=True)


def _diagonal(confusion: FloatArray) -> FloatArray:
    return np.diagonal(confusion, axis1=1, axis2=2)


def _counts(confusion: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Count true positives, false positives, false negatives per class, and in all (R, 1)."""
    true_positive = _diagonal(confusion)
    return (
        true_positive,
        confusion.sum(1) - true_positive,
        confusion.sum(2) - true_positive,
        confusion.sum((1, 2))[:, None],
    )


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient, NaN where the denominator is 0."""
    undefined: FloatArray = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=undefined, where=denominator != 0)
    return undefined


def mean_of_defined(values: FloatArray) -> FloatArray:
    """Mean over the last axis of what is not NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1).astype(np.float64))


def _variance_of_mean(variances: FloatArray) -> FloatArray:
    """Variance of the mean over the last axis of what is not NaN and independent."""
    defined = ~np.isnan(variances)
    return ratio(np.nansum(variances, -1), defined.sum(-1).astype(np.float64) ** 2)


def _weighted_mean(values: FloatArray, weights: FloatArray | None) -> FloatArray:
    weights = unit_weights(weights, len(values))
    return ratio(weights @ values, weights.sum(1))
