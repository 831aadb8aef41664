"""``atypia slide`` from the slide to files that others open."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from slide_files import noise, spoil_tile, write_dicom, write_pyramid
from untrained import untrained_ensemble

from atypia import cli
from atypia.biomarker import read_slides
from atypia.cli.app import MOST_LISTED, list_problems
from atypia.core.errors import Problem
from atypia.core.files import read_json, stamped, write_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    untrained_ensemble().save(folder)
    return str(folder)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of ``atypia slide``."""
    monkeypatch.setattr("sys.argv", ["atypia", "slide", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def centres(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["id,x_px,y_px", *rows]) + "\n")
    return path


def test_every_form_tells_the_same(tmp_path, monkeypatch, model, capsys):
    slide = write_dicom(tmp_path / "dicom", noise(150, 200), 0.25)
    listed = centres(tmp_path / "c.csv", "a,60,70", "b,190,140", "c,5,5")
    outs = [tmp_path / f"out{suffix}" for suffix in (".geojson", ".csv", ".json", ".dcm")]
    options = [argument for out in outs for argument in ("--out", out)]
    assert run(monkeypatch, slide, "--candidates", listed, "--model", model, *options) == 0
    assert "of 3 candidates answered" in capsys.readouterr().out  # noise is a poor image
    assert list(pd.read_csv(outs[1])["patch_id"]) == ["a", "b", "c"]
    features = json.loads(outs[0].read_text())["features"]
    figures = json.loads(outs[2].read_text())["figures"]
    assert [f["properties"]["name"] for f in features] == [f["patch_id"] for f in figures]
    assert outs[3].stat().st_size > 1000
    # Answers are candidates again, and another format has the same pixels.
    slide = write_pyramid(tmp_path / "level-0.tif", noise(150, 200), 0.25)
    again = tmp_path / "again.csv"
    for source in outs[:2]:
        assert run(
            monkeypatch, slide, "--candidates", source, "--model", model, "--out", again
        ) == 0  # fmt: skip
        columns = ["patch_id", "x_px", "y_px", "x_um", "p_atypical"]
        first, second = (list(_cells(path, columns)) for path in (outs[1], again))
        assert first == second


def test_damaged_errors_of_a_model_are_not_taken_for_none(tmp_path, monkeypatch, model, capsys):
    slide = write_pyramid(tmp_path / "s.tif", noise(150, 200), 0.25)
    listed = centres(tmp_path / "c.csv", "a,60,70")
    other = shutil.copytree(model, tmp_path / "other")
    header = read_json(other / "model.json")
    write_json(other / "model.json", stamped(header | {"errors": {"format": 99}}))
    out = tmp_path / "out.csv"
    assert run(monkeypatch, slide, "--candidates", listed, "--model", other, "--out", out) == 2
    assert "expected the errors of a model" in capsys.readouterr().err.replace("\n", " ")
    assert not out.exists()


def _cells(path: Path, columns: list[str]) -> list[list[object]]:
    return pd.read_csv(path)[columns].round(5).to_numpy().tolist()


def test_bad_candidates_are_told_together_and_the_good_ones_done(
    tmp_path, monkeypatch, model, capsys
):
    slide = write_pyramid(tmp_path / "a.tif", noise(150, 200), 0.25)
    listed = centres(tmp_path / "c.csv", "a,60,70", "b,900,140", "c,60,70")
    out = tmp_path / "out.csv"
    arguments = (slide, "--candidates", listed, "--model", model, "--out", out)
    assert run(monkeypatch, *arguments) == 1
    told = capsys.readouterr().err
    assert "row 3 ('b')" in told
    assert "row 4 ('c')" in told
    assert "2 of 3 candidates are bad" in told
    assert list(pd.read_csv(out)["patch_id"]) == ["a"]
    out.unlink()
    assert run(monkeypatch, *arguments, "--skip-bad") == 0
    assert list(pd.read_csv(out)["patch_id"]) == ["a"]
    out.unlink()
    centres(listed, "b,900,140")
    assert run(monkeypatch, *arguments, "--skip-bad") == 2
    assert "none is left" in capsys.readouterr().err
    assert not out.exists()
    assert run(monkeypatch, *arguments[:-1], tmp_path / "out.xml") == 2
    assert "expected a name that ends in one of" in capsys.readouterr().err


def test_candidates_that_cannot_be_read_end_with_1_after_the_others_are_written(
    tmp_path, monkeypatch, model, capsys
):
    slide = write_pyramid(tmp_path / "a.tif", noise(300, 400), 0.25)
    spoil_tile(slide, 8)  # columns 64..128, rows 64..128
    listed = centres(tmp_path / "c.csv", "bad,96,96", "good,250,200")
    out = tmp_path / "out.csv"
    arguments = (slide, "--candidates", listed, "--model", model, "--out", out)
    assert run(monkeypatch, *arguments) == 1
    told = capsys.readouterr().err
    assert "candidate 'bad' at x = 96, y = 96 px" in told
    assert "1 of 2 candidates are bad or could not be read" in told
    assert list(pd.read_csv(out)["patch_id"]) == ["good"]
    assert run(monkeypatch, *arguments, "--skip-bad") == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.csv", "id,x_px,y_px\n"),
        ("none.geojson", '{"type": "FeatureCollection", "features": []}'),
        ("none.json", '{"images": [{"id": 1, "file_name": "case 7.tif"}], "annotations": []}'),
    ],
)
def test_a_slide_on_which_nothing_was_found_has_empty_answers(
    tmp_path, monkeypatch, model, capsys, name, content
):
    slide = write_pyramid(tmp_path / "case 7.tif", noise(150, 200), 0.25)
    listed = tmp_path / name
    listed.write_text(content)
    outs = [tmp_path / f"case 7.tif{suffix}" for suffix in (".csv", ".json", ".geojson")]
    options = [argument for out in outs for argument in ("--out", out)]
    arguments = (slide, "--candidates", listed, "--model", model, *options)
    assert run(monkeypatch, *arguments) == 0
    told = capsys.readouterr()
    assert "holds no candidate" in told.err
    assert "0 figures, 0 of them atypical" in told.out
    (found,) = read_slides(outs[:1])
    assert (found.slide, len(found)) == ("case 7.tif", 0)
    full = tmp_path / "full.csv"
    one = centres(tmp_path / "one.csv", "a,60,70")
    assert run(monkeypatch, slide, "--candidates", one, "--model", model, "--out", full) == 0
    header, line = full.read_text().splitlines()
    guarded = ",p_mitosis,status"
    assert outs[0].read_text().replace(guarded, "") == f"{header}\n".replace(guarded, "")
    assert line
    assert json.loads(outs[1].read_text())["figures"] == []
    assert json.loads(outs[2].read_text()) == {"type": "FeatureCollection", "features": []}
    # Answers are candidates again: none.
    assert run(
        monkeypatch, slide, "--candidates", outs[2], "--model", model, "--out", full
    ) == 0  # fmt: skip
    listed.write_bytes(b"")
    assert run(monkeypatch, *arguments) == 2


def test_dicom_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch, model, capsys):
    pytest.importorskip("highdicom")
    tiff = write_pyramid(tmp_path / "a.tif", noise(150, 200), 0.25)
    dicom = write_dicom(tmp_path / "dicom", noise(150, 200), 0.25)
    one, none = centres(tmp_path / "c.csv", "a,60,70"), centres(tmp_path / "none.csv")
    outs = ("--out", tmp_path / "out.csv", "--out", tmp_path / "out.dcm")
    for slide, listed, told in (
        (tiff, one, "expected a DICOM slide"),
        (dicom, none, "hold at least one figure"),
    ):
        assert run(monkeypatch, slide, "--candidates", listed, "--model", model, *outs) == 2
        assert told in capsys.readouterr().err
        assert not (tmp_path / "out.csv").exists()
    outs = ("--out", dicom)  # one of the files of the slide, which is named by its folder
    before = dicom.read_bytes()
    arguments = (dicom.parent, "--candidates", one, "--model", model)
    assert run(monkeypatch, *arguments, *outs) == 2
    assert "is a part of a DICOM slide" in capsys.readouterr().err
    assert dicom.read_bytes() == before
    outs = ("--out", dicom.parent / "answers.dcm")  # beside it is a good place, also twice
    assert run(monkeypatch, *arguments, *outs) == 0
    assert run(monkeypatch, *arguments, *outs) == 0


def test_density_and_pages_come_with_the_answers(tmp_path, monkeypatch, model, capsys):
    pytest.importorskip("weasyprint")
    slide = write_pyramid(tmp_path / "a.tif", noise(1200, 1200), 0.25)
    square = [[0, 0], [1000, 0], [1000, 1000], [0, 1000], [0, 0]]
    shapes = [("Polygon", [square]), ("Point", [60, 70]), ("Point", [500, 600])]
    shapes += [("Point", [1100, 1100])]
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": kind, "coordinates": c}}
        for kind, c in shapes
    ]
    listed = tmp_path / "found.geojson"
    listed.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    page, sheet = tmp_path / "page.html", tmp_path / "page.pdf"
    outs = ("--count-all", "--out", page, "--out", sheet)
    assert run(monkeypatch, slide, "--candidates", listed, "--model", model, *outs) == 0
    told = capsys.readouterr().out
    assert "of 3 candidates answered" in told
    # 1,000 px of 0.25 µm squared are 0.0625 mm².
    assert "Annotated region, 0.0625 mm²: 2 figures, 32.0 (3.9–115.6) per mm²" in told
    assert "All candidates of the slide: 3 figures, atypical fraction" in told
    assert "(as called)" in told
    assert "Dashed: the annotated region" in page.read_text("utf-8")
    assert sheet.read_bytes().startswith(b"%PDF")


def test_of_a_million_problems_a_hundred_are_told(capsys):
    problems = [Problem("fault")] * 1_000_000
    list_problems(problems, "they are elsewhere")
    told = capsys.readouterr().err
    assert told.count("• fault") == MOST_LISTED == 100
    assert "… and 999,900 more (they are elsewhere)" in told


def test_inputs_are_never_written_over(tmp_path, monkeypatch, model, capsys):
    slide = write_dicom(tmp_path / "dicom", noise(150, 200), 0.25)
    listed = centres(tmp_path / "c.csv", "a,60,70")
    before = slide.read_bytes(), listed.read_bytes()
    out = tmp_path / "out.csv"
    outs = [argument for path in (slide, listed, out, out) for argument in ("--out", path)]
    assert run(monkeypatch, slide, "--candidates", listed, "--model", model, *outs) == 2
    told = capsys.readouterr().err
    for what in (f"overwrite {slide}", f"overwrite {listed}", "each file once"):
        assert what in told
    assert (slide.read_bytes(), listed.read_bytes()) == before
    assert not out.exists()
