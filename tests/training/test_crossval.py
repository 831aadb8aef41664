"""Which figures teach which member."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atypia.core.config import TrainConfig, load_config
from atypia.core.errors import InputError
from atypia.core.labels import SUBTYPES
from atypia.data.cohort import Cohort
from atypia.data.splits import Outer
from atypia.training.member_tasks import member_tasks

OUTER = Outer(test=("T",), inner=(("A",), ("B",)))


def cohort() -> Cohort:
    """Per patient eight labelled figures, one with a vote alone, one of the second rater alone."""
    rows = []
    for patient in "ABT":
        rows += [(patient, subtype, subtype, "") for subtype in SUBTYPES]
        rows += [(patient, "", "", "True"), (patient, "", "nmf_ring", ""), (patient, "", "", "")]
    columns = ["patient_id", "label_expert1", "label_expert2", "atypical_expert1"]
    return Cohort(Path(), "made up", pd.DataFrame(rows, columns=columns).assign(domain="D"), {}, "")


def config(*settings: str) -> TrainConfig:
    return load_config("quick", ["ensemble.members=2", *settings])


@pytest.mark.parametrize(
    ("settings", "taught"),
    [
        (("target.second_rater=null", "target.second_rater_mass=0"), range(8)),
        ((), [*range(8), 9]),
        (("loss.atypical=0.5",), range(10)),
        (("target.per_rater=true",), [*range(8), 9]),
        (("target.per_rater=true", "loss.atypical=0.5"), range(10)),
    ],
)
def test_whoever_said_something_teaches_where_the_loss_can_hear_it(
    settings: tuple[str, ...], taught: range | list[int]
) -> None:
    tasks = member_tasks(cohort(), OUTER, 0, config(*settings))
    for task, learned, validated in zip(tasks, "BA", "AB", strict=True):
        start = 11 * "ABT".index(learned)
        np.testing.assert_array_equal(task.train_rows, start + np.array(taught))
        mute = np.setdiff1d(np.arange(11), taught)  # a warm-up without labels sees them, too
        np.testing.assert_array_equal(task.silent_rows, start + mute)
        # Scored is the chosen rater's label alone, whatever is learned.
        np.testing.assert_array_equal(task.valid_rows, 11 * "ABT".index(validated) + np.arange(8))


def test_a_vote_does_not_stand_for_a_subtype_that_is_missing() -> None:
    whole = cohort()
    manifest = whole.manifest[whole.manifest["label_expert1"] != "amf_other"].reset_index(drop=True)
    lacking = Cohort(Path(), "made up", manifest, {}, "")
    with pytest.raises(InputError, match=r"member 0, outer split 3.*amf_other"):
        member_tasks(lacking, OUTER, 3, config("loss.atypical=0.5", "target.per_rater=true"))
