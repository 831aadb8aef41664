"""Places on slides, as other people's tools write them; one input a line."""
# ruff: noqa: E501

from __future__ import annotations

import gzip
import io
import json
import zipfile
from typing import Any, Final, TypeAlias

from field_bench import PLACES, Bench, case

# Candidates in tables: name | right | left out | options | rows (";;" ends a line, "<t>" is a tab)

TABLES: Final = """
Slide ID of a LIMS | AB | 2 | | Slide ID,x_px,y_px;;drawn.tif,300,300;;drawn.tif,700,500;;z.tif,1,1;;z.tif,9,9
SLIDE in capitals | A | 1 | | SLIDE,X_PX,Y_PX;;drawn.tif,300,300;;z.tif,1100,900
image_name of EXACT | A | 1 | | image_name,x_px,y_px;;drawn.tif,300,300;;z.tif,1100,900
FileName with a path | A | 1 | | FileName,x_px,y_px;;D:\\scans\\drawn.tif,300,300;;D:\\scans\\z.tif,1100,900
WSI without extension | AB | 1 | | WSI,x_px,y_px;;drawn,300,300;;drawn,700,500;;z,1100,900
another extension | AB? | 0 | | slide,x_px,y_px;;drawn.svs,300,300;;drawn.svs,700,500
series of bioformats | A? | 1 | | Image,x_px,y_px;;drawn.tif - Series 0,300,300;;z.tif - Series 0,700,500
only other slides | - | 0 | | Image,x_px,y_px;;z.tif,300,300;;z.tif,700,500
Excel's German CSV | AB | 0 | | \ufeffx_px;y_px;;300,0;300,0;;700,0;500,0
a comma in µm | AB | 0 | | x_um;y_um;;75,00;75,00;;175,00;125,00
thousands in quotes | - | 0 | | x_px,y_px;;"1,100","900";;"1,600","400"
R's row names | AB | 0 | | "","x_px","y_px";;"1",300,300;;"2",700,500
pandas' floats | AB | 0 | | Unnamed: 0,x_px,y_px;;0,3e2,3.0e+02;;1,700.0,500.0
names in blanks | AB | 0 | | x_px , y_px;;300, 300;; 700,500
empty rows of Excel | AB | 0 | | x_px,y_px,,;;300,300,,;;700,500,,;;,,,;;,,,
QuPath's centroids | A | 1 | | Image<t>Name<t>Classification<t>Centroid X µm<t>Centroid Y µm;;drawn.tif<t><t>Mitosis<t>75<t>75;;drawn.tif<t><t>Non-mitosis<t>175<t>125
QuPath's in px | AB | 0 | | Image,Centroid X px,Centroid Y px;;drawn.tif,300,300;;drawn.tif,700,500
a Greek mu | AB? | 0 | | Centroid X μm;Centroid Y μm;;75,0;75,0;;175,0;125,0
corners of detectors | AB | 0 | --units px | xmin,ymin,xmax,ymax,score;;280,280,320,320,.9;;680,480,720,520,.8
x1 to y2 of YOLO exports | AB | 0 | --units px | x1,y1,x2,y2;;280,280,320,320;;680,480,720,520
left, top, width, height | AB? | 0 | --units px | left,top,width,height;;280,280,40,40;;680,480,40,40
a box with x_px | AB? | 0 | | x_px,y_px,width,height;;280,280,40,40;;680,480,40,40
bbox in a cell | AB? | 0 | --units px | image,bbox;;drawn.tif,"[280, 280, 40, 40]";;drawn.tif,"[680, 480, 40, 40]"
x and y, no unit | - | 0 | | X,Y;;300,300;;700,500
RetinaNet, no header | - | 0 | | drawn.tif,280,280,320,320,mitosis;;drawn.tif,680,480,720,520,mitosis
ImageJ's results | - | 0 | | ,Area,Mean,X,Y;;1,900,90,300,300;;2,880,95,700,500
text for a number | A? | 1 | --skip-bad | x_px,y_px;;300,300;;n/a,500
infinite | A? | 1 | --skip-bad | x_px,y_px;;300,300;;inf,500
one place twice | AB? | 1 | --skip-bad | x_px,y_px;;300,300;;700,500;;300,300
classes in a table | AB | 2 | | x_px,y_px,class;;300,300,mitotic figure;;700,500,Mitosis;;1100,900,hard negative;;400,1100,Non-mitosis
YOLO's shares | - | 0 | | class,x_center,y_center,width,height;;0,0.15,0.2,0.02,0.02
boxes of halves | AB? | 0 | --units px | x_min;y_min;x_max;y_max;;279,5;279,5;320,5;320,5;;679,5;479,5;720,5;520,5
"""


def table_case(line: str) -> None:
    name, right, left, options, rows = (part.strip() for part in line.split("|", 4))
    text = rows.replace(";;", "\n").replace("<t>", "\t") + "\n"

    @case(f"table: {name}", "tables of places")
    def _(b: Bench) -> str:
        found = b.file("found.csv", text)
        return b.places(found, right, *options.split(), left=int(left))


for one in TABLES.strip().splitlines():
    table_case(one)

PLAIN: Final = "x_px,y_px\n300,300\n700,500\n"
ENCODED: Final[dict[str, tuple[str, str, str | bytes]]] = {
    "Unicode text of Excel": ("found.txt", "AB?", PLAIN.replace(",", "\t").encode("utf-16")),
    "old Macintosh lines": ("found.csv", "AB?", PLAIN.replace("\n", "\r").encode()),
    "UTF-16 of PowerShell": ("found.csv", "AB?", PLAIN.encode("utf-16")),
    "µ of Windows 1252": (
        "m.tsv",
        "AB?",
        "Centroid X µm\tCentroid Y µm\n75\t75\n175\t125\n".encode("cp1252"),
    ),
    "QuPath's .txt": (
        "m.txt",
        "AB",
        "Image\tCentroid X µm\tCentroid Y µm\ndrawn.tif\t75\t75\ndrawn.tif\t175\t125\n",
    ),
    "comments before the header": ("found.csv", "AB?", "# made by find.py 0.3\n" + PLAIN),
    "xlsx named csv": ("found.csv", "-", b"PK\x03\x04" + bytes(400)),
    "empty file": ("found.csv", "-", b""),
    "pointer of git-lfs": (
        "found.geojson",
        "-",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    ),
    "page of a login": ("found.geojson", "-", "<!DOCTYPE html><html><body>Sign in</body></html>"),
}


def encoded_case(name: str, file: str, right: str, content: bytes | str) -> None:
    @case(f"bytes: {name}", "tables of places")
    def _(b: Bench) -> str:
        return b.places(b.file(file, content), right)


for one, (file_name, expected, content) in ENCODED.items():
    encoded_case(one, file_name, expected, content)

# --- GeoJSON: name -> (right, left out, area in mm², options, features)

Feature: TypeAlias = dict[str, Any]


def ring(x: float, y: float, r: float = 15) -> list[list[float]]:
    return [[x - r, y - r], [x + r, y - r], [x + r, y + r], [x - r, y + r], [x - r, y - r]]


def feature(geometry: str, coordinates: Any, kind: str | None = None, **properties: Any) -> Feature:
    if kind is not None:
        properties["classification"] = {"name": kind}
    top: dict[str, Any] = {
        k: properties.pop(k) for k in ("id", "nucleusGeometry") if k in properties
    }
    shape = {"type": geometry, "coordinates": coordinates}
    return {"type": "Feature", **top, "geometry": shape, "properties": properties}


def box(
    where: str | tuple[float, float], kind: str | None = None, r: float = 15, **properties: Any
) -> Feature:
    place = PLACES[where] if isinstance(where, str) else where
    return feature("Polygon", [ring(place[0], place[1], r)], kind, **properties)


def points(where: str, kind: str | None = None, **properties: Any) -> Feature:
    return feature("MultiPoint", [list(PLACES[c]) for c in where], kind, **properties)


AB: Final = [box("A"), box("B")]
TUMOUR: Final = box((700, 700), "Tumor", 500)
BOW: Final = [[285, 285], [315, 315], [315, 285], [285, 315], [285, 285]]
GEOJSON: Final[dict[str, tuple[Any, ...]]] = {
    "a bow tie": ("A", 0, None, [], [feature("Polygon", [BOW])]),
    "a bow tie drawn unclosed": ("A", 0, None, [], [feature("Polygon", [BOW[:-1]])]),
    "a hair of 90 px": ("A", 0, None, [], [feature("Polygon", [[*ring(300, 300)[:2], [405, 285], [315, 285], *ring(300, 300)[2:]]])]),
    "walked round twice": ("A", 0, None, [], [feature("Polygon", [ring(300, 300)[:-1] * 2 + [[285, 285]]])]),
    "a point named polygon": ("AB?", 0, None, ["--skip-bad"], [feature("Polygon", [[[300, 300]] * 4]), box("B")]),
    "parts of CellViT": ("ABC", 0, None, [], [feature("MultiPolygon", [[ring(*PLACES[c])] for c in "ABC"], "Mitotic")]),
    "points per class of CellViT": ("ABC", 2, None, [], [points("ABC", "Mitotic figure"), points("DE", "Non-mitotic figure")]),
    "a crossing part": ("AB", 0, None, [], [feature("MultiPolygon", [[BOW], [ring(700, 500)]])]),
    "region and cells in one": ("AE", 0, 0.0625, [], [feature("MultiPolygon", [[ring(700, 700, 500)], [ring(1600, 400)]]), box("A")]),
    "a collection of shapes": ("AB?", 0, None, [], [{"type": "Feature", "properties": {}, "geometry": {"type": "GeometryCollection", "geometries": [f["geometry"] for f in AB]}}]),
    "ids of QuPath 0.1": ("ABC", 0, None, [], [points("A", id="PathPointsROI"), points("B", id="PathPointsROI"), points("C", id="PathROIObject")]),
    "ids that are numbers": ("ABC", 0, None, [], [box("A", id=0), box("B", id=0), box("C", id="0")]),
    "ids that are null": ("AB", 0, None, [], [box("A", id=None), box("B", id=None)]),
    "cells with nuclei": ("AB", 0, None, [], [box(c, "Mitosis", 30, objectType="cell", nucleusGeometry=box(c)["geometry"]) for c in "AB"]),
    "types of TIAToolbox": ("AB", 0, None, [], [box(c, type=1, prob=0.9) for c in "AB"]),
    "tiles of QuPath 0.3": ("A", 2, None, [], [box("A", objectType="detection"), *(box(c, r=60, object_type="tile") for c in "BC")]),
    "cores in small letters": ("A", 1, None, [], [box("A"), box((700, 700), None, 500, objectType="tma_core", name="A-1")]),
    "type for objectType": ("A", 1, None, [], [box("A", type="detection"), box("B", type="tile")]),
    "names in a list": ("A", 1, None, [], [box("A", classification={"names": ["Mitosis", "Atypical"]}), box("B", classification={"names": ["Ignore*"]})]),
    "a class as text": ("A", 1, None, [], [box("A", classification="Mitosis"), box("B", classification="Non-mitosis")]),
    "words of the field": ("ABC", 2, None, [], [box("A", "Mitotic cell"), box("B", "AMF"), box("C", "mitoses"), box("D", "imposter"), box("E", "Hard negative imposter")]),
    "nonmitotic, no hyphen": ("A", 2, None, [], [box("A", "mitotic"), box("B", "nonmitotic"), box("C", "Not mitotic")]),
    "all classes, on demand": ("AB", 0, None, ["--all-classes"], [box("A", "Mitosis"), box("B", "Non-mitosis")]),
    "a figure of no class": ("ABC", 0, None, [], [box("A", "Mitosis"), box("B"), box("C", classification=None)]),
    "ignore* of another case": ("A", 0, 0.0625, [], [box("A"), TUMOUR, box((1500, 900), "ignore*", 450)]),
    "a class below Ignore*": ("A", 0, 0.0625, [], [box("A"), TUMOUR, box((1500, 900), "Ignore*: fold", 450)]),
    "two regions that overlap": ("A", 0, 0.09375, [], [box("A"), TUMOUR, box((1200, 700), "Tumor", 500)]),
    "a region with a hole": ("A", 0, 0.0600, [], [box("A"), feature("Polygon", [ring(700, 700, 500), ring(900, 900, 100)], "Tumor")]),
    "a region of no properties": ("A", 0, 0.0625, [], [box("A"), {**TUMOUR, "properties": None}]),
    "an open region with heights": ("A", 0, 0.0625, [], [box("A"), feature("Polygon", [[[*p, 0] for p in ring(700, 700, 500)[:-1]]])]),
    "a region of text": ("A?", 0, None, [], [box("A"), feature("Polygon", [[[str(v) for v in p] for p in ring(700, 700, 500)]])]),
    "a line across the slide": ("A?", 0, None, [], [box("A"), feature("LineString", [[0, 0], [1999, 1499]], "Tumor")]),
    "a place beyond": ("A?", 1, None, ["--skip-bad"], [box("A"), box((9000, 9000))]),
    "no geometry": ("A?", 1, None, ["--skip-bad"], [box("A"), {"type": "Feature", "geometry": None, "properties": {}}]),
    "NaN in a ring": ("A?", 1, None, ["--skip-bad"], [box("A"), feature("Polygon", [[[float("nan"), 1], *ring(700, 500)]])]),
    "image of another slide": ("A", 1, None, [], [box("A", image="drawn.tif"), box("B", image="z.tif")]),
    "Slide as a property": ("A", 1, None, [], [box("A", Slide="drawn"), box("B", Slide="z")]),
    "file_name as a property": ("A", 1, None, [], [box("A"), box("B", file_name="images/z.tif")]),
    "children": ("AB?", 0, None, [], [{**TUMOUR, "properties": {"childObjects": AB}}]),
    "a box of floats, clockwise": ("A", 0, None, [], [feature("Polygon", [ring(300.25, 300.25)[::-1]], "Mitosis")]),
    "no figure at all": ("", 0, None, [], []),
}  # fmt: skip


def geojson_case(
    name: str, right: str, left: int, area: float | None, options: Any, features: Any
) -> None:
    @case(f"geojson: {name}", "GeoJSON")
    def _(b: Bench) -> str:
        found = b.file("found.geojson", {"type": "FeatureCollection", "features": features})
        return b.places(found, right or "?", *options, left=left, area=area)


for one, values in GEOJSON.items():
    geojson_case(one, *values)

COLLECTION: Final = json.dumps({"type": "FeatureCollection", "features": AB})


def zipped(name: str, content: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


NUCLEI: Final = {str(i): {"bbox": [[y - 9, x - 9], [y + 9, x + 9]], "centroid": [x, y], "contour": ring(x, y, 9), "type": 1, "type_prob": 0.9} for i, (x, y) in enumerate([(300, 300), (700, 500)])}  # fmt: skip
FILES: Final[dict[str, tuple[str, str, Any]]] = {
    "a byte order mark": ("f.geojson", "AB", "\ufeff" + COLLECTION),
    "UTF-16": ("f.geojson", "AB?", COLLECTION.encode("utf-16")),
    "gzip": ("f.geojson.gz", "AB", gzip.compress(COLLECTION.encode())),
    "gzip named json": ("f.geojson", "AB?", gzip.compress(COLLECTION.encode())),
    "zip of QuPath": ("f.zip", "AB?", zipped("f.geojson", COLLECTION)),
    "lines of features": ("f.geojson", "AB?", "\n".join(map(json.dumps, AB))),
    "a list of features": ("f.geojson", "AB", AB),
    "named .json": ("f.json", "AB", COLLECTION),
    "HoVer-Net": ("f.json", "AB?", {"mag": 40, "nuc": NUCLEI}),
    "cells of CellViT": ("f.json", "AB?", {"wsi_metadata": {"base_mpp": 0.25}, "type_map": {"1": "x"}, "cells": list(NUCLEI.values())}),
    "ASAP": ("f.xml", "AB?", '<ASAP_Annotations><Annotations><Annotation Name="0" Type="Dot" PartOfGroup="m"><Coordinates><Coordinate Order="0" X="300" Y="300"/></Coordinates></Annotation></Annotations></ASAP_Annotations>'),
    "NDPA of Hamamatsu": ("f.ndpa", "-", '<annotations><ndpviewstate id="1"><annotation type="pointer"><x>1000</x></annotation></ndpviewstate></annotations>'),
    "labelme": ("f.json", "AB?", {"shapes": [{"label": "mitosis", "points": [[280, 280], [320, 320]], "shape_type": "rectangle"}], "imagePath": "drawn.tif"}),
    "label-studio": ("f.json", "-", [{"data": {"image": "drawn.tif"}, "annotations": [{"result": [{"value": {"x": 15.0, "y": 20.0, "width": 2.0, "height": 2.0, "rectanglelabels": ["m"]}}]}]}]),
    "VIA": ("f.json", "-", {"drawn.tif-1": {"filename": "drawn.tif", "regions": [{"shape_attributes": {"name": "point", "cx": 300, "cy": 300}}]}}),
    "YOLO": ("f.txt", "-", "0 0.15 0.2 0.02 0.02\n0 0.35 0.33 0.02 0.02\n"),
    "Cellpose outlines": ("f_cp_outlines.txt", "-", "285,285,315,285,315,315,285,315\n685,485,715,485,715,515,685,515\n"),
    "points of Grand Challenge": ("f.json", "AB", {"type": "Multiple points", "points": [{"name": "a", "point": [0.075, 0.075, 0.5]}, {"name": "b", "point": [0.175, 0.125, 0.5]}], "version": {"major": 1, "minor": 1}}),
    "boxes of Grand Challenge": ("f.json", "AB?", {"type": "Multiple 2D bounding boxes", "boxes": [{"corners": [[x - w, y - w, 0.5], [x + w, y - w, 0.5], [x + w, y + w, 0.5], [x - w, y + w, 0.5]]} for x, y, w in [(0.075, 0.075, 0.005), (0.175, 0.125, 0.005)]], "version": {"major": 1, "minor": 0}}),
    "deep JSON": ("f.geojson", "-", "[" * 200_000 + "]" * 200_000),
    "a number of 9,000 digits": ("f.geojson", "-", '[{"type":"Feature","id":' + "9" * 9000 + "}]"),
    "gzip without end": ("f.geojson.gz", "-", gzip.compress(bytes(1 << 30), 1)),
    "Parquet": ("f.parquet", "-", b"PAR1" + bytes(64) + b"PAR1"),
}  # fmt: skip


def file_case(name: str, file: str, right: str, content: Any) -> None:
    @case(f"file: {name}", "other tools' files")
    def _(b: Bench) -> str:
        return b.places(b.file(file, content), right)


for one, (file_name, expected, content) in FILES.items():
    file_case(one, file_name, expected, content)

# --- COCO and MIDOG: name -> (right, left out, changes to a plain file)

IMAGE: Final = {"id": 1, "file_name": "drawn.tif", "width": 2000, "height": 1500}
TWO: Final = [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}]


def marks(*boxes: Any, **changes: Any) -> list[dict[str, Any]]:
    made = [[x - 20, y - 20, 40, 40] for x, y in (PLACES[b] for b in boxes)]
    return [{"id": i + 1, "image_id": 1, "category_id": 1 + (b == "C"), "bbox": m, **changes} for i, (b, m) in enumerate(zip(boxes, made, strict=True))]  # fmt: skip


def named(*names: str) -> dict[str, Any]:
    return {"categories": [{"id": i + 1, "name": n} for i, n in enumerate(names)]}


COCO: Final[dict[str, tuple[str, int, dict[str, Any]]]] = {
    "ids that are text": ("AB", 1, {"images": [{**IMAGE, "id": "drawn"}], "annotations": marks(*"ABC", image_id="drawn")}),
    "image_id 1.0 of pandas": ("AB?", 1, {"annotations": marks(*"ABC", image_id=1.0)}),
    "category_id as text": ("AB?", 1, {"annotations": [{**m, "category_id": str(m["category_id"])} for m in marks(*"ABC")]}),
    "two images of one id": ("-", 0, {"images": [IMAGE, {**IMAGE, "file_name": "z.tif"}]}),
    "a category that is missing": ("AB?", 1, {"annotations": [*marks("A", "B"), {**marks("D")[0], "id": 9, "category_id": 7}]}),
    "annotations of no image": ("AB?", 1, {"annotations": [*marks("A", "B"), {**marks("D")[0], "id": 9, "image_id": 99}]}),
    "only of other images": ("-", 0, {"images": [{**IMAGE, "file_name": "z.tif"}]}),
    "cats and dogs": ("-", 0, named("cat", "dog")),
    "underscores": ("AB", 1, named("mitotic_figure", "non_mitotic_figure")),
    "capitals": ("AB", 1, named("MITOSIS", "HARD NEGATIVE")),
    "impostors": ("AB", 1, named("mitoses", "impostor")),
    "a POSIX path": ("AB", 1, {"images": [{**IMAGE, "file_name": "images/train/drawn.tif"}]}),
    "a Windows path": ("AB", 1, {"images": [{**IMAGE, "file_name": "C:\\MIDOG\\images\\drawn.tif"}]}),
    "no extension": ("AB?", 1, {"images": [{**IMAGE, "file_name": "drawn"}]}),
    "figures of two images": ("AB", 1, {"images": [IMAGE, {**IMAGE, "id": 2, "file_name": "z.tif"}], "annotations": [*marks("A", "B"), {**marks("D")[0], "id": 7, "image_id": 2}]}),
    "corners of MIDOG": ("AB?", 1, {"annotations": [{**m, "bbox": [a, b, a + 40, b + 40]} for m in marks(*"ABC") for a, b in [m["bbox"][:2]]]}),
    "outline and no box": ("AB?", 1, {"annotations": [{**m, "bbox": None, "segmentation": [[v for p in ring(m["bbox"][0] + 20, m["bbox"][1] + 20) for v in p]]} for m in marks(*"ABC")]}),
    "one id for all": ("AB", 1, {"annotations": marks(*"ABC", id="a")}),
    "no ids": ("AB?", 1, {"annotations": [{k: v for k, v in m.items() if k != "id"} for m in marks(*"ABC")]}),
    "half the size": ("-", 0, {"images": [{**IMAGE, "width": 1000, "height": 750}]}),
    "a box of negative width": ("A?", 1, {"annotations": [*marks("A"), {**marks("B")[0], "id": 3, "bbox": [720, 520, -40, -40]}]}),
}  # fmt: skip


def coco_case(name: str, right: str, left: int, changes: dict[str, Any]) -> None:
    @case(f"coco: {name}", "COCO and MIDOG")
    def _(b: Bench) -> str:
        plain = {"images": [IMAGE], "annotations": marks(*"ABC"), "categories": TWO}
        return b.places(b.file("found.json", {**plain, **changes}), right, left=left)


for one, (expected, left_out, altered) in COCO.items():
    coco_case(one, expected, left_out, altered)


@case("coco: results of a detector", "COCO and MIDOG")
def _(b: Bench) -> str:
    return b.places(b.file("r.json", [{**m, "score": 0.9} for m in marks("A", "B")]), "-")
