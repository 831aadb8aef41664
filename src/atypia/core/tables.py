"""CSV files that people made: read with the line of every row, so that a fault can be pointed at.

A byte order mark and semicolons or tabs as separators are taken as they come. Anything that would
need a guess is a :class:`~atypia.core.errors.Problem`.

Text that a spreadsheet would run as a formula is written behind an apostrophe, and read without it.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.errors import InputError, Problem
from atypia.core.files import bunzip, gunzip
from atypia.core.found_files import refuse_special

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pandas as pd

_ENDS: Final = re.compile(r"^[\s\u200b-\u200f\u2060\ufeff]+|[\s\u200b-\u200f\u2060\ufeff]+$")
"""Blanks, those without width among them."""
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_QUOTED: Final = re.compile(r'"[^"]*"')
_LONGEST_HEADER: Final = 2**16
_SEPARATOR: Final = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
_PACKED: Final = {".gz": gunzip, ".bz2": bunzip}


@dataclass(frozen=True)
class Row:
    """One row: cells by column name, without blanks around, ``""`` where a cell is empty."""

    line: int
    """Line of the file on which the row ends, the header being line 1."""
    cells: Mapping[str, str]
    problem: Problem | None = None
    """Set where the row has more or fewer cells than the header."""


@dataclass(frozen=True)
class Table:
    """A CSV file as strings. Made by :func:`read_table`."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    separator: str = ","

    def missing(self, columns: Iterable[str]) -> list[Problem]:
        """One problem for each of `columns` that is absent, with the nearest name present."""
        return [
            Problem(
                f"expected a column {column!r} but there is none{_suggestion(column, self)}.",
                str(self.path),
                row=1,
                column=column,
            )
            for column in columns
            if column not in self.columns
        ]

    def require(self, *columns: str) -> None:
        """Raise an InputError that lists those of `columns` that are absent."""
        if problems := self.missing(columns):
            raise InputError(problems)


def _suggestion(column: str, table: Table) -> str:
    by_lower = {name.lower(): name for name in table.columns}
    near = difflib.get_close_matches(column.lower(), by_lower, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {by_lower[near[0]]!r}?"
    return f"; the columns are {list(table.columns)}"


def read_table(path: Path, *, may_be_empty: bool = False) -> Table:
    """Read a UTF-8 CSV file with a header line, which may be compressed (``.gz``, ``.bz2``).

    Commas, semicolons or tabs separate, whichever the header uses most outside of quotes, or what
    a first line ``sep=;`` names. Blank lines, rows of empty cells, and empty cells beyond the
    header are skipped. A header without a row is refused unless it `may_be_empty`.

    Raises:
        InputError: The file cannot be read, is not UTF-8, or has no header, no rows, or an empty
            or repeated column name. Rows of the wrong length carry their problem instead.
    """
    text = _decode(path)
    named = _SEPARATOR.match(text)
    first, text = (1, text[named.end() :]) if named else (0, text)
    header_line = _QUOTED.sub("", text[:_LONGEST_HEADER]).split("\n", 1)[0]
    separator = named[1] if named else max(",;\t", key=header_line.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows: list[Row] = []
    try:
        columns = tuple(_cell(name) for name in _without_empty_end(next(lines, []), 1))
        problems = _header_problems(path, columns)
        if problems:
            raise InputError(problems)
        for cells in lines:
            if any(cell.strip() for cell in cells):
                rows.append(_row(path, columns, cells, first + lines.line_num))
    except csv.Error as error:
        what = f"expected comma-separated cells but got: {error}."
        raise InputError(Problem(what, str(path), first + lines.line_num)) from None
    if not rows and not may_be_empty:
        raise InputError(Problem("expected at least one row below the header.", str(path)))
    return Table(path, columns, tuple(rows), separator)


def _cell(text: str) -> str:
    text = _ENDS.sub("", text)
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def csv_text(table: pd.DataFrame, **options: Any) -> str:
    """Write a table as CSV whose text no spreadsheet runs as a formula; see :func:`read_table`.

    `options` are those of :meth:`pandas.DataFrame.to_csv`. Numbers are left as they are.
    """

    def guarded(value: object) -> object:
        text = isinstance(value, str) and _FORMULA.match(value) and not _is_number(value)
        return f"'{value}" if text else value

    safe = table.rename(columns=guarded)
    for i, kind in enumerate(table.dtypes):
        if kind.kind not in "biuf":
            cells = [guarded(value) for value in table.iloc[:, i]]
            boxed = np.empty(len(cells), dtype=object)
            boxed[:] = cells
            safe.isetitem(i, boxed)
    return str(safe.to_csv(index=False, lineterminator="\n", **options))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _decode(path: Path) -> str:
    refuse_special(path)
    try:
        data = _PACKED.get(path.suffix.lower(), bytes)(path.read_bytes())
    except FileNotFoundError:
        what = "expected a CSV file but it does not exist."
        raise InputError(Problem(what, str(path))) from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        what = f"expected a CSV file but it cannot be read: {reason}."
        raise InputError(Problem(what, str(path))) from None
    advice = "Save the file as CSV in UTF-8."
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data:
        what = f"expected a UTF-8 text file but got UTF-16 or binary data. {advice}"
        raise InputError(Problem(what, str(path)))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"expected UTF-8 but got the byte 0x{data[error.start]:02x}. {advice}"
        raise InputError(Problem(what, str(path), line)) from None


def _header_problems(path: Path, columns: tuple[str, ...]) -> list[Problem]:
    if not any(columns):
        return [Problem("expected a header line but the file starts empty.", str(path), row=1)]
    # Spreadsheets and pandas write one nameless index column; more than one cannot be addressed.
    return [
        Problem(f"expected each column name once but got {name!r} {n} times.", str(path), row=1)
        for name, n in Counter(columns).items()
        if n > 1
    ]


def _without_empty_end(cells: list[str], least: int) -> list[str]:
    """Leave out the empty cells behind the first `least`, which spreadsheets write."""
    end = len(cells)
    while end > least and not cells[end - 1].strip():
        end -= 1
    return cells[:end]


def _row(path: Path, columns: tuple[str, ...], cells: list[str], line: int) -> Row:
    problem = None
    cells = _without_empty_end(cells, len(columns))
    if len(cells) != len(columns):
        what = f"expected {len(columns)} cells as in the header but got {len(cells)}."
        problem = Problem(what, str(path), line)
    padded = [*cells, *[""] * (len(columns) - len(cells))]
    return Row(line, {name: _cell(padded[i]) for i, name in enumerate(columns)}, problem)
