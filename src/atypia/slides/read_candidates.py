"""Read a file of candidates, whatever kind it is, and check them against the slide."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from atypia.core.errors import InputError, Problem
from atypia.slides.candidates import LARGEST_UM
from atypia.slides.csv_candidates import read_listing
from atypia.slides.geojson_candidates import read_geojson
from atypia.slides.geojson_features import is_geojson, read_json_of
from atypia.slides.midog_candidates import (
    is_grand_challenge,
    is_midog,
    read_grand_challenge,
    read_midog,
)
from atypia.slides.reader import unknown_resolution

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from atypia.slides import SlideInfo
    from atypia.slides.candidates import Candidate, CandidateList

Units = Literal["px", "um"]

_SAME_PX: Final = 0.1
"""Centres that agree to this are one figure twice."""
_ENOUGH: Final = 10
"""Fewer candidates than this are no evidence of the units of all."""

log = logging.getLogger("atypia")


def read_candidates(
    path: Path,
    slide: SlideInfo,
    *,
    units: Units | None = None,
    skip_bad: bool = False,
    all_classes: bool = False,
) -> CandidateList:
    """Read candidates and annotated regions of one slide, centres in px on level 0.

    There may be none, where the file is sound: the slide was searched, and nothing was found.

    Args:
        path: GeoJSON as QuPath exports it (also gzipped), MIDOG or COCO JSON, points of Grand
            Challenge, a table of centres or boxes, or a cohort whose manifest has centres.
        slide: The slide they lie on.
        units: Of the coordinates, where the file does not name them: px on level 0, or µm from the
            slide's corner.
        skip_bad: Leave out what is wrong, and list it, instead of raising.
        all_classes: Take the candidates of all classes, not just of those that are figures; see
            :func:`atypia.slides.candidates.wanted_classes`.

    Raises:
        InputError: Lists every problem: what cannot be read, what lies outside the slide, what
            occurs twice; or none but bad ones were there.
    """
    if slide.mpp is None:
        raise InputError(unknown_resolution(slide.path))
    found = _read(path, slide, units, all_classes=all_classes)
    found.problems += _check(found, path, slide)
    for reason, n in found.left_out.items():
        log.warning("%s: %d left out: %s", path, n, reason)
    if found.problems and not skip_bad:
        raise InputError(found.problems)
    if found.problems and not found.candidates:
        what = "expected candidates but none is left."
        raise InputError([*found.problems, Problem(what, str(path))])
    if not found.candidates:
        log.warning("%s holds no candidate%s", path, _besides(found))
    return found


def _besides(found: CandidateList) -> str:
    """Describe what a file without candidates does hold."""
    if not found.regions:
        return ""
    return (
        f", only annotated regions ({len(found.regions)}): outlines longer than {LARGEST_UM:g} µm "
        "are no figures"
    )


def _read(path: Path, slide: SlideInfo, units: Units | None, *, all_classes: bool) -> CandidateList:
    if (path / "cohort.json").is_file():
        path /= "manifest.csv"
    if not path.is_file():
        raise InputError(Problem("expected a file of candidates but there is none.", str(path)))
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return read_listing(path, slide, units, all_classes=all_classes)
    content = read_json_of(path)
    if is_geojson(content):
        return read_geojson(content, path, slide, units, all_classes=all_classes)
    if is_midog(content):
        return read_midog(content, path, slide, units, all_classes=all_classes)
    if is_grand_challenge(content):
        return read_grand_challenge(content, path, slide, all_classes=all_classes)
    what = (
        "expected GeoJSON (a FeatureCollection, a Feature, or a list of Features), MIDOG JSON "
        "('images' and 'annotations') or the points of Grand Challenge but got "
        f"{_kind(content)}. Other tools' objects can be given as a CSV of centres (x_px, y_px)."
    )
    raise InputError(Problem(what, str(path)))


def _kind(content: Any) -> str:
    if isinstance(content, dict):
        return f"an object with the keys {sorted(content)[:8]}"
    return f"a list of {len(content)}" if isinstance(content, list) else type(content).__name__


def _check(found: CandidateList, path: Path, slide: SlideInfo) -> list[Problem]:
    """Take out what lies outside the slide or occurs twice; report what was taken out."""
    candidates = found.candidates
    if not candidates:
        return []
    xy = np.array([(c.x, c.y) for c in candidates])
    size = np.array([slide.width, slide.height])
    outside = np.any((xy < 0) | (xy >= size), axis=1)
    if len(xy) >= _ENOUGH and outside.mean() > 0.5:
        return _all_misplaced(found, path, slide, xy, outside)
    problems = [
        Problem(
            f"{_name(candidates[i])}: expected a centre inside the slide ({slide.width} × "
            f"{slide.height} px) but got x = {xy[i, 0]:.6g}, y = {xy[i, 1]:.6g} px.",
            str(path),
        )
        for i in np.flatnonzero(outside)
    ]
    earlier = np.where(outside, -1, _earlier(xy))
    named: dict[str, int] = {}
    for i, candidate in enumerate(candidates):
        if outside[i]:
            continue
        if earlier[i] >= 0:
            what = f"has the same centre as {_name(candidates[earlier[i]])}; it would count twice."
        elif (first := named.setdefault(candidate.id, i)) != i:
            what = f"has the same id as {_name(candidates[first])}."
            earlier[i] = first
        else:
            continue
        problems.append(Problem(f"{_name(candidate)}: {what}", str(path)))
    good = ~outside & (earlier < 0)
    found.candidates = [candidates[i] for i in np.flatnonzero(good)]
    if len(xy) >= _ENOUGH:
        _warn_of_micrometres(path, slide, xy)
    return problems


def _name(candidate: Candidate) -> str:
    return f"{candidate.place} ({candidate.id!r})"


def _earlier(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(N,) index of an earlier point at the same place, -1 where there is none."""
    column, row = np.round(np.clip(xy, -1e8, 1e8) / _SAME_PX).astype(np.int64).T
    _, first, inverse = np.unique(column * 2**32 + row, return_index=True, return_inverse=True)
    earlier = first[inverse]
    earlier[first] = -1
    return np.asarray(earlier, dtype=np.int64)


def _all_misplaced(
    found: CandidateList,
    path: Path,
    slide: SlideInfo,
    xy: npt.NDArray[np.float64],
    outside: npt.NDArray[np.bool_],
) -> list[Problem]:
    """One problem for a file whose coordinates are in other units, or of another slide."""
    found.candidates = []
    assert slide.mpp is not None
    as_px = xy * slide.mpp
    hint = "Is it the file of this slide, in px of its full resolution?"
    if ((as_px >= 0) & (as_px < [slide.width, slide.height])).all():
        hint = (
            "They would lie inside if they were px that have been taken for µm: "
            "is it --units px (or columns x_px, y_px)? Or is it the file of another slide?"
        )
    what = (
        f"expected centres inside the slide ({slide.width} × {slide.height} px) but "
        f"{int(outside.sum()):,} of {len(xy):,} are outside, up to x = {xy[:, 0].max():.6g}, "
        f"y = {xy[:, 1].max():.6g} px. {hint}"
    )
    return [Problem(what, str(path))]


def _warn_of_micrometres(path: Path, slide: SlideInfo, xy: npt.NDArray[np.float64]) -> None:
    """Warn where centres fill just the corner that µm would fill if they were taken for px."""
    assert slide.mpp is not None
    corner = np.array([slide.width, slide.height]) * slide.mpp
    low, high = xy.min(axis=0), xy.max(axis=0)
    if slide.mpp < 0.8 and (high < corner).all() and (high - low > corner / 2).all():
        log.warning(
            "%s: all centres lie in the slide's upper left corner, as µm taken for px would. "
            "If they are µm, say --units um (or name the columns x_um, y_um).",
            path,
        )
