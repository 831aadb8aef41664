"""``atypia slide`` from the slide to files that others open."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from slide_files import noise, spoil_tile, write_dicom, write_pyramid
from untrained import untrained_ensemble

from atypia import cli

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
    assert "3 figures" in capsys.readouterr().out
    assert list(pd.read_csv(outs[1])["patch_id"]) == ["a", "b", "c"]
    features = json.loads(outs[0].read_text())["features"]
    figures = json.loads(outs[2].read_text())["figures"]
    assert [f["properties"]["name"] for f in features] == [f["patch_id"] for f in figures]
    assert outs[3].stat().st_size > 1000
    # Answers are candidates again.
    again = tmp_path / "again.csv"
    for source in outs[:2]:
        assert run(
            monkeypatch, slide, "--candidates", source, "--model", model, "--out", again
        ) == 0  # fmt: skip
        columns = ["patch_id", "x_px", "y_px", "x_um", "p_atypical"]
        first, second = (list(_cells(path, columns)) for path in (outs[1], again))
        assert first == second


def _cells(path: Path, columns: list[str]) -> list[list[object]]:
    return pd.read_csv(path)[columns].round(5).to_numpy().tolist()


def test_what_is_wrong_is_told_at_once_and_nothing_is_written(tmp_path, monkeypatch, model, capsys):
    slide = write_pyramid(tmp_path / "a.tif", noise(150, 200), 0.25)
    listed = centres(tmp_path / "c.csv", "a,60,70", "b,900,140", "c,60,70")
    out = tmp_path / "out.csv"
    arguments = (slide, "--candidates", listed, "--model", model, "--out", out)
    assert run(monkeypatch, *arguments) == 2
    told = capsys.readouterr().err
    assert "row 3 ('b')" in told
    assert "row 4 ('c')" in told
    assert not out.exists()
    assert run(monkeypatch, *arguments, "--skip-bad") == 0
    assert list(pd.read_csv(out)["patch_id"]) == ["a"]
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
    assert "1 of 2 candidates could not be read" in told
    assert list(pd.read_csv(out)["patch_id"]) == ["good"]
    assert run(monkeypatch, *arguments, "--skip-bad") == 0
