"""Readers of slides and of candidates under ten thousand inputs each: an answer or a refusal.

An answer lies on the slide, and what is left out is counted; a slide whose pixels are read has the
right ones, or their bytes were changed. Nothing else is raised, nothing takes long.
"""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slide_files import smooth, write_dicom

from atypia.core.errors import AtypiaError
from atypia.slides import SlideInfo, open_slide
from atypia.slides.read_candidates import read_candidates

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

SLIDE = SlideInfo(Path("case 7.svs"), 4000, 3000, 0.5, (255, 255, 255), (0, 0))
MANY = settings(
    max_examples=10_000,
    deadline=20_000,  # milliseconds, of one input
    suppress_health_check=list(HealthCheck),
    database=None,
)
NUMBERS = st.one_of(
    st.integers(-5000, 5000),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([10**400, -1, 0, "7", None, True, [], {}, "1,5", 1e308]),
)
WORDS = st.sampled_from(
    ["Point", "MultiPoint", "Polygon", "MultiPolygon", "GeometryCollection", "Feature", "tile", "x"]
) | st.text(max_size=5)
ANYTHING = st.recursive(
    NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)
POINTS = st.lists(NUMBERS, min_size=0, max_size=4)
RINGS = st.lists(st.lists(POINTS, max_size=6), max_size=3)


def accept(folder: Path, content: Any, name: str, **options: Any) -> None:
    """Read candidates: they lie on the slide, each once, or the input is refused."""
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8", "ignore")
    for skip in (False, True):
        try:
            found = read_candidates(file, SLIDE, skip_bad=skip, **options)
        except AtypiaError:
            continue
        for candidate in found.candidates:
            assert 0 <= candidate.x < SLIDE.width
            assert 0 <= candidate.y < SLIDE.height
        assert len({c.id for c in found.candidates}) == len(found.candidates)
        assert all(n > 0 for n in found.left_out.values())
        assert skip or not found.problems


@st.composite
def features(draw: Callable[..., Any]) -> dict[str, Any]:
    coordinates = draw(POINTS | st.lists(POINTS, max_size=4) | RINGS | st.lists(RINGS, max_size=3))
    return {
        "type": draw(st.just("Feature") | WORDS),
        "id": draw(NUMBERS | WORDS),
        "geometry": draw(st.just({"type": draw(WORDS), "coordinates": coordinates}) | ANYTHING),
        "properties": draw(
            st.dictionaries(
                st.sampled_from(["objectType", "classification", "slide", "name", "childObjects"]),
                ANYTHING,
                max_size=3,
            )
            | ANYTHING
        ),
    }


@MANY
@given(listed=st.lists(features(), max_size=4), wrapped=st.booleans(), cut=st.integers(0, 400))
def test_geojson(tmp_path: Path, listed: list[Any], wrapped: bool, cut: int) -> None:
    content = {"type": "FeatureCollection", "features": listed} if wrapped else listed
    text = json.dumps(content)
    accept(tmp_path, text[: len(text) - cut] if cut < 20 else text, "c.geojson")


COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "case 7.svs", "width": 4000, "height": 3000}],
    "annotations": [
        {"id": i, "image_id": 1, "category_id": 1 + i % 2, "bbox": [500 + 100 * i, 400, 50, 50]}
        for i in range(4)
    ],
    "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}],
}


@MANY
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(["images", "annotations", "categories"]),
            st.integers(0, 3),
            st.sampled_from(
                ["id", "image_id", "category_id", "bbox", "file_name", "name", "width"]
            ),
            ANYTHING,
        ),
        max_size=4,
    )
)
def test_coco(tmp_path: Path, changes: list[Any]) -> None:
    content = copy.deepcopy(COCO)
    for part, number, key, value in changes:
        content[part][number % len(content[part])][key] = value
    accept(tmp_path, content, "c.json")


CELLS = st.one_of(
    st.floats().map(str),
    st.integers(-100, 5000).map(str),
    st.sampled_from(["case 7.svs", "b.svs", "1,5", "1.500", "=1+1", '"', "", "NaN", "NA", "\n"]),
    st.text(max_size=6),
)
HEADERS = st.sampled_from(
    [
        "x_px",
        "y_px",
        "x_um",
        "y_um",
        "x",
        "y",
        "w",
        "h",
        "x2",
        "y2",
        "slide",
        "Image",
        "Class",
        "id",
    ]
)


@MANY
@given(
    header=st.lists(HEADERS | CELLS, max_size=6),
    rows=st.lists(st.lists(CELLS, max_size=6), max_size=5),
    separator=st.sampled_from(",;\t"),
    units=st.sampled_from([None, "px", "um"]),
)
def test_tables(
    tmp_path: Path, header: list[str], rows: list[list[str]], separator: str, units: Any
) -> None:
    text = "\n".join(separator.join(row) for row in [header, *rows])
    accept(tmp_path, text, "c.csv", units=units)


PICTURE = smooth(48, 64)


def readable(path: Path, changed: bool) -> None:
    """Open a slide and read from it: the picture, or a refusal."""
    try:
        with open_slide(path) as slide:
            assert slide.info.width * slide.info.height > 0
            crop = slide.crop(32, 24, 16)
            if slide.info.mpp is not None:
                assert slide.read_field(32, 24, 8.0, 0.5).shape == (16, 16, 3)
    except AtypiaError:
        return
    assert crop.shape == (16, 16, 3)
    if not changed:
        np.testing.assert_array_equal(crop, PICTURE[16:32, 24:40])


def tiff_bytes() -> bytes:
    stream = io.BytesIO()
    sizes = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(stream, PICTURE, photometric="rgb", tile=(16, 16), metadata=None, **sizes)
    return stream.getvalue()


TIFF = tiff_bytes()


@MANY
@given(changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3))
def test_tags_of_tiff(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(TIFF)
    for place, value in changes:
        data[place % len(data)] = value
    file = tmp_path / "a.tif"
    file.write_bytes(data)
    readable(file, changed=bytes(data) != TIFF)


@MANY
@given(changes=st.lists(st.tuples(st.integers(128, 3000), st.integers(0, 255)), max_size=3))
def test_headers_of_dicom(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "dicom"
    whole = folder.with_suffix(".bytes")
    if not whole.exists():
        whole.write_bytes(write_dicom(folder, PICTURE, 0.5).read_bytes())
    data = bytearray(whole.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    (file,) = folder.iterdir()
    file.write_bytes(data)
    readable(file, changed=bytes(data) != whole.read_bytes())
