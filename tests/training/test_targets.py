"""What is learned from whom."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.core.config import TargetConfig
from atypia.core.errors import InputError
from atypia.core.labels import N_ATYPICAL, SUBTYPES
from atypia.training.targets import (
    Targets,
    atypical_calls,
    atypical_share,
    chosen_labels,
    make_targets,
    require_both_sides,
    require_every_class,
)

MANIFEST = pd.DataFrame(
    {
        "label_expert1": ["amf_bipolar", "nmf_ring", "", "amf_other"],
        "label_expert2": ["amf_bipolar", "nmf_metaphase", "nmf_ring", ""],
    }
)
MIXED = TargetConfig(second_rater="expert2", second_rater_mass=0.35)
APART = TargetConfig(second_rater="expert2", second_rater_mass=0.35, per_rater=True)


def test_a_rater_and_agreement() -> None:
    assert chosen_labels(MANIFEST, "expert1").tolist() == [0, 7, -1, 3]
    # One opinion alone is no agreement.
    assert chosen_labels(MANIFEST, "agreed").tolist() == [0, -1, -1, -1]


def test_an_unknown_rater_is_told_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"expert1.*expert3"):
        chosen_labels(MANIFEST, "expert3")


@pytest.mark.parametrize("label", ["expert1", "agreed"])
@pytest.mark.parametrize("column", ["majority_atypical", "patch_id"])
def test_a_cohort_without_subtypes_is_told_what_it_lacks(label: str, column: str) -> None:
    votes = pd.DataFrame({column: ["True", "False"]})
    with pytest.raises(InputError, match=r"without subtypes.*atypia merge"):
        chosen_labels(votes, label)


def test_the_second_rater_takes_a_share_where_there_is_one() -> None:
    targets = make_targets(MANIFEST, chosen_labels(MANIFEST, "expert1"), MIXED)
    assert targets.n_raters == 1
    subtypes = targets.subtypes[:, 0]
    np.testing.assert_allclose(subtypes[0], np.eye(8)[0])
    assert subtypes[1, 7] == pytest.approx(0.65)
    assert subtypes[1, 5] == pytest.approx(0.35)
    np.testing.assert_allclose(subtypes[2], np.eye(8)[7])  # whoever named a subtype is heard
    np.testing.assert_allclose(subtypes[3], np.eye(8)[3])


def test_raters_apart_keep_their_own_labels() -> None:
    targets = make_targets(MANIFEST, chosen_labels(MANIFEST, "expert1"), APART)
    assert targets.subtypes.shape == (4, 2, 8)
    assert targets.subtypes.dtype == targets.atypical.dtype == np.float32
    for rater in range(2):
        labels = chosen_labels(MANIFEST, f"expert{rater + 1}")
        expected = np.where(labels[:, None] >= 0, np.eye(8)[labels], 0)
        np.testing.assert_array_equal(targets.subtypes[:, rater], expected)


@pytest.mark.parametrize("config", [MIXED, APART])
def test_a_cohort_without_the_second_rater_is_learned_from_the_first(config: TargetConfig) -> None:
    alone = MANIFEST[["label_expert1"]]
    targets = make_targets(alone, chosen_labels(alone, "expert1"), config)
    plain = make_targets(alone, chosen_labels(alone, "expert1"), TargetConfig())
    assert targets.n_raters == 1
    np.testing.assert_array_equal(targets.subtypes, plain.subtypes)


@pytest.mark.parametrize("apart", [False, True])
def test_smoothing_spreads_over_all_classes_where_there_is_a_label(apart: bool) -> None:
    config = APART if apart else TargetConfig()
    smooth = config.model_copy(update={"smoothing": 0.08})
    targets = make_targets(MANIFEST, chosen_labels(MANIFEST, "expert1"), smooth)
    assert targets.subtypes[0, 0, 0] == pytest.approx(0.93)
    assert targets.subtypes[0, 0, 1] == pytest.approx(0.01)
    sums = targets.subtypes.sum(2)
    np.testing.assert_allclose(sums[:, 0], [1, 1, 0, 1], rtol=1e-6)
    if apart:
        np.testing.assert_allclose(sums[:, 1], [1, 1, 1, 0], rtol=1e-6)


VOTES = pd.DataFrame(
    {
        "label_expert1": ["amf_bipolar", "nmf_ring", "", "amf_other", "nmf_ring", ""],
        "atypical_expert1": ["True", "False", "", "", "", ""],
        "atypical_expert2": ["True", "True", "False", "", "", ""],
        "atypical_expert3": ["False", "True", "True", "", "", ""],
        "majority_atypical": ["True", "True", "", "False", "", ""],
    }
)


def atypical(manifest: pd.DataFrame) -> np.ndarray:
    labels = chosen_labels(manifest, "expert1")
    return make_targets(manifest, labels, TargetConfig()).atypical


def test_the_votes_then_the_majority_then_the_label_say_whether_it_is_atypical() -> None:
    np.testing.assert_allclose(
        atypical(VOTES),
        # Three votes twice; two votes; the majority, which outweighs the label; the label; nothing.
        [2 / 3, 2 / 3, 1 / 2, 0, 0, np.nan],
        rtol=1e-6,
    )


def test_without_votes_the_label_says_whether_it_is_atypical() -> None:
    np.testing.assert_array_equal(atypical(MANIFEST), [1, 0, np.nan, 1])


def test_the_majority_does_not_count_as_one_more_vote() -> None:
    columns = ["label_expert1", "atypical_expert1", "atypical_expert2", "atypical_expert3"]
    np.testing.assert_array_equal(atypical(VOTES)[:3], atypical(VOTES[columns])[:3])


def test_a_binary_answer_is_measured_by_the_majority_where_only_sides_are_learned() -> None:
    labels = chosen_labels(VOTES, "expert1")
    share = atypical_share(VOTES, labels)
    np.testing.assert_allclose(share, [2 / 3, 2 / 3, 1 / 2, 0, 0, np.nan])
    np.testing.assert_array_equal(
        atypical_calls(labels, share, "sides"), [1, 1, np.nan, 0, 0, np.nan]
    )
    by_label = np.where(labels >= 0, labels < N_ATYPICAL, np.nan)
    np.testing.assert_array_equal(atypical_calls(labels, share, "subtypes"), by_label)


opinions = st.sampled_from(["True", "False", ""])


@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["", *SUBTYPES]), opinions, opinions, opinions),
        min_size=1,
        max_size=12,
    )
)
def test_the_share_of_votes_is_a_mean_over_those_who_voted(
    rows: list[tuple[str, str, str, str]],
) -> None:
    columns = ["label_expert1", "atypical_a", "majority_atypical", "atypical_b"]
    shares = atypical(pd.DataFrame(rows, columns=columns))
    for (label, a, majority, b), share in zip(rows, shares, strict=True):
        votes = [v == "True" for v in (a, b) if v]
        if votes:
            expected = sum(votes) / len(votes)
        elif majority:
            expected = float(majority == "True")
        else:
            expected = float(SUBTYPES.index(label) < N_ATYPICAL) if label else np.nan
        np.testing.assert_equal(float(share), expected)


def test_sides_are_those_of_most_opinions_and_both_are_needed() -> None:
    votes = np.array([1, 2 / 3, 0.5, 1 / 3, 0, np.nan], np.float32)
    subtypes = np.eye(8, dtype=np.float32)[[7, 7, 0, 0, 6, 6]][:, None]
    targets = Targets(subtypes, votes)
    expected = [[1, 0], [1, 0], [0.5, 0.5], [0, 1], [0, 1], [0, 0]]
    np.testing.assert_array_equal(targets.sides, expected)
    of_subtypes, of_sides = targets.masses(np.array([0, 1, 3]), np.array([2.0, 1, 5]))
    assert of_subtypes.tolist() == [5, 0, 0, 0, 0, 0, 0, 3]
    assert of_sides.tolist() == [3, 5]
    require_both_sides(targets.sides, "here")
    with pytest.raises(InputError, match=r"here.*call atypical"):
        require_both_sides(targets.sides[2:], "here")


def test_a_missing_class_is_named() -> None:
    with pytest.raises(InputError, match=r"training part.*nmf_ring"):
        require_every_class(np.arange(7), "training part of member 1")
