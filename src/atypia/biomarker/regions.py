"""Annotated regions: polygons drawn on a slide, read from GeoJSON as QuPath and others write it.

Coordinates are pixels of the full resolution, y downwards. Overlapping polygons count once, holes
are holes; outlines that cross themselves are repaired. On slides of some scanners QuPath counts
from the corner of the scanned part instead: :meth:`Region.moved` brings such a region to its place.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.core.errors import InputError, Problem
from atypia.slides.candidates import LARGEST_UM, is_ignored
from atypia.slides.geojson_features import (
    BadFeatureError,
    features_of,
    load_shapely,
    read_feature,
    read_json_of,
)
from atypia.slides.slide_names import of_slide
from atypia.slides.tissue import PIXEL_UM, Tissue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from atypia.evaluation.metrics import BoolArray, FloatArray

log = logging.getLogger("atypia")


@dataclass(frozen=True)
class Region:
    """An annotated region of one slide, in pixels of the full resolution."""

    geometry: Any
    """A shapely geometry with an area."""

    def area_mm2(self, mpp: float) -> float:
        """Area at `mpp` µm per pixel."""
        return float(self.geometry.area) * mpp**2 / 1e6

    def contains(self, points_px: FloatArray) -> BoolArray:
        """Which points (N, 2) lie inside or on the outline, (N,)."""
        shapely = load_shapely()
        shapely.prepare(self.geometry)  # many points
        inside = shapely.intersects_xy(self.geometry, points_px[:, 0], points_px[:, 1])
        return np.asarray(inside, dtype=np.bool_)

    def share_of(self, outline_px: FloatArray) -> float:
        """Share of the area within a closed outline (V, 2) that lies in the region."""
        window = load_shapely().Polygon(outline_px)
        return float(self.geometry.intersection(window).area / window.area)

    def tissue(self, um_per_px: FloatArray, known: Tissue | None = None) -> Tissue:
        """Give the tissue within the region, by pixels of (2,) µm; all of it if none is `known`."""
        if known is None:
            x0, y0, x1, y1 = self.geometry.bounds * np.tile(um_per_px, 2)
            size = np.ceil(np.array([y1 - y0, x1 - x0]) / PIXEL_UM).astype(int)
            known = Tissue(np.ones(size, np.bool_), corner_um=(x0, y0))
        mask = np.zeros_like(known.mask)
        mask[known.mask] = self.contains(known.places_um / um_per_px)
        return replace(known, mask=mask)

    def moved(self, x_px: float, y_px: float) -> Region:
        """Give the region moved to the right and down."""
        offset = np.array([x_px, y_px])
        return Region(load_shapely().transform(self.geometry, lambda points: points + offset))

    def rings_px(self) -> list[FloatArray]:
        """Give the outlines and the holes, each (V, 2), for drawing by the even-odd rule."""
        polygons = getattr(self.geometry, "geoms", [self.geometry])
        return [
            np.asarray(ring.coords)[:, :2]
            for polygon in polygons
            if polygon.geom_type == "Polygon"
            for ring in (polygon.exterior, *polygon.interiors)
        ]


def region_of(outlines: Sequence[Mapping[str, Any]]) -> Region | None:
    """Unite outlines, GeoJSON geometries in px; None where they have no area.

    Raises:
        BadFeatureError: One of them is no sound polygon.
        MissingExtraError: The extra ``slides`` is not installed.
    """
    if not outlines:
        return None
    shapes = [shape for outline in outlines for shape in read_feature(outline).shapes]
    region = Region(load_shapely().union_all(shapes))
    return region if region.geometry.area > 0 else None


def read_regions(
    path: Path, slides: Sequence[str], mpp: Mapping[str, float | None] | None = None
) -> dict[str, Region]:
    """Read the annotated regions of slides: slide to region; one without is left out, and logged.

    Outlines up to :data:`LARGEST_UM` long are those of figures, or boxes around them, and no
    regions, as far as `mpp` (µm per pixel) is known.

    Args:
        path: A GeoJSON file (also gzipped), or a folder with one per slide, named as the slide
            with or without its own extension. In a file for several slides, every feature has the
            property ``slide`` (or ``image``, ``filename`` and the like).
        slides: Names of the slides that regions are wanted for.
        mpp: By slide.

    Raises:
        InputError: Lists every problem of the files.
        MissingExtraError: The extra ``slides`` is not installed.
    """
    if not path.exists():
        raise InputError(Problem("does not exist.", str(path)))
    shapes: dict[str, list[Any]] = {slide: [] for slide in slides}
    small: dict[Path, int] = {}

    def add(slide: str, shape: Any, file: Path) -> None:
        scale = (mpp or {}).get(slide)
        x0, y0, x1, y1 = shape.bounds
        if scale is not None and max(x1 - x0, y1 - y0) * scale <= LARGEST_UM:
            small[file] = small.get(file, 0) + 1
        else:
            shapes[slide].append(shape)

    problems: list[Problem] = []
    if path.is_dir():
        for slide in slides:
            names = dict.fromkeys(
                f"{name}.geojson{gz}" for name in (slide, Path(slide).stem) for gz in ("", ".gz")
            )
            file = next((path / name for name in names if (path / name).is_file()), None)
            if file is not None:
                for named, shape in _shapes(file, problems):
                    if named is None or of_slide([named], Path(slide))[0]:
                        add(slide, shape, file)
                    else:
                        log.warning("%s: a region of another slide, %r", file, named)
    else:
        listed = list(_shapes(path, problems))
        given = sorted({named for named, _ in listed if named is not None})
        ours_of = {s: dict(zip(given, of_slide(given, Path(s)), strict=True)) for s in slides}
        for named, shape in listed:
            if named is None and len(slides) == 1:
                add(slides[0], shape, path)
            elif named is None:
                what = (
                    f"expected the property 'slide' of every region, as there are {len(slides)} "
                    "slides. Or give a folder with one file per slide."
                )
                if not any(p.what == what for p in problems):
                    problems.append(Problem(what, str(path)))
            else:
                ours = [slide for slide in slides if ours_of[slide][named]]
                if not ours:
                    log.warning("%s: a region of slide %r, which has no results", path, named)
                for slide in ours:
                    add(slide, shape, path)
    for file, n in small.items():
        log.warning(
            "%s: %d outlines up to %g µm long are taken for figures, not for regions",
            file,
            n,
            LARGEST_UM,
        )
    regions = {}
    for slide, parts in shapes.items():
        if not parts and problems:
            continue
        if not parts:
            log.warning(
                "%s has no region of slide %s: its region's measures are empty", path, slide
            )
            continue
        region = Region(load_shapely().union_all(parts))
        if region.geometry.area > 0:
            regions[slide] = region
        else:
            problems.append(
                Problem(f"expected a region with an area on slide {slide!r}.", str(path))
            )
    if problems:
        raise InputError(problems)
    return regions


def _shapes(file: Path, problems: list[Problem]) -> Iterable[tuple[str | None, Any]]:
    """Slide (if the feature names one) and shape of every annotated polygon of a file."""
    try:
        content = read_json_of(file)
    except InputError as error:
        problems += error.problems
        return
    left_out: Counter[str] = Counter()
    for number, raw in enumerate(features_of(content), 1):
        try:
            feature = read_feature(raw)
        except BadFeatureError as error:
            problems.append(Problem(f"feature {number}: {error}", str(file)))
            continue
        if feature.kind not in ("", "annotation"):
            left_out[f"{feature.kind}, no annotated area"] += 1
        elif is_ignored(feature.class_name):
            left_out[f"class {feature.class_name!r}"] += 1
        elif not feature.shapes:
            left_out["points"] += 1
        else:
            yield from ((feature.slide, shape) for shape in feature.shapes)
    for reason, n in left_out.items():
        log.warning("%s: %d features left out: %s", file, n, reason)
