"""Crops beside a table: which folder holds them, and which column names them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from atypia.core.errors import InputError, Problem
from atypia.core.found_files import entries_in
from atypia.core.tables import Table, read_table
from atypia.data.images import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def tables_in(source: Path) -> list[Table]:
    """Every CSV file of a folder that can be read; of a file, that one."""
    files = entries_in(source) if source.is_dir() else [source]
    tables = []
    for path in files:
        with suppress(InputError):  # not a table of ours, then
            if path.suffix.lower() == ".csv":
                tables.append(read_table(path))
    return tables


def table_with(source: Path, columns: Collection[str]) -> Table | None:
    """Find the table with these columns: the file itself, or the only such one of a folder."""
    fitting = [table for table in tables_in(source) if set(columns) <= set(table.columns)]
    return fitting[0] if len(fitting) == 1 else None


def folder_of_crops(table: Table, names: Iterable[str]) -> Path:
    """Folder that holds the most of these files: that of the table, or one below it.

    Raises:
        InputError: None of them holds any.
    """
    beside = table.path.parent
    folders = [beside, *(path for path in entries_in(beside) if path.is_dir())]
    wanted = set(names)
    held = [sum(path.name in wanted for path in folder.iterdir()) for folder in folders]
    if not any(held):
        example = min(wanted, default="")
        what = f"expected the crops, such as {example!r}, beside the table or in a folder there."
        raise InputError(Problem(what, str(table.path)))
    return folders[held.index(max(held))]


def images_in(folder: Path) -> list[Path]:
    """Images directly in a folder, by name."""
    return [p for p in entries_in(folder) if p.suffix.lower() in IMAGE_SUFFIXES]


def path_in_cell(cell: str) -> PurePosixPath:
    """Read the path in a cell, whichever way its slashes lean."""
    return PurePosixPath(cell.replace("\\", "/"))


def column_of_crops(table: Table, images: Iterable[Path]) -> str | None:
    """Find the column that names the most of these images, with or without extension."""
    known = {name for image in images for name in (image.name, image.stem)}
    named = {
        column: sum(path_in_cell(row.cells[column]).name in known for row in table.rows)
        for column in table.columns
    }
    best = max(named, key=lambda column: named[column])
    return best if named[best] else None
