"""What is to be told of each patient: a column of any CSV, or derived from the figures' labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.errors import InputError, Problem
from atypia.core.labels import N_ATYPICAL, SUBTYPES, subtype_index
from atypia.core.tables import read_table

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

ABOVE_MEDIAN: Final = "atypical_above_median"
_HAS: Final = "has_"
DERIVED: Final = (ABOVE_MEDIAN, *(f"{_HAS}{subtype}" for subtype in SUBTYPES))
"""Targets that a cohort with subtypes has by itself."""
_NO: Final = ("0", "no", "false", "negative", "neg", "n", "f")
"""What people write for the answer that is not looked for, in lower case."""


@dataclass(frozen=True)
class Target:
    """One of C classes for each of P patients."""

    name: str
    patients: npt.NDArray[np.str_]
    """(P,) sorted; those without a value are left out."""
    values: npt.NDArray[np.int64]
    """(P,) index into `classes`."""
    classes: tuple[str, ...]
    """Of two classes, the second one is what is looked for."""


def find_target(
    wanted: str | Path,
    manifest: pd.DataFrame,
    labels: npt.NDArray[np.int64] | None = None,
    column: str | None = None,
) -> Target:
    """Read a target, or derive it.

    Args:
        wanted: One of :data:`DERIVED`, or a CSV with a column ``patient_id`` and another one.
        manifest: Of a cohort; its patients are those that count.
        labels: (N,) subtype index of each figure, -1 where there is none; needed to derive.
        column: Of the CSV; may be left out where it has only one besides ``patient_id``.

    Raises:
        InputError: Lists every problem of the file; or nothing is left to learn from.
    """
    patients = np.unique(manifest["patient_id"].to_numpy(dtype=str))
    if str(wanted) in DERIVED:
        if labels is None:
            raise InputError(f"--target {wanted}: expected a cohort with subtypes.")
        of_figure = manifest["patient_id"].to_numpy(dtype=str)[labels >= 0]
        target = _derived(str(wanted), of_figure, labels[labels >= 0])
    else:
        from pathlib import Path

        target = _read(Path(wanted), patients, column)
    counts = np.bincount(target.values, minlength=len(target.classes))
    if len(target.classes) < 2 or counts.min() < 2:
        told = ", ".join(f"{n} x {c!r}" for c, n in zip(target.classes, counts, strict=True))
        raise InputError(
            f"--target {wanted}: expected two or more classes with two patients each but got "
            f"{told or 'none'}. A measured quantity must be cut into classes first."
        )
    return target


def _derived(name: str, patient_of: npt.NDArray[np.str_], labels: npt.NDArray[np.int64]) -> Target:
    """Make a target from the subtypes of the labelled figures (M,)."""
    patients, of = np.unique(patient_of, return_inverse=True)
    n = np.bincount(of, minlength=len(patients))
    if name == ABOVE_MEDIAN:
        fraction = np.bincount(of, labels < N_ATYPICAL, len(patients)) / n
        values = fraction > np.median(fraction)
    else:
        values = np.bincount(of, labels == subtype_index(name.removeprefix(_HAS))) > 0
    return Target(name, patients, values.astype(np.int64), ("no", "yes"))


def _read(file: Path, patients: npt.NDArray[np.str_], column: str | None) -> Target:
    if not file.is_file():
        raise InputError(
            f"--target: expected a CSV file or one of {list(DERIVED)} but got {str(file)!r}."
        )
    table = read_table(file)
    others = [c for c in table.columns if c != "patient_id"]
    if column is None and len(others) == 1:
        column = others[0]
    if column is None:
        raise InputError(
            Problem(f"has the columns {others}: say which one with --column.", str(file), row=1)
        )
    problems = table.missing(["patient_id", column])
    if problems:
        raise InputError(problems)
    value_of: dict[str, str] = {}
    for row in table.rows:
        if row.problem is not None:
            problems.append(row.problem)
            continue
        patient, value = row.cells["patient_id"], row.cells[column]
        if value_of.setdefault(patient, value) != value:
            what = f"expected one value for patient {patient!r} but got {value!r} as well."
            problems.append(Problem(what, str(file), row.line, column))
    known = [p for p in patients.tolist() if value_of.get(p)]
    if not known:
        what = (
            f"expected patients of the cohort, such as {str(patients[0])!r}, with a value in "
            f"{column!r} but found none."
        )
        problems.append(Problem(what, str(file)))
    if problems:
        raise InputError(problems)
    classes = tuple(sorted({value_of[p] for p in known}, key=lambda c: (c.lower() not in _NO, c)))
    values = np.array([classes.index(value_of[p]) for p in known], dtype=np.int64)
    return Target(column, np.array(known), values, classes)
