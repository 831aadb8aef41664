"""The measures of slides and patients, counted by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from atypia.biomarker import (
    HotspotChoice,
    ModelErrors,
    biomarkers,
    by_patient,
    cohort_table,
    column_meanings,
    read_regions,
    slides_table,
)
from atypia.core.labels import SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from atypia.biomarker import ErrorModel, Region, SlideFigures

    Table = Callable[..., pd.DataFrame]
    ReadOne = Callable[[pd.DataFrame], SlideFigures]

# Five figures close together, two of them atypical; three atypical ones far away.
SUBTYPES_HERE = [
    *("nmf_metaphase", "nmf_metaphase", "nmf_ring", "amf_other", "amf_bipolar"),
    *("amf_multipolar", "amf_other", "amf_segregation"),
]
PLACES = [(i * 100.0, 0.0) for i in range(5)] + [(9000.0, i * 100.0) for i in range(3)]


@pytest.fixture
def source(table: Table, read_one: ReadOne) -> SlideFigures:
    return read_one(table(SUBTYPES_HERE, PLACES))


def left_half(tmp_path: Path) -> Region:
    ring = [[-400, -8000], [20_000, -8000], [20_000, 8000], [-400, 8000], [-400, -8000]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {}}))
    return read_regions(path, ["s"])["s"]


def test_counts_and_densities_of_each_area(source: SlideFigures, tmp_path: Path) -> None:
    found = biomarkers(source, area_mm2=50.0, region=left_half(tmp_path))
    everything, region, hotspot = (found.measures[s] for s in ("all", "region", "hotspot"))
    assert everything is not None
    assert (everything.counts.figures, everything.counts.atypical) == (8, 5)
    assert everything.counts.subtypes == (1, 1, 1, 2, 0, 2, 0, 1)
    assert everything.figures_per_mm2 is not None
    assert everything.figures_per_mm2.value == pytest.approx(8 / 50)
    assert everything.atypical_called_fraction.value == pytest.approx(5 / 8)
    assert region is not None
    assert region.counts.area_mm2 == pytest.approx(20_400 * 16_000 / 16e6)
    assert (region.counts.figures, region.counts.atypical) == (5, 2)
    assert hotspot is not None
    assert (hotspot.counts.figures, hotspot.counts.area_mm2) == (5, 2.37)
    assert hotspot.atypical_called_per_mm2 is not None
    assert hotspot.atypical_called_per_mm2.value == pytest.approx(2 / 2.37)
    # Its centre stands 100 µm + 200 µm from the left border: a part of it sticks out.
    assert found.hotspot_in_region is not None
    assert 0.5 < found.hotspot_in_region < 0.95


def test_the_hotspot_of_atypical_figures(source: SlideFigures) -> None:
    found = biomarkers(source, choice=HotspotChoice(of="atypical"))
    hotspot = found.measures["hotspot"]
    assert hotspot is not None
    assert (hotspot.counts.figures, hotspot.counts.atypical) == (3, 3)


def test_without_atypical_figures_most_of_all_stand_in(table: Table, read_one: ReadOne) -> None:
    normal = read_one(table(["nmf_ring"] * 3, [(0, 0), (5000, 0), (5100, 0)]))
    hotspot = biomarkers(normal, choice=HotspotChoice(of="atypical")).measures["hotspot"]
    assert hotspot is not None
    assert hotspot.counts.figures == 2


def test_figures_outside_the_region_do_not_count_in_the_hotspot(
    table: Table, read_one: ReadOne, tmp_path: Path
) -> None:
    inside = [(0.0, 0.0), (-90.0, 0.0)]
    outside = [(-110.0 - 10 * i, 0.0) for i in range(9)]
    source = read_one(table(["nmf_ring"] * 11, inside + outside))
    hotspot = biomarkers(source, region=left_half(tmp_path)).measures["hotspot"]
    assert hotspot is not None
    assert hotspot.counts.figures == 2


def test_what_is_not_known_is_empty_not_zero(source: SlideFigures) -> None:
    found = biomarkers(source)
    assert found.measures["region"] is None
    assert found.measures["all"] is not None
    assert found.measures["all"].figures_per_mm2 is None
    assert found.measures["all"].atypical_fraction is None
    assert found.measures["hotspot"] is not None
    small = biomarkers(source, area_mm2=1.0)
    assert small.measures["hotspot"] is None
    assert small.hotspot is None
    row = slides_table([small]).iloc[0]
    assert row[[c for c in row.index if c.startswith(("hotspot_", "region_"))]].isna().all()
    assert row["all_figures_per_mm2"] == 8
    # An image that is smaller than the hot-spot has none; its area is not that of the search.
    image = biomarkers(source, extent_mm2=2.2)
    assert image.hotspot is None
    assert image.measures["all"] is not None
    assert image.measures["all"].figures_per_mm2 is None


def test_a_slide_without_figures_has_a_density_of_zero(
    table: Table, tmp_path: Path, error_model: ErrorModel
) -> None:
    from atypia.biomarker import read_slides

    table(SUBTYPES_HERE, PLACES).iloc[:0].to_csv(tmp_path / "none.csv", index=False)
    (source,) = read_slides([tmp_path / "none.csv"])
    found = biomarkers(source, area_mm2=10.0, correction=ModelErrors(error_model).at_site([]))
    for scope, area in (("all", 10.0), ("hotspot", 2.37)):
        measures = found.measures[scope]  # type: ignore[index]
        assert measures is not None
        assert measures.figures_per_mm2 is not None
        assert measures.figures_per_mm2.value == 0
        assert measures.figures_per_mm2.high == pytest.approx(3.689 / area, rel=1e-3)
        assert measures.atypical_per_mm2 is not None
        assert measures.atypical_per_mm2.value == 0
        assert measures.atypical_fraction is not None
        assert measures.atypical_fraction.value is None


def test_slides_of_a_patient_add_up(
    table: Table, read_one: ReadOne, error_model: ErrorModel
) -> None:
    correction = ModelErrors(error_model).at_site([])
    first = read_one(table(SUBTYPES_HERE, PLACES))
    second = read_one(table(["amf_other"] * 2, PLACES[:2], slide="b"))
    other = read_one(table(["nmf_ring"], PLACES[:1], slide="c", patient="P0"))
    slides = [biomarkers(s, a, correction=correction) for s, a in ((first, 50.0), (second, 30.0))]
    slides.append(biomarkers(other, correction=correction))
    p0, p1 = by_patient(slides, correction)
    assert (p0.patient, p1.patient, p1.slides) == ("P0", "P1", ("case 1.svs", "b"))
    joined = p1.measures["all"]
    assert joined is not None
    assert (joined.counts.figures, joined.counts.atypical, joined.counts.area_mm2) == (10, 7, 80)
    assert joined.figures_per_mm2 is not None
    assert joined.figures_per_mm2.value == pytest.approx(10 / 80)
    assert p1.hotspot_slide == "case 1.svs"
    assert p1.measures["hotspot"] == slides[0].measures["hotspot"]
    assert p0.measures["all"] is not None
    assert p0.measures["all"].figures_per_mm2 is None

    # An area that is not known for one slide is not known for the patient.
    unknown = by_patient([slides[0], biomarkers(second, correction=correction)], correction)[0]
    assert unknown.measures["all"] is not None
    assert unknown.measures["all"].counts.figures == 10
    assert unknown.measures["all"].atypical_per_mm2 is None


def test_a_patient_has_a_region_only_if_every_slide_has(
    table: Table, read_one: ReadOne, tmp_path: Path
) -> None:
    region = left_half(tmp_path)
    first, second = (
        read_one(table(SUBTYPES_HERE, PLACES)),
        read_one(table(["amf_other"], PLACES[:1], slide="b")),
    )
    both = by_patient([biomarkers(s, region=region) for s in (first, second)])[0]
    assert both.measures["region"] is not None
    assert both.measures["region"].counts.figures == 6
    one = by_patient([biomarkers(first, region=region), biomarkers(second)])[0]
    assert one.measures["region"] is None


def test_the_cohort_table_is_ready_for_statistics(
    table: Table, read_one: ReadOne, error_model: ErrorModel, tmp_path: Path
) -> None:
    import pandas as pd

    correction = ModelErrors(error_model).at_site([])
    with_area = biomarkers(
        read_one(table(SUBTYPES_HERE, PLACES)), 50.0, left_half(tmp_path), correction=correction
    )
    without = biomarkers(
        read_one(table(["nmf_ring"], [(0, 0)], slide="b", patient="P2")), correction=correction
    )
    frame = cohort_table(by_patient([with_area, without], correction))
    frame.to_csv(tmp_path / "cohort.csv", index=False)
    read = pd.read_csv(tmp_path / "cohort.csv")
    assert read["patient_id"].tolist() == ["P1", "P2"]
    assert read["all_figures_per_mm2"].tolist() == pytest.approx([8 / 50, np.nan], nan_ok=True)
    assert read["all_atypical_per_mm2_low"].notna().tolist() == [True, False]
    assert read["all_figures_n"].tolist() == [8, 1]
    column = pd.read_csv(tmp_path / "cohort.csv", dtype=str)["region_figures_n"]
    assert column.fillna("").tolist() == ["5", ""]  # whole, although another is missing
    assert read[[f"hotspot_{s}_n" for s in SUBTYPES]].sum(axis=1).tolist() == [5, 1]
    low, value, high = (
        read.loc[0, f"hotspot_atypical_fraction{end}"] for end in ("_low", "", "_high")
    )
    assert 0 <= low <= value <= high <= 1
    meanings = column_meanings()
    both = {*frame.columns, *slides_table([with_area]).columns}
    assert set(meanings["column"]) == both
    assert meanings["column"].is_unique
