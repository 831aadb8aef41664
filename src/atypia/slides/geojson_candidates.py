"""Candidates and annotated regions from GeoJSON, as QuPath exports it.

Points are figures, one each. Every polygon, and every part of a MultiPolygon, up to 200 µm long is
the outline of a figure or a box around it, and its centroid is the centre; a longer one is an
annotated region. Coordinates count from the corner of what QuPath shows, which on some scanners'
slides is not the corner of level 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.core.errors import InputError, Problem
from atypia.slides.candidates import (
    LARGEST_UM,
    NOTHING,
    AnnotatedRegion,
    Candidate,
    CandidateList,
    is_figure,
    is_ignored,
    wanted_classes,
    with_own_ids,
)
from atypia.slides.geojson_features import (
    BadFeatureError,
    as_geometry,
    features_of,
    load_shapely,
    read_feature,
)
from atypia.slides.slide_names import of_slide

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from atypia.slides import SlideInfo
    from atypia.slides.geojson_features import Feature


def read_geojson(
    content: Any, path: Path, slide: SlideInfo, units: str | None, *, all_classes: bool = False
) -> CandidateList:
    """Read features; see :func:`atypia.slides.read_candidates.read_candidates`."""
    assert slide.mpp is not None
    found = CandidateList()
    features: dict[str, Feature] = {}
    for number, raw in enumerate(features_of(content), 1):
        try:
            features[f"feature {number}"] = read_feature(raw)
        except BadFeatureError as error:
            found.problems.append(Problem(f"feature {number}: {error}", str(path)))
    features = _of_slide(features, found, path, slide)
    classes = {feature.class_name for feature in features.values()}
    wanted = classes | {""} if all_classes else wanted_classes(classes)
    scale = np.ones(2) if units != "um" else 1 / np.array(slide.um_per_px)
    for place, feature in features.items():
        try:
            _add(feature, place, found, slide, scale, wanted=feature.class_name in wanted)
        except BadFeatureError as error:
            found.problems.append(Problem(f"{place}: {error}", str(path)))
    found.candidates = with_own_ids(found.candidates, slide.path.stem)
    return found


def _of_slide(
    features: dict[str, Feature], found: CandidateList, path: Path, slide: SlideInfo
) -> dict[str, Feature]:
    """Leave out, and count, the features that name another slide."""
    names = sorted({feature.slide for feature in features.values() if feature.slide is not None})
    here = {name for name, ours in zip(names, of_slide(names, slide.path), strict=True) if ours}
    kept = {p: f for p, f in features.items() if f.slide is None or f.slide in here}
    if features and not kept:
        what = f"expected features of {slide.path.name!r} but got those of {names[:10]}."
        raise InputError(Problem(what, str(path)))
    if others := len(features) - len(kept):
        found.left_out["of another slide"] = others
    return kept


def _add(
    feature: Feature,
    place: str,
    found: CandidateList,
    slide: SlideInfo,
    scale: NDArray[np.float64],
    *,
    wanted: bool,
) -> None:
    """Add the figures and the regions of a feature, or count it as left out."""
    assert slide.mpp is not None
    if feature.kind in ("tile", "TMA core", "root"):
        found.leave_out(f"{feature.kind}, neither figure nor region")
        return
    own_id = feature.id or f"{slide.path.stem}/{place.removeprefix('feature ')}"
    about = {"candidate_class": feature.class_name} if feature.class_name else NOTHING
    before = len(found.regions)
    figures: list[tuple[float, float, Any]] = [(x, y, None) for x, y in feature.points]
    for shape in feature.shapes:
        x0, y0, x1, y1 = shape.bounds
        longest = max((x1 - x0) * scale[0], (y1 - y0) * scale[1]) * slide.mpp
        if longest <= LARGEST_UM:
            figures.append((*_centre(shape), as_geometry(shape, scale)))
        elif feature.kind in ("detection", "cell"):
            raise BadFeatureError(
                f"expected the outline of a figure, up to {LARGEST_UM:g} µm, but got a "
                f"{feature.kind} of {longest:.0f} µm. A region must be an annotation."
            )
        elif is_ignored(feature.class_name):
            found.leave_out(f"region of class {feature.class_name!r}")
        elif (geometry := as_geometry(shape, scale, slide.origin)) is not None:
            name = feature.name or feature.class_name or own_id
            found.regions.append(AnnotatedRegion(name, geometry))
        else:
            raise BadFeatureError("expected a region with an area.")
    specks = (
        feature.class_name and not is_figure(feature.class_name) and len(found.regions) > before
    )
    if figures and specks:
        found.leave_out(f"small part of a region of class {feature.class_name!r}", len(figures))
        return
    if figures and not wanted:
        found.leave_out(f"class {feature.class_name!r}", len(figures))
        return
    for k, (x, y, outline) in enumerate(figures):
        name = own_id if len(figures) == 1 else f"{own_id}/{k}"
        x, y = x * scale[0] + slide.origin[0], y * scale[1] + slide.origin[1]
        found.candidates.append(Candidate(name, float(x), float(y), place, outline, about))


def _centre(shape: Any) -> tuple[float, float]:
    """Centroid of what a shape encloses, holes left out of account."""
    shapely = load_shapely()
    parts = [p for part in shapely.get_parts(shape) for p in shapely.get_parts(part)]
    filled = shapely.union_all([shapely.Polygon(p.exterior) for p in parts if p.area > 0])
    if filled.is_empty:  # a line
        x0, y0, x1, y1 = shape.bounds
        return (x0 + x1) / 2, (y0 + y1) / 2
    return float(filled.centroid.x), float(filled.centroid.y)
