"""The rules as a model: probabilities with reasons, its bundle, and how well it does."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atypia import cli
from atypia.classifiers.calibration import Calibration
from atypia.classifiers.decision import Decision
from atypia.classifiers.loading import load_ensemble
from atypia.classifiers.postprocessing import Postprocessing
from atypia.classifiers.rules.criteria import prior
from atypia.classifiers.rules.rules_classifier import RulesClassifier
from atypia.classifiers.rules.shape_features import NOTHING, measure_patches, raw_probabilities
from atypia.core.errors import InputError, MissingExtraError
from atypia.core.labels import SUBTYPES, subtype_index
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.evaluation.metrics import one_vs_rest_auc
from tests.drawn_figures import FIGURES, Canvas, plate, ring


def patches(side: int = 128, mpp: float = 0.25) -> np.ndarray:
    """(N, side, side, 3) of all drawn figures, whose canvas is made larger than the field."""
    made = []
    for make, _ in FIGURES.values():
        canvas, drawn = Canvas(side=side, mpp=mpp), make()
        # The same figure on a larger or coarser grid: nearest points of the drawn one.
        at = [np.clip(np.round(a / 0.25 + 47.5).astype(int), 0, 95) for a in (canvas.y, canvas.x)]
        canvas.depth = drawn.depth[at[0], at[1]]
        made.append(canvas.patch())
    return np.stack(made)


def test_answers_are_probabilities_and_each_has_its_reason() -> None:
    model = RulesClassifier()
    answers = model.answer(patches(), 0.25)
    p, told = answers.probabilities, answers.reasons
    assert p.shape == (len(FIGURES), 8)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(model.predict_proba(patches(), 0.25), p)
    for reason in told:
        assert "For it: " in reason.reason
        assert "µm" in reason.reason
        assert reason.measures["area_um2"] > 0


def test_the_answer_depends_neither_on_the_batch_nor_on_what_else_is_in_it() -> None:
    model = RulesClassifier()
    whole = model.predict_proba(patches(), 0.25)
    np.testing.assert_array_equal(model.predict_proba(patches(), 0.25, batch_size=3), whole)
    for i in (0, 4):
        np.testing.assert_array_equal(model.predict_proba(patches()[i : i + 1], 0.25)[0], whole[i])


@pytest.mark.parametrize("mpp", [0.2, 0.23])
def test_another_resolution_reads_the_same(mpp: float) -> None:
    readings = measure_patches(patches(160, mpp), mpp)
    for reading, (name, (_, subtype)) in zip(readings, FIGURES.items(), strict=True):
        if name != "scattered":  # whose parts are as small as the pixels
            assert SUBTYPES[int(reading.truths.argmax())] == subtype


def test_the_reason_is_of_the_decided_subtype() -> None:
    """A decision against the prior names what it decides for, not the most probable one."""
    decision = Decision(prior=prior().tolist(), power=1.0)
    (told,) = RulesClassifier(Postprocessing(decision)).answer(ring().patch()[None], 0.25).reasons
    assert told.reason.startswith("Ring shape, a plate seen from a pole.")


def test_an_empty_patch_is_answered_by_the_prior() -> None:
    blank = np.full((1, 128, 128, 3), 230, np.uint8)
    answers = RulesClassifier().answer(blank, 0.25)
    p, (told,) = answers.probabilities, answers.reasons
    np.testing.assert_allclose(p[0], prior(), atol=1e-6)
    assert told.reason == NOTHING
    assert told.measures == {}


def test_an_explanation_is_in_the_pixels_of_the_patch() -> None:
    canvas = Canvas(side=128).bar(0, 0, 8, 2.6)
    (outline,) = RulesClassifier().explain(canvas.patch(), 0.25).outlines
    assert np.abs(outline[:, 0] - 63.5).max() * 0.25 == pytest.approx(1.3, abs=0.2)
    assert np.abs(outline[:, 1] - 63.5).max() * 0.25 == pytest.approx(4, abs=0.2)


def test_what_is_no_patch_is_refused() -> None:
    model = RulesClassifier()
    with pytest.raises(InputError, match="uint8"):
        model.predict_proba(np.zeros((1, 96, 96, 3), np.float32), 0.25)
    with pytest.raises(InputError):
        model.predict_proba(np.zeros((1, 20, 20, 3), np.uint8), 0.25)
    assert model.size_problem(20, 0.25)
    assert model.size_problem(96, 0.25) is None
    assert raw_probabilities([]).shape == (0, 8)


def test_without_scikit_image_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def missing(name: str, *rest: object) -> object:
        return None if name == "skimage" else found(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    with pytest.raises(MissingExtraError, match=r"atypia\[rules\]"):
        RulesClassifier()


def test_a_bundle_keeps_what_becomes_of_the_probabilities(tmp_path: Path) -> None:
    answers = Postprocessing(
        Decision(prior=[1 / 8] * 8, power=0.5),
        0.31,
        Calibration(1.7),
        errors={"made": "up"},
    )
    RulesClassifier(answers, {"cohort": "drawn"}).save(tmp_path)
    model = load_ensemble(tmp_path)
    assert isinstance(model, RulesClassifier)
    assert model.postprocessing == answers
    assert model.provenance == {"cohort": "drawn"}
    p = RulesClassifier(answers).predict_proba(patches(), 0.25)
    np.testing.assert_array_equal(model.predict_proba(patches(), 0.25), p)
    with pytest.raises(InputError, match="--quality"):
        load_ensemble(tmp_path, "fast")
    with pytest.raises(InputError, match="--backend"):
        load_ensemble(tmp_path, backend="onnx")


def test_the_rules_are_in_the_package() -> None:
    model = load_ensemble("rules")
    assert isinstance(model, RulesClassifier)
    assert model.provenance["cohort"] == "AMi-Br"
    assert 0 < model.threshold < 0.5


def test_the_command_line_gives_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    Image.fromarray(plate().patch()).save(tmp_path / "plate.png")
    for name in ("out.csv", "out.json"):
        options = ["--mpp", "0.25", "--model", "rules", "--out", str(tmp_path / name)]
        image = str(tmp_path / "plate.png")
        monkeypatch.setattr("sys.argv", ["atypia", "predict", image, *options])
        cli.main()
    (row,) = pd.read_csv(tmp_path / "out.csv").to_dict("records")
    assert row["predicted_subtype"] == "nmf_metaphase"
    assert row["reason"].startswith("Metaphase, one plate seen from the side. For it: ")
    (record,) = json.loads((tmp_path / "out.json").read_text())
    assert record["reason"] == row["reason"]
    assert record["measures"]["main_width_um"] == pytest.approx(2.6, abs=0.3)


@pytest.mark.realdata
@pytest.mark.slow
def test_real_figures_are_found_and_told_apart(ami_br: Path, tmp_path: Path) -> None:
    """On training patients of table1; the threshold is far below what was measured, 0.89."""
    from atypia.pipeline import prepare

    split = pd.read_csv(ami_br / "table1_split.csv", dtype=str)
    cohort = Cohort.open(prepare(ami_br, tmp_path / "cohort").path)
    train = split[split["role"] == "train"]
    training = set(train["dataset"] + "_" + train["slide"].str.removesuffix(".tiff"))
    rows = cohort.manifest[cohort.manifest["patient_id"].isin(training)]
    paths = dict(zip(cohort.manifest["patch_id"], cohort.image_paths(), strict=True))
    chosen = rows.groupby("label_expert1").head(60)
    stack = np.stack([read_patch(paths[patch]) for patch in chosen["patch_id"]])
    answers = RulesClassifier().answer(stack, 0.25)
    p, told = answers.probabilities, answers.reasons
    truth = np.array([subtype_index(name) for name in chosen["label_expert1"]])
    assert np.mean(one_vs_rest_auc(truth, p.astype(float))) > 0.8
    assert np.mean([reason.reason != NOTHING for reason in told]) > 0.99
    for reason in told:
        assert reason.reason
