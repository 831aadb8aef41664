"""Every measure against scikit-learn; a weight against a repeated row."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.evaluation import metrics

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")

N_CLASSES = 8
few = settings(max_examples=40, deadline=None)


@st.composite
def samples(draw):
    """Truth, prediction, probabilities and whole weights; few classes and values, so many ties."""
    n = draw(st.integers(3, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = rng.choice(N_CLASSES, size=draw(st.integers(1, N_CLASSES)), replace=False)
    levels = draw(st.sampled_from([2, 4, 1000]))
    probabilities = rng.integers(1, levels + 1, size=(n, N_CLASSES)).astype(float)
    probabilities /= probabilities.sum(1, keepdims=True)
    weights = rng.integers(0, 4, size=(3, n)).astype(float)
    weights[:, 0] = 1
    return rng.choice(classes, n), rng.integers(0, N_CLASSES, n), probabilities, weights


def repeated(weights, *arrays):
    """The samples that a row of whole weights stands for."""
    return tuple(np.repeat(array, weights.astype(int), axis=0) for array in arrays)


def equal(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


@few
@given(samples())
def test_ranking_measures_are_those_of_scikit_learn(sample):
    truth, _, probabilities, weights = sample
    auc = metrics.one_vs_rest_auc(truth, probabilities, weights)
    ap = metrics.one_vs_rest_average_precision(truth, probabilities, weights)
    assert auc.shape == ap.shape == (3, N_CLASSES)
    for r, row in enumerate(weights):
        t, p = repeated(row, truth, probabilities)
        for c in range(N_CLASSES):
            positive = t == c
            if positive.any() and not positive.all():
                equal(auc[r, c], reference.roc_auc_score(positive, p[:, c]))
            else:
                assert np.isnan(auc[r, c])
            if positive.any():
                equal(ap[r, c], reference.average_precision_score(positive, p[:, c]))
            else:
                assert np.isnan(ap[r, c])


@few
@given(samples())
def test_confusion_measures_are_those_of_scikit_learn(sample):
    truth, predicted, _, weights = sample
    every = metrics.agreement_measures(truth, predicted, weights)
    for r, row in enumerate(weights):
        t, p = repeated(row, truth, predicted)
        confusion = reference.confusion_matrix(t, p, labels=range(N_CLASSES))
        equal(metrics.confusion_matrix(truth, predicted, weights)[r], confusion)
        equal(every["accuracy"][r], reference.accuracy_score(t, p))
        equal(every["balanced_accuracy"][r], reference.balanced_accuracy_score(t, p))
        equal(every["macro_f1"][r], reference.f1_score(t, p, average="macro"))
        if len(set(t)) > 1 and len(set(p)) > 1:
            equal(every["mcc"][r], reference.matthews_corrcoef(t, p))
        else:
            assert np.isnan(every["mcc"][r])
        if len(set(t) | set(p)) > 1:
            equal(every["kappa"][r], reference.cohen_kappa_score(t, p))
        else:
            assert np.isnan(every["kappa"][r])
        options = {"labels": range(N_CLASSES), "average": None, "zero_division": np.nan}
        equal(every["sensitivity"][r], reference.recall_score(t, p, **options))
        equal(every["ppv"][r], reference.precision_score(t, p, **options))
        equal(every["f1"][r], reference.f1_score(t, p, **options))
        one_vs_rest = reference.multilabel_confusion_matrix(t, p, labels=range(N_CLASSES))
        (tn, fp), (fn, _) = np.moveaxis(one_vs_rest, 0, 2)
        equal(every["specificity"][r], tn / (tn + fp))
        equal(every["npv"][r], tn / (tn + fn))


@few
@given(samples())
def test_probability_measures_are_those_of_their_definitions(sample):
    truth, _, probabilities, weights = sample
    log_loss = metrics.log_loss(truth, probabilities, weights)
    brier = metrics.brier(truth, probabilities, weights)
    ece = metrics.ece(truth, probabilities, weights)
    for r, row in enumerate(weights):
        t, p = repeated(row, truth, probabilities)
        equal(log_loss[r], reference.log_loss(t, p, labels=range(N_CLASSES)))
        equal(brier[r], np.mean(((p - np.eye(N_CLASSES)[t]) ** 2).sum(1)))
        confidence, correct = p.max(1), p.argmax(1) == t
        expected = 0.0
        for b in range(15):
            low, high = np.linspace(0, 1, 16)[[b, b + 1]]
            inside = (confidence > low) & (confidence <= high)
            if inside.any():
                gap = correct[inside].mean() - confidence[inside].mean()
                expected += inside.mean() * abs(gap)
        equal(ece[r], expected)


def test_binary_ece_of_a_known_answer():
    positive, probability = np.array([True, False, True, True]), np.array([0.31, 0.33, 0.9, 1.0])
    # Bins (0.267, 0.333], (0.867, 0.933] and (0.933, 1].
    equal(metrics.binary_ece(positive, probability), (abs(1 - 0.64) + 0.1 + 0) / 4)
    weights = np.array([[2.0, 0, 1, 0]])
    equal(metrics.binary_ece(positive, probability, weights), (2 * 0.69 + 0.1) / 3)


@few
@given(samples())
def test_sets_of_measures_have_the_agreed_names_and_shapes(sample):
    truth, predicted, probabilities, weights = sample
    every = metrics.subtype_measures(truth, predicted, probabilities, weights)
    names = {*metrics.OVERALL, *metrics.PER_CLASS} - {"average_precision"}
    assert {name.partition("/")[0] for name in every} == names
    for name in names:
        values = every[name]
        assert values.shape == ((3,) if name in metrics.OVERALL else (3, N_CLASSES))
    equal(every["mean_auc"], np.nanmean(every["auc"], axis=1))


def test_binary_measures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    atypical, called = rng.random(50) < 0.3, rng.random(50) < 0.5
    measures = metrics.binary_measures(atypical, called)
    equal(measures["sensitivity"], reference.recall_score(atypical, called))
    equal(measures["specificity"], reference.recall_score(~atypical, ~called))
    equal(measures["ppv"], reference.precision_score(atypical, called))
    equal(measures["npv"], reference.precision_score(~atypical, ~called))
    equal(measures["f1"], reference.f1_score(atypical, called))
    equal(measures["balanced_accuracy"], reference.balanced_accuracy_score(atypical, called))


def test_binary_balanced_accuracy_needs_both_classes():
    normal = np.zeros(5, dtype=bool)
    assert np.isnan(metrics.binary_measures(normal, normal)["balanced_accuracy"][0])


def test_known_values():
    truth, sure = np.array([0, 1]), np.eye(8)[[0, 1]]
    equal(metrics.brier(truth, sure), 0)
    equal(metrics.brier(1 - truth, sure), 2)
    equal(metrics.ece(truth, sure), 0)
    equal(metrics.ece(1 - truth, sure), 1)
    equal(metrics.log_loss(truth, np.full((2, 8), 1 / 8)), np.log(8))
    assert np.isfinite(metrics.log_loss(1 - truth, sure)).all()
    equal(metrics.roc_auc(np.array([True, False]), np.array([0.5, 0.5])), 0.5)


def test_pearson_leaves_out_undefined_pairs():
    x, y = np.array([[1.0, 2, 3, 9]]), np.array([[2.0, 1, 4, np.nan]])
    equal(metrics.pearson(x, y), np.corrcoef(x[0, :3], y[0, :3])[0, 1])
    assert np.isnan(metrics.pearson(x[:, 1:], y[:, 1:]))[0]  # two pairs left
    assert np.isnan(metrics.pearson(x, np.ones_like(x)))[0]


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"weights of shape \(R, 3\) but got \(1, 2\)"):
        metrics.roc_auc(np.ones(3, bool), np.ones(3), np.ones((1, 2)))
    with pytest.raises(ValueError, match="one truth per sample"):
        metrics.brier(np.zeros(2, int), np.ones((3, 8)) / 8)
