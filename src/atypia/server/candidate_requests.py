"""Candidates of a slide as a client sends them: a list, or a file of any kind that we read."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final

from pydantic_core import from_json

from atypia.core.errors import InputError, Problem
from atypia.server.refusal import RefusalError
from atypia.slides.candidates import read_candidates

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.server.limits import ServerLimits
    from atypia.server.schemas import CandidatesRequest
    from atypia.slides import SlideInfo
    from atypia.slides.candidates import CandidateList
    from atypia.slides.candidates.read_candidates import Units

_MARKS_PER_CANDIDATE: Final = 256
"""Commas and brackets: an outline of 60 corners and 20 measurements."""
_ROWS_PER_CANDIDATE: Final = 4
"""A table may hold other slides' candidates, too."""

log = logging.getLogger("atypia")


def read_list(request: CandidatesRequest, folder: Path, slide: SlideInfo) -> CandidateList:
    """Check a list of centres against the slide.

    Raises:
        InputError: Lists what lies outside the slide or occurs twice.
    """
    assert slide.mpp is not None
    scale = 1.0 if request.units == "px" else 1 / slide.mpp
    # GeoJSON keeps ids as they are, and counts from the corner that QuPath shows.
    features = [
        {
            "type": "Feature",
            "id": centre.id,
            "geometry": {
                "type": "Point",
                "coordinates": [
                    centre.x * scale - slide.origin[0],
                    centre.y * scale - slide.origin[1],
                ],
            },
        }
        for centre in request.candidates
    ]
    file = folder / "candidates.json"
    file.write_text(json.dumps(features), encoding="utf-8")
    return read_candidates(file, slide, skip_bad=request.skip_bad)


def read_file(
    file: Path,
    slide: SlideInfo,
    limits: ServerLimits,
    *,
    units: Units | None = None,
    skip_bad: bool = False,
) -> CandidateList:
    """Read a file of candidates that a client sent; see :func:`read_candidates`.

    Raises:
        InputError: Lists everything that is wrong with it.
        RefusalError: 413; to read it would take many times the memory that its bytes do.
    """
    content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    start = content[:64].lstrip()
    if start.startswith(b"\x1f\x8b"):
        what = "expected a plain file but got a compressed one. Send it uncompressed."
        raise InputError(Problem(what, str(file)))
    is_json = start[:1] in (b"{", b"[")
    _check_length(content, limits, lines=not is_json)
    if is_json:
        try:
            from_json(content)
        except ValueError as error:  # nested too deep for Python's own parser, too
            what = f"expected GeoJSON or MIDOG JSON but it cannot be read ({error})."
            raise InputError(Problem(what, str(file))) from None
    file = file.rename(file.with_suffix(".json" if is_json else ".csv"))
    try:
        return read_candidates(file, slide, units=units, skip_bad=skip_bad)
    except InputError:
        raise
    except Exception as error:
        # A file of a stranger: whatever it breaks is wrong with it, but we want to know of it.
        log.exception("candidates that were sent could not be read")
        what = f"expected a sound file of candidates but it cannot be read ({error})."
        raise InputError(Problem(what, str(file))) from error


def _check_length(content: bytes, limits: ServerLimits, *, lines: bool) -> None:
    """Count what becomes an object each, before any of them is made."""
    marks = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    rows = max(content.count(b"\n"), content.count(b"\r")) if lines else 0
    if (
        marks > _MARKS_PER_CANDIDATE * limits.patches + 1000
        or rows > _ROWS_PER_CANDIDATE * limits.patches + 1000
    ):
        what = f"expected a file of at most {limits.patches:,} candidates but got a longer one."
        raise RefusalError(413, f"{what} Send several requests.")
