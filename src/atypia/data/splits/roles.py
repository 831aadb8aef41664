"""Splits that are given: which patients train and which test, in a file or as published."""

from __future__ import annotations

import csv
from importlib.resources import as_file, files
from pathlib import Path, PurePosixPath

from atypia.core.errors import InputError, LeakError, Problem
from atypia.data.splits.kinds import KINDS, PUBLISHED


def ami_br_patients() -> list[str]:
    """Sorted patients of AMi-Br, all of whom a published split names."""
    return sorted(published_roles(PUBLISHED[0]))


def published_roles(kind: str) -> dict[str, str]:
    """``train`` or ``test`` for each patient of AMi-Br in a split of :data:`PUBLISHED`."""
    with as_file(files("atypia.data") / "resources" / f"{kind}_split.csv") as path:
        return read_roles(path)


def read_roles(path: Path) -> dict[str, str]:
    """``train`` or ``test`` for each patient of a split CSV; every problem of it at once."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(
            f"expected a split ({', '.join(KINDS)}) or a file (.csv or .json) "
            f"but got {str(path)!r}, which does not exist."
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected a UTF-8 CSV but got: {error}") from None
    header = text.partition("\n")[0]
    # Spreadsheets in half of Europe write semicolons.
    reader = csv.DictReader(
        text.splitlines(), delimiter=";" if ";" in header and "," not in header else ","
    )
    columns = reader.fieldnames or []
    by_slide = "patient_id" not in columns
    expected = ["dataset", "slide", "role"] if by_slide else ["patient_id", "role"]
    if not set(expected) <= set(columns):
        raise InputError(
            Problem(
                "expected the columns patient_id and role, or dataset, slide and role, "
                f"but got {list(columns)}.",
                str(path),
                row=1,
            )
        )
    problems: list[Problem] = []
    roles: dict[str, set[str]] = {}
    for row in reader:
        cells = {column: (row[column] or "").strip() for column in expected}
        for column, cell in cells.items():
            if not cell:
                what = "expected a value but the cell is empty."
                problems.append(Problem(what, str(path), reader.line_num, column))
        role = cells["role"].lower()
        if role and role not in ("train", "test"):
            what = f"expected train or test but got {cells['role']!r}."
            problems.append(Problem(what, str(path), reader.line_num, "role"))
        patient = (
            patient_of_slide(cells["dataset"], cells["slide"])
            if by_slide
            else (cells["patient_id"])
        )
        roles.setdefault(patient, set()).add(role)
    both = sorted(patient for patient, found in roles.items() if {"train", "test"} <= found)
    if both:
        problems.append(
            Problem(f"expected each patient in one part but got in both: {both}.", str(path))
        )
    if not any("test" in found for found in roles.values()):
        problems.append(Problem("expected at least one patient with the role test.", str(path)))
    if problems:
        raise (LeakError if both else InputError)(problems)
    return {patient: found.pop() for patient, found in roles.items()}


def patient_of_slide(dataset: str, slide: str) -> str:
    """Patient id of an AMi-Br slide: ``("MIDOG21", "002.tiff")`` is ``"MIDOG21_002"``."""
    return f"{dataset}_{PurePosixPath(slide).stem}"
