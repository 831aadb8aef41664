"""What a model has learned from is no test of it, under whatever name."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from atypia import pipeline
from atypia.data.cohort import Cohort
from atypia.errors import InputError, LeakError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_test_part_is_judged_and_a_training_part_refused(
    run_folder: Path, cohort_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test, own = run_folder / "predictions-test.csv", run_folder / "predictions-oof.csv"
    judged = pipeline.evaluate(test, tmp_path / "a", resamples=100, trained_on=run_folder)
    assert judged == pipeline.evaluate(test, tmp_path / "b", resamples=100)
    with pytest.raises(LeakError) as caught:
        pipeline.evaluate(own, tmp_path / "c", resamples=100, trained_on=run_folder)
    patients = sorted(set(pd.read_csv(own)["patient_id"].astype(str)))
    assert len(caught.value.problems) == 1 + len(patients)
    assert str(caught.value.problems[1]) == f"{patients[0]} and {patients[0]}: an equal id"
    with pytest.raises(LeakError):  # of a cohort every patient counts
        pipeline.evaluate(test, tmp_path / "c", resamples=100, trained_on=cohort_folder)
    assert not (tmp_path / "c").exists()
    with caplog.at_level(logging.WARNING, "atypia"):
        pipeline.evaluate(
            own, tmp_path / "c", resamples=100, trained_on=run_folder, allow_overlap=True
        )
    assert f"{len(patients)} patients of the table have been learned from" in caplog.text


def test_other_names_do_not_hide_the_pictures(
    run_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    """The figures of one training patient in a cohort of other names."""
    table = pd.read_csv(run_folder / "predictions-oof.csv", keep_default_na=False)
    one = table[table["patient_id"] == table["patient_id"].iloc[0]]
    anonymous = one.assign(patient_id="X", patch_id=[f"x{i}" for i in range(len(one))])
    anonymous.to_csv(tmp_path / "table.csv", index=False)
    source = Cohort.open(cohort_folder)
    rows = source.manifest.set_index("patch_id").loc[one["patch_id"]].reset_index()
    rows["patient_id"], rows["patch_id"] = "X", anonymous["patch_id"].tolist()
    for file in rows["file"]:
        (tmp_path / "other" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cohort_folder / file, tmp_path / "other" / file)
    Cohort.write(tmp_path / "other", "other", rows[source.manifest.columns], {})

    options = {"resamples": 100, "trained_on": run_folder}
    pipeline.evaluate(tmp_path / "table.csv", tmp_path / "a", **options)  # type: ignore[arg-type]
    with pytest.raises(LeakError, match=f"and X: {len(one)} figures with equal pixels"):
        pipeline.evaluate(
            tmp_path / "table.csv",
            tmp_path / "b",
            cohort=tmp_path / "other",
            **options,  # type: ignore[arg-type]
        )
    with pytest.raises(InputError, match="--cohort: expected the patches of the table"):
        pipeline.evaluate(
            tmp_path / "table.csv",
            tmp_path / "b",
            cohort=cohort_folder,
            **options,  # type: ignore[arg-type]
        )
    with pytest.raises(InputError, match="--trained-on: expected a run or a cohort"):
        pipeline.evaluate(tmp_path / "table.csv", tmp_path / "b", trained_on=tmp_path)
