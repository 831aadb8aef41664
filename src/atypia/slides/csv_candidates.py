"""Candidates from a table of centres: a CSV, the manifest of a cohort, our own predictions."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from atypia.core.errors import InputError, Problem
from atypia.core.tables import Row, Table, read_table
from atypia.slides.candidates import NOTHING, Candidate, CandidateList

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.slides import SlideInfo

_ID: Final = ("patch_id", "id")
_SLIDE: Final = ("slide", "image")
_KEPT: Final = ("label_", "atypical_", "majority_", "candidate_class", "patient_id", "domain")
"""Columns that begin so are handed on; an earlier model's answers are not."""


def read_listing(path: Path, slide: SlideInfo, units: str | None) -> CandidateList:
    """Read a table; see :func:`atypia.slides.read_candidates.read_candidates`.

    Columns are ``x_px, y_px`` or ``x_um, y_um``, or ``x, y`` whose units the user gives. Where a
    column ``slide`` or ``image`` names several, the rows of this slide are taken.
    """
    assert slide.mpp is not None
    table = read_table(path, may_be_empty=True)
    x_column, y_column, unit = _columns(table, units)
    scale = 1.0 if unit == "px" else 1 / slide.mpp
    id_column = next((c for c in _ID if c in table.columns), None)
    kept = [c for c in table.columns if c.startswith(_KEPT)]
    found = CandidateList()
    for number, row in enumerate(_rows(table, slide), 1):
        centre: list[float] = []
        problems = [row.problem] if row.problem else []
        for column in (x_column, y_column):
            value = _number(row.cells[column])
            if value is None:
                what = f"expected a number ({unit}) but got {row.cells[column]!r}."
                problems.append(Problem(what, str(path), row.line, column))
            else:
                centre.append(value * scale)
        if problems:
            found.problems += problems
            continue
        name = (row.cells[id_column] if id_column else "") or f"{slide.path.stem}/{number}"
        about = {c: row.cells[c] for c in kept} if kept else NOTHING
        found.candidates.append(
            Candidate(name, centre[0], centre[1], f"row {row.line}", None, about)
        )
    return found


def _columns(table: Table, units: str | None) -> tuple[str, str, str]:
    """Names of the columns with the centre, and its unit; never guessed."""
    named = [u for u in ("px", "um") if {f"x_{u}", f"y_{u}"} <= set(table.columns)]
    if named and (units is None or units in named):
        unit = units or named[0]
        return f"x_{unit}", f"y_{unit}", unit
    if named:
        what = f"expected columns x_{units}, y_{units} as --units says but got those in {named}."
    elif not {"x", "y"} <= set(table.columns):
        what = (
            "expected columns x_px, y_px or x_um, y_um (or x, y with --units px or um) but got "
            f"{list(table.columns)}."
        )
    elif units is None:
        what = (
            "expected the units of x and y: name the columns x_px, y_px or give --units px or um."
        )
    else:
        return "x", "y", units
    raise InputError(Problem(what, str(table.path), row=1))


def _rows(table: Table, slide: SlideInfo) -> list[Row]:
    """Rows of the slide, all rows where no column names slides."""
    column = next((c for c in _SLIDE if c in table.columns), None)
    if column is None or not table.rows:
        return list(table.rows)
    cells = [row.cells[column].replace("\\", "/") for row in table.rows]
    for part, wanted in (("name", slide.path.name), ("stem", slide.path.stem)):
        rows = [
            row
            for row, cell in zip(table.rows, cells, strict=True)
            if getattr(PurePosixPath(cell), part) == wanted
        ]
        if rows:
            return _of_one(rows, column, slide, table)
    names = sorted(set(cells))
    what = f"expected rows of {slide.path.name!r} but got {names[:10]} ({len(names)} names)."
    raise InputError(Problem(what, str(table.path), column=column))


def _of_one(rows: list[Row], column: str, slide: SlideInfo, table: Table) -> list[Row]:
    """Rows of this slide, where folders distinguish several of its name."""
    cells = [row.cells[column].replace("\\", "/") for row in rows]
    if len(set(cells)) == 1:
        return rows
    path = slide.path.absolute().parts

    def fits(cell: str) -> bool:
        parts = [part for part in PurePosixPath(cell).parts if part != "/"]
        return tuple(parts) == path[len(path) - len(parts) :]

    here = [row for row, cell in zip(rows, cells, strict=True) if fits(cell)]
    if len({row.cells[column] for row in here}) == 1:
        return here
    what = (
        f"expected rows of one slide {slide.path.name!r} but got those of {sorted(set(cells))[:10]}"
        ". Give the folders that tell them apart, as they are here."
    )
    raise InputError(Problem(what, str(table.path), column=column))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
