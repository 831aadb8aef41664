"""What a model has learned from is no test of it, under whatever name."""

from __future__ import annotations

import json
import logging
import shutil
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from atypia import pipeline
from atypia.classifiers.bundle import read_header
from atypia.core.errors import InputError, LeakError
from atypia.core.files import stamped, write_json
from atypia.data.cohort import Cohort
from atypia.data.patient_names import veiled_cases

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
    with pytest.raises(InputError, match="--trained-on: expected a run, a bundle, a cohort"):
        pipeline.evaluate(tmp_path / "table.csv", tmp_path / "b", trained_on=tmp_path)


def test_a_bundle_tells_whom_it_has_learned_from(run_folder: Path, tmp_path: Path) -> None:
    test, own = run_folder / "predictions-test.csv", run_folder / "predictions-oof.csv"
    bundle = shutil.copytree(run_folder / "model", tmp_path / "given away")
    patients = sorted(set(pd.read_csv(own)["patient_id"].astype(str)))
    told = read_header(bundle).provenance["patients"]
    assert told == veiled_cases(patients)
    text = (bundle / "model.json").read_text("utf-8")
    assert not any(f'"{patient}"' in text for patient in patients)
    pipeline.evaluate(test, tmp_path / "a", resamples=100, trained_on=bundle)
    with pytest.raises(LeakError) as caught:
        pipeline.evaluate(own, tmp_path / "b", resamples=100, trained_on=bundle)
    assert len(caught.value.problems) == 1 + len(patients)
    with pytest.raises(InputError, match="--cohort: expected a run or a cohort with --trained-on"):
        pipeline.evaluate(test, tmp_path / "b", trained_on=bundle, cohort=tmp_path)


def test_a_bundle_answers_for_its_fast_networks_too(run_folder: Path, tmp_path: Path) -> None:
    test = run_folder / "predictions-test.csv"
    bundle = shutil.copytree(run_folder / "model", tmp_path / "given away")
    header = json.loads((bundle / "model.json").read_text("utf-8"))
    tested = str(pd.read_csv(test)["patient_id"].iloc[0])
    header["provenance"]["fast"] = {"patients": [tested]}
    write_json(bundle / "model.json", stamped(header))
    with pytest.raises(LeakError, match=f"{tested} and {tested}: an equal id"):
        pipeline.evaluate(test, tmp_path / "a", resamples=100, trained_on=bundle)
    header["provenance"]["fast"] = {"cohort": "AMi-Br", "split": "table1"}
    write_json(bundle / "model.json", stamped(header))
    with pytest.raises(InputError, match="does not tell whom it has learned from"):
        pipeline.evaluate(test, tmp_path / "a", resamples=100, trained_on=bundle)


@pytest.mark.parametrize("model", ["released", "rules"])
def test_the_models_in_the_package_have_learned_from_every_case_of_ami_br(
    run_folder: Path, tmp_path: Path, model: str
) -> None:
    table = pd.read_csv(run_folder / "predictions-test.csv", keep_default_na=False)
    patients = table["patient_id"].unique()
    file = tmp_path / "table.csv"

    def named(*cases: str) -> None:
        names = dict(zip(patients, cases, strict=False))
        table.assign(patient_id=table["patient_id"].replace(names)).to_csv(file, index=False)

    named("MIDOG_151", "1")
    pipeline.evaluate(file, tmp_path / "a", resamples=100, trained_on=model)
    named("MIDOG++_2", "TUPAC_1")
    with pytest.raises(LeakError) as caught:
        pipeline.evaluate(file, tmp_path / "b", resamples=100, trained_on=model)
    assert [str(problem) for problem in caught.value.problems[1:]] == [
        "MIDOG21_002 and MIDOG++_2: one case",
        "TUPAC16_01_stitched1 and TUPAC_1: one case",
    ]


def test_other_people_of_the_same_ids_are_judged_if_this_is_said(
    run_folder: Path, tmp_path: Path
) -> None:
    own = run_folder / "predictions-oof.csv"
    with pytest.raises(LeakError, match="--distinct-ids"):
        pipeline.evaluate(own, tmp_path / "a", resamples=100, trained_on=run_folder)
    pipeline.evaluate(own, tmp_path / "a", resamples=100, trained_on=run_folder, distinct_ids=True)
