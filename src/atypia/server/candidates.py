"""Candidates of a slide as a client sends them: a list, or a file of any kind that we read."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from pydantic_core import from_json

from atypia.errors import InputError, Problem
from atypia.inference.candidates import read_candidates

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.data.slides import SlideInfo
    from atypia.inference.candidates import Found
    from atypia.inference.candidates.read import Units
    from atypia.server.schemas import CandidatesRequest

log = logging.getLogger("atypia")


def read_list(request: CandidatesRequest, folder: Path, slide: SlideInfo) -> Found:
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
    file: Path, slide: SlideInfo, *, units: Units | None = None, skip_bad: bool = False
) -> Found:
    """Read a file of candidates that a client sent; see :func:`read_candidates`.

    Raises:
        InputError: Lists everything that is wrong with it.
    """
    with file.open("rb") as stream:
        start = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"\x1f\x8b"):
        what = "expected a plain file but got a compressed one. Send it uncompressed."
        raise InputError(Problem(what, str(file)))
    is_json = start[:1] in (b"{", b"[")
    if is_json:
        try:
            from_json(file.read_bytes().removeprefix(b"\xef\xbb\xbf"))
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
