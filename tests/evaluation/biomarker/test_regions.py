"""Annotated regions against areas and points that one can work out by hand."""

from __future__ import annotations

import gzip
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from atypia.biomarker import find_hotspot, read_regions, region_of
from atypia.core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("shapely")


def box(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def feature(kind: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def write(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def test_area_overlap_holes_and_points(tmp_path: Path) -> None:
    holed = feature("Polygon", [box(0, 0, 4000), box(1000, 1000, 1000)])
    overlapping = feature("MultiPolygon", [[box(3000, 0, 4000)], [box(10_000, 0, 1000)]])
    region = read_regions(write(tmp_path / "r.geojson", holed, overlapping), ["s"])["s"]
    # 16 - 1 + 16 - 4 + 1 million px, each a quarter of a µm wide.
    assert region.area_mm2(0.25) == pytest.approx((16 - 1 + 16 - 4 + 1) / 16)
    points = np.array([[500, 500], [1500, 1500], [6500, 500], [9000, 500], [0, 0]])
    assert region.contains(points).tolist() == [True, False, True, False, True]
    assert sum(len(ring) for ring in region.rings_px()) >= 15
    moved = region.moved(100, 50)
    assert moved.contains(points + np.array([100, 50])).tolist() == region.contains(points).tolist()


def test_an_outline_that_crosses_itself_is_repaired(tmp_path: Path) -> None:
    bow_tie = [[0, 0], [1000, 1000], [1000, 0], [0, 1000], [0, 0]]
    path = write(tmp_path / "r.geojson", feature("Polygon", [bow_tie]))
    assert read_regions(path, ["s"])["s"].area_mm2(1.0) == pytest.approx(0.5)


def test_the_share_of_a_hotspot_that_lies_inside(tmp_path: Path) -> None:
    path = write(tmp_path / "r.geojson", feature("Polygon", [box(0, -50_000, 100_000)]))
    hotspot = find_hotspot(np.zeros((1, 2)))  # half of it lies left of the region
    assert hotspot is not None
    region = read_regions(path, ["s"])["s"]
    assert region.share_of(hotspot.outline_um) == pytest.approx(0.5)


def test_one_file_for_several_slides_or_a_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    square = [box(0, 0, 1000)]
    path = write(
        tmp_path / "all.geojson",
        feature("Polygon", square, slide="a.svs"),
        feature("Polygon", [box(0, 0, 2000)], slide="b.svs"),
        feature("Polygon", square, slide="c.svs"),
        feature("Point", [1, 2], slide="a.svs"),
        feature("Polygon", [box(5000, 0, 100)], slide="a.svs", objectType="detection"),
    )
    with caplog.at_level(logging.WARNING, "atypia"):
        regions = read_regions(path, ["a.svs", "b.svs", "z.svs"])
    assert {name: r.area_mm2(1) for name, r in regions.items()} == {"a.svs": 1, "b.svs": 4}
    assert "region of slide 'c.svs', which has no results" in caplog.text
    assert "1 features left out: points" in caplog.text
    assert "1 features left out: detection, no annotated area" in caplog.text
    assert "no region of slide z.svs" in caplog.text
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.geojson", feature("Polygon", square))
    write(folder / "b.svs.geojson", feature("Polygon", square))
    assert set(read_regions(folder, ["a.svs", "b.svs", "z.svs"])) == {"a.svs", "b.svs"}


def test_faults_are_told(tmp_path: Path) -> None:
    square = [box(0, 0, 1000)]
    path = tmp_path / "r.geojson"
    with pytest.raises(InputError, match="does not exist"):
        read_regions(path, ["a"])
    with pytest.raises(InputError, match="expected the property 'slide'"):
        read_regions(write(path, feature("Polygon", square)), ["a", "b"])
    path.write_text("not json")
    with pytest.raises(InputError, match="expected GeoJSON"):
        read_regions(path, ["a"])
    broken = [feature("Polygon", [[[0, 0], [1, 1]]]), {"type": "Feature"}, "x"]
    with pytest.raises(InputError) as raised:
        read_regions(write(path, *broken), ["a"])  # type: ignore[arg-type]
    assert len(raised.value.problems) == 3
    line = feature("Polygon", [[[0, 0], [5, 0], [10, 0], [0, 0]]])
    with pytest.raises(InputError, match="region with an area"):
        read_regions(write(path, line), ["a"])


def test_outlines_of_figures_are_no_regions_where_the_resolution_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "r.geojson"
    write(path, feature("Polygon", [box(0, 0, 4000)]), feature("Polygon", [box(9000, 0, 200)]))
    assert read_regions(path, ["s"])["s"].area_mm2(0.25) == pytest.approx(1.0025)
    with caplog.at_level(logging.WARNING, "atypia"):
        region = read_regions(path, ["s"], {"s": 0.25})["s"]
    assert region.area_mm2(0.25) == pytest.approx(1)
    assert "1 outlines up to 200 µm long are taken for figures" in caplog.text


def test_regions_may_be_gzipped(tmp_path: Path) -> None:
    plain = write(tmp_path / "r.geojson", feature("Polygon", [box(0, 0, 1000)]))
    packed = tmp_path / "s.geojson.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    for path in (packed, tmp_path):  # the file, and the folder with a file for slide s
        assert read_regions(path, ["s"])["s"].area_mm2(1) == 1
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(InputError, match="its packing is damaged"):
        read_regions(packed, ["s"])


def test_outlines_in_memory_are_joined() -> None:
    outlines = [{"type": "Polygon", "coordinates": [box(x, 0, 1000)]} for x in (0, 500)]
    region = region_of(outlines)
    assert region is not None
    assert region.area_mm2(1) == pytest.approx(1.5)
    assert region_of([]) is None
    flat = {"type": "Polygon", "coordinates": [[[0, 0], [5, 5], [0, 0], [0, 0]]]}
    assert region_of([flat]) is None
