"""Whose patch is it? A cohort without patients cannot be split honestly, so this is never guessed.

A user gives exactly one of: a column, a CSV file, a pattern for the path, or the statement that
every patch is of another patient.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from atypia.core.errors import InputError, Problem
from atypia.core.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from atypia.data.sources.records import PrepareOptions, Record

_WAYS = (
    "a CSV of patch_id and patient_id (--patients FILE), a pattern that finds the patient in the "
    "path (--patient-regex), or, if it is true, --patient-per-patch"
)


def check_patient_options(options: PrepareOptions, *, column: str | None) -> list[Problem]:
    """Problems of the choice itself: none or several ways, or a pattern that does not compile.

    The patient `column` of a source that has one is a way, too.
    """
    ways = {
        f"the column {column!r}": column is not None,
        "--patients": options.patients is not None,
        "--patient-regex": options.patient_regex is not None,
        "--patient-per-patch": options.patient_per_patch,
    }
    given = [way for way, chosen in ways.items() if chosen]
    if not given:
        what = (
            f"expected to be told whose patches these are. Give {_WAYS}. Without patients, one "
            "patient's figures would stand in training and test."
        )
        return [Problem(what)]
    if len(given) > 1:
        return [Problem(f"expected one way to tell the patients but got {' and '.join(given)}.")]
    if options.patient_regex is not None:
        try:
            re.compile(options.patient_regex)
        except re.error as error:
            what = f"expected a regular expression but got {options.patient_regex!r} ({error})."
            return [Problem(what, "--patient-regex")]
    return []


def assign_patients(records: Iterable[Record], options: PrepareOptions) -> None:
    """Fill ``patient_id`` by the options; a record that they do not cover gets a problem.

    Raises:
        InputError: The patients file cannot be read, or lacks a column.
    """
    if options.patient_per_patch:
        for record in records:
            record.patient_id = record.patch_id
    elif options.patient_regex is not None:
        pattern = re.compile(options.patient_regex)
        for record in records:
            record.patient_id = _search(pattern, record.path_text)
            if not record.patient_id:
                record.fault(
                    f"expected --patient-regex {options.patient_regex!r} to find the patient in "
                    f"{record.path_text!r} but it does not."
                )
    elif options.patients is not None:
        _look_up(records, options.patients)


def _search(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    if found is None:
        return ""
    if "patient" in pattern.groupindex:
        return found["patient"] or ""
    return found[1 if pattern.groups else 0] or ""


def _look_up(records: Iterable[Record], path: Path) -> None:
    table = read_table(path)
    table.require("patch_id", "patient_id")
    problems: list[Problem] = []
    patients: dict[str, str] = {}
    for row in table.rows:
        patch, patient = row.cells["patch_id"], row.cells["patient_id"]
        if row.problem:
            problems.append(row.problem)
        elif not patch or not patient:
            problems.append(
                Problem("expected a patch and its patient, got no value.", str(path), row.line)
            )
        elif patients.setdefault(patch, patient) != patient:
            what = f"expected one patient for {patch!r} but got {patients[patch]!r} and {patient!r}"
            problems.append(Problem(f"{what}.", str(path), row.line, "patient_id"))
    if problems:
        raise InputError(problems)
    for record in records:
        names = (record.patch_id, record.path_text, PurePosixPath(record.path_text).name)
        record.patient_id = next((patients[name] for name in names if name in patients), "")
        if not record.patient_id:
            record.fault(f"expected a row in {path} for {record.patch_id!r} but there is none.")
