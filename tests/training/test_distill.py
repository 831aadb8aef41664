"""What a student learns from its teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.core.config import TargetConfig, load_config
from atypia.core.errors import InputError, LeakError
from atypia.core.labels import PROBABILITY_COLUMNS
from atypia.training.targets import (
    chosen_labels,
    make_targets,
    read_teacher,
    require_unseen_test_part,
    with_teacher,
)

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = pd.DataFrame(
    {
        "patch_id": ["a", "b", "c", "d"],
        "label_expert1": ["amf_bipolar", "nmf_ring", "", ""],
        "label_expert2": ["amf_bipolar", "nmf_metaphase", "nmf_ring", ""],
    }
)
SURE = np.eye(8)
EVEN = np.full(8, 1 / 8)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A teacher that knows b twice, c once, a and d not at all."""
    rows = [("b", "p1", 0, SURE[5]), ("b", "p1", 1, EVEN), ("c", "p2", 0, SURE[2])]
    frame = pd.DataFrame([p for *_, p in rows], columns=list(PROBABILITY_COLUMNS))
    for column, values in zip(
        ("patch_id", "patient_id", "fold"), zip(*[r[:3] for r in rows], strict=True), strict=True
    ):
        frame[column] = values
    file = tmp_path / "predictions-oof.csv"
    frame.to_csv(file, index=False)
    return file


def test_the_teacher_is_read_by_patch_and_averaged(table: Path) -> None:
    answers = read_teacher(table, ["c", "a", "b"])
    np.testing.assert_allclose(answers, [SURE[2], np.zeros(8), (SURE[5] + EVEN) / 2])


def test_a_teacher_of_another_cohort_is_refused(table: Path) -> None:
    with pytest.raises(InputError, match=r"patches of this cohort.*3 of others, the first 'b'"):
        read_teacher(table, ["x", "y"])


def test_each_row_gets_what_is_known_of_it(table: Path) -> None:
    labels = chosen_labels(MANIFEST, "expert1")
    config = TargetConfig(smoothing=0.08, teacher=str(table), teacher_mass=0.25)
    targets = make_targets(MANIFEST, labels, config).subtypes[:, 0]
    own = make_targets(MANIFEST, labels, TargetConfig(smoothing=0.08)).subtypes[:, 0]
    np.testing.assert_allclose(targets[0], own[0])  # the label alone
    np.testing.assert_allclose(targets[1], 0.75 * own[1] + 0.25 * (SURE[5] + EVEN) / 2, atol=1e-6)
    np.testing.assert_allclose(targets[2], SURE[2])  # the teacher alone
    assert not targets[3].any()


def test_the_teacher_speaks_to_the_scores_that_answer(table: Path) -> None:
    labels = chosen_labels(MANIFEST, "expert1")
    raters = {"second_rater": "expert2", "second_rater_mass": 0.5, "per_rater": True}
    taught = TargetConfig(**raters, teacher=str(table), teacher_mass=1.0)
    targets = make_targets(MANIFEST, labels, taught)
    plain = make_targets(MANIFEST, labels, TargetConfig(**raters))
    np.testing.assert_array_equal(targets.subtypes[:, 1], plain.subtypes[:, 1])
    np.testing.assert_allclose(targets.subtypes[2, 0], SURE[2])


def distributions(rows: int) -> st.SearchStrategy[np.ndarray]:
    row = st.one_of(
        st.just(np.zeros(8)),
        st.integers(0, 7).map(lambda i: SURE[i]),
        st.integers(1, 7).map(lambda i: (SURE[0] + i * SURE[i]) / (1 + i)),
    )
    return st.lists(row, min_size=rows, max_size=rows).map(np.stack)


@given(own=distributions(4), teacher=distributions(4), mass=st.floats(0, 1))
def test_targets_are_distributions_wherever_either_is(
    own: np.ndarray, teacher: np.ndarray, mass: float
) -> None:
    mixed = with_teacher(own, teacher, mass)
    either = own.any(axis=1) | teacher.any(axis=1)
    np.testing.assert_allclose(mixed.sum(axis=1), either, atol=1e-12)
    assert (mixed >= 0).all()
    np.testing.assert_array_equal(with_teacher(own, np.zeros_like(own), mass), own)
    np.testing.assert_array_equal(with_teacher(np.zeros_like(own), teacher, mass), teacher)


def test_settings_that_say_half_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        load_config("fast", ["target.teacher_mass=0.5", "ensemble.trained=4"])
    text = str(caught.value)
    assert "expected teacher and teacher_mass together" in text
    assert "expected at most the 3 members" in text


def test_a_teacher_that_knows_the_test_part_is_a_leak(table: Path) -> None:
    require_unseen_test_part(table, {"p3"}, 0)
    with pytest.raises(LeakError, match=r"1 patients of the test part.*p2"):
        require_unseen_test_part(table, {"p2", "p3"}, 0)
