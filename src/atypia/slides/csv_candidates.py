"""Candidates from a table of centres or boxes: CSV, QuPath's measurements, a cohort's manifest."""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from atypia.core.errors import InputError, Problem
from atypia.core.tables import Row, Table, read_table
from atypia.slides.candidates import (
    LARGEST_UM,
    NOTHING,
    Candidate,
    CandidateList,
    wanted_classes,
)
from atypia.slides.slide_names import of_slide, slide_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from atypia.slides import SlideInfo

_ID: Final = ("patch_id", "id", "Object ID")
_CLASS: Final = ("candidate_class", "class", "classification", "category", "label")
"""Columns, in any case, that name the class of an object."""
_KEPT: Final = ("label_", "atypical_", "majority_", "candidate_class", "patient_id", "domain")
"""Columns that begin so are handed on; an earlier model's answers are not."""
_CENTRE: Final = {
    axis: (axis, f"centroid{axis}", f"center{axis}", f"centre{axis}", f"{axis}center", f"c{axis}")
    for axis in "xy"
}
_LOW: Final = {"x": ("x", "x1", "xmin", "left", "minx"), "y": ("y", "y1", "ymin", "top", "miny")}
_HIGH: Final = {"x": ("x2", "xmax", "right", "maxx"), "y": ("y2", "ymax", "bottom", "maxy")}
_SIZE: Final = {"x": ("w", "width", "boxwidth"), "y": ("h", "height", "boxheight")}
_EXTENT: Final = {n for names in (*_HIGH.values(), *_SIZE.values()) for n in names}
_UNITS: Final = {"px": "px", "pixel": "px", "pixels": "px", "um": "um", "micron": "um"}
_THOUSANDS: Final = re.compile(r"[+-]?\d{1,3}([.,])\d{3}(\1\d{3})*")


def read_listing(
    path: Path, slide: SlideInfo, units: str | None, *, all_classes: bool = False
) -> CandidateList:
    """Read a table; see :func:`atypia.slides.read_candidates.read_candidates`.

    Columns are ``x_px, y_px`` or ``x_um, y_um`` (QuPath: ``Centroid X µm``), or ``x, y`` whose
    units the user gives. With ``w, h`` or ``x2, y2`` beside them they are boxes. Where a column
    names slides, the rows of this slide are taken, and the others counted.
    """
    assert slide.mpp is not None
    table = read_table(path, may_be_empty=True)
    columns, unit, kind = _columns(table, units)
    scales = (1.0, 1.0) if unit == "px" else tuple(1 / um for um in slide.um_per_px)
    id_column = next((c for c in _ID if c in table.columns), None)
    class_column = next((c for c in table.columns if c.lower() in _CLASS), None)
    kept = [c for c in table.columns if c.startswith(_KEPT)]
    mark = _decimal_mark(table, columns)
    found = CandidateList()
    rows = _rows(table, slide)
    if others := len(table.rows) - len(rows):
        found.left_out["of another slide"] = others
    classes = [row.cells[class_column] if class_column else "" for row in rows]
    wanted = set(classes) if all_classes else wanted_classes(classes)
    for number, (row, class_name) in enumerate(zip(rows, classes, strict=True), 1):
        problems = [row.problem] if row.problem else []
        numbers: list[float] = []
        for column, scale in zip(columns, scales * 2, strict=False):
            value = _number(row.cells[column], mark)
            if value is None:
                what = (
                    f"expected a number ({unit}), whose decimal mark is beyond doubt, but got "
                    f"{row.cells[column]!r}."
                )
                problems.append(Problem(what, str(path), row.line, column))
            else:
                numbers.append(value * scale)
        if not problems and kind != "centre":
            if kind == "corners":
                numbers[2:] = numbers[2] - numbers[0], numbers[3] - numbers[1]
            width, height = (size * slide.mpp for size in numbers[2:])
            if not (0 <= width <= LARGEST_UM and 0 <= height <= LARGEST_UM):
                what = (
                    f"expected a box up to {LARGEST_UM:g} µm but got one of {width:.0f} × "
                    f"{height:.0f} µm."
                )
                problems.append(Problem(what, str(path), row.line))
        if problems:
            found.problems += problems
            continue
        if class_name not in wanted:
            found.leave_out(f"class {class_name!r}")
            continue
        x, y = numbers[:2]
        if kind != "centre":
            x, y = x + numbers[2] / 2, y + numbers[3] / 2
        name = (row.cells[id_column] if id_column else "") or f"{slide.path.stem}/{number}"
        about = {c: row.cells[c] for c in kept} if kept else NOTHING
        if class_name:
            about = {**about, "candidate_class": class_name}
        found.candidates.append(Candidate(name, x, y, f"row {row.line}", None, about))
    return found


def _columns(table: Table, units: str | None) -> tuple[tuple[str, ...], str, str]:
    """Columns of the place, their unit, and what they hold: a centre, a size or corners.

    The unit is never guessed.
    """
    by_unit: dict[str, dict[str, str]] = {"px": {}, "um": {}, "": {}}
    for column in table.columns:
        name = re.sub(r"[^a-z0-9]", "", column.lower().replace("µ", "u").replace("μ", "u"))
        base, unit = name, ""
        for ending, meant in _UNITS.items():
            if name.endswith(ending) and len(name) > len(ending):
                base, unit = name.removesuffix(ending), meant
        by_unit[unit].setdefault(base, column)
    # Of "x_px, y_px, width, height" the unit of the first two is meant for all.
    bare = {name: column for name, column in by_unit[""].items() if name in _EXTENT}
    places = {u: place for u, own in by_unit.items() if (place := _place({**bare, **own}))}
    named = [unit for unit in ("px", "um") if unit in places]
    if named and (units is None or units in named):
        unit = units or named[0]
        return places[unit][0], unit, places[unit][1]
    if named:
        what = f"expected columns x_{units}, y_{units} as --units says but got those in {named}."
    elif not places:
        what = (
            "expected columns x_px, y_px or x_um, y_um (or x, y with --units px or um) but got "
            f"{list(table.columns)}."
        )
    elif units is None:
        what = (
            "expected the units of x and y: name the columns x_px, y_px or give --units px or um."
        )
    else:
        return places[""][0], units, places[""][1]
    raise InputError(Problem(what, str(table.path), row=1))


def _place(bases: Mapping[str, str]) -> tuple[tuple[str, ...], str] | None:
    """Columns, and "centre", "size" or "corners", that columns of one unit give by their names."""

    def of(names: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        found = (next((bases[n] for n in names[axis] if n in bases), "") for axis in "xy")
        return tuple(column for column in found if column)

    plain = {axis: names[1:] for axis, names in _CENTRE.items()}
    low, centre = of(_LOW), of(plain)
    ways = (
        ("centre", centre, ()),
        ("corners", low, of(_HIGH)),
        ("size", low, of(_SIZE)),
        ("centre", of(_CENTRE), ()),
    )
    for kind, first, second in ways:
        if len(first) == 2 and (kind == "centre" or len(second) == 2):
            return (*first, *second), kind
    return None


def _rows(table: Table, slide: SlideInfo) -> list[Row]:
    """Rows of the slide, all rows where no column names slides."""
    columns = slide_keys(table.columns)
    if not columns or not table.rows:
        return list(table.rows)
    for column in columns:
        ours = of_slide([row.cells[column] for row in table.rows], slide.path)
        if any(ours):
            rows = [row for row, here in zip(table.rows, ours, strict=True) if here]
            return _of_one(rows, column, slide, table)
    column = columns[0]
    names = sorted({row.cells[column] for row in table.rows})
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


def _decimal_mark(table: Table, columns: Sequence[str]) -> str:
    """Find the decimal mark that the cells of some columns show.

    In a table with semicolons or tabs it may be the comma, and 1.500 two things; "" where every
    number may be read in two ways, or they contradict one another.
    """
    if table.separator == ",":
        return "."
    marks = set()
    some = False
    for row in table.rows:
        for column in columns:
            if (last := re.search(r"[.,](?=\d*$)", row.cells[column])) is not None:
                some = True
                if not _THOUSANDS.fullmatch(row.cells[column]):
                    marks.add(last[0])
    return marks.pop() if len(marks) == 1 else "" if some else "."


def _number(text: str, mark: str) -> float | None:
    """Read a number with a decimal mark; None where it is none, or may be another."""
    if mark == "":
        if "." in text or "," in text:
            return None
    elif mark == ",":
        text = text.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", text):
        text = text.replace(",", "")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
