"""GeoJSON as QuPath of every age and others write it: features with valid shapes.

QuPath names the type of an object ``objectType`` (0.4 and later), ``object_type`` (0.3) or in place
of the feature's id (0.2), and nests objects below ``childObjects`` or ``children``. Open rings are
closed, outlines that cross themselves are made valid, further coordinates than x and y are dropped.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.errors import InputError, MissingExtraError, Problem
from atypia.core.files import gunzip
from atypia.core.found_files import refuse_special
from atypia.slides.slide_names import named_slide

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_TYPES: Final = {
    "annotation": "annotation",
    "detection": "detection",
    "cell": "cell",
    "tile": "tile",
    "tmacore": "TMA core",
    "root": "root",
}
"""Types of QuPath's objects, by their letters in lower case without "path" and "object"."""
_CHILDREN: Final = ("childObjects", "children")

Point = tuple[float, float]


class BadFeatureError(Exception):
    """What is wrong with one feature."""


@dataclass(frozen=True)
class Feature:
    """One object of a file."""

    id: str
    """Of its own; ``""`` where it has none."""
    kind: str
    """QuPath's type of object, ``""`` where it has none."""
    class_name: str
    """``""`` where it has no class."""
    name: str
    slide: str | None
    """Name of the slide that it belongs to, where it gives one."""
    points: list[Point]
    shapes: list[Any]
    """Valid shapely geometries, one for each polygon, those that touch in one."""


def read_json_of(path: Path) -> Any:
    """Read JSON, which may be gzipped, of annotations or candidates.

    Raises:
        InputError: It cannot be read, or is no JSON.
    """
    refuse_special(path)
    try:
        data = path.read_bytes()
        text = (gunzip(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
        return json.loads(text)  # numbers that are none cost their own feature alone
    except (OSError, ValueError, RecursionError) as error:
        what = (
            f"expected GeoJSON or MIDOG JSON but it cannot be read ({error}). A table must have a "
            "name that ends in .csv, .tsv or .txt; XML of ASAP or ImageScope, opened in QuPath, "
            "can be exported as GeoJSON."
        )
        raise InputError(Problem(what, str(path))) from None


def is_geojson(content: Any) -> bool:
    """Whether parsed JSON looks like GeoJSON, or like QuPath's list of features."""
    if isinstance(content, list):
        return all(isinstance(f, dict) and f.get("type") == "Feature" for f in content)
    return isinstance(content, dict) and content.get("type") in ("FeatureCollection", "Feature")


def features_of(content: Any) -> Iterator[Any]:
    """Every feature, unread, and below it the objects that it contains in QuPath's hierarchy."""
    waiting = [content]
    if isinstance(content, list):
        waiting = content[::-1]
    elif isinstance(content, dict) and content.get("type") == "FeatureCollection":
        features = content.get("features")
        waiting = features[::-1] if isinstance(features, list) else [features]
    while waiting:
        feature = waiting.pop()
        yield feature
        if isinstance(feature, dict):
            properties = feature.get("properties")
            for holder in (feature, properties if isinstance(properties, dict) else {}):
                for key in _CHILDREN:
                    children = holder.get(key)
                    waiting += children[::-1] if isinstance(children, list) else []


def read_feature(feature: Any) -> Feature:
    """Read one feature, or a bare polygon.

    Raises:
        BadFeatureError: It is none, or its geometry is not sound.
        MissingExtraError: The extra ``slides`` is not installed.
    """
    if isinstance(feature, dict) and feature.get("type") in ("Polygon", "MultiPolygon"):
        feature = {"type": "Feature", "geometry": feature}
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise BadFeatureError("expected a Feature.")
    properties, geometry = feature.get("properties") or {}, feature.get("geometry")
    if not isinstance(properties, dict) or not isinstance(geometry, dict):
        raise BadFeatureError("expected properties and a geometry.")
    kinds = [properties.get(key) for key in ("objectType", "object_type", "type")]
    own_id = feature.get("id")
    points: list[Point] = []
    shapes: list[Any] = []
    _read_geometry(geometry, points, shapes)
    metadata = properties.get("metadata")
    written = metadata.get("patch_id") if isinstance(metadata, dict) else None
    return Feature(
        id=str(written or ("" if _type_of(own_id) or own_id is None else own_id)),
        kind=next((t for t in map(_type_of, [*kinds, own_id]) if t), ""),
        class_name=_class_of(properties),
        name=str(properties.get("name") or ""),
        slide=named_slide(properties),
        points=points,
        shapes=shapes,
    )


def as_geometry(
    shape: Any, scale: float | NDArray[np.float64] = 1, offset: Point = (0, 0)
) -> Mapping[str, Any] | None:
    """Write a shape, scaled (x and y) and then moved, as a GeoJSON geometry; None without area.

    Rings are closed and valid, as QuPath requires.
    """
    shapely = load_shapely()
    moved = _valid(shapely.transform(shape, lambda xy: xy * scale + offset))
    parts = [p for part in shapely.get_parts(moved) for p in shapely.get_parts(part)]
    polygons = [p for p in parts if p.area > 0]
    if not polygons:
        return None
    whole = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
    geometry: Mapping[str, Any] = json.loads(shapely.to_geojson(whole))
    return geometry


def load_shapely() -> Any:
    """Import shapely, and its errors.

    Raises:
        MissingExtraError: The extra ``slides`` is not installed.
    """
    try:
        import shapely
        import shapely.errors
    except ImportError:
        raise MissingExtraError("shapely", "slides", "Reading annotations") from None
    return shapely


def _type_of(text: object) -> str:
    letters = re.sub(r"path|object|[^a-z]", "", text.lower()) if isinstance(text, str) else ""
    return _TYPES.get(letters, "")


def _class_of(properties: Mapping[str, Any]) -> str:
    given = properties.get("classification")
    if isinstance(given, dict):
        names = given.get("names")
        given = given.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else "")
    return given.strip() if isinstance(given, str) else ""


def _read_geometry(geometry: Mapping[str, Any], points: list[Point], shapes: list[Any]) -> None:
    """Add the points and the polygons of a geometry to those of its feature."""
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    before = len(points) + len(shapes)
    try:
        if kind == "Point":
            points.append(_point(coordinates))
        elif kind == "MultiPoint":
            points += [_point(p) for p in coordinates]  # type: ignore[union-attr]
        elif kind == "Polygon":
            shapes.append(_polygon(coordinates))
        elif kind == "MultiPolygon":
            shapes += _apart([_polygon(polygon) for polygon in coordinates])  # type: ignore[union-attr]
        elif kind == "GeometryCollection":
            for part in geometry["geometries"]:
                if part["type"] == "GeometryCollection":
                    raise BadFeatureError("expected no collection inside a GeometryCollection.")
                _read_geometry(part, points, shapes)
        else:
            expected = "expected a Point, MultiPoint, Polygon or MultiPolygon"
            raise BadFeatureError(f"{expected} but got {kind!r}.")
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError):
        what = f"expected the coordinates of a {kind}, finite numbers, but got {coordinates!r:.80}."
        raise BadFeatureError(what) from None
    if len(points) + len(shapes) == before:
        raise BadFeatureError(f"expected at least one point or polygon in the {kind}.")


def _point(coordinates: Any) -> Point:
    x, y = coordinates[0], coordinates[1]
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (x, y))
    if not numbers or not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError
    return float(x), float(y)


def _polygon(coordinates: Any) -> Any:
    """Make a valid shape of an outer ring and holes; a line where it encloses nothing."""
    shapely = load_shapely()
    rings = [[_point(p) for p in ring] for ring in coordinates]
    if not rings or min(map(len, rings)) < 3:
        raise ValueError
    shape = shapely.Polygon(rings[0], rings[1:])
    if shape.is_valid:
        return shape
    # Near the figure: far from 0 the crossing of two edges would be rounded.
    corner = np.array(rings[0][0])
    near = shapely.make_valid(shapely.transform(shape, lambda xy: xy - corner))
    return shapely.transform(near, lambda xy: xy + corner)


def _valid(shape: Any) -> Any:
    return shape if shape.is_valid else load_shapely().make_valid(shape)


def _apart(polygons: list[Any]) -> list[Any]:
    """Unite polygons that overlap; the others stay as they are."""
    if len(polygons) < 2:
        return polygons
    shapely = load_shapely()
    group = np.arange(len(polygons))
    for a, b in shapely.STRtree(polygons).query(polygons, predicate="intersects").T:
        if group[a] != group[b] and polygons[a].intersection(polygons[b]).area > 0:
            group[group == max(group[a], group[b])] = min(group[a], group[b])
    return [
        polygons[first] if n == 1 else shapely.union_all(np.array(polygons)[group == first])
        for first, n in zip(*np.unique(group, return_counts=True), strict=True)
    ]
