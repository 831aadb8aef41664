"""Whose labels a training sees, when it is to see only some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atypia.core.config import TrainConfig, load_config
from atypia.core.errors import InputError
from atypia.core.labels import N_SUBTYPES, SUBTYPES
from atypia.data.cohort import Cohort
from atypia.data.splits import Outer
from atypia.training.member_tasks import hidden_rows, member_tasks, order_patients

RNG = np.random.default_rng(0)
PATIENTS = [f"P{i:03d}" for i in range(130)]
OUTER = Outer(
    test=tuple(PATIENTS[:10]),
    inner=(tuple(PATIENTS[10:50]), tuple(PATIENTS[50:90]), tuple(PATIENTS[90:])),
)
RATERS = ["label_expert1", "label_expert2"]


def cohort() -> Cohort:
    """Patients with 1 to 30 figures, some subtypes rare; votes for all, and a bare row each."""
    frequencies = np.array([0.02, 0.02, 0.06, 0.1, 0.1, 0.3, 0.38, 0.02])
    rows = []
    for patient in PATIENTS:
        for subtype in RNG.choice(N_SUBTYPES, RNG.integers(1, 31), p=frequencies):
            name = SUBTYPES[subtype]
            rows.append((patient, name, SUBTYPES[(subtype + 1) % 8], str(bool(subtype < 4)), "D"))
        rows.append((patient, "", "", "", "D"))
    columns = ["patient_id", *RATERS, "atypical_expert1", "domain"]
    return Cohort(Path(), "made up", pd.DataFrame(rows, columns=columns), {}, "")


COHORT = cohort()
NAMES = COHORT.manifest["patient_id"].to_numpy(dtype=str)
LABELS = np.array(
    [SUBTYPES.index(n) if n else -1 for n in COHORT.manifest["label_expert1"]], dtype=np.int64
)


def config(share: float, *settings: str) -> TrainConfig:
    return load_config(
        "released", ["ensemble.members=3", f"target.labelled_patients={share}", *settings]
    )


def hidden(share: float, *settings: str) -> np.ndarray:
    return hidden_rows(COHORT.manifest, LABELS, OUTER, 0, config(share, *settings))


def test_a_smaller_share_is_a_part_of_a_larger_one_and_the_test_part_is_left_alone() -> None:
    before = np.zeros(len(NAMES), bool)
    for share, kept in ((1.0, 40), (0.5, 20), (0.3, 12), (0.11, 5), (0.1, 4), (0.001, 1)):
        now = hidden(share)
        assert (now | ~before).all()
        assert not now[np.isin(NAMES, OUTER.test)].any()
        for fold in OUTER.inner:  # each has its share, so that each member has
            assert len(set(NAMES[~now]) & set(fold)) == kept
        assert all(len(set(now[patient == NAMES])) == 1 for patient in PATIENTS)
        before = now


def test_the_choice_follows_from_seed_and_split_alone() -> None:
    np.testing.assert_array_equal(hidden(0.3), hidden(0.3, "optim.epochs=99", "ensemble.tta=false"))
    assert (hidden(0.3) != hidden(0.3, "seed=1")).any()
    other = hidden_rows(COHORT.manifest, LABELS, OUTER, 1, config(0.3))
    assert (hidden(0.3) != other).any()
    shuffled = RNG.permutation(len(NAMES))
    manifest = COHORT.manifest.iloc[shuffled]
    again = hidden_rows(manifest, LABELS[shuffled], OUTER, 0, config(0.3))
    np.testing.assert_array_equal(again, hidden(0.3)[shuffled])


def test_any_beginning_of_the_order_is_like_the_whole() -> None:
    """A tenth of the patients holds about a tenth of each subtype; chance alone would not."""

    def error(order: list[str]) -> float:
        parts = []
        for n in (13, 39, 65):
            mine = np.isin(NAMES, order[:n]) & (LABELS >= 0)
            held = np.bincount(LABELS[mine], minlength=8) / np.bincount(LABELS[LABELS >= 0])
            parts.append(np.abs(held - n / 130).mean())
        return float(np.mean(parts))

    ordered = [error(order_patients(NAMES, LABELS, tuple(PATIENTS), [s])) for s in range(5)]
    shuffled = [error(RNG.permutation(PATIENTS).tolist()) for _ in range(50)]
    assert max(ordered) < np.quantile(shuffled, 0.02)
    assert len({tuple(order_patients(NAMES, LABELS, tuple(PATIENTS), [s])) for s in range(5)}) == 5


@pytest.mark.parametrize("others", ["none", "atypical"])
def test_a_training_sees_nothing_of_what_is_hidden(others: str) -> None:
    """Targets and labels are the same whatever the hidden cells say."""
    chosen = config(0.3, f"target.others={others}")
    away = hidden(0.3)
    blank = COHORT.manifest.copy()
    changed = away & (LABELS >= 0)
    blank.loc[changed, RATERS] = "amf_multipolar"  # all the same: it would be seen at once
    if others == "none":
        blank.loc[changed, "atypical_expert1"] = "True"
    for i in range(3):
        task = member_tasks(COHORT, OUTER, 0, chosen)[i]
        rows = task.seen_rows
        assert (task.labels[rows][away[rows]] == -1).all()
        assert not task.targets.subtypes[rows][away[rows]].any()
        np.testing.assert_array_equal(
            task.targets.subtypes[rows][~away[rows]].any(axis=(1, 2)),
            LABELS[rows][~away[rows]] >= 0,
        )
        votes = task.targets.atypical[rows][away[rows] & (LABELS[rows] >= 0)]
        assert np.isnan(votes).all() if others == "none" else not np.isnan(votes).any()
        # Neither does what it would see if they said something else. The order is kept: it is
        # made from labels, as a study makes it that has them all.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("atypia.training.member_tasks.hidden_rows", lambda *_: away)
            other = member_tasks(Cohort(Path(), "", blank, {}, ""), OUTER, 0, chosen)[i]
        np.testing.assert_array_equal(other.targets.subtypes[rows], task.targets.subtypes[rows])
        np.testing.assert_array_equal(other.targets.atypical[rows], task.targets.atypical[rows])
        np.testing.assert_array_equal(other.labels[rows], task.labels[rows])
        np.testing.assert_array_equal(other.train_rows, task.train_rows)


def test_whoever_watches_the_training_sees_all_labels() -> None:
    few_of_them = member_tasks(COHORT, OUTER, 0, config(0.1))
    for few, all_ in zip(few_of_them, member_tasks(COHORT, OUTER, 0, config(1)), strict=True):
        np.testing.assert_array_equal(few.valid_rows, all_.valid_rows)
        np.testing.assert_array_equal(few.labels[few.valid_rows], LABELS[few.valid_rows])
        np.testing.assert_array_equal(
            few.targets.subtypes[few.valid_rows], all_.targets.subtypes[few.valid_rows]
        )
        np.testing.assert_array_equal(few.seen_rows, all_.seen_rows)


def test_what_is_known_of_the_others_teaches_where_the_loss_can_hear_it() -> None:
    task = member_tasks(COHORT, OUTER, 0, config(0.3, "target.others=atypical"))[0]
    labelled = LABELS[task.seen_rows] >= 0
    np.testing.assert_array_equal(task.train_rows, task.seen_rows[labelled])
    alone = member_tasks(COHORT, OUTER, 0, config(0.3))[0]
    np.testing.assert_array_equal(
        alone.train_rows, task.train_rows[task.labels[task.train_rows] >= 0]
    )


def test_too_few_labels_for_all_subtypes_are_refused() -> None:
    with pytest.raises(InputError, match="expected at least one figure of each subtype"):
        member_tasks(COHORT, OUTER, 0, config(0.001))
