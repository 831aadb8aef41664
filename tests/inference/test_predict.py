"""Classifying files, folders, stacks and cohorts."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from atypia import pipeline
from atypia.classifiers.bundle import read_header, write_header
from atypia.core.errors import InputError
from atypia.core.files import overwriting
from atypia.core.labels import PROBABILITY_COLUMNS, SUBTYPES
from atypia.data.cohort import Cohort
from atypia.evaluation.predictions import read_predictions
from atypia.inference import patch_predictions as predict_module


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


def test_a_changed_patch_of_a_cohort_is_refused(
    run_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    cohort = Path(shutil.copytree(cohort_folder, tmp_path / "cohort"))
    patch = Cohort.open(cohort).image_paths()[3]
    shutil.copy(Cohort.open(cohort).image_paths()[4], patch)  # whole, but another one
    with pytest.raises(InputError, match=f"{patch.name}: expected the SHA-256"):
        pipeline.predict([cohort], None, run_folder)


def test_an_output_never_overwrites_an_input_or_a_record(
    run_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    cohort = Path(shutil.copytree(cohort_folder, tmp_path / "cohort"))
    before = (cohort / "manifest.csv").read_bytes()
    (tmp_path / "link.csv").symlink_to(cohort / "manifest.csv")
    table = run_folder / "predictions-test.csv"
    for out in (cohort / "manifest.csv", tmp_path / "link.csv", table):
        with pytest.raises(InputError, match="would overwrite"):
            pipeline.predict([cohort], out, run_folder)
    assert (cohort / "manifest.csv").read_bytes() == before
    with pytest.raises(InputError, match=r"--out: .*metrics\.json would overwrite"):
        pipeline.evaluate(table, run_folder)
    assert overwriting([cohort / "new.csv", None, tmp_path / "no.csv"], [cohort], "--out") == []
    shutil.copy(table, tmp_path / "audit.csv")
    with pytest.raises(InputError, match=r"audit\.csv would overwrite"):
        pipeline.audit(tmp_path / "audit.csv", tmp_path)


def test_two_files_with_one_name_are_refused(
    run_folder: Path, images: Path, tmp_path: Path
) -> None:
    shutil.copy(images / "figure 0.png", images / "figure 0.tif")
    with pytest.raises(InputError, match=r"figure 0.*like"):
        pipeline.predict([images], tmp_path / "p.csv", run_folder, mpp=0.25)


def test_everything_that_is_wrong_before_the_work_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    inputs = [tmp_path / "empty", tmp_path / "none.png"]
    with pytest.raises(InputError) as caught:
        pipeline.predict(inputs, tmp_path / "p.txt", tmp_path / "no model", mpp=40)
    assert len(caught.value.problems) == 5


def test_tiff_files_may_carry_their_resolution(
    run_folder: Path, images: Path, tmp_path: Path
) -> None:
    tiffs = tmp_path / "tiffs"
    tiffs.mkdir()
    for file in images.rglob("*.png"):
        Image.open(file).save(tiffs / f"{file.stem}.tif", dpi=(25_400 / 0.25,) * 2)
    own, _ = pipeline.predict([tiffs], None, run_folder)
    given, _ = pipeline.predict([images], None, run_folder, mpp=0.25)
    own = own.sort_values("patch_id")
    given = given.assign(patch_id=given["patch_id"].str.split("/").str[-1]).sort_values("patch_id")
    np.testing.assert_allclose(probabilities(own), probabilities(given), atol=1e-6)
    shutil.copy(images / "figure 0.png", tiffs / "png.png")
    with pytest.raises(InputError, match=r"1 of 7 images do not tell.*--mpp"):
        pipeline.predict([tiffs], None, run_folder)


def test_small_patches_are_mirrored_and_counted(
    run_folder: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("figure 0", "figure 2"):
        file = images / f"{name}.png"
        Image.open(file).crop((10, 10, 70, 70)).save(file)  # 15 of 18 µm
    with caplog.at_level(logging.WARNING, "atypia"):
        table, _ = pipeline.predict([images], None, run_folder, mpp=0.25)
    assert len(table) == 6
    (told,) = [r.message for r in caplog.records if "mirrored" in r.message]
    assert told.startswith("2 patches")
    Image.open(images / "figure 0.png").crop((5, 5, 55, 55)).save(images / "figure 0.png")
    with pytest.raises(InputError, match="field of view"):
        pipeline.predict([images], None, run_folder, mpp=0.25)


def test_patches_of_many_sizes_share_a_batch(
    run_folder: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = pipeline.predict([images], None, run_folder, mpp=0.25)
    files = sorted(images.rglob("*.png"))
    for i, file in enumerate(files):
        edge = ((7 + i, 7 + i), (8 + 2 * i, 8 + 2 * i), (0, 0))
        Image.fromarray(np.pad(np.asarray(Image.open(file)), edge, mode="reflect")).save(file)
    batches = []
    real = np.stack

    def stack(arrays: list[np.ndarray]) -> np.ndarray:
        if arrays[0].ndim == 3:  # of patches, not of members' answers
            batches.append(len(arrays))
        return real(arrays)

    monkeypatch.setattr(predict_module.np, "stack", stack)
    parts, _ = pipeline.predict([images], None, run_folder, mpp=0.25)
    assert batches == [6]
    np.testing.assert_allclose(probabilities(parts), probabilities(whole), atol=1e-5)


def test_json_holds_what_the_table_holds(
    run_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    table, _ = pipeline.predict([cohort_folder], tmp_path / "p.json", run_folder)
    records = json.loads((tmp_path / "p.json").read_text())
    assert [r["patch_id"] for r in records] == table["patch_id"].tolist()
    nested = np.array([[r["probabilities"][s] for s in SUBTYPES] for r in records])
    np.testing.assert_allclose(nested, table[list(PROBABILITY_COLUMNS)], rtol=1e-7)
    first = table.iloc[0]
    for name in ("predicted_subtype", "predicted_atypical", "label_expert1", "patient_id"):
        assert records[0][name] == first[name], name
    with pytest.raises(InputError, match=r"\.csv, \.json"):
        pipeline.predict([cohort_folder], tmp_path / "p.xlsx", run_folder)


def test_sets_and_withheld_answers_are_columns_that_can_be_read_again(
    run_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_folder / "model", tmp_path / "model")
    header = read_header(tmp_path / "model")
    plain, _ = pipeline.predict([cohort_folder], None, run_folder)
    every = plain[list(PROBABILITY_COLUMNS)].to_numpy(float)
    likely = [every[i, SUBTYPES.index(s)] for i, s in enumerate(plain["predicted_subtype"])]
    least = float(np.median(likely))
    sets = {"kind": "lac", "alpha": 0.1, "quantiles": [1 - least] * 8, "n": [50] * 8}
    write_header(tmp_path / "model", header.model_copy(update={"conformal": sets}))
    out = tmp_path / "p.csv"
    pipeline.predict([cohort_folder], out, tmp_path / "model", min_confidence=least)
    written = pd.read_csv(out, keep_default_na=False)
    p = written[list(PROBABILITY_COLUMNS)].to_numpy()
    named = [SUBTYPES.index(s) for s in written["predicted_subtype"]]
    chosen = p[np.arange(len(p)), named]
    levels = np.minimum(least, chosen)[:, None]
    order = np.argsort(-np.where(np.eye(8, dtype=bool)[named], 2, p), axis=1, kind="stable")
    inside = [
        [SUBTYPES[i] for i in of if row[i] >= level]
        for of, row, level in zip(order, p, levels, strict=True)
    ]
    assert written["conformal_set"].tolist() == ["|".join(s) for s in inside]
    assert written["abstained"].tolist() == (chosen < least).tolist()
    assert 0 < written["abstained"].sum() < len(written)
    assert len(read_predictions(out)) == len(written)
    pipeline.predict([cohort_folder], tmp_path / "p.json", tmp_path / "model")
    record = json.loads((tmp_path / "p.json").read_text())[0]
    assert record["conformal_set"] == inside[0]


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
