from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from atypia.classifiers.conformal import SHRINKAGE, ConformalSets
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
    # Of nine figures, a tenth of ten lies at the smallest; of nineteen at the second smallest.
    probabilities = np.zeros((28, 8))
    labels = np.repeat([0, 5], [9, 19])
    probabilities[:9, 0] = np.arange(1, 10) / 20
    probabilities[9:, 5] = np.arange(1, 20) / 25
    probabilities[:, 7] = 1 - probabilities.sum(axis=1)
    fitted = ConformalSets.fit(probabilities, labels, 0.1)
    first, second = np.log(1 / 20), np.log(2 / 25)
    mean = (first + second) / 2
    expected = [(9 * first + SHRINKAGE * mean) / 14, (19 * second + SHRINKAGE * mean) / 24, mean]
    np.testing.assert_allclose(1 - np.array(fitted.quantiles)[[0, 5, 3]], np.exp(expected))
    assert fitted.n == (9, 0, 0, 0, 0, 19, 0, 0)


@given(
    st.integers(0, 10_000),
    st.lists(st.sampled_from([0.0, 0.3, 0.8, 0.99, 1.0, math.inf]), min_size=8, max_size=8),
    st.booleans(),
)
def test_a_set_holds_the_named_subtype_and_has_no_gap(seed, quantiles, one):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(8, 0.3), 20)
    probabilities[0] = np.eye(8)[3]
    named = rng.integers(0, 8, 20)
    quantiles = quantiles[:1] if one else quantiles
    fitted = ConformalSets(0.1, tuple(quantiles), (30,) * len(quantiles))
    sets, scores = fitted.sets(probabilities, named), fitted.scores(probabilities)
    assert sets[np.arange(20), named].all()
    for inside, score in zip(sets, scores, strict=True):
        assert score[inside].min() >= score[~inside].max(initial=-1)
    # What an older bundle promised holds: every subtype within its quantile is inside.
    promised = 1 - probabilities <= np.array(quantiles) - 1e-12
    assert (sets | ~promised).all()
    for name, inside, of_named in zip(fitted.names(probabilities, named), sets, named, strict=True):
        order = [SUBTYPES.index(s) for s in name.split("|")]
        assert order[0] == of_named
        assert np.array_equal(parse_set(name), inside)


def test_the_rest_of_a_set_is_in_the_order_of_its_score():
    fitted = ConformalSets(0.1, (0.5, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5), (30,) * 8)
    probabilities = np.array([[0.5, 0.15, 0, 0, 0, 0.35, 0, 0]])
    assert fitted.names(probabilities, np.array([5])).tolist() == [
        "nmf_metaphase|amf_multipolar|amf_bipolar"
    ]
    assert fitted.names(np.empty((0, 8)), np.array([], int)).tolist() == []
    for text in ("", "nmf_ring|", "nmf_ring|nmf_ring", "ring", "empty|nmf_ring", "nmf_ring;"):
        assert parse_set(text) is None
    assert name_set(np.zeros(8, bool)) == "empty"


def test_nine_in_ten_of_each_subtype_on_average():
    rng, rounds = np.random.default_rng(1), 150
    covered, of_class = np.zeros(8), np.zeros(8)
    for _ in range(rounds):
        labels = np.repeat(np.arange(8), 12)
        logits = rng.normal(scale=1, size=(96, 8)) + 2 * np.eye(8)[labels]
        p = softmax(logits, axis=1)
        fitted = ConformalSets.fit(p[::2], labels[::2], 0.1)
        sets = fitted.sets(p[1::2], np.argmax(p[1::2], axis=1))
        covered += np.bincount(labels[1::2], sets[np.arange(48), labels[1::2]], 8)
        of_class += np.bincount(labels[1::2], minlength=8)
    assert covered.sum() / of_class.sum() == pytest.approx(0.9, abs=0.02)
    np.testing.assert_allclose(covered / of_class, 0.9, atol=0.05)


def test_one_figure_that_the_model_is_blind_to_does_not_fill_every_set():
    rng = np.random.default_rng(2)
    probabilities, labels = draw(400, rng)
    blind = probabilities.copy()
    rare = np.flatnonzero(labels == 0)
    assert 5 <= len(rare) <= 12
    blind[rare[0]] = [1e-4, 0, 0, 0, 0, 1 - 1e-4, 0, 0]
    fitted = ConformalSets.fit(blind, labels, 0.1)
    assert 1 - fitted.quantiles[0] > 3 * blind[rare[0], 0]
    new, _ = draw(500, rng)
    everywhere = (new[:, 0] >= blind[rare[0], 0]).mean()
    assert fitted.sets(new, new.argmax(1))[:, 0].mean() < everywhere - 0.02


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.02, 0.5), st.floats(0.02, 0.5))
def test_a_stricter_promise_gives_larger_sets(seed, a, b):
    rng = np.random.default_rng(seed)
    probabilities, labels = draw(60, rng)
    strict, lax = (
        ConformalSets.fit(probabilities, labels, alpha).quantiles for alpha in sorted((a, b))
    )
    assert (np.array(strict) >= np.array(lax)).all()


def test_measures_of_sets():
    truth = np.array([0, 0, 1, 5])
    sets = np.zeros((4, 8), bool)
    sets[0, :2] = sets[1, 3] = sets[2, 1] = True  # right, wrong, right, empty
    named = np.array([1, 4, 1, 5])
    measures = set_measures(truth, named, sets)
    assert {*SET_OVERALL, *SET_PER_CLASS} <= set(measures)
    overall = [measures[name][0] for name in SET_OVERALL]
    assert overall == [0.5, 0.5, 1.0, 0.5, 0.25]
    np.testing.assert_array_equal(
        measures["class_coverage"][0], [0.5, 1, *[np.nan] * 3, 0, *[np.nan] * 2]
    )
    assert measures["class_mean_size"][0, 0] == 1.5
    copies = np.array([[3.0, 0, 1, 2]])
    rows = np.repeat(np.arange(4), copies[0].astype(int))
    weighted = set_measures(truth, named, sets, copies)
    repeated = set_measures(truth[rows], named[rows], sets[rows])
    for name, values in weighted.items():
        np.testing.assert_allclose(values, repeated[name])


def test_json_comes_back():
    probabilities, labels = draw(60, np.random.default_rng(5))
    fitted = ConformalSets.fit(probabilities, labels, 0.1)
    again = ConformalSets.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    assert again == fitted
    old = ConformalSets.from_json({**GOOD, "quantiles": [None] * 8, "n": [3] * 8})
    assert old.sets(probabilities, labels).all()


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
        ConformalSets(0.1, (0.5,), (30,)).sets(uniform * 2, np.array([0, 1]))
