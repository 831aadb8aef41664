"""Tables of slides: what is read, and what is refused."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from atypia.biomarker import areas_of, read_patients, read_slides, slide_figures
from atypia.core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

Table = "Callable[..., pd.DataFrame]"
TWO = (["amf_other", "nmf_metaphase"], [(10.0, 20.0), (1000.0, 500.0)])


def test_figures_places_and_resolution(table: Table, tmp_path: Path) -> None:
    both = pd.concat([table(*TWO), table(*TWO, slide="case 2.svs", patient="P2")])
    both.to_csv(tmp_path / "both.csv", index=False)
    one, two = read_slides([tmp_path / "both.csv"])
    assert (one.slide, one.patient, two.slide, two.patient) == (
        "case 1.svs",
        "P1",
        "case 2.svs",
        "P2",
    )
    assert one.figures.predicted_atypical.tolist() == [True, False]
    assert two.centres_um.tolist() == [[10, 20], [1000, 500]]
    assert two.centres_px.tolist() == [[40, 80], [4000, 2000]]
    assert two.mpp == pytest.approx(0.25)


def test_a_table_without_rows_is_a_slide_without_figures(table: Table, tmp_path: Path) -> None:
    table(*TWO).iloc[:0].to_csv(tmp_path / "case 9.csv", index=False)
    (slide,) = read_slides([tmp_path / "case 9.csv"], {"case 9": "P9"})
    assert (slide.slide, slide.patient, len(slide), slide.mpp) == ("case 9", "P9", 0, None)


def test_patients_come_from_their_table_or_each_slide_is_one(
    table: Table, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table(*TWO, patient="").to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "p.csv").write_text("slide,patient_id,age\ncase 1.svs,A7,50\n")
    assert read_slides([tmp_path / "a.csv"], read_patients(tmp_path / "p.csv"))[0].patient == "A7"
    with caplog.at_level(logging.WARNING, "atypia"):
        assert read_slides([tmp_path / "a.csv"])[0].patient == "case 1.svs"
    assert "1 slides name no patient ('case 1.svs')" in caplog.text


def test_every_problem_of_every_table_at_once(table: Table, tmp_path: Path) -> None:
    good, bad, mixed = tmp_path / "good.csv", tmp_path / "bad.csv", tmp_path / "mixed.csv"
    table(*TWO).to_csv(good, index=False)
    wrong = table(*TWO, slide="other").astype({"x_um": object})
    wrong.loc[1, "x_um"] = "far"
    wrong.loc[0, "p_amf_other"] = 1.5
    wrong.to_csv(bad, index=False)
    pd.concat([table(*TWO, slide="m"), table(*TWO, slide="m", patient="P2")]).assign(
        patch_id=list("abcd")
    ).to_csv(mixed, index=False)
    table(*TWO).drop(columns=["x_px", "slide"]).to_csv(tmp_path / "short.csv", index=False)
    paths = [good, good, bad, mixed, tmp_path / "short.csv", tmp_path / "none.csv"]
    with pytest.raises(InputError) as raised:
        read_slides(paths)
    text = str(raised.value)
    for part in (
        f"{good}: has the slide 'case 1.svs', like {good}.",
        f"{bad}, row 3, column 'x_um': expected a number but got 'far'.",
        f"{bad}, row 2, column 'p_amf_other': expected a probability",
        f"{mixed}: expected one patient for slide 'm' but got 'P1', 'P2'",
        "expected the columns ['slide', 'x_px'] but got",
        "none.csv: expected a CSV file but it does not exist.",
    ):
        assert part in text, part


def test_where_the_scanned_part_begins(table: Table, tmp_path: Path) -> None:
    figures = table(["amf_other", "nmf_metaphase"], [(10.0, 20.0), (30.0, 40.0)])
    path = tmp_path / "1.csv"
    for x, y, expected in (("", "", (0, 0)), (7, 9, (7, 9)), (7.0, 9.0, (7, 9))):
        figures.assign(origin_x_px=x, origin_y_px=y).to_csv(path, index=False)
        assert read_slides([path])[0].origin == expected
    for bad in ([7, 8], [7, ""], ["7.5", "7.5"], ["-7", "-7"]):
        figures.assign(origin_x_px=bad, origin_y_px=9).to_csv(path, index=False)
        with pytest.raises(InputError, match="whole numbers, in each row the same"):
            read_slides([path])
    figures.assign(origin_x_px=7).to_csv(path, index=False)
    with pytest.raises(InputError, match="both origin_x_px and origin_y_px, or neither"):
        read_slides([path])


def test_places_in_um_and_px_must_agree(table: Table, tmp_path: Path) -> None:
    wrong = table(*TWO)
    wrong.loc[1, "x_um"] = 400.0
    wrong.to_csv(tmp_path / "w.csv", index=False)
    with pytest.raises(InputError, match="times one resolution"):
        read_slides([tmp_path / "w.csv"])


def test_a_slide_that_the_table_of_patients_lacks(table: Table, tmp_path: Path) -> None:
    table(*TWO).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(InputError, match=r"expected slide 'case 1\.svs' in the table of patients"):
        read_slides([tmp_path / "a.csv"], {"case 2.svs": "P"})


def test_tables_of_patients_and_areas_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("slide,patient_id\na,1\na,2\nb,\n")
    with pytest.raises(InputError) as raised:
        read_patients(path)
    assert len(raised.value.problems) == 2
    path.write_text("slide,area_mm2\na,1.5\nb,\nc,0\nd,wide\na,2\n")
    with pytest.raises(InputError) as raised:
        areas_of(["a"], path)
    assert [p.row for p in raised.value.problems] == [4, 5, 6]
    path.write_text("slide,area_mm2\na,1.5\nb,\n")
    assert areas_of(["a"], path) == {"a": 1.5}
    path.write_text("case,area\n")
    with pytest.raises(InputError, match="expected the columns"):
        areas_of(["a"], path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="CSV in UTF-8"):
        read_patients(path)


def test_figures_in_memory_are_those_of_the_file(table: Table, tmp_path: Path) -> None:
    rows = table(["amf_other", "nmf_ring"], [(10.0, 20.0), (30.0, 40.0)])
    rows.to_csv(tmp_path / "1.csv", index=False)
    (read,) = read_slides([tmp_path / "1.csv"])
    taken = slide_figures(rows, "case 1.svs", "P1")
    assert (taken.slide, taken.patient, taken.mpp) == (read.slide, read.patient, read.mpp)
    np.testing.assert_array_equal(taken.centres_um, read.centres_um)
    np.testing.assert_allclose(taken.figures.p_atypical, read.figures.p_atypical)
    nothing = slide_figures(rows[:0], "case 2.svs")
    assert (len(nothing), nothing.patient) == (0, "case 2.svs")


def test_no_table_at_all_is_told() -> None:
    with pytest.raises(InputError, match="at least one table"):
        read_slides([])
