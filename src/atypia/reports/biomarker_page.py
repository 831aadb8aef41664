"""One page per slide: what was found, how sure it is, and the figures to check it by.

It fits on one sheet of A4, see :mod:`atypia.reports.pdf`, and needs neither network nor script.
Coordinates of its map are µm on the slide, y downwards. Figures of thousands share one path, and
those that a print could not separate are drawn once, so that a page stays small. Colours are
attributes, too, for readers that apply no style sheet within a drawing, as those that make PDF.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.biomarker.slide_biomarkers import SCOPES
from atypia.core.labels import SUBTYPES, left_out
from atypia.reports import plots
from atypia.reports.image_panels import data_uris
from atypia.reports.page_templates import render
from atypia.reports.words import (
    SHORT_NAMES,
    atypical_measures,
    biomarker_estimate,
    biomarker_parts,
    hotspot_chance,
    share,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.biomarker.error_model import ErrorModel
    from atypia.biomarker.slide_biomarkers import Biomarkers, SlideBiomarkers
    from atypia.evaluation.metrics import FloatArray
    from atypia.reports.report_input import Patches

GALLERY: Final = 16
WIDTH: Final = 400
_MAX_HEIGHT: Final = 420
_MARGIN: Final = 10
_RULERS_UM: Final = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_TINTS: Final = (0.95, 0.72, 0.5, 0.3)


@dataclass(frozen=True)
class BiomarkerPage:
    """What a summary page is made from."""

    slide: SlideBiomarkers
    patches: Patches | None = None
    """Reads the images of figures, where they are at hand."""
    errors: ErrorModel | None = None
    """Those that the corrected values were corrected for."""
    model: Mapping[str, str] | None = None
    """Facts on the model, name to text."""
    missing: int = 0
    """Candidates that could not be read, or were left out as bad."""


def render_summary(summary: BiomarkerPage) -> str:
    """Render the page. Equal inputs give equal bytes."""
    slide, errors = summary.slide, summary.errors
    areas = {SCOPES[scope]: found for scope in SCOPES if (found := slide.measures[scope])}
    name, found = _headline(slide)
    return render(
        "biomarker.html",
        styles=["biomarker.css"],
        summary=summary,
        slide=slide,
        where=name,
        found=found,
        left_out=left_out(slide.source.left_out.status),
        areas=areas,
        map=_slide_map(slide),
        profile=_profile(found),
        errors=None if errors is None else errors.chosen,
        atypical_measures=atypical_measures,
        words=biomarker_estimate,
        parts=biomarker_parts,
        chance=hotspot_chance(slide),
        palette=plots,
        **_surest(summary),
    )


def _headline(slide: SlideBiomarkers) -> tuple[str, Biomarkers]:
    """Choose the area of the lead: the first whose share of atypical figures can be given."""
    for scope in ("hotspot", "region", "all"):
        found = slide.measures[scope]
        if found is None:
            continue
        if found.counts.figures == 0 or found.atypical_called_fraction.value is not None:
            return SCOPES[scope], found
    raise AssertionError("all candidates are always measured")


def _slide_map(slide: SlideBiomarkers) -> dict[str, Any] | None:
    """Paths of figures, annotated region and hot-spot to scale; None without any of them."""
    source = slide.source
    rings = []
    if slide.region is not None and slide.mpp is not None:
        rings = [ring * slide.mpp for ring in slide.region.rings_px()]
    outline = [] if slide.hotspot is None else [slide.hotspot.outline_um]
    places = (source.centres_um, source.left_out.centres_um)
    corners = [points for points in (*places, *rings, *outline) if len(points)]
    if not corners:
        return None
    low = np.min([points.min(axis=0) for points in corners], axis=0)
    size = np.max([points.max(axis=0) for points in corners], axis=0) - low
    room = np.array([WIDTH, _MAX_HEIGHT]) - 2 * _MARGIN
    scale = float((room / np.maximum(size, 1.0)).min())
    height = int(np.ceil(size[1] * scale)) + 2 * _MARGIN + 22
    shift = (WIDTH - 2 * _MARGIN - size[0] * scale) / 2

    def place(points: FloatArray) -> FloatArray:
        return np.asarray((points - low) * scale + _MARGIN + np.array([shift, 0]))

    atypical = source.figures.predicted_atypical
    ruler = max(r for r in _RULERS_UM if r * scale <= WIDTH / 3 or r == _RULERS_UM[0])
    return {
        "width": WIDTH,
        "height": height,
        "region": " ".join(map(_ring, map(place, rings))),
        "normal": _dots(place(source.centres_um[~atypical])),
        "atypical": _dots(place(source.centres_um[atypical])),
        "left_out": _dots(place(source.left_out.centres_um)),
        "hotspot": " ".join(map(_ring, map(place, outline))),
        "ruler": f"M{_MARGIN} {height - 8}h{ruler * scale:.1f}",
        "ruler_end": f"{_MARGIN + ruler * scale + 6:.1f}",
        "ruler_length": f"{ruler / 1000:g} mm" if ruler >= 1000 else f"{ruler} µm",
    }


def _dots(points: FloatArray) -> str:
    """Path of a dot at every place (N, 2); a place that several share is drawn once."""
    places = np.unique(np.round(points * 2) / 2, axis=0)
    return "".join(f"M{x:g} {y:g}h0" for x, y in places)


def _ring(points: FloatArray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"


def _profile(found: Biomarkers) -> list[dict[str, Any]]:
    """Each predicted subtype: its count, its share and its part of the bar, atypical ones left."""
    rows, x = [], 0.0
    for i, (subtype, count) in enumerate(zip(SUBTYPES, found.counts.subtypes, strict=True)):
        called = found.called_profile[subtype].value
        width = WIDTH * count / max(found.counts.figures, 1)
        rows.append(
            {
                "subtype": subtype,
                "count": count,
                "called": None if called is None else share(called),
                "corrected": found.profile.get(subtype),
                "x": f"{x:.2f}",
                "width": f"{width:.2f}",
                "opacity": _TINTS[i % len(_TINTS)],
            }
        )
        x += width
    return rows


def _surest(summary: BiomarkerPage) -> dict[str, Any]:
    """Images of the figures called atypical, the surest first, and how many there are."""
    figures = summary.slide.source.figures
    called = np.flatnonzero(figures.predicted_atypical)
    surest = called[np.argsort(-figures.p_atypical[called], kind="stable")][:GALLERY]
    names = [str(figures.patch_ids[i]) for i in surest]
    images = data_uris(summary.patches, names) if summary.patches is not None and names else {}
    captions = [
        f"{SHORT_NAMES[SUBTYPES[figures.predicted[i]]]}, {share(figures.p_atypical[i])}"
        for i in surest
    ]
    shown = [
        (name, images[name], caption)
        for name, caption in zip(names, captions, strict=True)
        if name in images
    ]
    return {"n_called": len(called), "shown": shown}
