"""Classifying files, folders, stacks and cohorts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from atypia import pipeline
from atypia.data.cohort import Cohort
from atypia.errors import InputError
from atypia.inference import predict as predict_module
from atypia.labels import PROBABILITY_COLUMNS


def probabilities(table: pd.DataFrame) -> np.ndarray:
    return table.set_index("patch_id")[list(PROBABILITY_COLUMNS)].sort_index().to_numpy(float)


@pytest.fixture
def images(cohort_folder: Path, tmp_path: Path) -> Path:
    """A folder with a nested folder of patches."""
    folder = tmp_path / "images"
    (folder / "case one").mkdir(parents=True)
    for i, path in enumerate(Cohort.open(cohort_folder).image_paths()[:6]):
        shutil.copy(path, folder / ("case one" if i % 2 else "") / f"figure {i}.png")
    return folder


def test_the_run_s_own_test_predictions_come_out_again(
    run_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    table, skipped = pipeline.predict([cohort_folder], tmp_path / "p.csv", run_folder)
    assert not skipped
    test = pd.read_csv(run_folder / "predictions-test.csv")
    again = table[table["patch_id"].isin(test["patch_id"])]
    np.testing.assert_allclose(probabilities(again), probabilities(test), atol=1e-5)
    assert {"label_expert1", "majority_atypical", "scanner"} <= set(table.columns)


def test_folders_are_read_recursively_and_named_by_path(
    run_folder: Path, images: Path, tmp_path: Path
) -> None:
    pipeline.predict([images], tmp_path / "p.csv", run_folder, mpp=0.25)
    written = pd.read_csv(tmp_path / "p.csv")
    assert set(written["patch_id"]) == {
        *(f"case one/figure {i}" for i in (1, 3, 5)),
        *(f"figure {i}" for i in (0, 2, 4)),
    }
    np.testing.assert_allclose(written[list(PROBABILITY_COLUMNS)].sum(axis=1), 1, atol=1e-6)


def test_a_stack_gives_one_patch_per_page(run_folder: Path, images: Path, tmp_path: Path) -> None:
    files = sorted(images.rglob("*.png"))[:3]
    pages = [Image.open(f).convert("RGB") for f in files]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    table, _ = pipeline.predict([tmp_path / "stack.tif"], tmp_path / "p.csv", run_folder, mpp=0.25)
    assert table["patch_id"].tolist() == ["stack/0", "stack/1", "stack/2"]
    single, _ = pipeline.predict(files, tmp_path / "q.csv", run_folder, mpp=0.25)
    np.testing.assert_allclose(
        table[list(PROBABILITY_COLUMNS)], single[list(PROBABILITY_COLUMNS)], atol=1e-5
    )


def test_chunks_and_mixed_sizes_do_not_change_the_answers(
    run_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = pipeline.predict([images], tmp_path / "p.csv", run_folder, mpp=0.25)
    monkeypatch.setattr(predict_module, "CHUNK", 2)
    wide = next(images.glob("*.png"))
    pixels = np.pad(np.asarray(Image.open(wide)), ((9, 9), (9, 9), (0, 0)), mode="reflect")
    Image.fromarray(pixels).save(wide)
    parts, _ = pipeline.predict([images], tmp_path / "q.csv", run_folder, mpp=0.25)
    np.testing.assert_allclose(probabilities(parts), probabilities(whole), atol=1e-5)


def test_every_bad_file_is_listed_and_nothing_is_written(
    run_folder: Path, images: Path, tmp_path: Path
) -> None:
    (images / "broken.png").write_bytes(b"no image")
    Image.new("L", (80, 80)).save(images / "grey.png")
    Image.new("RGB", (40, 40)).save(images / "small.png")
    with pytest.raises(InputError) as caught:
        pipeline.predict([images], tmp_path / "p.csv", run_folder, mpp=0.25)
    assert len(caught.value.problems) == 3
    assert not (tmp_path / "p.csv").exists()
    table, skipped = pipeline.predict(
        [images], tmp_path / "p.csv", run_folder, mpp=0.25, skip_bad=True
    )
    assert len(table) == 6
    assert len(skipped) == 3


def test_two_files_with_one_name_are_refused(
    run_folder: Path, images: Path, tmp_path: Path
) -> None:
    shutil.copy(images / "figure 0.png", images / "figure 0.tif")
    with pytest.raises(InputError, match=r"figure 0.*like"):
        pipeline.predict([images], tmp_path / "p.csv", run_folder, mpp=0.25)


def test_inputs_that_do_not_exist_are_all_named(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    inputs = [tmp_path / "empty", tmp_path / "none.png"]
    with pytest.raises(InputError) as caught:
        pipeline.predict(inputs, tmp_path / "p.csv", run_folder, mpp=0.25)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("mpp", [None, 40.0, float("nan"), -1.0])
def test_a_resolution_is_neither_guessed_nor_taken_on_trust(
    run_folder: Path, images: Path, tmp_path: Path, mpp: float | None
) -> None:
    with pytest.raises(InputError, match="--mpp"):
        pipeline.predict([images], tmp_path / "p.csv", run_folder, mpp=mpp)


def test_a_large_patch_answers_like_its_centre(
    run_folder: Path, images: Path, tmp_path: Path
) -> None:
    file = images / "figure 0.png"
    table, _ = pipeline.predict([file], tmp_path / "p.csv", run_folder, mpp=0.25)
    pixels = np.pad(np.asarray(Image.open(file)), ((300, 300), (400, 400), (0, 0)))
    Image.fromarray(pixels).save(file)
    large, _ = pipeline.predict([file], tmp_path / "p.csv", run_folder, mpp=0.25)
    np.testing.assert_allclose(probabilities(large), probabilities(table), atol=1e-6)
