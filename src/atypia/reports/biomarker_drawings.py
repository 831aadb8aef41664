"""Inline SVG of the summary page: the map of a slide's figures and the bar of its subtypes.

Coordinates are µm on the slide, y downwards as in the image. Figures of thousands share one path,
and those that a print could not tell apart are drawn once, so that a page stays small. Colours are
attributes, too, for readers that apply no style sheet within a drawing, as those that make PDF; on
a screen the page's style sheet stands above them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.labels import ATYPICAL, DISPLAY_NAMES, SUBTYPES
from atypia.reports.html import Html, join, tag

if TYPE_CHECKING:
    from atypia.biomarker.slide_biomarkers import Counts, SlideBiomarkers
    from atypia.evaluation.metrics import FloatArray

WIDTH: Final = 400
_MAX_HEIGHT: Final = 420
_MARGIN: Final = 10
_RULERS_UM: Final = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_TINTS: Final = (0.95, 0.72, 0.5, 0.3)
_INK, _SOFT, _ACCENT, _MARK = "#1c2430", "#5a6675", "#0072b2", "#d55e00"
_LINE: Final = {"fill": "none", "stroke_linecap": "round", "stroke_linejoin": "round"}
_NORMAL: Final = _LINE | {"stroke": _INK, "stroke_opacity": 0.45, "stroke_width": 3}
_ATYPICAL: Final = _LINE | {"stroke": _MARK, "stroke_width": 5}
_HOTSPOT: Final = _LINE | {"stroke": _ACCENT, "stroke_width": 2}
_REGION: Final = _LINE | {"stroke": _SOFT, "stroke_width": 1.2, "stroke_dasharray": "5 4"}
_RULER: Final = {"fill": "none", "stroke": _INK, "stroke_width": 2}


def slide_map(slide: SlideBiomarkers) -> Html | None:
    """Draw figures, annotated region and hot-spot to scale; None where there is nothing to draw."""
    source = slide.source
    rings = []
    if slide.region is not None and slide.mpp is not None:
        rings = [ring * slide.mpp for ring in slide.region.rings_px()]
    outline = [] if slide.hotspot is None else [slide.hotspot.outline_um]
    corners = [points for points in (source.centres_um, *rings, *outline) if len(points)]
    if not corners:
        return None
    low = np.min([points.min(axis=0) for points in corners], axis=0)
    size = np.max([points.max(axis=0) for points in corners], axis=0) - low
    scale = float(
        min(
            (WIDTH - 2 * _MARGIN) / max(size[0], 1.0),
            (_MAX_HEIGHT - 2 * _MARGIN) / max(size[1], 1.0),
        )
    )
    height = int(np.ceil(size[1] * scale)) + 2 * _MARGIN + 22
    shift = (WIDTH - 2 * _MARGIN - size[0] * scale) / 2

    def place(points: FloatArray) -> FloatArray:
        return np.asarray((points - low) * scale + _MARGIN + np.array([shift, 0]))

    atypical = source.figures.predicted_atypical
    ruler = max(r for r in _RULERS_UM if r * scale <= WIDTH / 3 or r == _RULERS_UM[0])
    return tag(
        "svg",
        tag("path", class_="region", d=" ".join(map(_ring, map(place, rings))), **_REGION)
        if rings
        else None,
        tag("path", class_="normal", d=_dots(place(source.centres_um[~atypical])), **_NORMAL),
        tag("path", class_="atypical", d=_dots(place(source.centres_um[atypical])), **_ATYPICAL),
        *(tag("path", class_="hotspot", d=_ring(place(ring)), **_HOTSPOT) for ring in outline),
        tag("path", class_="ruler", d=f"M{_MARGIN} {height - 8}h{ruler * scale:.1f}", **_RULER),
        tag(
            "text",
            f"{ruler / 1000:g} mm" if ruler >= 1000 else f"{ruler} µm",
            x=f"{_MARGIN + ruler * scale + 6:.1f}",
            y=height - 4,
            fill=_INK,
            font_size=12,
        ),
        class_="map",
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_label="Map of the mitotic figures and the hot-spot",
    )


def profile_bar(counts: Counts) -> Html:
    """Draw the predicted subtypes as one bar, atypical ones on the left."""
    total = max(counts.figures, 1)
    parts, x = [], 0.0
    for i, (subtype, count) in enumerate(zip(SUBTYPES, counts.subtypes, strict=True)):
        width = WIDTH * count / total
        parts.append(
            tag(
                "rect",
                tag("title", f"{DISPLAY_NAMES[subtype]}: {count}"),
                class_="atypical" if subtype in ATYPICAL else "normal",
                fill=_fill(subtype),
                x=f"{x:.2f}",
                y=0,
                width=f"{width:.2f}",
                height=22,
                fill_opacity=_TINTS[i % len(_TINTS)],
            )
        )
        x += width
    return tag(
        "svg",
        *parts,
        class_="profile",
        viewBox=f"0 0 {WIDTH} 22",
        role="img",
        aria_label="Predicted subtypes as shares of the figures",
    )


def swatch(subtype: str) -> Html:
    """Draw the colour of a subtype in :func:`profile_bar`, for its row of the key."""
    opacity = _TINTS[SUBTYPES.index(subtype) % len(_TINTS)]
    kind = "atypical" if subtype in ATYPICAL else "normal"
    square = tag(
        "rect", class_=kind, fill=_fill(subtype), width=10, height=10, fill_opacity=opacity
    )
    svg = tag("svg", square, class_="swatch", viewBox="0 0 10 10", aria_hidden="true")
    return join(svg, " ")


def _fill(subtype: str) -> str:
    return _MARK if subtype in ATYPICAL else _ACCENT


def _dots(points: FloatArray) -> str:
    """Path of a dot at every place (N, 2); a place that several share is drawn once."""
    places = np.unique(np.round(points * 2) / 2, axis=0)
    return "".join(f"M{x:g} {y:g}h0" for x, y in places)


def _ring(points: FloatArray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"
