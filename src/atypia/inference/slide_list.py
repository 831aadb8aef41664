"""A table of slides: where each lies, and where its candidates are."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from atypia.core.errors import InputError, Problem
from atypia.core.tables import Row, read_table

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.slides.read_candidates import Units

REQUIRED: Final = ("slide", "candidates")
OPTIONAL: Final = ("mpp", "units", "slide_id", "patient_id")
NONE: Final = "none"
"""In the place of a file of candidates: the slide was searched, and nothing was found."""

log = logging.getLogger("atypia")


@dataclass(frozen=True, slots=True)
class SlideRow:
    """One slide of the table."""

    slide_id: str
    """Its name in the answers, once in the table."""
    slide: Path
    candidates: Path | None
    """None where nothing was found."""
    mpp: float | None
    """µm per pixel, where the slide does not hold it."""
    units: Units | None
    """Of the candidates, where their file does not name them."""
    patient: str
    """Empty where the table has none."""


def read_slide_table(path: Path) -> list[SlideRow]:
    """Read a table of slides.

    Columns ``slide`` and ``candidates`` hold paths, as they are or from the table's folder on;
    ``candidates`` is ``none`` where nothing was found. ``mpp``, ``units`` (``px`` or ``um``),
    ``slide_id`` (else the slide's file name) and ``patient_id`` may be there, and empty.

    Raises:
        InputError: Lists every problem of the table. Whether the files are there is not looked
            at: one that is missing costs its slide and no other.
    """
    table = read_table(path)
    problems = table.missing(REQUIRED)
    if problems:
        raise InputError(problems)
    unused = [column for column in table.columns if column not in (*REQUIRED, *OPTIONAL)]
    if unused:
        log.warning("%s: columns that are not used: %s", path, ", ".join(unused))
    rows: list[SlideRow] = []
    for row in table.rows:
        faults = _faults(row, path)
        problems += faults
        if not faults:
            rows.append(_read(row, path))
    times = Counter(row.slide_id for row in rows)
    problems += [
        Problem(
            f"expected each slide under a name of its own but got {name!r} {n} times. Name them "
            "in a column 'slide_id'.",
            str(path),
        )
        for name, n in times.items()
        if n > 1
    ]
    if problems:
        raise InputError(problems)
    return rows


def _faults(row: Row, path: Path) -> list[Problem]:
    """Find what is wrong with a row."""
    cells = row.cells
    faults = [row.problem] if row.problem else []

    def fault(column: str, what: str) -> None:
        faults.append(Problem(what, str(path), row.line, column))

    if not cells["slide"]:
        fault("slide", "expected the path of a slide but the cell is empty.")
    if not cells["candidates"]:
        what = f"expected a file of candidates, or {NONE!r} where nothing was found, but the cell "
        fault("candidates", f"{what}is empty.")
    mpp = cells.get("mpp", "")
    if mpp and _mpp(mpp) is None:
        fault("mpp", f"expected µm per pixel (0.01 to 10) or nothing but got {mpp!r}.")
    units = cells.get("units", "")
    if units not in ("", "px", "um"):
        fault("units", f"expected 'px', 'um' or nothing but got {units!r}.")
    name = cells.get("slide_id", "")
    if name.startswith(".") or any(c in "/\\" or not c.isprintable() for c in name):
        fault("slide_id", f"expected what can be the name of a file but got {name!r}.")
    return faults


def _read(row: Row, path: Path) -> SlideRow:
    cells = row.cells
    slide = (path.parent / cells["slide"]).absolute()
    listed = cells["candidates"]
    return SlideRow(
        slide_id=cells.get("slide_id", "") or slide.name,
        slide=slide,
        candidates=None if listed == NONE else (path.parent / listed).absolute(),
        mpp=_mpp(cells.get("mpp", "")),
        units=cast("Units | None", cells.get("units") or None),
        patient=cells.get("patient_id", ""),
    )


def _mpp(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0.01 <= value <= 10 else None
