"""Confident learning against known noise, cleanlab, hand-made examples and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.evaluation.confident_learning import (
    class_thresholds,
    confident_classes,
    confident_joint,
    estimated_joint,
    noise_measures,
    normalized_margin,
)

# P(given | true), columns are the true class: each class has its own noise.
NOISE = np.array(
    [
        [0.80, 0.10, 0.00, 0.05],
        [0.20, 0.70, 0.05, 0.00],
        [0.00, 0.15, 0.95, 0.10],
        [0.00, 0.05, 0.00, 0.85],
    ]
)
PRIOR = np.array([0.15, 0.25, 0.5, 0.1])


def noisy_labels(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True and given labels (N,)."""
    rng = np.random.default_rng(seed)
    true = rng.choice(4, n, p=PRIOR)
    return true, (rng.random(n)[:, None] > NOISE.T[true].cumsum(1)).sum(1)


def issues(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    sure_of = confident_classes(probabilities, class_thresholds(labels, probabilities))[0]
    return (sure_of >= 0) & (sure_of != labels)


def skilled(true: np.ndarray, seed: int, skill: float = 3.0) -> np.ndarray:
    """Probabilities of a model that is mostly right about the true class."""
    logits = np.random.default_rng(seed).normal(size=(len(true), 4)) + skill * np.eye(4)[true]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_with_ideal_probabilities_every_error_is_found_and_no_other() -> None:
    """Theorem 1 of the paper: then the joint is that of the sample, exactly."""
    true, labels = noisy_labels(5000)
    ideal = NOISE.T[true]
    assert np.array_equal(issues(labels, ideal), labels != true)
    measures = noise_measures(labels, ideal)
    joint = np.zeros((4, 4))
    np.add.at(joint, (labels, true), 1 / len(true))
    np.testing.assert_allclose(measures["joint"][0], joint, atol=1e-12)
    assert measures["wrong"][0] == pytest.approx((labels != true).mean())
    for c in range(4):
        assert measures["given_wrong"][0, c] == pytest.approx((true[labels == c] != c).mean())
        assert measures["true_missed"][0, c] == pytest.approx((labels[true == c] != c).mean())


def test_with_a_skilled_model_most_errors_are_found_and_the_noise_is_recovered() -> None:
    true, labels = noisy_labels(8000, seed=1)
    probabilities = skilled(true, seed=2)
    found, wrong = issues(labels, probabilities), labels != true
    assert (found & wrong).sum() / wrong.sum() > 0.75
    assert (found & wrong).sum() / found.sum() > 0.85
    measures = noise_measures(labels, probabilities)
    noise = measures["joint"][0] / measures["joint"][0].sum(0)
    np.testing.assert_allclose(noise, NOISE, atol=0.05)
    assert measures["wrong"][0] == pytest.approx(wrong.mean(), abs=0.02)


def test_quality_tells_wrong_labels_from_right_ones() -> None:
    true, labels = noisy_labels(4000, seed=3)
    quality = normalized_margin(labels, skilled(true, seed=4))
    wrong, right = quality[labels != true], quality[labels == true]
    assert (wrong[:, None] < right).mean() > 0.95


@pytest.mark.slow  # for the seconds that the import takes
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_cleanlab(seed: int) -> None:
    count = pytest.importorskip("cleanlab.count", reason="cleanlab is not installed: .[dev]")
    rank = pytest.importorskip("cleanlab.rank")
    true, labels = noisy_labels(1500, seed)
    probabilities = skilled(true, seed + 50, skill=2.5)
    thresholds = class_thresholds(labels, probabilities)
    reached = probabilities >= thresholds
    # cleanlab takes the most probable class of all where several reach their threshold, the paper
    # and we the most probable of these: compare where the two definitions are the same.
    rows = (reached.sum(1) < 2) | reached[np.arange(len(labels)), probabilities.argmax(1)]
    labels, probabilities = labels[rows], probabilities[rows]
    thresholds = thresholds[0]
    theirs, indices = count.compute_confident_joint(
        labels,
        probabilities,
        thresholds=thresholds,
        calibrate=False,
        return_indices_of_off_diagonals=True,
    )
    sure_of = confident_classes(probabilities, thresholds[None])
    ours = confident_joint(labels, sure_of, 4)
    assert np.array_equal(ours[0], theirs)
    off_diagonal = (sure_of[0] >= 0) & (sure_of[0] != labels)
    assert np.array_equal(np.flatnonzero(off_diagonal), np.sort(indices))
    joint = estimated_joint(ours, np.bincount(labels)[None])
    np.testing.assert_allclose(
        joint[0], count.estimate_joint(labels, probabilities, confident_joint=theirs), atol=1e-3
    )  # cleanlab rounds to whole samples
    np.testing.assert_allclose(
        class_thresholds(labels, probabilities)[0],
        count.get_confident_thresholds(labels, probabilities),
    )
    np.testing.assert_allclose(
        normalized_margin(labels, probabilities),
        rank.get_normalized_margin_for_each_label(labels, probabilities),
    )


def test_a_small_example_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    probabilities = np.array(
        [[0.9, 0.1, 0.0], [0.7, 0.2, 0.1], [0.2, 0.8, 0.0], [0.4, 0.6, 0.0], [0.5, 0.4, 0.1]]
    )
    thresholds = class_thresholds(labels, probabilities)
    np.testing.assert_allclose(thresholds, [[0.6, 0.5, np.nan]])
    sure_of = confident_classes(probabilities, thresholds)
    assert sure_of.tolist() == [[0, 0, 1, 1, -1]]
    counts = confident_joint(labels, sure_of, 3)
    assert counts.tolist() == [[[2, 1, 0], [0, 1, 0], [0, 0, 0]]]
    measures = noise_measures(labels, probabilities)
    np.testing.assert_allclose(measures["joint"][0], [[0.4, 0.2, 0], [0, 0.4, 0], [0, 0, 0]])
    np.testing.assert_allclose(measures["wrong"], [0.2])
    np.testing.assert_allclose(measures["given_wrong"], [[1 / 3, 0, np.nan]])
    np.testing.assert_allclose(measures["true_missed"], [[0, 1 / 3, np.nan]])
    np.testing.assert_allclose(
        normalized_margin(labels, probabilities), [0.9, 0.75, 0.2, 0.6, 0.45]
    )


def test_a_rare_class_is_held_to_its_own_standard() -> None:
    """A figure of a rare class that the model never gives the largest probability is found."""
    labels = np.array([0, 0, 0, 0, 1, 1])
    of_first = np.array([0.95, 0.95, 0.95, 0.6, 0.6, 0.7])
    probabilities = np.stack([of_first, 1 - of_first], axis=1)
    assert probabilities.argmax(1).tolist() == [0] * 6
    assert issues(labels, probabilities).tolist() == [False, False, False, True, False, False]


def test_equal_probabilities_reach_their_own_mean() -> None:
    probabilities = np.tile([0.1, 0.9], (7, 1))
    labels = np.ones(7, dtype=int)
    sure_of = confident_classes(probabilities, class_thresholds(labels, probabilities))
    assert (sure_of == 1).all()


def test_a_label_that_nothing_is_confident_of_is_not_doubted() -> None:
    joint = estimated_joint(np.array([[[3.0, 1.0], [0.0, 0.0]]]), np.array([[8, 2]]))
    np.testing.assert_allclose(joint, [[[0.6, 0.2], [0, 0.2]]])


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one label per row"):
        class_thresholds(np.array([0, 1]), np.ones((3, 2)) / 2)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return rng.integers(0, 4, n), rng.dirichlet(np.full(4, draw(st.floats(0.1, 3))), n)


@settings(max_examples=40, deadline=None)
@given(tables(), st.permutations(range(4)))
def test_the_joint_keeps_the_labels_and_the_names_of_classes_do_not_matter(
    table: tuple[np.ndarray, np.ndarray], order: list[int]
) -> None:
    labels, probabilities = table
    joint = noise_measures(labels, probabilities)["joint"][0]
    np.testing.assert_allclose(joint.sum(1), np.bincount(labels, minlength=4) / len(labels))
    assert (joint >= 0).all()
    renamed = noise_measures(np.argsort(order)[labels], probabilities[:, order])["joint"][0]
    np.testing.assert_allclose(renamed, joint[np.ix_(order, order)], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(tables(), st.integers(0, 1000))
def test_a_weight_is_that_many_copies(table: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    labels, probabilities = table
    times = np.random.default_rng(seed).integers(0, 3, (2, len(labels)))
    times[:, 0] += 1  # something is left
    weighted = noise_measures(labels, probabilities, times.astype(float))
    for r, row in enumerate(times):
        drawn = np.repeat(np.arange(len(labels)), row)
        copied = noise_measures(labels[drawn], probabilities[drawn])
        for name, values in copied.items():
            np.testing.assert_allclose(weighted[name][r], values[0], atol=1e-12)
