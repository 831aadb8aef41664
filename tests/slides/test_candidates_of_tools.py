"""Candidates and regions as the tools of the field write them, each with the right places."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from atypia.biomarker import read_regions
from atypia.core.errors import InputError
from atypia.slides import SlideInfo
from atypia.slides.candidates import CandidateList, is_figure
from atypia.slides.geojson_features import load_shapely
from atypia.slides.read_candidates import read_candidates
from atypia.slides.slide_names import named_slide, of_slide

SLIDE = SlideInfo(Path("TCGA-A1.0f-3e.svs"), 4000, 3000, 0.5, (255, 255, 255), (0, 0))


def square(x: float, y: float, side: float = 20) -> list[list[list[float]]]:
    a, b, c, d = x - side / 2, y - side / 2, x + side / 2, y + side / 2
    return [[[a, b], [c, b], [c, d], [a, d], [a, b]]]


def feature(kind: str, coordinates: Any, of: dict[str, Any] | None = None, **more: Any) -> Any:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": of or {}, **more}


def read(folder: Path, content: Any, name: str = "c.geojson", **options: Any) -> CandidateList:
    file = folder / name
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_text(text, encoding="utf-8")
    return read_candidates(file, SLIDE, **options)


def centres(found: CandidateList) -> list[tuple[float, float]]:
    return [(round(c.x, 6), round(c.y, 6)) for c in found.candidates]


def test_a_self_crossing_outline_has_its_centre_inside(tmp_path):
    bow = [[[1000, 1000], [1040, 1040], [1040, 1000], [1000, 1041], [1000, 1000]]]
    (centre,) = centres(read(tmp_path, [feature("Polygon", bow)]))
    assert centre == pytest.approx((1020, 1020), abs=0.5)


def test_every_part_of_a_multipolygon_is_a_figure_or_a_region_by_its_own_size(tmp_path):
    parts = [square(400, 600), square(3000, 700), square(1000, 1500, 900), square(900, 2500)]
    found = read(tmp_path, [feature("MultiPolygon", parts, id="m")])
    assert centres(found) == [(400, 600), (3000, 700), (900, 2500)]
    assert [c.id for c in found.candidates] == ["m/0", "m/1", "m/2"]
    assert len(found.regions) == 1
    overlapping = [square(400, 600), square(410, 600)]  # one nucleus, written in two pieces
    assert centres(read(tmp_path, [feature("MultiPolygon", overlapping)])) == [(405, 600)]
    tissue = {"classification": {"name": "Tissue"}}
    found = read(tmp_path, [feature("MultiPolygon", parts, tissue)])
    assert not found.candidates
    assert found.left_out == {"small part of a region of class 'Tissue'": 3}


def test_geometry_collections_planes_and_nested_objects_are_read(tmp_path):
    points = [{"type": "Point", "coordinates": p, "plane": {"z": 0}} for p in ([5, 6], [70, 80])]
    collection = feature("Polygon", square(1000, 1000, 1000))
    collection["geometry"] = {"type": "GeometryCollection", "geometries": points}
    parent = feature("Polygon", square(1000, 1000, 1000), children=[feature("Point", [9, 9])])
    found = read(tmp_path, [collection, parent])
    assert centres(found) == [(5, 6), (70, 80), (9, 9)]
    assert len(found.regions) == 1


@pytest.mark.parametrize(
    "types",
    [
        ({"objectType": "tile"}, {}),
        ({"object_type": "tile"}, {}),
        ({"objectType": "tmaCore"}, {}),
        ({}, {"id": "PathTileObject"}),
        ({"type": "TMA core"}, {}),
        ({}, {"id": "TMACoreObject"}),
    ],
)
def test_tiles_and_cores_of_every_qupath_are_left_out_and_counted(tmp_path, types, caplog):
    properties, more = types
    tiles = [feature("Polygon", square(x, 50, 60), properties, **more) for x in (700, 760)]
    large = feature("Polygon", square(1500, 1500, 900), properties, **more)
    with caplog.at_level(logging.WARNING, "atypia"):
        found = read(tmp_path, [feature("Point", [500, 500]), *tiles, large])
    assert centres(found) == [(500, 500)]
    assert not found.regions
    assert sum(found.left_out.values()) == 3
    assert "3 left out" in caplog.text


def test_types_in_place_of_ids_and_copied_ids_lose_no_figure(tmp_path):
    by_type = [
        feature("Polygon", square(x, 500), id="PathDetectionObject") for x in (400, 600, 800)
    ]
    copied = [feature("Point", [x, 900], {"metadata": {"patch_id": "7"}}) for x in (100, 200)]
    found = read(tmp_path, [*by_type, *copied])
    assert len(found.candidates) == 5
    assert len({c.id for c in found.candidates}) == 5
    assert "7" in {c.id for c in found.candidates}


def test_classes_that_are_no_mitoses_are_left_out_counted_and_taken_when_asked(tmp_path):
    names = ["Mitosis", "AMF bipolar", "Non-mitosis", "Ignore*", "Negative", "Tumor: Negative"]
    names += ["mitotic figure", "hard negative", "Mitosis-like figure", "Imposter", "Stroma"]
    found = read(
        tmp_path,
        [
            feature("Point", [100 * (i + 1), 800], {"classification": {"name": name}})
            for i, name in enumerate(names)
        ],
    )
    kept = [c.about["candidate_class"] for c in found.candidates]
    assert kept == ["Mitosis", "AMF bipolar", "mitotic figure"]
    assert sum(found.left_out.values()) == len(names) - 3
    again = read_candidates(tmp_path / "c.geojson", SLIDE, all_classes=True)
    assert len(again.candidates) == len(names)
    plain = [feature("Point", [9, 9], {"classification": {"name": "Tumor"}})]
    assert len(read(tmp_path, plain).candidates) == 1  # no class names mitoses: these are meant


def test_ignored_regions_and_cores_never_count_as_area(tmp_path):
    shapes = [("Tumor", {}), ("Ignore*", {}), ("Tumor", {"objectType": "tmaCore"})]
    features = [
        feature(
            "Polygon", square(600 + 1000 * i, 600, 1000), {"classification": {"name": n}, **more}
        )
        for i, (n, more) in enumerate(shapes)
    ]
    found = read(tmp_path, features)
    assert [region.name for region in found.regions] == ["Tumor"]
    regions = read_regions(tmp_path / "c.geojson", [SLIDE.path.name], {SLIDE.path.name: 0.5})
    assert regions[SLIDE.path.name].area_mm2(0.5) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "ring",
    [
        [[100, 100], [1100, 100], [1100, 1100], [100, 1100]],  # not closed
        [[100, 100, None], [1100, 100, None], [1100, 1100, None], [100, 1100, None]],
        [[100, 100, 0, 1], [1100, 100, 0, 1], [1100, 1100, 0, 1], [100, 1100, 0, 1]],
    ],
)
def test_odd_rings_of_a_region_are_mended(tmp_path, ring):
    found = read(tmp_path, [feature("Polygon", [ring]), feature("Point", [500, 500])])
    shapely = load_shapely()
    (region,) = found.regions
    assert shapely.from_geojson(json.dumps(region.geometry)).area == 1_000_000
    assert centres(found) == [(500, 500)]


def test_a_bad_feature_costs_itself_alone(tmp_path):
    bad = feature("Polygon", [[1, 2], [3, 4], [5, 6]])  # a ring where a list of rings belongs
    found = read(tmp_path, [bad, feature("Point", [700, 500])], skip_bad=True)
    assert centres(found) == [(700, 500)]
    assert len(found.problems) == 1


@pytest.mark.parametrize(
    "column",
    [
        "Image",
        "Slide",
        "filename",
        "file_name",
        "slide_id",
        "image_id",
        "wsi",
        "SLIDE",
        "File Name",
    ],
)
def test_rows_and_features_of_other_slides_are_left_out_and_counted(tmp_path, column):
    name = SLIDE.path.name
    text = f"{column},x_px,y_px\n{name},1,2\nother.svs,3,4\n{name},5,6\n"
    found = read(tmp_path, text, "c.csv")
    assert centres(found) == [(1, 2), (5, 6)]
    assert found.left_out == {"of another slide": 1}
    features = [
        feature("Point", [1, 2], {column: f"D:\\slides\\{name}"}),
        feature("Point", [3, 4], {column: "other.svs"}),
    ]
    found = read(tmp_path, features)
    assert centres(found) == [(1, 2)]
    assert found.left_out == {"of another slide": 1}
    with pytest.raises(InputError, match="expected features of"):
        read(tmp_path, features[1:])


@pytest.mark.parametrize(
    "cell", ["TCGA-A1.0f-3e", "tcga-a1.0F-3E.SVS", "TCGA-A1", "a\\b\\TCGA-A1.0f-3e.tif"]
)
def test_a_slide_is_named_with_or_without_extension_in_either_case(tmp_path, cell):
    found = read(tmp_path, f"slide,x_px,y_px\n{cell},5,5\nTCGA-A2.77,7,7\n", "c.csv")
    assert centres(found) == [(5, 5)]


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("Image\tClass\tCentroid X µm\tCentroid Y µm\n{}\tMitosis\t250\t250\n", "m.tsv", {}),
        ("Image\tCentroid X µm\tCentroid Y µm\n{}\t250\t250\n", "m.txt", {}),
        ("Image,Centroid X px,Centroid Y px\n{},500,500\n", "m.csv", {}),
        ("slide;x_px;y_px\n{};500,0;500,0\n", "m.csv", {}),
        ("slide;x_um;y_um\n{};250,00;250,00\n", "m.csv", {}),
        ("slide,x,y,w,h\n{},480,480,40,40\n", "m.csv", {"units": "px"}),
        ("slide,x_px,y_px,x2_px,y2_px\n{},480,480,520,520\n", "m.csv", {}),
        ("slide,x_px,y_px,width,height\n{},480,480,40,40\n", "m.csv", {}),
        ("slide,xmin,ymin,xmax,ymax\n{},480,480,520,520\n", "m.csv", {"units": "px"}),
        ("slide,left,top,width,height\n{},240,240,20,20\n", "m.csv", {"units": "um"}),
        ("slide,x_px,y_px,,\n{},500,500,,\n,,,,\n,\n", "m.csv", {}),
    ],
)
def test_tables_of_every_tool_give_the_right_place(tmp_path, text, name, options):
    found = read(tmp_path, text.format(SLIDE.path.name), name, **options)
    assert centres(found) == [(500, 500)]


@pytest.mark.parametrize("text", ["x_px;y_px\n1.500;1.200\n", "x_px,y_px,w_px,h_px\n1,1,900,9\n"])
def test_ambiguous_numbers_and_boxes_that_are_none_are_refused(tmp_path, text):
    with pytest.raises(InputError):
        read(tmp_path, text, "m.csv")


def coco(boxes: Any = ((475, 475, 50, 50), (875, 675, 50, 50)), **changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": SLIDE.path.name, "width": 4000, "height": 3000}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": list(box)}
            for i, box in enumerate(boxes)
        ]
        + [{"id": 99, "image_id": 1, "category_id": 2, "bbox": [1175, 875, 50, 50]}],
        "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}],
        **changes,
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda c: [a.update(image_id="1") for a in c["annotations"]],
        lambda c: [a.update(category_id=f"{a['category_id']}") for a in c["annotations"]],
        lambda c: c["categories"][0].update(name="Mitotic figures"),
        lambda c: [
            x.update(name=n) for x, n in zip(c["categories"], ("mitosis", "imposter"), strict=True)
        ],
        lambda c: c["images"][0].update(file_name=f"D:\\slides\\{SLIDE.path.name}"),
        lambda c: c["images"][0].update(width=None, height=None),
        lambda c: c["images"][0].update(width=0, height=0),
        lambda c: c["images"][0].update(width="4000", height="3000"),
        lambda c: [a.update(id=0) for a in c["annotations"]],
        lambda c: [a.update(id=None) for a in c["annotations"]],
    ],
)
def test_coco_files_as_tools_write_them(tmp_path, change):
    content = coco()
    change(content)
    found = read(tmp_path, content, "c.json")
    assert centres(found) == [(500, 500), (900, 700)]
    assert len({c.id for c in found.candidates}) == 2
    assert sum(found.left_out.values()) == 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda c: c["images"].append(dict(c["images"][0])), "every one once"),
        (lambda c: c["annotations"][0].update(image_id=7), "1 annotations have another"),
        (
            lambda c: [x.update(name=n) for x, n in zip(c["categories"], "AB", strict=True)],
            "--all-classes",
        ),
        (lambda c: c["annotations"][0].update(category_id=9), "expected a category out of"),
    ],
)
def test_coco_files_that_contradict_themselves_are_refused(tmp_path, change, what):
    content = coco()
    change(content)
    with pytest.raises(InputError, match=what):
        read(tmp_path, content, "c.json")


def test_points_of_grand_challenge_are_in_millimetres(tmp_path):
    points = [
        {"name": "mitotic figure", "point": [0.25, 0.25, 0], "probability": 0.9},
        {"name": "non-mitotic figure", "point": [0.4, 0.4, 0]},
    ]
    content = {"name": "m", "type": "Multiple points", "points": points}
    found = read(tmp_path, content, "c.json")
    assert centres(found) == [(500, 500)]
    assert sum(found.left_out.values()) == 1


@pytest.mark.parametrize(
    "text", ['<?xml version="1.0"?><ASAP_Annotations/>', '{"nuc": {"1": {"centroid": [5, 5]}}}']
)
def test_other_formats_are_refused_with_what_to_do(tmp_path, text):
    with pytest.raises(InputError, match=r"exported as GeoJSON|CSV of centres"):
        read(tmp_path, text, "c.json")


def test_gzip_that_unpacks_without_end_is_refused(tmp_path):
    file = tmp_path / "c.geojson.gz"
    file.write_bytes(gzip.compress(b"[" + b" " * (80 << 20), 1))
    with pytest.raises(InputError, match="unpacks to more than 64 MB"):
        read_candidates(file, SLIDE)


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("Prometaphase", True),
        ("AMF", True),
        ("mitotic_figure", True),
        ("Mitosis (lymphoma)", True),
        ("Interphase", False),
        ("tumor_non_mitotic", False),
        ("lymphocyte", False),
        ("Tumor", None),
        ("canine lymphoma", None),
    ],
)
def test_names_of_classes(name, figure):
    assert is_figure(name) is figure


@pytest.mark.parametrize(
    ("cells", "x"),
    [("500,5;7,25", 500.5), ("1.234,5;1,25", 1234.5), ("512.125;99.5", 512.125), ("1.500;9", None)],
)
def test_the_decimal_mark_is_that_of_the_table(tmp_path, cells, x):
    text = f"x_px;y_px\n{cells}\n"
    if x is None:
        with pytest.raises(InputError, match="decimal mark is beyond doubt"):
            read(tmp_path, text, "m.csv")
    else:
        assert read(tmp_path, text, "m.csv").candidates[0].x == x


def test_dots_in_names_of_slides_are_no_suffixes():
    names = ["S1", "S1.2", "case1"]
    assert of_slide(names, Path("S1.svs")) == [True, False, False]
    assert of_slide(names, Path("S1.2.svs")) == [False, True, False]
    assert of_slide(names, Path("case1.B.svs")) == [False] * 3
    assert named_slide({"slide_id": 12}) == "12"
