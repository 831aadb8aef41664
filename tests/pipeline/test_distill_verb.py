"""A student: from whom it learns, what it never sees, what it leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from atypia import pipeline
from atypia.classifiers.bundle import read_header
from atypia.classifiers.ensemble import Ensemble
from atypia.core.config import load_config
from atypia.core.errors import InputError, LeakError
from atypia.core.files import read_json, sha256_file, write_json
from atypia.data.cohort import Cohort
from atypia.data.splits import Splits
from atypia.evaluation.predictions import read_predictions
from atypia.pipeline.distill import student_config
from atypia.training.member_tasks import member_tasks

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = (
    "model.backbone=test_convnext",
    "model.pretrained=false",
    "model.reduction=null",
    "input.size_px=32",
    "optim.epochs=1",
    "optim.batch_size=16",
    "optim.batches_per_epoch=3",
    "resamples=100",
    "runtime.threads=1",
)


@pytest.fixture(scope="module")
def student(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "student"
    metrics = pipeline.distill(run_folder, out, SMALL, command="atypia distill")
    assert metrics == read_json(out / "metrics.json")
    return out


def test_a_student_is_one_network_on_the_teachers_split(run_folder: Path, student: Path) -> None:
    assert [p.name for p in sorted(student.glob("fold-*"))] == ["fold-0"]
    split, own = read_json(run_folder / "splits.json"), read_json(student / "splits.json")
    assert own == split
    test = read_predictions(student / "predictions-test.csv")
    assert set(test.patients) == set(split["outer"][0]["test"])
    # What fixes temperature, threshold and sets is the one fold that it has not learned from.
    out_of_fold = read_predictions(student / "predictions-oof.csv")
    assert set(out_of_fold.patients) == set(split["outer"][0]["inner"][0])
    assert set(out_of_fold.folds) == {"0"}
    model = Ensemble.load(student)
    assert len(model.members) == 1
    assert not model.tta
    assert model.conformal is not None
    assert model.postprocessing.calibration.temperature != 1
    assert model.threshold == read_json(student / "run.json")["models"][0]["threshold_atypical"]


def test_the_record_names_the_teacher_but_the_bundle_no_folder(
    run_folder: Path, student: Path
) -> None:
    digest = sha256_file(run_folder / "predictions-oof.csv")
    assert read_json(student / "run.json")["models"][0]["teacher_sha256"] == digest
    assert read_header(student / "model").provenance["teacher_sha256"] == digest
    assert str(run_folder.parent) not in (student / "model" / "model.json").read_text("utf-8")


def test_a_stopped_student_goes_on_and_joins_a_bundle(
    run_folder: Path, student: Path, tmp_path: Path
) -> None:
    again, bundle = tmp_path / "student", tmp_path / "bundle"
    shutil.copytree(student, again)
    shutil.copytree(run_folder / "model", bundle)
    trained = sha256_file(again / "fold-0" / "member.safetensors")
    (again / "metrics.json").unlink()
    best = Ensemble.load(bundle).members
    pipeline.distill(run_folder, again, into=bundle, resume=True)
    assert sha256_file(again / "fold-0" / "member.safetensors") == trained
    assert (again / "metrics.json").is_file()
    patches = np.random.default_rng(0).integers(0, 255, (3, 80, 80, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        Ensemble.load(bundle, quality="fast").predict_proba(patches, 0.25),
        Ensemble.load(again).predict_proba(patches, 0.25),
    )
    assert len(Ensemble.load(bundle).members) == len(best)


def test_settings_stand_over_the_preset_and_the_teachers_data_over_neither(
    run_folder: Path,
) -> None:
    config = student_config(run_folder, ["target.teacher_mass=0.7", "input.size_px=48"])
    preset = load_config("fast")
    assert config.model.backbone == preset.model.backbone == "tf_efficientnet_lite0"
    assert (config.target.teacher_mass, config.input.size_px) == (0.7, 48)
    assert config.ensemble.members == 2  # the teacher's
    assert config.ensemble.trained == 1
    assert Path(config.target.teacher or "") == (run_folder / "predictions-oof.csv").resolve()


def test_students_of_quality_best_take_the_teachers_place(run_folder: Path) -> None:
    config = student_config(run_folder, quality="best")
    assert (config.ensemble.members, config.ensemble.trained) == (2, None)
    assert config.ensemble.tta
    with pytest.raises(InputError, match="best or fast"):
        student_config(run_folder, quality="good")
    with pytest.raises(InputError, match="--into"):
        pipeline.distill(run_folder, Path("out"), quality="best", into=run_folder)


def test_what_was_hidden_from_the_teachers_stays_hidden(run_folder: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "splits.json", "run.json"):
        shutil.copy(run_folder / name, tmp_path)
    file = tmp_path / "config.yaml"
    own = yaml.safe_load(file.read_text("utf-8"))
    own["seed"] = 4
    own["target"] |= {"labelled_patients": 0.5, "others": "atypical"}
    file.write_text(yaml.safe_dump(own), "utf-8")
    config = student_config(tmp_path)
    assert (config.target.labelled_patients, config.target.others) == (0.5, "atypical")
    assert config.seed == 4  # decides who is hidden
    again = ["target.labelled_patients=1", "seed=5", "target.others=none"]
    with pytest.raises(InputError) as refused:
        student_config(tmp_path, again)
    assert len(refused.value.problems) == 3
    assert "expected seed=4, as of the teachers, but got 5" in str(refused.value)


def test_a_patch_without_label_learns_from_the_teacher(
    run_folder: Path, cohort_folder: Path
) -> None:
    cohort = Cohort.open(cohort_folder)
    outer = Splits.read(run_folder / "splits.json", cohort.manifest, cohort.sha256).outer[0]
    config = student_config(run_folder, SMALL)
    (task,) = member_tasks(cohort, outer, 0, config)
    silent = task.train_rows[:2]
    for column in ("label_expert1", "label_expert2"):
        cohort.manifest.loc[silent, column] = ""
    (taught,) = member_tasks(cohort, outer, 0, config)
    assert taught.train_rows.tolist() == task.train_rows.tolist()
    table = read_predictions(run_folder / "predictions-oof.csv")
    row_of = {patch: i for i, patch in enumerate(table.patch_ids)}
    for row in silent:
        said = table.probabilities[row_of[cohort.manifest["patch_id"][row]]]
        np.testing.assert_allclose(taught.targets.subtypes[row, 0], said, atol=1e-5)
    no_votes = config.loss.model_copy(update={"atypical": 0.0})
    alone = config.model_copy(update={"target": load_config("fast").target, "loss": no_votes})
    (untaught,) = member_tasks(cohort, outer, 0, alone)
    assert set(task.train_rows) - set(untaught.train_rows) == set(silent)


def test_a_teacher_that_learned_from_the_test_part_is_refused(
    run_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    config = student_config(run_folder, [*SMALL, "split.kind=holdout", "seed=1"])
    with pytest.raises(LeakError, match="same split"):
        pipeline.train(cohort_folder, tmp_path / "run", config)
    assert not (tmp_path / "run" / "fold-0").exists()


def test_what_cannot_teach_is_told_at_once(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no run\.json, config\.yaml, splits\.json"):
        pipeline.distill(tmp_path, tmp_path / "out")
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", "config.yaml", "splits.json"):
        shutil.copy(run_folder / name, run)
    moved = {"status": "failed", "cohort": {"path": "gone"}}
    write_json(run / "run.json", read_json(run / "run.json") | moved)
    splits = read_json(run / "splits.json")
    write_json(run / "splits.json", splits | {"outer": splits["outer"] * 2})
    with pytest.raises(InputError) as caught:
        pipeline.distill(run, tmp_path / "out")
    text = str(caught.value)
    for part in ("status is 'failed'", "it has 2", "its cohort"):
        assert part in text
    with pytest.raises(InputError, match="not a model"):
        pipeline.distill(run_folder, tmp_path / "out", into=tmp_path / "none")
    assert not (tmp_path / "out").exists()


def test_the_configuration_is_kept_for_a_later_session(student: Path) -> None:
    kept = yaml.safe_load((student / "config.yaml").read_text("utf-8"))
    assert kept["target"]["teacher_mass"] == 0.5
    assert kept["ensemble"]["trained"] == 1
