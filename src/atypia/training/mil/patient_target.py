"""What is predicted of each patient: a column of any CSV, or derived from the figures' labels."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from atypia.core.errors import InputError, Problem
from atypia.core.files import write_text
from atypia.core.labels import N_ATYPICAL, SUBTYPES, subtype_index
from atypia.core.tables import csv_text, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import numpy.typing as npt

log = logging.getLogger("atypia")

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

    def facts(self) -> dict[str, Any]:
        """Describe it for ``metrics.json``: classes, and how well their shares alone predict."""
        counts = np.bincount(self.values)
        shares = counts / len(self.values)
        return {
            "target": self.name,
            "classes": list(self.classes),
            "n_of_class": counts.tolist(),
            "log_loss_of_shares": float(-np.log(shares[self.values]).mean()),
        }

    def among(self, described: npt.NDArray[np.str_]) -> Target:
        """Leave out patients of whom no figure is described."""
        known = np.isin(self.patients, described)
        if not known.all():
            log.warning("%d patients have no figure that is described", int((~known).sum()))
        return replace(self, patients=self.patients[known], values=self.values[known])


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
        target = _read(Path(wanted), patients, column)
    counts = np.bincount(target.values, minlength=len(target.classes))
    if len(target.classes) < 2 or counts.min() < 2:
        counted = ", ".join(f"{n} x {c!r}" for c, n in zip(target.classes, counts, strict=True))
        raise InputError(
            f"--target {wanted}: expected two or more classes with two patients each but got "
            f"{counted or 'none'}. A measured quantity must be cut into classes first."
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


def write_patients(
    folder: Path,
    columns: Mapping[str, Any],
    probabilities: Mapping[str, npt.NDArray[np.float64]],
    classes: Sequence[str],
) -> Path:
    """Write ``predictions-patients.csv``.

    After the given columns come the probabilities (P, C) of each model: ``p_MODEL`` of the second
    of two classes, else ``p_MODEL_CLASS``.
    """
    table = dict(columns)
    for name, p in probabilities.items():
        if len(classes) == 2:
            table[f"p_{name}"] = p[:, 1]
        else:
            table |= {f"p_{name}_{label}": p[:, c] for c, label in enumerate(classes)}
    file = folder / "predictions-patients.csv"
    text = csv_text(pd.DataFrame(table), float_format="%.6g")
    write_text(file, text)
    return file
