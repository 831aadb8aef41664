"""A guard of one's own: from MIDOG's JSON with hard negatives to a model that finds look-alikes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from atypia import pipeline
from atypia.classifiers.bundle import MITOSIS, read_any_header
from atypia.classifiers.loading import load_ensemble
from atypia.core.config import load_any_config
from atypia.core.errors import InputError
from atypia.core.files import read_json
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.data.sources import PrepareOptions
from atypia.evaluation.mitosis_scores import score_mitoses
from atypia.training.mitosis_fitter import MitosisFitter

MPP = 0.5
SETTINGS = (
    "model.backbone=test_convnext",
    "model.pretrained=false",
    "model.reduction=null",
    "input.size_px=32",
    "optim.epochs=5",
    "false_rejection=0.1",
    "optim.batch_size=16",
    "optim.learning_rate=0.003",
    "ensemble.members=2",
    "resamples=100",
    "runtime.threads=1",
)


@pytest.fixture(scope="module")
def midog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cases: dark bars are figures, dark discs the hard negatives."""
    folder = tmp_path_factory.mktemp("midog")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-20:20, -20:20]
    shapes = {1: (abs(y) < 3) & (abs(x) < 9), 2: y**2 + x**2 < 40}
    tree: dict[str, list] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}],
    }
    for case in range(1, 13):
        pixels = rng.normal((225, 170, 205), 6, (120, 480, 3))
        tree["images"].append({"id": case, "file_name": f"{case:03}.tiff"})
        for i in range(10):
            kind, left, top = 1 + i % 2, 20 + 80 * (i // 2), 20 + 40 * (i % 2)
            pixels[top : top + 40, left : left + 40][shapes[kind]] = (70, 40, 110)
            box = [left, top, left + 40, top + 40]
            number = len(tree["annotations"])
            tree["annotations"].append(
                {"id": number, "image_id": case, "category_id": kind, "bbox": box}
            )
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{case:03}.tiff")
    (folder / "MIDOG++.json").write_text(json.dumps(tree))
    return folder


@pytest.fixture(scope="module")
def cohort(midog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohorts") / "midog"
    pipeline.prepare(midog, out, PrepareOptions(mpp=MPP, field_um=20))
    return out


@pytest.fixture(scope="module")
def run(cohort: Path, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guard before a tiny model of subtypes."""
    out = tmp_path_factory.mktemp("runs") / "guard"
    pipeline.train(cohort, out, load_any_config("mitosis", (*SETTINGS, f"before={run_folder}")))
    return out


def test_both_categories_are_in_the_cohort_and_only_figures_where_figures_are_meant(cohort):
    every = Cohort.open(cohort, look_alikes=True)
    assert every.manifest["mitosis"].value_counts().to_dict() == {"True": 60, "False": 60}
    figures = Cohort.open(cohort)
    assert len(figures) == 60
    assert "mitosis" not in figures.manifest
    assert set(figures.manifest["patch_id"]) < set(every.manifest["patch_id"])
    assert figures.sha256 == every.sha256


def test_a_look_alike_with_a_label_is_refused(cohort, tmp_path):
    every = Cohort.open(cohort, look_alikes=True)
    labelled = every.manifest.assign(label_expert1="nmf_metaphase")
    (tmp_path / "patches").symlink_to(cohort / "patches")
    Cohort.write(tmp_path, "wrong", labelled, {})
    with pytest.raises(InputError, match="expected no label of a look-alike") as caught:
        Cohort.open(tmp_path)
    assert len(caught.value.problems) == 60


def test_a_run_leaves_a_guard_and_its_measures(run, cohort):
    header = read_any_header(run / "model" / MITOSIS)
    metrics = read_json(run / "metrics.json")
    assert (header.kind, metrics["kind"], metrics["part"]) == (MITOSIS, "mitosis", "test")
    table = pd.read_csv(run / "predictions-test.csv")
    every = Cohort.open(cohort, look_alikes=True).manifest.set_index("patch_id")
    # Each row is the patch that it is named after.
    told = every.loc[table["patch_id"], "mitosis"] == "True"
    assert (told.to_numpy() == table["mitosis"]).all()
    auc = roc_auc_score(table["mitosis"], table["p_mitosis"])
    assert metrics["auc"]["value"] == pytest.approx(auc)
    assert auc > 0.95
    rejected = table["status"] == "not_a_mitosis"
    assert (rejected == (table["p_mitosis"] < header.thresholds.atypical)).all()
    of_look_alikes = rejected[~table["mitosis"]].mean()
    assert metrics["at_threshold"]["rejected"]["value"] == pytest.approx(of_look_alikes)
    oof = pd.read_csv(run / "predictions-oof.csv")
    assert not set(oof["patient_id"]) & set(table["patient_id"])
    assert (oof["status"][oof["mitosis"]] == "not_a_mitosis").mean() <= 0.1
    page = (run / "report.html").read_text("utf-8")
    assert "Look-alikes rejected" in page
    assert "atypical" not in page.partition("<main>")[2].lower()


def test_alone_it_names_no_subtypes(run):
    with pytest.raises(InputError, match="finds look-alikes of mitotic figures"):
        load_ensemble(run / "model" / MITOSIS)


def test_it_decides_for_the_model_that_it_was_trained_before(run, run_folder, cohort):
    every = Cohort.open(cohort, look_alikes=True)
    test = pd.read_csv(run / "predictions-test.csv").set_index("patch_id")
    rows = every.manifest["patch_id"].isin(test.index).to_numpy()
    patches = np.stack([read_patch(p) for p, r in zip(every.image_paths(), rows, strict=True) if r])
    told = test.loc[every.manifest["patch_id"][rows]]
    base, guarded = (load_ensemble(m).answer(patches, MPP) for m in (run_folder, run))
    np.testing.assert_array_equal(guarded.probabilities, base.probabilities)
    np.testing.assert_allclose(guarded.p_mitosis, told["p_mitosis"], atol=1e-5)
    assert guarded.status.tolist() == told["status"].tolist()
    assert set(told["status"]) == {"answered", "not_a_mitosis"}
    # Glass stays glass, whatever the networks make of it.
    glass = np.full((1, 40, 40, 3), 245, np.uint8)
    assert load_ensemble(run).answer(glass, MPP).status.tolist() == ["no_tissue"]


def test_a_bundle_with_a_damaged_guard_is_refused_and_no_export_leaves_it_out(run, tmp_path):
    shutil.copytree(run / "model", tmp_path / "model")
    with pytest.raises(InputError, match="without networks of a guard"):
        pipeline.export(tmp_path / "model", tmp_path / "onnx")
    header = tmp_path / "model" / MITOSIS / "model.json"
    header.write_text(header.read_text() + " ")
    with pytest.raises(InputError, match="Copy the bundle again"):
        load_ensemble(tmp_path / "model")


def test_it_sees_no_more_than_the_model_before_which_it_stands(run_folder):
    config = load_any_config("mitosis", [f"before={run_folder}", "input.field_of_view_um=25"])
    with pytest.raises(InputError, match="expected a field of at most 18 µm"):
        MitosisFitter(config)


def test_a_cohort_without_look_alikes_is_refused(cohort_folder, tmp_path):
    with pytest.raises(InputError, match=r"mitotic figures and look-alikes .* but got 240 and 0"):
        pipeline.train(cohort_folder, tmp_path / "run", load_any_config("mitosis", SETTINGS))


def test_settings_that_are_no_two_sides_are_refused():
    with pytest.raises(InputError, match=r"expected loss\.of=sides"):
        load_any_config("mitosis", ["loss.of=subtypes", "augment.mixup=0"])


def test_measures_of_known_answers():
    p = np.array([0.9, 0.8, 0.7, 0.2, 0.75, 0.1, 0.05, 0.3])
    mitosis = np.array([True] * 4 + [False] * 4)
    patients = np.array(["a", "b", "c", "d"] * 2)
    domains = np.array(["x", "x", "y", "y"] * 2)
    scores = score_mitoses(p, mitosis, patients, domains, p < 0.25, resamples=50)
    assert scores["auc"]["value"] == pytest.approx(roc_auc_score(mitosis, p))
    assert scores["at_threshold"]["false_rejection"]["value"] == 0.25
    assert scores["at_threshold"]["rejected"]["value"] == 0.5
    assert (scores["n"], scores["n_look_alikes"], scores["n_patients"]) == (8, 4, 4)
    # Without a false rejection the look-alikes below the lowest figure are rejected.
    assert scores["rejected_at"]["0.005"]["value"] == pytest.approx(0.5, abs=0.01)
    assert scores["groups"]["domain"]["y"]["n_look_alikes"] == 2
    json.dumps(scores, allow_nan=False)
