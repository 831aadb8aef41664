from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference

from atypia.evaluation import curves, metrics


@pytest.fixture(params=[3, 10_000], ids=["ties", "no ties"])
def scored(request):
    rng = np.random.default_rng(3)
    positive = rng.random(200) < 0.2
    return positive, np.round(rng.random(200) + 0.3 * positive, 4) // (1 / request.param)


def test_roc_points_enclose_the_auc_and_are_those_of_scikit_learn(scored):
    x, y = curves.roc_points(*scored)
    assert reference.auc(x, y) == pytest.approx(metrics.roc_auc(*scored)[0])
    fpr, tpr, _ = reference.roc_curve(*scored, drop_intermediate=False)
    np.testing.assert_allclose([x, y], [fpr, tpr])


def test_steps_of_pr_points_enclose_the_average_precision(scored):
    recall, precision = curves.pr_points(*scored)
    assert np.all(np.diff(recall) >= 0)
    area = (np.diff(recall) * precision[1:]).sum()
    assert area == pytest.approx(metrics.average_precision(*scored)[0])
    expected = reference.precision_recall_curve(*scored)
    np.testing.assert_allclose(precision[1:], expected[0][:-1][::-1])
    np.testing.assert_allclose(recall[1:], expected[1][:-1][::-1])


def test_curves_without_positives_are_empty():
    nothing = np.zeros(4, bool), np.arange(4.0)
    assert [len(a) for a in (*curves.roc_points(*nothing), *curves.pr_points(*nothing))] == [0] * 4


def test_reliability_curve_adds_up_to_the_ece():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(8), 300)
    truth = rng.integers(0, 8, 300)
    curve = curves.reliability_curve(truth, probabilities)
    assert curve.count.sum() == 300
    assert len(curve.edges) == len(curve.count) + 1 == 16
    gap = np.nansum(np.abs(curve.accuracy - curve.confidence) * curve.count) / 300
    assert gap == pytest.approx(metrics.ece(truth, probabilities)[0])
    assert np.isnan(curve.accuracy[curve.count == 0]).all()


def test_observed_frequency_adds_up_to_the_binary_ece():
    rng = np.random.default_rng(0)
    probability = rng.random(100)
    positive = rng.random(100) < probability**2
    curve = curves.observed_frequency(positive, probability)
    gap = np.nansum(np.abs(curve.accuracy - curve.confidence) * curve.count) / 100
    assert gap == pytest.approx(metrics.binary_ece(positive, probability)[0])
