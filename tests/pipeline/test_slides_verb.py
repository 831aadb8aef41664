"""``atypia slides`` in one process: the answers, what fails, going on, and what becomes of it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from slide_files import noise, spoil_tile, write_pyramid
from slide_jobs import MPP, SIZE, answers, write_slide_table
from untrained import untrained_ensemble

from atypia import cli, pipeline
from atypia.biomarker import read_slides
from atypia.core.errors import AtypiaError, InputError
from atypia.core.files import read_json, stamped, write_json
from atypia.core.labels import PROBABILITY_COLUMNS, STATUSES
from atypia.inference import slide_work
from atypia.inference.job import EngineChoice
from atypia.inference.slide_work import ClassifyCandidates, ListCandidates
from atypia.slides.slide_pool import SlidePool

if TYPE_CHECKING:
    from pathlib import Path

P = list(PROBABILITY_COLUMNS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    untrained_ensemble().save(folder)
    return folder


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names of the slides that were listed, and of those of which a range was classified."""
    told: dict[str, list[str]] = {"listed": [], "classified": []}
    for kind, name, row in (
        (ListCandidates, "listed", lambda item: item.row),
        (ClassifyCandidates, "classified", lambda item: item.listing.row),
    ):
        call = kind.__call__

        def noted(self, item, call=call, name=name, row=row):  # type: ignore[no-untyped-def]
            told[name].append(row(item).slide_id)
            return call(self, item)

        monkeypatch.setattr(kind, "__call__", noted)
    return told


CELLS = Path(__file__).parents[2] / "docs" / "images" / "cells"
"""Real figures: noise is no image of tissue, and gets no answer."""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of a verb."""
    monkeypatch.setattr("sys.argv", ["atypia", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_answers_are_those_of_each_slide_by_itself(tmp_path, model):
    table = write_slide_table(tmp_path, [5, 12], patient_id=["p1", "p2"])
    out = tmp_path / "out"
    result = pipeline.slides(table, out, model, item_size=5, csv=tmp_path / "all.csv")
    assert (result.inputs, result.answered, result.rows, len(result.failures)) == (17, 17, 17, 0)
    assert len(list((out / "parts").iterdir())) == 1 + 3
    found = answers(out).set_index("patch_id")
    for number in range(2):
        single = tmp_path / f"single{number}.csv"
        slide = tmp_path / f"s{number}.tif"
        pipeline.slide(slide, tmp_path / f"s{number}.csv", [single], model)
        expected = pd.read_csv(single, index_col="patch_id")
        ours = found.loc[[f"s{number}.tif/{name}" for name in expected.index]]
        for columns in (P, ["x_px", "y_px", "x_um", "y_um"]):
            pd.testing.assert_frame_equal(
                ours[columns].reset_index(drop=True),
                expected[columns].reset_index(drop=True),
                check_dtype=False,
                atol=1e-6,
            )
        assert set(ours["slide"]) == {slide.name}
        assert set(ours["patient_id"]) == {f"p{number + 1}"}
    counted = pd.read_csv(out / "slides.csv").set_index(["slide", "patient_id"])
    assert list(counted) == ["candidates", "answered", "failed", *STATUSES[1:]]
    assert counted.index.tolist() == [("s0.tif", "p1"), ("s1.tif", "p2")]
    assert counted["candidates"].tolist() == [5, 12]
    assert counted["failed"].tolist() == [0, 0]
    assert counted[["answered", *STATUSES[1:]]].sum(axis=1).tolist() == [5, 12]
    assert (out / "failed.csv").read_text() == "slide,patch_id,reason\n"
    record = json.loads((out / "job.json").read_text())
    assert record["status"] == "done"
    assert record["counts"]["candidates"] == 17
    # As one CSV: every figure, in the order of the table.
    everything = pd.read_csv(tmp_path / "all.csv")
    assert [name.split("/")[0] for name in everything["patch_id"]] == ["s0.tif"] * 5 + [
        "s1.tif"
    ] * 12
    pd.testing.assert_frame_equal(
        everything.set_index("patch_id")[P], found.loc[everything["patch_id"], P], atol=1e-7,
        check_dtype=False, check_index_type=False,
    )  # fmt: skip


def test_where_the_scanned_part_begins_is_in_every_answer(tmp_path, model, monkeypatch):
    """A slide that says it, as .mrxs do, beside one that does not."""
    start = SlidePool.__init__

    def scanned(self: SlidePool, path: Path, **options: Any) -> None:
        start(self, path, **options)
        if path.name == "s1.tif":
            self.info = replace(self.info, origin=(40, 30))

    monkeypatch.setattr(SlidePool, "__init__", scanned)
    table = write_slide_table(tmp_path, [3, 4])
    pipeline.slides(table, tmp_path / "out", model, csv=tmp_path / "csv")
    found = answers(tmp_path / "out")
    assert found["origin_x_px"].tolist() == [""] * 3 + ["40"] * 4
    first, second = read_slides(sorted((tmp_path / "csv").iterdir()))
    assert (first.origin, second.origin) == ((0, 0), (40, 30))


def test_a_job_below_a_file_is_an_error_in_words(tmp_path, model):
    table = write_slide_table(tmp_path, [3])
    with pytest.raises(AtypiaError, match="cannot be worked in"):
        pipeline.slides(table, tmp_path / "s0.csv" / "out", model)


def test_one_process_at_a_time_does_a_job(tmp_path, model):
    table, out = write_slide_table(tmp_path, [3]), tmp_path / "out"

    asked: list[int] = []

    def meanwhile(n: int) -> None:
        asked.append(n)
        with pytest.raises(InputError, match="another process is at this job"):
            pipeline.slides(table, out, model)

    assert pipeline.slides(table, out, model, on_start=meanwhile).answered == 3
    assert asked == [3]
    assert pipeline.slides(table, out, model).answered == 3


def test_a_stopped_job_goes_on_with_what_is_missing(tmp_path, model, done):
    table = write_slide_table(tmp_path, [20, 20])
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"

    class Stop(BaseException):
        pass

    finished: list[int] = []

    def stop(n: int) -> None:
        finished.append(n)
        if sum(finished) >= 15:
            raise Stop

    with pytest.raises(Stop):
        pipeline.slides(table, stopped, model, item_size=5, on_done=stop)
    assert len(list((stopped / "parts").glob("*.parquet"))) == 3
    assert json.loads((stopped / "job.json").read_text())["status"] == "running"
    done["listed"].clear()
    done["classified"].clear()
    again: list[int] = []
    result = pipeline.slides(table, stopped, model, item_size=5, on_done=again.append)
    assert again[0] == 15
    assert sum(again) == result.answered == 40
    assert done == {"listed": [], "classified": ["s0.tif"] + 4 * ["s1.tif"]}
    pipeline.slides(table, whole, model, item_size=5)
    pd.testing.assert_frame_equal(answers(stopped), answers(whole))
    assert {p.name for p in (stopped / "parts").iterdir()} == {
        p.name for p in (whole / "parts").iterdir()
    }
    # A finished job has nothing to do.
    done["classified"].clear()
    assert pipeline.slides(table, stopped, model, item_size=5).answered == 40
    assert done["classified"] == []


def test_a_job_is_not_continued_with_something_else(tmp_path, model):
    table = write_slide_table(tmp_path, [3])
    out = tmp_path / "out"
    pipeline.slides(table, out, model)
    other = tmp_path / "other"
    untrained_ensemble().save(other)
    header = read_json(other / "model.json")
    header["thresholds"]["atypical"] = 0.25
    write_json(other / "model.json", stamped(header))
    table.write_text(table.read_text() + "s0.tif,none\n".replace("s0.tif,", "x.tif,"))
    with pytest.raises(InputError) as error:
        pipeline.slides(table, out, other, item_size=7, skip_bad=True)
    assert [p.column for p in error.value.problems] == ["table", "model", "skip_bad", "item_size"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="already exists and is no job"):
        pipeline.slides(table, tmp_path / "mine", model)


def test_what_is_broken_is_listed_and_the_rest_is_done(tmp_path, monkeypatch, model, capsys, done):
    table = write_slide_table(tmp_path, [4, 4, 4, 4, 4])
    (tmp_path / "s0.tif").write_bytes(b"no slide")
    (tmp_path / "s1.csv").unlink()
    with (tmp_path / "s2.csv").open("a") as stream:
        stream.write("far,5000,20\n")
    spoil_tile(tmp_path / "s3.tif", 8)  # columns 64..128, rows 64..128
    (tmp_path / "s3.csv").write_text("id,x_px,y_px\nbad,96,96\ngood,250,200\n")
    out = tmp_path / "out"
    arguments = ("slides", table, "--out", out, "--model", model, "--item-size", 3)
    assert run(monkeypatch, *arguments) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "3 slides and 1 of 6 candidates failed and are listed in" in told
    assert "failed.csv; the others are done" in told
    failed = pd.read_csv(out / "failed.csv", keep_default_na=False)
    assert list(failed["slide"]) == ["s0.tif", "s1.tif", "s2.tif", "s3.tif"]
    assert list(failed["patch_id"]) == ["", "", "", "s3.tif/bad"]
    for reason, words in zip(
        failed["reason"],
        ("cannot be read", "there is none", "inside the slide", "at x = 96, y = 96 px"),
        strict=True,
    ):
        assert words in reason
    assert list(answers(out)["patch_id"]) == ["s3.tif/good", *(f"s4.tif/c{i}" for i in range(4))]
    counted = pd.read_csv(out / "slides.csv", dtype=str, keep_default_na=False)
    assert counted[["candidates", "failed"]].to_numpy().tolist() == [
        *3 * [["", ""]],
        ["2", "1"],
        ["4", "0"],
    ]
    by_status = counted[["answered", *STATUSES[1:]]].replace("", "0").astype(int)
    assert by_status.sum(axis=1).tolist() == [0, 0, 0, 1, 4]
    # Mended, it is done by the same command, and nothing else is but what failed.
    write_pyramid(tmp_path / "s0.tif", noise(*SIZE), MPP)
    before = answers(out).set_index("patch_id")
    done["classified"].clear()
    assert run(monkeypatch, *arguments) == 1
    assert done["classified"] == ["s0.tif", "s0.tif", "s3.tif"]
    assert list(pd.read_csv(out / "failed.csv")["slide"]) == ["s1.tif", "s2.tif", "s3.tif"]
    pd.testing.assert_frame_equal(answers(out).set_index("patch_id").loc[before.index], before)
    # A slide that is gone takes nothing along; when it is back and sound, all is answered.
    whole = write_pyramid(tmp_path / "whole.tif", noise(*SIZE, seed=3), MPP)
    (tmp_path / "s3.tif").rename(tmp_path / "away.tif")
    assert run(monkeypatch, *arguments) == 1
    assert "s3.tif/good" in set(answers(out)["patch_id"])
    whole.rename(tmp_path / "s3.tif")
    assert run(monkeypatch, *arguments) == 1
    assert list(pd.read_csv(out / "failed.csv")["slide"]) == ["s1.tif", "s2.tif"]
    assert {"s3.tif/bad", "s3.tif/good"} < set(answers(out)["patch_id"])
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "candidates", "candidates-sha256", "failed.csv", "job.json", "parts",
        "parts-sha256", "slides.csv",
    ]  # fmt: skip


def test_what_only_some_candidates_tell_is_in_every_file(tmp_path, model):
    table = write_slide_table(tmp_path, [1, 1, 0])
    (tmp_path / "s1.csv").write_text("id,x_px,y_px,label_a\nx,96,96,nmf_ring\n")
    result = pipeline.slides(table, tmp_path / "out", model)
    # Nobody found anything on the third slide: a sound file, and no failure.
    assert (result.inputs, result.answered, list(result.failures)) == (2, 2, [])
    for part in (tmp_path / "out" / "parts").iterdir():
        assert "label_a" in pd.read_parquet(part).columns
    found = answers(tmp_path / "out")
    assert dict(zip(found["patch_id"], found["label_a"], strict=True)) == {
        "s0.tif/c0": "", "s1.tif/x": "nmf_ring",
    }  # fmt: skip


def test_bad_candidates_are_left_out_where_that_is_asked_for(tmp_path, monkeypatch, model):
    table = write_slide_table(tmp_path, [4])
    with (tmp_path / "s0.csv").open("a") as stream:
        stream.write("far,5000,20\n")
    out = tmp_path / "out"
    assert run(monkeypatch, "slides", table, "--out", out, "--model", model, "--skip-bad") == 0
    assert len(answers(out)) == 4
    skipped = pd.read_csv(out / "skipped.csv")
    assert list(skipped["slide"]) == ["s0.tif"]
    assert "x = 5000" in skipped["reason"][0]


def test_advice_names_the_columns_of_the_table(tmp_path, model):
    table = write_slide_table(tmp_path, [2, 2], mpp=["", "0.5"])
    for number in range(2):
        write_pyramid(tmp_path / f"s{number}.tif", noise(*SIZE), 100.0)  # µm per pixel: a default
    (tmp_path / "s1.csv").write_text("x,y\n20,20\n")
    out = tmp_path / "out"
    pipeline.slides(table, out, model)
    reasons = list(pd.read_csv(out / "failed.csv")["reason"])
    assert "Give the table's column mpp" in reasons[0]
    assert "give the table's column units px" in reasons[1]


def test_an_item_of_which_nothing_can_be_read_is_listed_candidate_by_candidate(tmp_path, model):
    table = write_slide_table(tmp_path, [0, 3])
    spoil_tile(tmp_path / "s0.tif", 8)
    (tmp_path / "s0.csv").write_text("id,x_px,y_px\na,96,96\nb,97,90\nc,250,200\n")
    out = tmp_path / "out"
    result = pipeline.slides(table, out, model, item_size=2)
    assert [f.patch_id for f in result.failures] == ["s0.tif/a", "s0.tif/b"]
    assert "not one candidate could be read" in result.failures[0].reason
    assert result.inputs == 6
    assert result.answered == 4


@pytest.mark.parametrize(("away", "answered"), [(1, 3), (99, 0)])
def test_a_slide_that_goes_away_meanwhile_is_opened_again(
    tmp_path, monkeypatch, model, away, answered
):
    """Not one of its answers counts, and none of its candidates is called unreadable for good."""
    opened: list[str] = []

    class Share(slide_work.SlidePool):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)
            opened.append("")
            if len(opened) <= away:
                self.lost = "the share does not answer"

    monkeypatch.setattr(slide_work, "SlidePool", Share)
    result = pipeline.slides(write_slide_table(tmp_path, [3]), tmp_path / "out", model)
    assert result.answered == answered
    assert len(opened) > 1
    assert len(result.failures) == 3 - answered
    assert all("cannot be read any more: the share" in f.reason for f in result.failures)


def test_a_slide_without_one_answer_is_not_a_slide_without_figures(tmp_path, model, caplog):
    table = write_slide_table(tmp_path, [0, 3])
    spoil_tile(tmp_path / "s0.tif", 8)
    (tmp_path / "s0.csv").write_text("id,x_px,y_px\na,96,96\nb,97,90\n")
    csv = tmp_path / "csv"
    csv.mkdir()
    (csv / "s0.tif.csv").write_text("of an earlier run")
    pipeline.slides(table, tmp_path / "out", model, csv=csv)
    assert [path.name for path in csv.iterdir()] == ["s1.tif.csv"]
    assert "1 slides have candidates but no answer" in caplog.text


def test_slides_on_which_nothing_was_found_count_in_the_biomarker(tmp_path, monkeypatch, model):
    table = write_slide_table(tmp_path, [6, 0], patient_id=["p1", "p2"])
    table.write_text(table.read_text().replace("s1.csv", "none"))
    out, per_slide = tmp_path / "out", tmp_path / "per-slide"
    arguments = ("slides", table, "--out", out, "--model", model, "--count-all")  # it is noise
    assert run(monkeypatch, *arguments, "--csv", per_slide) == 0
    assert sorted(p.name for p in per_slide.iterdir()) == ["s0.tif.csv", "s1.tif.csv"]
    tables = sorted(per_slide.iterdir())
    assert (
        run(
            monkeypatch, "biomarker", *tables, "--out", tmp_path / "bm", "--area-mm2", 2,
            "--patients", out / "slides.csv", "--count-all",
        ) == 0
    )  # fmt: skip
    cohort = pd.read_csv(tmp_path / "bm" / "cohort.csv")
    assert list(cohort["patient_id"]) == ["p1", "p2"]
    assert cohort["all_figures_n"].tolist() == [6, 0]


def test_problems_are_told_together_before_anything_is_written(
    tmp_path, monkeypatch, capsys, model
):
    table = write_slide_table(tmp_path, [1, 1], mpp=["x", "99"])
    out = tmp_path / "out"
    arguments = ("slides", table, "--out", out, "--workers", 2, "--csv", tmp_path / "a.xlsx")
    assert run(monkeypatch, *arguments, "--model", tmp_path / "none") == 2
    told = capsys.readouterr().err
    for words in (
        "row 2, column 'mpp'",
        "row 3, column 'mpp'",
        "--workers",
        "--csv",
        "not a model",
    ):
        assert words in told
    assert not out.exists()
    table.write_text("slide,candidates\ns0.tif,s0.csv\n")
    assert run(monkeypatch, *arguments[:4], "--model", model, "--quality", "superb") == 2
    assert not out.exists()


@pytest.mark.parametrize(("package", "engine"), [("ray", "ray"), ("pyarrow", "local")])
def test_a_missing_package_is_told_with_its_extra(
    tmp_path, monkeypatch, capsys, model, package, engine
):
    monkeypatch.setitem(sys.modules, package, None)
    table = write_slide_table(tmp_path, [1])
    out = tmp_path / "out"
    code = run(monkeypatch, "slides", table, "--out", out, "--model", model, "--engine", engine)
    assert code == 2
    assert "pip install 'atypia[cluster]'" in capsys.readouterr().err
    assert not out.exists()


def test_damaged_files_are_named_and_their_items_done_again(tmp_path, model, caplog):
    table = write_slide_table(tmp_path, [4, 2])
    out = tmp_path / "out"
    pipeline.slides(table, out, model, item_size=3)
    before = answers(out)
    one, two, three = sorted((out / "parts").iterdir(), key=lambda p: len(pd.read_parquet(p)))
    three.write_bytes(two.read_bytes())  # sound by itself, but of another item
    flipped = bytearray(one.read_bytes())
    flipped[len(flipped) // 3] ^= 1
    one.write_bytes(flipped)
    with caplog.at_level(logging.WARNING, "atypia"):
        assert pipeline.slides(table, out, model, item_size=3).answered == 6
    for path in (one, three):
        assert f"{path}: expected a Parquet file but it cannot be read (its SHA-256" in caplog.text
    pd.testing.assert_frame_equal(answers(out), before)
    stray = out / "parts" / "0.parquet"
    stray.write_bytes(two.read_bytes())
    digests = out / "parts-sha256"
    (digests / "0").write_bytes((digests / two.stem).read_bytes())
    with pytest.raises(AtypiaError, match=r"0\.parquet is of no item"):
        pipeline.slides(table, out, model, item_size=3)


def test_images_are_a_job_as_well(tmp_path, monkeypatch, model, capsys):
    from PIL import Image

    folder = tmp_path / "patches"
    folder.mkdir()
    cells = [Image.open(file).convert("RGB") for file in sorted(CELLS.glob("*.png"))]
    for i in range(7):
        cells[i].save(folder / f"c{i}.png")
    pages = [cell.rotate(90) for cell in cells[:2]]
    pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
    expected, _ = pipeline.predict([folder], None, model, mpp=0.25)
    arguments = ("predict", folder, "--mpp", 0.25, "--model", model, "--engine", "local")
    out, csv = tmp_path / "job", tmp_path / "job.csv"
    more = ("--item-size", 3, "--csv", csv, "--min-confidence", 0.5)
    assert run(monkeypatch, *arguments, "--out", out, *more) == 0
    assert "9 figures" in capsys.readouterr().out
    written = pd.read_csv(csv)
    pd.testing.assert_frame_equal(
        written[["patch_id", *P]], expected[["patch_id", *P]], atol=1e-6, check_dtype=False
    )
    named = [row[f"p_{row['predicted_subtype']}"] for _, row in written.iterrows()]
    assert written["abstained"].tolist() == [p < 0.5 for p in named]
    # A broken image costs itself, even where it is all there is of an item.
    for name in ("d0", "d1", "d2", "stack2"):
        (folder / f"{name}.png").write_bytes(b"none")
    again = tmp_path / "again"
    assert run(monkeypatch, *arguments, "--out", again, *more) == 1
    assert "4 of 12 images failed" in capsys.readouterr().err
    failed = pd.read_csv(again / "failed.csv")
    assert list(failed["patch_id"]) == ["d0", "d1", "d2", "stack2"]
    assert len(pd.read_csv(csv)) == 9
    # More images are another job; a job needs a folder.
    Image.fromarray(noise(96, 96)).save(folder / "e.png")
    assert run(monkeypatch, *arguments, "--out", again, *more) == 2
    assert run(monkeypatch, *arguments, "--out", tmp_path / "x.csv") == 2


@pytest.mark.slow
def test_a_job_that_was_killed_goes_on(tmp_path, model):
    table = write_slide_table(tmp_path, [200, 200])
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = [sys.executable, "-m", "atypia", "slides", table, "--out", out, "--model", model]
    command = [*map(str, command), "--item-size", "8"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    parts = out / "parts"
    while len(list(parts.glob("*.parquet"))) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert len(before) < 50
    subprocess.run(command, check=True)
    assert {name: (parts / name).stat().st_mtime_ns for name in before} == before
    assert not list(parts.glob(".*"))
    pipeline.slides(table, whole, model, item_size=8, engine=EngineChoice(threads=1))
    pd.testing.assert_frame_equal(answers(out), answers(whole), atol=1e-6)
