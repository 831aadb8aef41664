"""The Python API: the same answers for files and arrays; cheap to import."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import atypia
from atypia.api import Classifier, TrainedRun
from atypia.core.errors import InputError
from atypia.core.files import read_json
from atypia.core.labels import PROBABILITY_COLUMNS
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.data.synthetic import make_synthetic_cohort
from atypia.evaluation.predictions import write_predictions

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def model(run_folder: Path) -> Classifier:
    return atypia.load_model(run_folder, device="cpu")


@pytest.fixture(scope="module")
def paths(cohort_folder: Path) -> list[Path]:
    return Cohort.open(cohort_folder).image_paths()[:4]


def p(table: pd.DataFrame) -> np.ndarray:
    return table[list(PROBABILITY_COLUMNS)].to_numpy(float)


def test_files_and_arrays_get_the_same_answers(model: Classifier, paths: list[Path]) -> None:
    from_files = model.predict(paths, mpp=0.25)
    assert from_files["patch_id"].tolist() == [path.stem for path in paths]
    pixels = [read_patch(path) for path in paths]
    for inputs in (pixels, np.stack(pixels)):
        from_arrays = model.predict(inputs, mpp=0.25)
        np.testing.assert_allclose(p(from_arrays), p(from_files), atol=1e-6)
        assert from_arrays["patch_id"].tolist() == ["0", "1", "2", "3"]
    for one in (paths[0], str(paths[0]), pixels[0]):
        np.testing.assert_allclose(p(model.predict(one, mpp=0.25)), p(from_files)[:1], atol=1e-5)


def test_arrays_of_many_sizes(model: Classifier, paths: list[Path]) -> None:
    pixels = [read_patch(path) for path in paths]
    wide = [np.pad(a, ((i, i), (2 * i, 2 * i), (0, 0)), "reflect") for i, a in enumerate(pixels)]
    np.testing.assert_allclose(
        p(model.predict(wide, mpp=0.25)), p(model.predict(pixels, mpp=0.25)), atol=1e-5
    )


def test_a_cohort_knows_its_own_resolution(model: Classifier, cohort_folder: Path) -> None:
    assert len(model.predict(cohort_folder)) == 240


def test_every_wrong_array_is_named(model: Classifier) -> None:
    good = np.zeros((80, 80, 3), np.uint8)
    with pytest.raises(InputError) as caught:
        model.predict([good, good[:40], good.astype(float), good[..., :2]], mpp=0.25)
    assert [str(problem)[:7] for problem in caught.value.problems] == [
        f"patch {i}" for i in (1, 2, 3)
    ]
    for inputs, mpp in (
        (good, None),
        (good, 40.0),
        ([], 0.25),
        (good[None][:0], 0.25),
        (good[0], 0.25),
    ):
        with pytest.raises(InputError):
            model.predict(inputs, mpp=mpp)


def test_whatever_can_be_gone_through_once_is_read(model: Classifier, paths: list[Path]) -> None:
    expected = p(model.predict(paths, mpp=0.25))
    pictures = [Image.open(path).convert("RGB") for path in paths]
    tensors = [torch.from_numpy(np.array(picture)) for picture in pictures]
    for inputs in (
        iter(paths),
        map(str, paths),
        (path for path in paths),
        dict.fromkeys(paths).keys(),
        pd.Series([str(path) for path in paths]),
        np.array([str(path) for path in paths]),
        pictures,
        tensors,
        torch.stack(tensors),
        (np.asarray(picture) for picture in pictures),
    ):
        np.testing.assert_allclose(p(model.predict(inputs, mpp=0.25)), expected, atol=1e-5)
    for inputs in (pictures[0], tensors[0]):
        np.testing.assert_allclose(p(model.predict(inputs, mpp=0.25)), expected[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (None, "got NoneType"),
        (b"cell.png", "got bytes"),
        (io.BytesIO(), "got BytesIO"),
        ({"a": 1}, "got dict"),
        ([np.zeros((80, 80, 3), np.uint8), "cell.png"], r"got \['ndarray', 'str'\]"),
        ([[1, 2]], r"got \['list'\]"),
        (Image.new("L", (80, 80)), "mode RGB but got L"),
        (torch.zeros((3, 80, 80), dtype=torch.uint8), r"\(H, W, 3\)"),
    ],
)
def test_what_is_no_input_is_said(model: Classifier, inputs: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        model.predict(inputs, mpp=0.25)  # type: ignore[arg-type]


def test_numbers_that_make_no_sense_are_refused(model: Classifier, paths: list[Path]) -> None:
    for mpp in (float("nan"), 0, -1, "0.25", [0.25], 250):
        for ask in (model.predict, model.explain):
            with pytest.raises(InputError, match="mpp: expected µm per pixel"):
                ask(read_patch(paths[0]), mpp=mpp)
    for size in (0, -1, 2.5, None, True):
        with pytest.raises(InputError, match="batch_size: expected a whole number from 1 on"):
            model.predict(paths[0], mpp=0.25, batch_size=size)


def test_ids_are_text_in_the_predictions_of_a_run(tmp_path: Path, run_folder: Path) -> None:
    table = pd.read_csv(run_folder / "predictions-test.csv").astype({"patient_id": object})
    n = len(table)
    table = table.assign(patch_id=["NA", "null", "None", "007", *table["patch_id"][4:]])
    table = table.assign(patient_id=["NA", "None", *["007"] * (n - 2)], domain="NA")
    write_predictions(tmp_path / "predictions-test.csv", table)
    read = TrainedRun(tmp_path, {}).predictions()
    assert read["patch_id"][:4].tolist() == ["NA", "null", "None", "007"]
    assert read["patient_id"][:3].tolist() == ["NA", "None", "007"]
    assert set(read["domain"]) == {"NA"}
    np.testing.assert_allclose(p(read), p(table), atol=1e-8)
    assert read["predicted_atypical"].dtype == bool


def test_maps_for_files_and_arrays(model: Classifier, paths: list[Path]) -> None:
    pixels = np.stack([read_patch(path) for path in paths])
    found = model.explain(paths, mpp=0.25)
    assert found.maps.shape == pixels.shape[:3]
    np.testing.assert_allclose(model.explain(pixels, mpp=0.25).maps, found.maps, atol=1e-5)
    predicted = model.predict(paths, mpp=0.25)["predicted_subtype"][0]
    named = model.explain(str(paths[0]), mpp=0.25, target=predicted)
    np.testing.assert_allclose(named.maps, found.maps[:1], atol=1e-4)
    atypical = model.explain(pixels[0], mpp=0.25, target="atypical")
    assert not np.allclose(atypical.scores, found.scores[:1], atol=1e-3)


def test_what_cannot_be_explained(model: Classifier, paths: list[Path]) -> None:
    with pytest.raises(InputError, match=r"'atypical'.*got 'mitosis'"):
        model.explain(paths, mpp=0.25, target="mitosis")
    with pytest.raises(InputError, match="patches of one size"):
        model.explain([read_patch(paths[0]), read_patch(paths[1])[:70]], mpp=0.25)
    with pytest.raises(InputError, match=r"expected one of .*'occlusion'"):
        model.explain(paths, mpp=0.25, method="tea leaves")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="RulesClassifier, which has no maps"):
        atypia.load_model("rules").explain(paths, mpp=0.25)


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys, atypia\n"
        "assert 'Cohort' in dir(atypia)\n"
        "assert not {'torch', 'pandas', 'pydantic'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_training_in_one_call(cohort_folder: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    settings = {key.replace(".", "__"): yaml.safe_load(value) for key, value in map(cut, tiny)}
    cohort = atypia.Cohort.open(cohort_folder)
    run = atypia.train(cohort, tmp_path / "run", split="holdout", seed=3, **settings)
    assert run.report.is_file()
    assert run.metrics == read_json(run.folder / "metrics.json")
    tested = run.predictions()
    assert set(tested["patient_id"]).isdisjoint(run.predictions("oof")["patient_id"])
    again = run.model().predict(cohort_folder).set_index("patch_id").loc[tested["patch_id"]]
    np.testing.assert_allclose(p(again), p(tested), atol=1e-5)
    config = yaml.safe_load((run.folder / "config.yaml").read_text("utf-8"))
    assert (config["seed"], config["split"]["kind"]) == (3, "holdout")
    with pytest.raises(InputError, match="oof or test but got 'train'"):
        run.predictions("train")


def test_settings_of_a_training_are_checked_together(cohort_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        atypia.train(cohort_folder, tmp_path / "run", optim__epochs=0, no_such_thing=1)
    assert "optim.epochs" in str(error.value)
    assert "no_such_thing" in str(error.value)


def test_a_run_of_the_rules_in_one_call(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    cohort = make_synthetic_cohort(tmp_path / "cohort", patients=12, patches=64, size_px=80)
    run = atypia.train(cohort, tmp_path / "run", "rules", split="holdout", resamples=100)
    assert run.metrics["overall"]["mean_auc"]["value"] > 0.5
    assert run.model().predict(cohort.image_paths()[0], mpp=0.25)["reason"][0]


def cut(setting: str) -> tuple[str, str]:
    key, _, value = setting.partition("=")
    return key, value
