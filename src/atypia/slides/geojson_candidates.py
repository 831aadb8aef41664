"""Candidates and annotated regions from GeoJSON, as QuPath exports it.

Points are figures, one each; a polygon up to 200 µm long is the outline of a figure or a box
around it, and its centroid is the centre; a longer one is an annotated region. Coordinates count
from the corner of what QuPath shows, which on some scanners' slides is not the corner of level 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from atypia.core.errors import Problem
from atypia.slides.candidates import (
    LARGEST_UM,
    NOTHING,
    AnnotatedRegion,
    Candidate,
    CandidateList,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from atypia.slides import SlideInfo

_NEITHER: Final = ("tile", "tmaCore", "root")
"""Object types of QuPath that are neither figures nor regions."""

Point = tuple[float, float]


def is_geojson(content: Any) -> bool:
    """Whether parsed JSON looks like GeoJSON, or like QuPath's list of features."""
    if isinstance(content, list):
        return all(isinstance(f, dict) and f.get("type") == "Feature" for f in content)
    return isinstance(content, dict) and content.get("type") in ("FeatureCollection", "Feature")


def read_geojson(content: Any, path: Path, slide: SlideInfo, units: str | None) -> CandidateList:
    """Read features; see :func:`atypia.slides.read_candidates.read_candidates`."""
    assert slide.mpp is not None
    found = CandidateList()
    scale = 1 / slide.mpp if units == "um" else 1.0
    for number, feature in enumerate(_features(content), 1):
        place = f"feature {number}"
        try:
            _read_feature(feature, place, found, slide, scale)
        except _BadFeatureError as error:
            found.problems.append(Problem(f"{place}: {error}", str(path)))
    return found


class _BadFeatureError(Exception):
    """What is wrong with one feature."""


def _features(content: Any) -> Iterator[Any]:
    """Every feature, and below it the objects that it contains in QuPath's hierarchy."""
    waiting = [content]
    if isinstance(content, list):
        waiting = content[::-1]
    elif content["type"] == "FeatureCollection":
        features = content.get("features")
        waiting = features[::-1] if isinstance(features, list) else [features]
    while waiting:
        feature = waiting.pop()
        yield feature
        if isinstance(feature, dict) and isinstance(feature.get("properties"), dict):
            children = feature["properties"].get("childObjects")
            waiting += children[::-1] if isinstance(children, list) else []


def _read_feature(
    feature: Any, place: str, found: CandidateList, slide: SlideInfo, scale: float
) -> None:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise _BadFeatureError("expected a Feature.")
    properties = feature.get("properties") or {}
    geometry = feature.get("geometry")
    if not isinstance(properties, dict) or not isinstance(geometry, dict):
        raise _BadFeatureError("expected properties and a geometry.")
    kind = properties.get("objectType")
    if kind in _NEITHER:
        raise _BadFeatureError(f"expected a detection or an annotation but got a {kind}.")
    points, rings = _coordinates(geometry)
    own_id = _own_id(feature, properties) or f"{slide.path.stem}/{place.removeprefix('feature ')}"
    about = _about(properties)
    x0, y0 = slide.origin
    if points:
        for k, (x, y) in enumerate(points):
            name = own_id if len(points) == 1 else f"{own_id}/{k}"
            found.candidates.append(
                Candidate(name, x * scale + x0, y * scale + y0, place, None, about)
            )
        return
    assert slide.mpp is not None
    xs, ys = zip(*(point for ring in rings for point in ring), strict=True)
    longest = max(max(xs) - min(xs), max(ys) - min(ys)) * scale * slide.mpp
    if longest > LARGEST_UM:
        if kind in ("detection", "cell"):
            raise _BadFeatureError(
                f"expected the outline of a figure, up to {LARGEST_UM:g} µm, but got a {kind} of "
                f"{longest:.0f} µm. A region must be an annotation."
            )
        name = str(properties.get("name") or about.get("candidate_class") or own_id)
        found.regions.append(AnnotatedRegion(name, _moved(geometry, scale, slide.origin)))
        return
    x, y = _centroid(rings)
    found.candidates.append(
        Candidate(
            own_id, x * scale + x0, y * scale + y0, place, _moved(geometry, scale, (0, 0)), about
        )
    )


def _own_id(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """Id that Atypia wrote with the feature, else the feature's."""
    metadata = properties.get("metadata")
    written = metadata.get("patch_id") if isinstance(metadata, dict) else None
    return str(written or feature.get("id") or "")


def _about(properties: Mapping[str, Any]) -> Mapping[str, str]:
    classification = properties.get("classification")
    if not isinstance(classification, dict):
        return NOTHING
    names = classification.get("names")
    name = classification.get("name") or (
        ": ".join(map(str, names)) if isinstance(names, list) else ""
    )
    return {"candidate_class": str(name)} if name else NOTHING


def _coordinates(geometry: Mapping[str, Any]) -> tuple[list[Point], list[list[Point]]]:
    """Points, or the outer rings of polygons."""
    kind = geometry.get("type")
    coordinates: Any = geometry.get("coordinates")
    try:
        if kind == "Point":
            return [_point(coordinates)], []
        if kind == "MultiPoint":
            points = [_point(p) for p in coordinates]
            if not points:
                raise _BadFeatureError("expected at least one point.")
            return points, []
        if kind == "Polygon":
            return [], [_outer_ring(coordinates)]
        if kind == "MultiPolygon":
            rings = [_outer_ring(polygon) for polygon in coordinates]
            if not rings:
                raise _BadFeatureError("expected at least one polygon.")
            return [], rings
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        what = f"expected the coordinates of a {kind}, finite numbers, but got {coordinates!r:.80}."
        raise _BadFeatureError(what) from None
    expected = "expected a Point, MultiPoint, Polygon or MultiPolygon"
    raise _BadFeatureError(f"{expected} but got {kind!r}.")


def _point(coordinates: Any) -> Point:
    x, y = coordinates[0], coordinates[1]
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in (x, y)):
        raise ValueError
    return float(x), float(y)


def _outer_ring(polygon: Any) -> list[Point]:
    """Give the first ring of a polygon; its holes, which answers repeat, must be sound, too."""
    outer, *_ = [_ring(ring) for ring in polygon]
    return outer


def _ring(coordinates: Any) -> list[Point]:
    ring = [_point(p) for p in coordinates]
    if len(ring) < 3:
        raise ValueError
    return ring


def _centroid(rings: Sequence[Sequence[Point]]) -> Point:
    """Centroid of the areas inside rings (shoelace formula), holes left out of account."""
    x0, y0 = rings[0][0]  # near the figure, so that large coordinates lose no digits
    area = moment_x = moment_y = 0.0
    for ring in rings:
        a = mx = my = 0.0
        for (xa, ya), (xb, yb) in zip(ring, [*ring[1:], ring[0]], strict=True):
            ax, ay, bx, by = xa - x0, ya - y0, xb - x0, yb - y0
            cross = ax * by - bx * ay
            a += cross
            mx += (ax + bx) * cross
            my += (ay + by) * cross
        sign = -1 if a < 0 else 1  # rings may turn either way
        area, moment_x, moment_y = area + sign * a, moment_x + sign * mx, moment_y + sign * my
    if area <= 1e-9:  # a line
        xs, ys = zip(*(point for ring in rings for point in ring), strict=True)
        return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    return x0 + moment_x / (3 * area), y0 + moment_y / (3 * area)


def _moved(geometry: Mapping[str, Any], scale: float, origin: tuple[int, int]) -> Mapping[str, Any]:
    def moved(value: Any) -> Any:
        if isinstance(value[0], list):
            return [moved(v) for v in value]
        return [value[0] * scale + origin[0], value[1] * scale + origin[1]]

    if scale == 1 and origin == (0, 0):
        return geometry
    return {"type": geometry["type"], "coordinates": moved(geometry["coordinates"])}
