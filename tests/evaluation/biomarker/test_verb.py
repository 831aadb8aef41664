"""``atypia biomarker`` from tables to files."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from slide_files import noise, spoil_tile, write_pyramid

from atypia import cli
from atypia.biomarker import model_errors
from atypia.core.errors import InputError
from atypia.core.files import write_json
from atypia.evaluation.predictions import write_predictions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from atypia.biomarker import ErrorModel

    Table = Callable[..., pd.DataFrame]

TWO = (["amf_other", "nmf_metaphase"], [(10.0, 20.0), (1000.0, 500.0)])


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    def atypia(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["atypia", "biomarker", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return atypia


def test_tables_outlines_and_pages(
    run: Callable[..., tuple[int, str]], table: Table, error_model: ErrorModel, tmp_path: Path
) -> None:
    table(*TWO, slide="a/1").to_csv(tmp_path / "1.csv", index=False)
    table(*TWO, slide="a_1").to_csv(tmp_path / "2.csv", index=False)
    write_json(tmp_path / "errors.json", error_model.to_json())
    (tmp_path / "areas.csv").write_text("slide,area_mm2\na/1,5\na_1,3\n")
    out = tmp_path / "out"
    arguments = (tmp_path / "1.csv", tmp_path / "2.csv", "--out", out)
    options = ("--area-mm2", tmp_path / "areas.csv", "--model", tmp_path / "errors.json")
    code, text = run(*arguments, *options, "--hotspot-mm2", "1.5", "--hotspot-shape", "rectangle")
    assert code == 0, text
    assert "2 slides of 1 patients" in text
    cohort = pd.read_csv(out / "cohort.csv")
    assert cohort["patient_id"].tolist() == ["P1"]
    assert cohort["all_area_mm2"].tolist() == [8]
    assert cohort["hotspot_area_mm2"].tolist() == [1.5]
    assert cohort["all_atypical_per_mm2"].notna().all()
    assert pd.read_csv(out / "slides.csv")["slide"].tolist() == ["a/1", "a_1"]
    names = {path.name for path in (out / "slides").iterdir()}
    assert names == {"a_1.html", "a_1-hotspot.geojson", "a_1-2.html", "a_1-2-hotspot.geojson"}
    outline = json.loads((out / "slides" / "a_1-hotspot.geojson").read_text())["features"][0]
    x, y = np.array(outline["geometry"]["coordinates"][0]).T
    assert np.ptp(x) * np.ptp(y) * 0.25**2 / 1e6 == pytest.approx(1.5, rel=1e-3)
    everything = json.loads((out / "biomarkers.json").read_text())
    assert everything["patients"][0]["measures"]["all"]["counts"]["figures"] == 4
    assert everything["errors"]["n_patients"] == 60
    code, text = run(*arguments)
    assert (code, "already exists" in text) == (2, True)


def test_wrong_input_leaves_nothing_behind(
    run: Callable[..., tuple[int, str]], table: Table, tmp_path: Path
) -> None:
    table(*TWO).to_csv(tmp_path / "1.csv", index=False)
    out = tmp_path / "out"
    for options in (
        ("--area-mm2", "wide"),
        ("--area-mm2", "-1"),
        ("--hotspot-mm2", "0"),
        ("--model", tmp_path / "none.json"),
        ("--regions", tmp_path / "none.geojson"),
        ("--patients", tmp_path / "none.csv"),
        ("--slides", tmp_path / "nowhere"),
    ):
        code, text = run(tmp_path / "1.csv", "--out", out, *options)
        assert code == 2, (options, text)
        assert "Traceback" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["1.csv"]


def a_header(**entries: object) -> dict[str, object]:
    """``model.json`` of a model that nothing is predicted with."""
    decision = {"prior": [1 / 8] * 8, "power": 0}
    return {
        "kind": "rules",
        "created_with": "atypia",
        "provenance": {},
        "decision": decision,
        "thresholds": {"atypical": 0.4},
        **entries,
    }


def test_errors_come_from_a_run_or_from_its_bundle(
    make_table: Callable[..., pd.DataFrame], error_model: ErrorModel, tmp_path: Path
) -> None:
    header = a_header(provenance={"cohort": "c", "label": "expert2"})
    write_json(tmp_path / "run" / "model" / "model.json", header)
    with pytest.raises(InputError, match="holds no errors and has no out-of-fold"):
        model_errors(tmp_path / "run")
    write_predictions(tmp_path / "run" / "predictions-oof.csv", make_table())
    found = model_errors(tmp_path / "run")
    assert found.errors is not None
    assert (found.errors.label, found.check_calls([]).facts["Called atypical from p"]) == (
        "expert2",
        "0.400",
    )
    assert model_errors(tmp_path / "run", "expert1").errors != found.errors
    table = model_errors(tmp_path / "run" / "predictions-oof.csv").errors
    assert table is not None
    assert table.label == "expert1"
    write_json(
        tmp_path / "run" / "model" / "model.json", header | {"errors": error_model.to_json()}
    )
    kept = model_errors(tmp_path / "run")
    assert kept.errors is not None
    assert kept.errors.to_json() == error_model.to_json()
    assert "Its errors" not in kept.facts
    assert "optimistic" in model_errors("released").facts["Its errors"]  # of students


def test_calls_of_another_model_are_not_corrected_by_this_ones_errors(
    run: Callable[..., tuple[int, str]], table: Table, error_model: ErrorModel, tmp_path: Path
) -> None:
    figures = table(*TWO)
    figures.to_csv(tmp_path / "1.csv", index=False)
    model = tmp_path / "run"
    header = a_header(errors=error_model.to_json())
    write_json(model / "model" / "model.json", header)
    assert run(tmp_path / "1.csv", "--out", tmp_path / "same", "--model", model)[0] == 0
    # The figure called normal has a p_atypical above this threshold.
    lower = header | {"thresholds": {"atypical": figures["p_atypical"].min() / 2}}
    write_json(model / "model" / "model.json", lower)
    code, text = run(tmp_path / "1.csv", "--out", tmp_path / "other", "--model", model)
    assert code == 2
    assert "1 of 2 are not called so" in text
    assert not (tmp_path / "other").exists()
    # The same calls are right where the model offers an operating point that gives them.
    points = {"balanced": {"threshold": 0.001}, "specific": {"threshold": 0.5}}
    offering = lower | {"thresholds": {"atypical": 0.001, "points": points}}
    write_json(model / "model" / "model.json", offering)
    code, text = run(tmp_path / "1.csv", "--out", tmp_path / "specific", "--model", model)
    assert code == 0, text


def test_the_label_chooses_by_whose_eyes(
    run: Callable[..., tuple[int, str]], table: Table, error_model: ErrorModel, tmp_path: Path
) -> None:
    table(*TWO).to_csv(tmp_path / "1.csv", index=False)
    write_json(tmp_path / "errors.json", error_model.to_json())
    fractions = {}
    for label in ("expert1", "majority_atypical"):
        out = tmp_path / label
        options = ("--model", tmp_path / "errors.json", "--label", label)
        code, text = run(tmp_path / "1.csv", "--out", out, *options)
        assert code == 0, text
        found = json.loads((out / "biomarkers.json").read_text())
        assert found["errors"]["label"] == label
        measures = found["patients"][0]["measures"]["all"]
        fractions[label] = measures["atypical_fraction"]["value"]
        (other,) = measures["by_label"].items()
        assert other[0] in found["errors"]["other_labels"]
        page = " ".join((out / "slides" / "case_1.svs.html").read_text().split())
        assert "Raters differ" in page
        row = pd.read_csv(out / "cohort.csv").iloc[0]
        assert row["all_atypical_fraction_se"] > 0
        assert row["all_mean_p_atypical"] == pytest.approx((0.9 + 0.1 * 3 / 7 + 0.4 / 7) / 2)
    assert fractions["expert1"] < fractions["majority_atypical"]
    assert other[1] == pytest.approx(fractions["expert1"])  # of the last label
    code, text = run(tmp_path / "1.csv", "--out", tmp_path / "no", *options[:2], "--label", "x")
    assert (code, "expected one of" in text) == (2, True)


def test_regions_of_qupath_count_from_the_scanned_part(
    run: Callable[..., tuple[int, str]], table: Table, tmp_path: Path
) -> None:
    """On slides of which the scanner says where its scan begins, without the slide at hand."""
    figures = table(*TWO).assign(origin_x_px=4000, origin_y_px=2000)  # where the second lies
    figures.to_csv(tmp_path / "1.csv", index=False)
    square = [[0, 0], [2000, 0], [2000, 2000], [0, 2000], [0, 0]]
    region = {"type": "Polygon", "coordinates": [[[x - 1000, y - 1000] for x, y in square]]}
    write_json(tmp_path / "r.geojson", {"type": "Feature", "geometry": region, "properties": {}})
    options = ("--regions", tmp_path / "r.geojson", "--hotspot-mm2", "0.01")
    code, text = run(tmp_path / "1.csv", "--out", tmp_path / "out", *options)
    assert code == 0, text
    (row,) = pd.read_csv(tmp_path / "out" / "cohort.csv").to_dict("records")
    assert (row["all_figures_n"], row["region_figures_n"]) == (2, 1)
    assert row["region_area_mm2"] == pytest.approx((2000 * 0.25 / 1000) ** 2)
    (outline,) = (tmp_path / "out" / "slides").glob("*-hotspot.geojson")
    ring = json.loads(outline.read_text())["features"][0]["geometry"]["coordinates"][0]
    np.testing.assert_allclose(np.mean(ring[:-1], axis=0), 0, atol=50)


def test_a_region_without_figures_and_resolution_is_told(
    run: Callable[..., tuple[int, str]], table: Table, tmp_path: Path
) -> None:
    table(*TWO).iloc[:0].to_csv(tmp_path / "none.csv", index=False)
    region = {"type": "Polygon", "coordinates": [[[0, 0], [9000, 0], [9000, 9000], [0, 0]]]}
    write_json(tmp_path / "r.geojson", {"type": "Feature", "geometry": region, "properties": {}})
    code, text = run(
        tmp_path / "none.csv", "--out", tmp_path / "out", "--regions", tmp_path / "r.geojson"
    )
    assert code == 0, text
    assert "1 slides have a region but no figure" in " ".join(text.split())


def test_a_damaged_tile_costs_an_image_and_no_measure(
    run: Callable[..., tuple[int, str]], table: Table, tmp_path: Path
) -> None:
    (tmp_path / "slides").mkdir()
    slide = write_pyramid(tmp_path / "slides" / "case 1.svs", noise(300, 400), 0.25)
    spoil_tile(slide, 8)  # 16 to 32 µm, in x and in y
    figures = table(["amf_other", "amf_other"], [(24.0, 24.0), (70.0, 50.0)])
    figures.to_csv(tmp_path / "1.csv", index=False)
    out = tmp_path / "out"
    options = ("--slides", tmp_path / "slides", "--pdf")
    code, text = run(tmp_path / "1.csv", "--out", out, *options)
    assert code == 0, text
    assert (out / "slides" / "case_1.svs.pdf").read_bytes().startswith(b"%PDF")
    assert "figure case 1.svs/0 has no image" in text
    assert "figure case 1.svs/1" not in text
    assert pd.read_csv(out / "cohort.csv")["all_figures_n"].tolist() == [2]
    assert (out / "slides" / "case_1.svs.html").read_text().count("<img") == 2
