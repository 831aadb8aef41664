from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from atypia.classifiers.calibration import (
    TEMPERATURES,
    Calibration,
    apply_temperature,
    calibrated_log_loss,
    fit_calibration,
    fit_temperature,
)
from atypia.core.errors import InputError
from atypia.evaluation.metrics import ece, log_loss


def overconfident(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of too sharp a model, which this temperature mends, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=(n, 8))
    labels = (logits + rng.gumbel(size=(n, 8))).argmax(1)  # a draw from their softmax
    return softmax(logits * temperature, axis=1).astype(np.float32), labels


PROBABILITIES = arrays(np.float64, (5, 8), elements=st.floats(0, 1)).map(
    lambda a: (a + (a.sum(1, keepdims=True) == 0)) / (a + (a.sum(1, keepdims=True) == 0)).sum(
        1, keepdims=True
    )
)  # fmt: skip


def test_finds_the_temperature_that_was_put_in():
    for true in (0.5, 1.0, 2.5):
        found = fit_temperature(*overconfident(6000, true))
        assert found == pytest.approx(true, rel=0.06)


def test_no_temperature_of_a_fine_grid_does_better():
    probabilities, labels = overconfident(300, 3.0, seed=2)
    weights = np.random.default_rng(0).random(300)
    found = fit_temperature(probabilities, labels, weights)
    grid = found * np.exp(np.arange(-40, 41) / 1e3)
    grid = np.concatenate([grid, np.geomspace(*TEMPERATURES, 60)])

    def loss(temperature: float) -> float:
        scaled = probabilities.astype(np.float64) ** (1 / temperature)
        scaled /= scaled.sum(1, keepdims=True)
        return log_loss(labels, scaled, weights[None])[0]

    assert loss(found) <= min(map(loss, grid)) + 1e-9


def test_calibrated_log_loss_does_not_know_how_sure_a_model_is():
    exact, labels = overconfident(3000, 1.0)
    sharp, _ = overconfident(3000, 2.5)
    assert log_loss(labels, sharp)[0] > log_loss(labels, exact)[0] + 0.2
    assert calibrated_log_loss(sharp, labels) == pytest.approx(
        calibrated_log_loss(exact, labels), abs=1e-4
    )
    assert calibrated_log_loss(exact, labels) <= log_loss(labels, exact)[0]
    assert math.isnan(calibrated_log_loss(np.full((2, 8), np.nan), np.array([0, 1])))


def test_same_as_scikit_learn():
    pytest.importorskip("sklearn", minversion="1.8")
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Given(ClassifierMixin, BaseEstimator):
        """A model whose features are its logits."""

        classes_ = np.arange(8)

        def fit(self, X, y):  # noqa: ARG002
            return self

        def __sklearn_is_fitted__(self):
            return True

        def decision_function(self, X):
            return X

        def predict(self, X):
            return X.argmax(1)

    probabilities, labels = overconfident(500, 2.0, seed=1)
    logits = np.log(probabilities.astype(np.float64))
    theirs = CalibratedClassifierCV(FrozenEstimator(Given()), method="temperature", ensemble=False)
    theirs.fit(logits, labels)
    ours = apply_temperature(probabilities, fit_temperature(probabilities, labels))
    np.testing.assert_allclose(ours, theirs.predict_proba(logits), atol=1e-5)


def test_weights_are_copies():
    probabilities, labels = overconfident(100, 2.0)
    copies = np.random.default_rng(0).integers(0, 4, 100)
    repeated = fit_temperature(np.repeat(probabilities, copies, 0), np.repeat(labels, copies))
    weighted = fit_temperature(probabilities, labels, copies.astype(float))
    assert weighted == pytest.approx(repeated, rel=1e-5)


def test_every_domain_counts_alike():
    large, of_large = overconfident(2000, 1.0)
    small, of_small = overconfident(200, 3.0, seed=1)
    probabilities, labels = np.concatenate([large, small]), np.concatenate([of_large, of_small])
    domains = np.array(["large"] * 2000 + ["small"] * 200)
    pooled = fit_calibration(probabilities, labels).temperature
    fair = fit_calibration(probabilities, labels, domains).temperature
    balanced = fit_temperature(
        np.concatenate([large, np.tile(small, (10, 1))]),
        np.concatenate([of_large, np.tile(of_small, 10)]),
    )
    assert fair == pytest.approx(balanced, rel=1e-5)
    assert pooled + 0.2 < fair


def test_calibrated_probabilities_mean_what_they_say():
    fitted = fit_calibration(*overconfident(5000, 2.5))
    probabilities, labels = overconfident(5000, 2.5, seed=9)
    calibrated = fitted.apply(probabilities).astype(np.float64)
    assert ece(labels, probabilities)[0] > 0.1
    assert ece(labels, calibrated)[0] < 0.03


@settings(max_examples=50, deadline=None)
@given(PROBABILITIES, st.floats(*TEMPERATURES))
def test_order_within_a_figure_stays_and_rows_sum_to_one(probabilities, temperature):
    calibrated = apply_temperature(probabilities, temperature)
    assert calibrated.dtype == np.float32
    assert calibrated.shape == probabilities.shape
    np.testing.assert_allclose(calibrated.sum(1), 1, atol=1e-6)
    order = np.argsort(probabilities, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(calibrated, order, 1)) >= 0).all()


def test_one_changes_nothing():
    probabilities, _ = overconfident(50, 2.0)
    assert np.array_equal(apply_temperature(probabilities, 1), probabilities)


def test_zeros_are_safe():
    certain = np.eye(8)
    assert np.isfinite(apply_temperature(certain, 1.7)).all()
    # A model that says only 0 and 1 and is wrong three times in ten.
    labels = np.array([0, 0, 0, 0, 0, 0, 0, 1, 2, 3])
    fitted = fit_calibration(np.tile(certain[0], (10, 1)), labels)
    assert fitted.apply(certain[:1])[0, 0] == pytest.approx(0.7, abs=0.01)


def test_a_model_without_mistakes_gets_the_lowest_temperature():
    probabilities = 0.3 * np.eye(8) + 0.7 / 8
    assert fit_temperature(probabilities, np.arange(8)) == pytest.approx(TEMPERATURES[0], rel=1e-3)


def test_no_figures_no_rows():
    assert apply_temperature(np.empty((0, 8)), 2.0).shape == (0, 8)
    with pytest.raises(InputError, match="at least one row"):
        fit_temperature(np.empty((0, 8)), np.empty(0, int))


def test_all_that_is_wrong_is_told():
    probabilities = np.full((3, 8), 0.125)
    probabilities[1, 0] = np.nan
    with pytest.raises(InputError) as caught:
        fit_temperature(probabilities, np.array([0, -1, 8]))
    told = str(caught.value)
    assert "first at 1" in told
    assert "2 others, the first" in told
    assert len(caught.value.problems) == 2
    uniform = np.full((2, 8), 0.125)
    for wrong in (uniform[:, :7], uniform * 2, -uniform, uniform[0]):
        with pytest.raises(InputError, match="expected"):
            apply_temperature(wrong, 2.0)
    for weights in (np.zeros(2), np.array([1, -1.0]), np.ones(3), np.array([1, np.nan])):
        with pytest.raises(InputError, match="2 weights"):
            fit_temperature(uniform, np.array([0, 1]), weights)
    with pytest.raises(InputError, match="one group per label"):
        fit_calibration(uniform, np.array([0, 1]), np.array(["a"]))


def test_json_comes_back():
    for calibration in (Calibration(), Calibration(1.25)):
        entry = calibration.to_json()
        assert Calibration.from_json(json.loads(json.dumps(entry))) == calibration
    assert Calibration().to_json() == {"kind": "none"}
    assert Calibration(1.2).to_json() == {"kind": "temperature", "temperature": 1.2}
    assert Calibration.from_json({"kind": "none"}).temperature == 1


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"kind": "platt"},
        {"kind": "temperature"},
        {"kind": "none", "temperature": 2.0},
        {"kind": "temperature", "temperature": 0},
        {"kind": "temperature", "temperature": math.inf},
        {"kind": "temperature", "temperature": math.nan},
        {"kind": "temperature", "temperature": "2"},
        {"kind": "temperature", "temperature": True},
    ],
)
def test_json_that_is_no_calibration(entry):
    with pytest.raises(InputError, match="expected"):
        Calibration.from_json(entry)
