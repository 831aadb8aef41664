from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.core.errors import InputError
from atypia.evaluation import metrics
from atypia.evaluation.uncertainty_scores import (
    abstain,
    answered_weights,
    aurc,
    binary_confidence,
    selective_curve,
    subtype_confidence,
)

ANSWERS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=25)


def risks(correct: np.ndarray) -> float:
    """Mean over k of the error rate of the first k answers: the definition, in so many words."""
    return float(np.mean([(~correct[:k]).mean() for k in range(1, len(correct) + 1)]))


def test_a_known_answer():
    confidence, correct = np.array([0.9, 0.6, 0.8, 0.7]), np.array([True, True, True, False])
    coverage, accuracy = selective_curve(confidence, correct)
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(accuracy, [1, 1, 2 / 3, 3 / 4])
    assert aurc(confidence, correct)[0] == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)


def test_equal_confidences_are_answered_together():
    coverage, accuracy = selective_curve(np.array([0.5, 0.5, 0.9]), np.array([True, False, True]))
    np.testing.assert_allclose(coverage, [1 / 3, 1])
    np.testing.assert_allclose(accuracy, [1, 2 / 3])


def test_aurc_of_ties_is_the_mean_over_their_orders():
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.1])
    correct = np.array([True, False, True, True, False, False])
    orders = [risks(correct[[0, *middle, 5]]) for middle in itertools.permutations(range(1, 5))]
    assert aurc(confidence, correct)[0] == pytest.approx(np.mean(orders))


@settings(max_examples=40, deadline=None)
@given(ANSWERS)
def test_aurc_is_that_of_the_definition_and_below_by_a_wiser_order(answers):
    confidence = np.array([c for c, _ in answers]) + np.arange(len(answers)) / 100
    correct = np.array([right for _, right in answers])
    value = aurc(confidence, correct)[0]
    assert value == pytest.approx(risks(correct[np.argsort(-confidence)]))
    assert aurc(correct.astype(float), correct)[0] <= value + 1e-12
    constant = aurc(np.zeros(len(answers)), correct)[0]
    assert constant == pytest.approx(1 - correct.mean())


@settings(max_examples=40, deadline=None)
@given(ANSWERS, st.integers(0, 1000), st.floats(0.05, 1))
def test_weights_are_copies(answers, seed, coverage):
    confidence = np.array([float(c) for c, _ in answers])
    correct = np.array([right for _, right in answers])
    copies = np.random.default_rng(seed).integers(0, 4, (3, len(answers)))
    weighted = aurc(confidence, correct, copies.astype(float))
    kept = answered_weights(confidence, coverage, copies.astype(float))
    for r, count in enumerate(copies):
        again = np.repeat(confidence, count), np.repeat(correct, count)
        if not count.any():
            assert np.isnan(weighted[r])
            assert not kept[r].any()
            continue
        assert weighted[r] == pytest.approx(aurc(*again)[0])
        assert kept[r].sum() == answered_weights(again[0], coverage).sum()


@settings(max_examples=40, deadline=None)
@given(ANSWERS, st.floats(0.05, 1))
def test_just_enough_of_the_surest_are_answered(answers, coverage):
    confidence = np.array([float(c) for c, _ in answers])
    kept = answered_weights(confidence, coverage)[0] > 0
    assert kept.mean() >= coverage - 1e-9
    assert confidence[kept].min() > confidence[~kept].max(initial=-1)
    assert (confidence > confidence[kept].min()).mean() < coverage  # no tie too many


def test_answered_weights_fit_every_measure():
    rng = np.random.default_rng(0)
    confidence, atypical = rng.random(40), rng.random(40) < 0.4
    called = np.where(confidence > 0.5, atypical, ~atypical)
    kept = answered_weights(confidence, 0.4)
    assert kept.sum() == 16
    assert metrics.binary_measures(atypical, called, kept)["balanced_accuracy"][0] == 1


def test_binary_confidence_has_as_much_room_on_both_sides():
    odds = np.array([1 / 9, 3 / 9, 1.0])
    p = odds / (1 + odds)  # a third of, as much as, and three times the odds of 0.1 x 3
    found = binary_confidence(p, 0.25)
    np.testing.assert_allclose(found, [np.log(3), 0, np.log(3)], atol=1e-12)
    extremes = binary_confidence(np.array([0, 0.5, 1]), 0.5)
    assert np.isfinite(extremes).all()
    assert extremes[0] == pytest.approx(extremes[2])
    assert np.isfinite(binary_confidence(np.array([0.0, 1.0]), 1.0)).all()


def test_confidence_is_that_of_the_answer_given():
    probabilities = np.array([[0.2, 0, 0, 0, 0, 0.7, 0.1, 0], [0, 0, 0, 0, 0, 0.4, 0.6, 0]])
    assert subtype_confidence(probabilities).tolist() == [0.7, 0.6]
    assert subtype_confidence(probabilities, np.array([0, 6])).tolist() == [0.2, 0.6]
    assert abstain(probabilities, 0.65).tolist() == [False, True]
    assert abstain(probabilities, 0.6, np.array([0, 6])).tolist() == [True, False]
    with pytest.raises(InputError, match="minimum"):
        abstain(probabilities, 1.5)
