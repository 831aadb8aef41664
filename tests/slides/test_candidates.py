"""Candidates from every kind of file; what is wrong with a file is told at once."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.core.errors import InputError
from atypia.slides import SlideInfo
from atypia.slides.candidates import CandidateList
from atypia.slides.geojson_candidates import _centre
from atypia.slides.geojson_features import read_feature
from atypia.slides.read_candidates import _earlier, read_candidates

INFO = SlideInfo(Path("case 7.svs"), 4000, 3000, 0.5, (255, 255, 255), (0, 0))
MRXS = SlideInfo(Path("m.mrxs"), 4000, 3000, 0.5, (255, 255, 255), (1000, 700))


def feature(kind: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def box(x: float, y: float, side: float) -> list[list[list[float]]]:
    x1, y1 = x + side, y + side
    return [[[x, y], [x1, y], [x1, y1], [x, y1], [x, y]]]


def read(folder: Path, content: Any, name: str = "c.geojson", **options: Any) -> CandidateList:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_candidates(path, options.pop("slide", INFO), **options)


def centres(found: CandidateList) -> list[tuple[float, float]]:
    return [(c.x, c.y) for c in found.candidates]


POINTS = [
    feature("Point", [100, 200], objectType="annotation", classification={"name": "MF"}),
    feature("MultiPoint", [[300, 400], [301.5, 402]]) | {"id": "abc"},
    feature("Polygon", box(500, 600, 50), objectType="detection"),
    feature("MultiPolygon", [box(700, 700, 10), box(720, 700, 10)]),
]
REGION = feature("Polygon", box(0, 0, 2000), objectType="annotation", name="Tumour")


@pytest.mark.parametrize("form", ["collection", "array", "children"])
def test_everything_that_qupath_exports_is_read(tmp_path, form):
    features = [*POINTS, REGION]
    if form == "collection":
        content: Any = {"type": "FeatureCollection", "features": features}
    elif form == "array":
        content = features
    else:
        parent = json.loads(json.dumps(REGION))
        parent["properties"]["childObjects"] = POINTS
        content = parent
    found = read(tmp_path, content)
    assert sorted(centres(found)) == [
        (100, 200), (300, 400), (301.5, 402), (525, 625), (705, 705), (725, 705)
    ]  # fmt: skip
    assert {"abc/0", "abc/1"} < {c.id for c in found.candidates}
    assert {c.about.get("candidate_class") for c in found.candidates} == {"MF", None}
    (region,) = found.regions
    assert region.name == "Tumour"
    assert region.geometry["coordinates"] == box(0, 0, 2000)
    zipped = tmp_path / "c.geojson.gz"
    zipped.write_bytes(gzip.compress(json.dumps(content).encode()))
    assert centres(read_candidates(zipped, INFO)) == centres(found)


def test_qupath_counts_from_the_corner_of_what_was_scanned(tmp_path):
    found = read(tmp_path, [*POINTS, REGION], slide=MRXS)
    assert centres(found)[0] == (1100, 900)
    assert found.candidates[3].geometry == POINTS[2]["geometry"]  # as in the file
    assert found.regions[0].geometry["coordinates"][0][0] == [1000, 700]
    listed = read(tmp_path, "x_px,y_px\n1100,900\n", "c.csv", slide=MRXS)
    assert centres(listed) == [(1100, 900)]


def test_geojson_in_micrometres(tmp_path):
    found = read(tmp_path, POINTS, units="um")
    assert centres(found)[3] == (1050, 1250)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(-40, 40)), min_size=3, max_size=12))
def test_a_centre_is_the_centroid_of_what_a_ring_encloses_and_lies_inside_its_box(points):
    shapely = pytest.importorskip("shapely")
    ring = [(x + 1e5, y + 1e5) for x, y in points]  # open, and as often as not crossing itself
    found, again = (read_feature(feature("Polygon", [r])) for r in (ring, ring[::-1]))
    x, y = _centre(found.shapes[0])
    assert (x, y) == pytest.approx(_centre(again.shapes[0]), abs=1e-6)
    xs, ys = zip(*ring, strict=True)
    assert min(xs) - 1e-6 <= x <= max(xs) + 1e-6
    assert min(ys) - 1e-6 <= y <= max(ys) + 1e-6
    simple = shapely.Polygon(points)
    if simple.is_valid:
        assert (x - 1e5, y - 1e5) == pytest.approx((simple.centroid.x, simple.centroid.y), abs=1e-6)


def test_every_bad_feature_is_listed_and_can_be_skipped(tmp_path):
    bad = [
        feature("LineString", [[1, 2], [3, 4]]),
        feature("Point", [1, None]),
        feature("Point", [float("nan"), 3]),
        feature("Polygon", [[[1, 2]]]),
        feature("Polygon", box(0, 0, 900), objectType="detection"),
        feature("Point", [4000, 10]),
        feature("Point", [100, 200.01]),  # again
        {"type": "Feature", "geometry": None, "properties": {}},
        "x",
    ]
    content = {"type": "FeatureCollection", "features": [*POINTS, *bad]}
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    told = [str(p) for p in caught.value.problems]
    assert len(told) == len(bad)
    for number, what in {
        5: "got 'LineString'",
        6: "finite numbers",
        7: "finite numbers",
        8: "finite numbers",
        9: "up to 200 µm, but got a detection of 450 µm",
        10: "expected a centre inside the slide (4000 × 3000 px)",
        11: "has the same centre as feature 1",
        12: "a geometry",
        13: "expected a Feature",
    }.items():
        assert any(f"feature {number}" in t and what in t for t in told), (number, what, told)
    found = read(tmp_path, content, skip_bad=True)
    assert len(found.candidates) == 6
    assert len(found.problems) == len(bad)


@pytest.mark.parametrize(
    ("content", "name", "what"),
    [
        ({"points": []}, "c.json", r"got an object with the keys \['points'\]"),
        ("no json", "c.geojson", "cannot be read"),
        ("", "c.geojson", "cannot be read"),
        ("[" * 100_000, "c.geojson", "cannot be read"),
        ("", "c.csv", "the file starts empty"),
        ("a,b\n", "c.csv", "expected columns x_px, y_px or x_um, y_um"),
        ("a,b\n1,2\n", "c.csv", "expected columns x_px, y_px or x_um, y_um"),
        ("x,y\n1,2\n", "c.csv", "expected the units of x and y"),
        ("slide,x_px,y_px\nother.svs,1,2\n", "c.csv", r"rows of 'case 7.svs' but got \['other"),
    ],
)
def test_files_of_something_else_are_refused_in_words(tmp_path, content, name, what):
    with pytest.raises(InputError, match=what):
        read(tmp_path, content, name)


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        ({"type": "FeatureCollection", "features": []}, "c.geojson", "holds no candidate"),
        ([], "c.geojson", "holds no candidate"),
        ([REGION], "c.geojson", "holds no candidate, only annotated regions (1)"),
        ("x_px,y_px\n", "c.csv", "holds no candidate"),
        ("slide,x_px,y_px\n", "c.csv", "holds no candidate"),
    ],
)
def test_a_sound_file_without_candidates_is_a_slide_on_which_nothing_was_found(
    tmp_path, caplog, content, name, told
):
    found = read(tmp_path, content, name)
    assert not found.candidates
    assert not found.problems
    assert told in caplog.text


def test_a_file_of_bad_candidates_alone_is_not_an_empty_one(tmp_path):
    for options in ({}, {"skip_bad": True}):
        with pytest.raises(InputError, match="a centre inside the slide"):
            read(tmp_path, "x_px,y_px\n-1,5\n", "c.csv", **options)


def test_a_name_is_free_again_where_its_candidate_was_there_twice(tmp_path):
    text = "id,x_px,y_px\na,100,100\nb,100,100\nb,200,200\n"
    found = read(tmp_path, text, "c.csv", skip_bad=True)
    assert [(c.id, c.x) for c in found.candidates] == [("a", 100), ("b", 200)]
    assert len(found.problems) == 1


SQUARE = box(100, 100, 20)[0]


@pytest.mark.parametrize(
    ("polygon", "properties"),
    [
        ([SQUARE, []], {}),
        ([SQUARE, [["a", "b"]] * 3], {}),
        ([SQUARE, [[1, float("nan")]] * 3], {}),
        ([[[str(x), str(y)] for x, y in SQUARE]], {}),
        ([[[10**400, 1]] * 3], {}),
    ],
)
def test_outlines_that_answers_could_not_repeat_are_told(tmp_path, polygon, properties):
    content = [feature("Polygon", polygon, **properties)]
    with pytest.raises(InputError, match="feature 1: expected the coordinates of a Polygon"):
        read(tmp_path, content, units="um")


def test_classes_that_are_no_classes_are_not_taken_for_some(tmp_path):
    content = [feature("Point", [1, 2], classification={"names": 5})]
    assert read(tmp_path, content).candidates[0].about == {}


def test_a_slide_without_resolution_is_refused(tmp_path):
    info = SlideInfo(Path("a.tif"), 100, 100, None, (0, 0, 0), (0, 0))
    with pytest.raises(InputError, match="Give --mpp"):
        read(tmp_path, POINTS, slide=info)


# --- Tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("x_px,y_px\n100,200\n", None),
        ("x_um;y_um\n50;100\n", None),
        ("x,y\n50,100\n", "um"),
        ("x\ty\n100\t200\n", "px"),
        ("x_px,y_px,x_um,y_um\n100,200,50,100\n", None),
        ("slide,x_px,y_px\nother.svs,1,1\nslides/case 7.svs,100,200\n", None),
        ("image,x_px,y_px\nother,1,1\ncase 7.tiff,100,200\n", None),
    ],
)
def test_tables_of_centres(tmp_path, text, units):
    (candidate,) = read(tmp_path, text, "c.csv", units=units).candidates
    assert (candidate.x, candidate.y) == (100, 200)
    assert candidate.id == "case 7/1"


def test_a_table_keeps_ids_and_labels_but_no_earlier_answers(tmp_path):
    text = "patch_id,x_px,y_px,label_expert1,p_amf_other,predicted_subtype\nA,1,2,nmf_ring,0.5,x\n"
    (candidate,) = read(tmp_path, text, "c.csv").candidates
    assert candidate.id == "A"
    assert candidate.about == {"label_expert1": "nmf_ring"}


def test_a_cohort_whose_manifest_has_centres(tmp_path):
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    (cohort / "cohort.json").write_text("{}")
    (cohort / "manifest.csv").write_text("patch_id,slide,x_px,y_px\nA,case 7.svs,100,200\n")
    assert [c.id for c in read_candidates(cohort, INFO).candidates] == ["A"]


def test_slides_of_one_name_are_told_apart_by_their_folders(tmp_path):
    name = INFO.path.name
    text = f"patch_id,slide,x_px,y_px\nA,p1/{name},100,200\nB,p2/{name},300,400\n"
    (tmp_path / "c.csv").write_text(text)
    here = replace(INFO, path=tmp_path / "p2" / name)
    assert [c.id for c in read_candidates(tmp_path / "c.csv", here).candidates] == ["B"]
    with pytest.raises(InputError, match="tell them apart"):
        read_candidates(tmp_path / "c.csv", replace(INFO, path=tmp_path / "p3" / name))


def test_bad_cells_are_listed(tmp_path):
    with pytest.raises(InputError) as caught:
        read(tmp_path, "x_px,y_px\n1,2\n3,nan\n,5\n7\n", "c.csv")
    assert [(p.row, p.column) for p in caught.value.problems][:2] == [(3, "y_px"), (4, "x_px")]
    assert any("expected 2 cells" in p.what for p in caught.value.problems)


def test_wrong_units_are_one_problem_with_a_hint_and_never_silent(tmp_path, caplog):
    rng = np.random.default_rng(0)
    px = pd.DataFrame({"x": rng.uniform(0, 4000, 200), "y": rng.uniform(0, 3000, 200)})
    with pytest.raises(InputError, match="is it --units px") as caught:
        read(tmp_path, px.to_csv(index=False), "c.csv", units="um")
    assert len(caught.value.problems) == 1
    read(tmp_path, (px * 0.5).to_csv(index=False), "c.csv", units="px")
    assert "say --units um" in caplog.text
    caplog.clear()
    read(tmp_path, px.to_csv(index=False), "c.csv", units="px")
    assert not caplog.text
    with pytest.raises(InputError, match="as --units says"):
        read(tmp_path, "x_px,y_px\n1,2\n", "c.csv", units="um")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_each_centre_that_was_there_before_is_found(points):
    earlier = _earlier(np.array(points, dtype=float))
    for i, point in enumerate(points):
        assert earlier[i] == (points.index(point) if point in points[:i] else -1)


def test_a_million_duplicates_are_found_by_sorting():
    xy = np.random.default_rng(0).uniform(0, 1e5, (500_000, 2))
    earlier = _earlier(np.concatenate([xy, xy]))
    assert (earlier[500_000:] >= 0).all()


# --- MIDOG --------------------------------------------------------------------------------------


def midog(boxes: list[list[float]], **slide: Any) -> dict[str, Any]:
    image = {"id": 5, "file_name": "case 7.tiff", "width": 4000, "height": 3000} | slide
    annotations = [
        {"id": i, "image_id": 5, "category_id": 1 + (i == 2), "bbox": b}
        for i, b in enumerate(boxes)
    ]
    other = {"id": 9, "image_id": 6, "category_id": 1, "bbox": [0, 0, 50, 50]}
    names = [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}]
    images = [image, {"id": 6, "file_name": "other.tiff"}]
    return {"images": images, "annotations": [*annotations, other], "categories": names}


@pytest.mark.parametrize(
    "boxes",
    [
        [[1000, 1000, 1050, 1050], [2000, 500, 2050, 550], [900, 900, 950, 950]],
        [[1000, 1000, 50, 50], [2000, 500, 50, 50], [900, 900, 50, 50]],
    ],
    ids=["corners", "sizes"],
)
def test_midog_and_coco_boxes_of_one_slide(tmp_path, boxes):
    found = read(tmp_path, midog(boxes), "c.json")
    assert centres(found) == [(1025, 1025), (2025, 525)]
    assert found.left_out == {"category 'hard negative'": 1, "of another slide": 1}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (midog([[10, 10, 60, 60]]), "fit both"),
        (midog([[1000, 10, 3000, 60]]), "fit neither"),
        (midog([[1, 2, 3]]), "annotation 1: expected a bbox of four numbers"),
        (midog([[1000, 10, 10**400, 60]]), "annotation 1: expected a bbox of four numbers"),
        (midog([[1000, 10, 1050, 60]], width=999), "slide of 999 × 3000 px"),
        (midog([[1000, 10, 1050, 60]], file_name="x.tiff"), "one image named 'case 7.svs'"),
    ],
)
def test_midog_faults(tmp_path, content, what):
    with pytest.raises(InputError, match=what):
        read(tmp_path, content, "c.json")


def test_annotations_of_no_category_are_refused(tmp_path):
    content = midog([[1000, 1000, 1050, 1050], [2000, 500, 2050, 550]])
    content["annotations"][1]["category_id"] = [1]
    content["categories"] += [{"id": [1], "name": "mitotic figure"}, 5]
    with pytest.raises(InputError, match="annotation 2: expected a category out of"):
        read(tmp_path, content, "c.json")
    content["categories"] = 5  # no names at all: every box is a candidate
    assert len(read(tmp_path, content, "c.json").candidates) == 2
