from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from atypia.classifiers.conformal import ConformalSets
from atypia.core.errors import InputError
from atypia.core.labels import SUBTYPES
from atypia.evaluation.prediction_sets import (
    SET_OVERALL,
    SET_PER_CLASS,
    name_set,
    parse_set,
    set_measures,
)

FREQUENCY = np.array([0.02, 0.03, 0.05, 0.1, 0.1, 0.35, 0.33, 0.02])


def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a middling model that is sure of itself without reason, and labels."""
    labels = rng.choice(8, n, p=FREQUENCY)
    logits = rng.normal(scale=2, size=(n, 8))
    logits[np.arange(n), labels] += 2
    return softmax(logits, axis=1), labels


def test_a_known_answer():
    probabilities = np.zeros((4, 8))
    probabilities[:, 0] = [0.9, 0.8, 0.7, 0.4]
    probabilities[:, 1] = 1 - probabilities[:, 0]
    fitted = ConformalSets.fit(probabilities, np.zeros(4, int), alpha=0.4)
    # ceil(5 x 0.6) = third smallest of 0.1, 0.2, 0.3, 0.6.
    assert fitted.quantiles == pytest.approx((0.3,))
    assert fitted.n == (4,)
    assert fitted.sets(probabilities)[:, :2].tolist() == [[True, False]] * 3 + [[False, False]]
    assert not fitted.sets(probabilities)[:, 2:].any()
    assert math.isinf(ConformalSets.fit(probabilities, np.zeros(4, int), alpha=0.19).quantiles[0])
    # 0.29 x 100 is 28.999999999999996 in binary: the 71st of 99, not the 72nd.
    score = np.arange(1, 100) / 100
    rows = np.stack([1 - score, score, *np.zeros((6, 99))], axis=1)
    found = ConformalSets.fit(rows, np.zeros(99, int), alpha=0.29).quantiles[0]
    assert found == pytest.approx(0.71)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_marginal_sets_are_those_of_mapie(alpha):
    from mapie.classification import SplitConformalClassifier

    class Given(ClassifierMixin, BaseEstimator):
        """A model whose features are its probabilities."""

        classes_ = np.arange(8)

        def fit(self, X, y):  # noqa: ARG002
            return self

        def __sklearn_is_fitted__(self):
            return True

        def predict_proba(self, X):
            return X

        def predict(self, X):
            return X.argmax(1)

    rng = np.random.default_rng(0)
    probabilities, labels = draw(237, rng)
    new, _ = draw(500, rng)
    theirs = SplitConformalClassifier(
        Given(), confidence_level=1 - alpha, conformity_score="lac", prefit=True
    )
    theirs.conformalize(probabilities, labels)
    _, expected = theirs.predict_set(new)
    ours = ConformalSets.fit(probabilities, labels, alpha).sets(new)
    assert np.array_equal(ours, expected[:, :, 0])


@pytest.mark.parametrize("class_conditional", [False, True])
def test_coverage_over_many_calibration_sets(class_conditional):
    rng, alpha, rounds, n_new = np.random.default_rng(1), 0.1, 250, 40
    covered, of_class = np.zeros((rounds, 8)), np.zeros((rounds, 8))
    for r in range(rounds):
        fitted = ConformalSets.fit(*draw(300, rng), alpha, class_conditional=class_conditional)
        probabilities, labels = draw(n_new, rng)
        hit = fitted.sets(probabilities)[np.arange(n_new), labels]
        covered[r] = np.bincount(labels, hit, minlength=8)
        of_class[r] = np.bincount(labels, minlength=8)
    if class_conditional:
        hits, total = covered.sum(0), of_class.sum(0)
    else:
        hits, total = covered.sum(keepdims=True), of_class.sum(keepdims=True)
    # Four standard errors: the binomial one, and that of the quantiles (a Beta distribution each).
    n = 300 * FREQUENCY if class_conditional else 300
    allowed = 4 * np.sqrt(alpha * (1 - alpha) * (1 / total + 1 / (rounds * (n + 2))))
    assert (hits / total >= 1 - alpha - allowed).all()
    if not class_conditional:
        assert abs(hits / total - (1 - alpha)) < 0.02  # and not far above


def test_marginal_sets_promise_nothing_to_a_rare_class_but_conditional_ones_do():
    rng = np.random.default_rng(2)
    probabilities, labels = draw(20_000, rng)
    probabilities *= FREQUENCY  # a model that hardly ever names a rare class
    probabilities /= probabilities.sum(1, keepdims=True)
    half = 10_000
    by_class = []
    for class_conditional in (False, True):
        fitted = ConformalSets.fit(
            probabilities[:half], labels[:half], 0.1, class_conditional=class_conditional
        )
        sets = fitted.sets(probabilities[half:])
        by_class.append(set_measures(labels[half:], sets)["class_coverage"][0])
    assert by_class[0][0] < 0.75
    assert by_class[1] == pytest.approx(np.full(8, 0.9), abs=0.06)


def test_coverage_of_twenty_figures_scatters_as_the_docstring_says():
    low, high = stats.beta(19, 2).ppf([0.05, 0.95])
    assert (round(low, 2), round(high, 2)) == (0.78, 0.98)
    rng = np.random.default_rng(3)
    coverage = []
    for _ in range(600):  # scores are uniform, so that the coverage is the quantile itself
        p = rng.random(20)
        rows = np.stack([p, 1 - p, *np.zeros((6, 20))], axis=1)
        coverage.append(ConformalSets.fit(rows, np.zeros(20, int), 0.1).quantiles[0])
    assert np.mean(coverage) == pytest.approx(19 / 21, abs=0.01)
    assert np.mean((np.array(coverage) > low) & (np.array(coverage) < high)) == pytest.approx(
        0.9, abs=0.05
    )


def test_a_class_with_too_few_figures_is_in_every_set():
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(8), [8, 9, 0, 30, 30, 30, 30, 30])
    probabilities = rng.dirichlet(np.ones(8), len(labels))
    fitted = ConformalSets.fit(probabilities, labels, 0.1, class_conditional=True)
    assert fitted.always_in == (SUBTYPES[0], SUBTYPES[2])
    assert fitted.n == (8, 9, 0, 30, 30, 30, 30, 30)
    assert fitted.sets(np.eye(8))[:, [0, 2]].all()
    assert ConformalSets.fit(probabilities[:5], labels[:5], 0.1).always_in == SUBTYPES


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.floats(0.02, 0.5), st.floats(0.02, 0.5))
def test_a_stricter_promise_gives_larger_sets(seed, class_conditional, a, b):
    rng = np.random.default_rng(seed)
    probabilities, labels = draw(60, rng)
    strict, lax = (
        ConformalSets.fit(probabilities, labels, alpha, class_conditional=class_conditional).sets(
            probabilities
        )
        for alpha in sorted((a, b))
    )
    assert (strict | ~lax).all()


def test_measures_of_sets():
    truth = np.array([0, 0, 1, 5])
    sets = np.zeros((4, 8), bool)
    sets[0, :2] = sets[1, 3] = sets[2, 1] = True  # right, wrong, right, empty
    measures = set_measures(truth, sets)
    assert {*SET_OVERALL, *SET_PER_CLASS} <= set(measures)
    overall = [measures[name][0] for name in SET_OVERALL]
    assert overall == [0.5, 1.0, 0.5, 0.25]
    np.testing.assert_array_equal(
        measures["class_coverage"][0], [0.5, 1, *[np.nan] * 3, 0, *[np.nan] * 2]
    )
    assert measures["class_mean_size"][0, 0] == 1.5
    copies = np.array([[3.0, 0, 1, 2]])
    rows = np.repeat(np.arange(4), copies[0].astype(int))
    weighted, repeated = set_measures(truth, sets, copies), set_measures(truth[rows], sets[rows])
    for name, values in weighted.items():
        np.testing.assert_allclose(values, repeated[name])


@pytest.mark.parametrize("class_conditional", [False, True])
def test_json_comes_back(class_conditional):
    probabilities, labels = draw(60, np.random.default_rng(5))
    fitted = ConformalSets.fit(probabilities, labels, 0.1, class_conditional=class_conditional)
    text = json.dumps(fitted.to_json(), allow_nan=False)
    again = ConformalSets.from_json(json.loads(text))
    assert again == fitted
    assert again.class_conditional == class_conditional
    assert np.array_equal(again.sets(probabilities), fitted.sets(probabilities))


def test_sets_have_names():
    sets = ConformalSets(0.1, (0.7,), (30,))
    probabilities = np.full((3, 8), 0.1)
    probabilities[0] = [0, 0, 0.1, 0.35, 0.05, 0.35, 0.1, 0.05]
    probabilities[1, 7] = 0.3
    probabilities[2] = 0.125
    names = sets.names(probabilities)
    assert names.tolist() == ["amf_other|nmf_metaphase", "nmf_ring", "empty"]
    assert sets.names(np.empty((0, 8))).tolist() == []
    for name, members in zip(names, sets.sets(probabilities), strict=True):
        assert np.array_equal(parse_set(name), members)
        assert name_set(members) == name
    for text in ("", "nmf_ring|", "nmf_ring|nmf_ring", "ring", "empty|nmf_ring", "nmf_ring;"):
        assert parse_set(text) is None


GOOD = {"kind": "lac", "alpha": 0.1, "quantiles": [0.5], "n": [30]}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "aps"},
        {"alpha": 1.0},
        {"alpha": "0.1"},
        {"quantiles": 0.5},
        {"quantiles": [0.5, 0.5]},
        {"quantiles": [-0.1]},
        {"quantiles": ["0.5"]},
        {"n": []},
        {"n": [-1]},
        {"more": 1},
    ],
)
def test_json_that_is_no_conformal_sets(change):
    ConformalSets.from_json(GOOD)
    with pytest.raises(InputError, match="expected"):
        ConformalSets.from_json(GOOD | change)


def test_input_is_checked():
    uniform = np.full((2, 8), 0.125)
    with pytest.raises(InputError, match="alpha"):
        ConformalSets.fit(uniform, np.array([0, 1]), 0.0)
    with pytest.raises(InputError, match="labels"):
        ConformalSets.fit(uniform, np.array([0, 9]))
    with pytest.raises(InputError, match="summing to 1"):
        ConformalSets(0.1, (0.5,), (30,)).sets(uniform * 2)
