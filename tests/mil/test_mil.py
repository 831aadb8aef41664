"""Multiple-instance learning: targets, pooling, and answers by models that have not seen them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss

from atypia import pipeline
from atypia.core.config import MilConfig, mil_config
from atypia.core.errors import InputError, LeakError
from atypia.core.files import read_json, stamped, write_json
from atypia.core.labels import PROBABILITY_COLUMNS
from atypia.data.cohort import Cohort
from atypia.data.synthetic import make_synthetic_cohort
from atypia.training.mil.bag_features import BagFeatures, figures_from_answers
from atypia.training.mil.mil_crossval import cross_validate
from atypia.training.mil.mil_network import (
    BagClassifier,
    PatientModel,
    Projection,
    fit_patients,
)
from atypia.training.mil.patient_target import Target, find_target
from atypia.training.targets import chosen_labels

if TYPE_CHECKING:
    from atypia.core.config import PoolingKind

MANIFEST = pd.DataFrame(
    [("A", 0), ("A", 5), ("B", 5), ("B", 1), ("B", 2), ("C", 4), ("D", 6), ("D", 7)],
    columns=["patient_id", "label"],
).assign(patch_id=lambda t: [f"p{i}" for i in range(len(t))])


def test_derived_targets_are_what_their_names_say() -> None:
    labels = MANIFEST["label"].to_numpy()
    target = find_target("atypical_above_median", MANIFEST, labels)  # 1/2, 2/3, 0, 0
    assert (target.patients.tolist(), target.values.tolist()) == (list("ABCD"), [1, 1, 0, 0])
    with pytest.raises(InputError, match="3 x 'no', 1 x 'yes'"):
        find_target("has_amf_multipolar", MANIFEST, labels)
    twice = np.where(labels == 7, 1, labels)
    assert find_target("has_amf_multipolar", MANIFEST, twice).values.tolist() == [0, 1, 0, 1]


def test_a_table_of_labels_is_read_and_every_fault_told(tmp_path: Path) -> None:
    file = tmp_path / "outcome.csv"
    file.write_text("patient_id;relapse\nA;yes\nB;No\nC;yes\nD;No\nE;yes\n")
    target = find_target(file, MANIFEST)
    assert (target.name, target.classes) == ("relapse", ("No", "yes"))
    assert target.values.tolist() == [1, 0, 1, 0]
    file.write_text("patient_id,relapse,grade\nA,1,2\nA,0,2\nB,1,2\n")
    with pytest.raises(InputError, match="say which one with --column"):
        find_target(file, MANIFEST)
    with pytest.raises(InputError, match=r"row 3, column 'relapse': expected one value for.*'A'"):
        find_target(file, MANIFEST, column="relapse")
    file.write_text("patient_id,relapse\nX,1\nY,0\n")
    with pytest.raises(InputError, match="expected patients of the cohort, such as 'A'"):
        find_target(file, MANIFEST)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_an_answer_depends_on_no_order_and_on_no_figure_that_is_not_there(pooling: str) -> None:
    torch.manual_seed(0)
    net = BagClassifier(5, 3, pooling, 4, 0.0).eval()  # type: ignore[arg-type]
    figures = torch.randn(2, 6, 5)
    present = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    scores, weights = net(figures, present)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert not weights[0, 4:].any()
    alone, of_alone = net(figures[:1, [2, 0, 3, 1]], torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(alone[0], scores[0])
    torch.testing.assert_close(of_alone[0], weights[0, [2, 0, 3, 1]])
    if pooling == "mean":
        torch.testing.assert_close(weights[1], torch.full((6,), 1 / 6))


def test_the_projection_is_that_of_principal_components() -> None:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    bags = [rng.normal(size=(n, 2, 7)).astype(np.float32) * np.arange(1, 8) for n in (4, 9, 12)]
    x = np.concatenate([bag.mean(axis=1) for bag in bags])
    own = np.stack([p.numpy() for p in Projection.of(bags, 3)(x[:, None])])[:, 0]
    reference = PCA(3).fit_transform(x)
    scale = np.sqrt(reference.var(axis=0, ddof=1).mean())
    np.testing.assert_allclose(np.abs(own), np.abs(reference / scale), atol=1e-4)


def figures_with_a_witness(seed: int = 0) -> tuple[BagFeatures, Target, np.ndarray]:
    """60 patients of 12 figures; of half of them one figure stands out."""
    rng = np.random.default_rng(seed)
    patients = np.repeat([f"P{i:02d}" for i in range(60)], 12)
    values = rng.normal(size=(720, 2, 6)).astype(np.float32)
    witness = np.arange(0, 720, 24) + rng.integers(12, size=30)
    values[witness, :, 2] += 6
    target = Target("made up", np.unique(patients), np.arange(60) % 2 == 0, ("no", "yes"))
    target = Target(target.name, target.patients, target.values.astype(np.int64), target.classes)
    ids = np.array([f"p{i}" for i in range(720)])
    return BagFeatures(ids, patients, values, "made up"), target, witness


SMALL = {"target": "x", "repeats": 1, "folds": 3, "components": 6, "dropout": 0.0}


def test_attention_finds_the_figure_that_tells() -> None:
    figures, target, witness = figures_with_a_witness()
    config = MilConfig(**SMALL, epochs=60, learning_rate=0.01, weight_decay=0.001)  # type: ignore[arg-type]
    answers = cross_validate(figures, target, config)
    told = answers.probabilities["attention"][:, 1]
    assert told[target.values == 1].min() > told[target.values == 0].max()
    weights = answers.weights["attention"].reshape(60, 12)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert (weights.argmax(1)[::2] == witness % 12).mean() > 0.9
    np.testing.assert_allclose(answers.weights["mean"], 1 / 12, atol=1e-6)


@pytest.mark.parametrize(("pooling", "part"), [("attention", 0.5), ("mean", 0.9)])
def test_the_settings_as_they_are_are_enough_to_learn(pooling: PoolingKind, part: float) -> None:
    """A rare class: less is lost on what was learned from than by telling how rare it is."""
    figures, target, witness = figures_with_a_witness()
    rare = np.arange(60) % 6 == 0
    figures.values[witness[~rare[::2]], :, 2] -= 6
    bags = [figures.values[rows] for rows in figures.rows_of(target.patients)]
    model = fit_patients(bags, rare.astype(np.int64), 2, pooling, MilConfig(target="x"), 0)
    told = np.array([model(bag)[0][1] for bag in bags])
    assert log_loss(rare, told) < part * log_loss(rare, np.full(60, rare.mean()))


def test_an_answer_comes_from_models_that_have_not_seen_the_patient() -> None:
    """Whatever is said of a patient does not change their own answer."""
    figures, target, _ = figures_with_a_witness()
    config = MilConfig(**SMALL, epochs=3, pooling=("mean",))  # type: ignore[arg-type]
    first = cross_validate(figures, target, config)
    fold = first.folds[0] == 0
    swapped = target.values.copy()
    # As many of each class, so that the folds stay what they are.
    mine = np.flatnonzero(fold)
    swapped[mine] = swapped[mine][::-1]
    other = Target(target.name, target.patients, swapped, target.classes)
    second = cross_validate(figures, other, config)
    if np.array_equal(first.folds, second.folds):
        for name in ("mean", "n_figures"):
            np.testing.assert_array_equal(
                first.probabilities[name][fold], second.probabilities[name][fold]
            )


def test_a_run_describes_all_of_its_figures_and_what_is_left_out_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(8), 50)
    table = pd.DataFrame(p, columns=list(PROBABILITY_COLUMNS))
    table.insert(0, "patch_id", [f"p{i}" for i in range(50)])
    table.insert(1, "patient_id", [f"P{i // 5}" for i in range(50)])
    table.iloc[:40].to_csv(tmp_path / "predictions-test.csv", index=False)
    table.iloc[40:].to_csv(tmp_path / "predictions-oof.csv", index=False)
    figures = figures_from_answers(table, tmp_path)
    assert figures.patch_ids.tolist() == table["patch_id"].tolist()
    np.testing.assert_allclose(figures.values[:, 0], np.log(np.maximum(p, 1e-6)), rtol=1e-5)
    assert "left out" not in caplog.text
    with caplog.at_level("WARNING", "atypia"):
        figures = figures_from_answers(table, tmp_path / "predictions-test.csv")
    assert len(figures.patients) == 40
    assert "10 of 50 figures are not in" in caplog.text


def test_a_saved_model_gives_the_same_answers_and_damage_is_told(tmp_path: Path) -> None:
    figures, target, _ = figures_with_a_witness()
    bags = [figures.values[r] for r in figures.rows_of(target.patients)]
    config = MilConfig(**SMALL, epochs=2)  # type: ignore[arg-type]
    model = fit_patients(bags, target.values, 2, "attention", config, 0)
    header = {"classes": ["no", "yes"], "pooling": "attention", "attention_width": 32}
    model.save(tmp_path, header)
    loaded, _ = PatientModel.load(tmp_path)
    for given, expected in zip(loaded(bags[3]), model(bags[3]), strict=True):
        np.testing.assert_allclose(given, expected, atol=1e-6)
    file = tmp_path / "mil.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(InputError, match="but the file differs"):
        PatientModel.load(tmp_path)


def test_a_run_leaves_its_folder_and_answers_for_another_cohort(
    cohort_folder: Path, tmp_path: Path
) -> None:
    cohort = Cohort.open(shutil.copytree(cohort_folder, tmp_path / "cohort"))
    settings = ["model.backbone=test_convnext", "model.pretrained=false", "input.size_px=32"]
    settings += ["folds=2", "repeats=1", "epochs=2", "components=8", "resamples=100"]
    out = tmp_path / "run"
    config = mil_config(settings, {"target": "atypical_above_median"})
    metrics = pipeline.mil(cohort.path, out, config)
    table = pd.read_csv(out / "predictions-patients.csv")
    assert len(table) == metrics["n_patients"] == cohort.manifest["patient_id"].nunique()
    assert set(metrics["models"]) == {"attention", "mean", "n_figures"}
    assert "attention minus mean" in metrics["differences"]
    attention = pd.read_csv(out / "attention.csv")
    assert set(attention["patch_id"]) == set(cohort.manifest["patch_id"])
    np.testing.assert_allclose(attention.groupby("patient_id")["attention"].sum(), 1, atol=1e-4)
    splits = read_json(out / "splits.json")
    assert len(splits["outer"]) == 2
    assert read_json(out / "run.json")["status"] == "finished"
    labels = chosen_labels(cohort.manifest, "expert1")
    truth = find_target("atypical_above_median", cohort.manifest, labels)
    assert table["target"].tolist() == [truth.classes[v] for v in truth.values]

    with pytest.raises(InputError, match="answers for patients"):
        pipeline.report(out)
    with pytest.raises(InputError, match="has learned from"):
        pipeline.mil_predict(out, cohort.path, tmp_path / "same")
    make_synthetic_cohort(tmp_path / "other", patients=10, patches=80, seed=9, size_px=80)
    # Patients of the same ids, who are others.
    told = pipeline.mil_predict(out, tmp_path / "other", tmp_path / "told", distinct_ids=True)
    other = pd.read_csv(told)
    assert other["p_attention"].between(0, 1).all()
    assert len(other) == Cohort.open(tmp_path / "other").manifest["patient_id"].nunique()


@pytest.fixture(scope="module")
def of_public_cases(
    cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Cohort]:
    """A run, and the cohort that it has learned from, of cases of MIDOG 2021."""
    folder = shutil.copytree(cohort_folder, tmp_path_factory.mktemp("public") / "cohort")
    cohort = renamed(folder, "MIDOG21_{:03d}", 1)
    settings = ["model.backbone=test_convnext", "model.pretrained=false", "input.size_px=32"]
    settings += ["folds=2", "repeats=1", "epochs=1", "components=4", "resamples=100"]
    config = mil_config(settings, {"target": "atypical_above_median", "pooling": ["mean"]})
    pipeline.mil(folder, folder.parent / "run", config)
    return folder.parent / "run", cohort


def renamed(folder: Path, pattern: str, start: int) -> Cohort:
    """Call the patients of a cohort by numbers."""
    cohort = Cohort.open(folder)
    patients = sorted(set(cohort.manifest["patient_id"]))
    names = {patient: pattern.format(start + i) for i, patient in enumerate(patients)}
    table = cohort.manifest.assign(patient_id=cohort.manifest["patient_id"].map(names))
    Cohort.write(folder, cohort.name, table, {})
    return Cohort.open(folder)


def test_patients_who_come_again_in_another_cohort_are_refused(
    of_public_cases: tuple[Path, Cohort], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, cohort = of_public_cases
    other = tmp_path / "other"
    make_synthetic_cohort(other, patients=10, patches=80, seed=9, size_px=80)
    n = renamed(other, "MIDOG_{:03d}", 20).manifest["patient_id"].nunique()
    last = cohort.manifest["patient_id"].nunique()
    with pytest.raises(LeakError) as caught:
        pipeline.mil_predict(run, other, tmp_path / "told")
    assert [str(problem) for problem in caught.value.problems[1:]] == [
        f"MIDOG {i} and MIDOG_{i:03d}: one case" for i in range(20, last + 1)
    ]
    assert not (tmp_path / "told").exists()
    pipeline.mil_predict(run, other, tmp_path / "told", allow_overlap=True)
    assert f"{last - 19} patients of Atypia synthetic cohort have been learned from" in caplog.text
    renamed(other, "MIDOG_{:03d}", 100)
    assert len(pd.read_csv(pipeline.mil_predict(run, other, tmp_path / "new"))) == n


def test_a_model_that_does_not_name_its_patients_knows_its_cohort_alone(
    of_public_cases: tuple[Path, Cohort], tmp_path: Path
) -> None:
    run = shutil.copytree(of_public_cases[0], tmp_path / "run")
    header = read_json(run / "model" / "mil.json")
    assert header.pop("patients")[0] == "MIDOG 1"
    write_json(run / "model" / "mil.json", stamped(header))
    with pytest.raises(InputError, match="is the cohort that"):
        pipeline.mil_predict(run, of_public_cases[1].path, tmp_path / "same")
    make_synthetic_cohort(tmp_path / "other", patients=10, patches=80, seed=9, size_px=80)
    renamed(tmp_path / "other", "MIDOG_{:03d}", 1)
    assert pipeline.mil_predict(run, tmp_path / "other", tmp_path / "told").is_file()


def test_wrong_settings_are_told_together() -> None:
    with pytest.raises(InputError) as caught:
        mil_config(["epochs=0", "epoch=3", "model.frozen=false"], {"target": "x"})
    assert len(caught.value.problems) >= 2
    assert "'epoch'" in str(caught.value)
