"""Whose patch is it? A cohort without patients cannot be split honestly, so this is never guessed.

A user gives exactly one of: a column, a CSV file, a pattern for the path, or the statement that
every patch is of another patient.

Cohorts of one origin name a case in ways of their own; :func:`public_case` makes one name of them.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

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


_MIDOG = re.compile(r"MIDOG(?:20)?(\d\d)?(?:\+\+|pp)?[ _-]+0*(\d{1,3})(?!\d)", re.IGNORECASE)
_TUPAC = re.compile(r"TUPAC(?:20)?(?:16)?[ _-]+0*(\d{1,3})(?!\d)(?:_stitched\d*)?", re.IGNORECASE)
_TCGA = re.compile(r"TCGA[-_.]([A-Z0-9]{2})[-_.]([A-Z0-9]{4})(?![A-Z0-9])", re.IGNORECASE)
_HASH: Final = "sha256:"
_SHARED_WITH_2022: Final = 150
"""The training cases of MIDOG 2022 are numbered as in the other sets up to here only."""


def midog_patient(file_name: str) -> str | None:
    """Patient id of an image ``NNN.tiff`` of the MIDOG sets; None where it is not named so."""
    stem = PurePosixPath(file_name.replace("\\", "/")).name.partition(".")[0]
    return f"MIDOG_{int(stem):03d}" if re.fullmatch(r"\d{1,3}", stem) else None


def tcga_patient(text: str) -> str | None:
    """Patient in a TCGA barcode, wherever it stands in a text; None where there is none."""
    found = _TCGA.search(text)
    return f"TCGA-{found[1]}-{found[2]}".upper() if found else None


def public_case(patient_id: str) -> str | None:
    """Name that a case has in every public cohort; None for a patient id of any other kind.

    ``MIDOG21_002``, ``MIDOG_002`` and ``MIDOG++_2`` are ``MIDOG 2``; ``TUPAC16_01`` is ``TUPAC 1``;
    a TCGA barcode is its first three parts. A name is its own name.
    """
    if (tcga := tcga_patient(patient_id)) is not None:
        return tcga
    if found := _MIDOG.fullmatch(patient_id):
        own = found[1] == "22" and int(found[2]) > _SHARED_WITH_2022
        return f"MIDOG22 {int(found[2])}" if own else f"MIDOG {int(found[2])}"
    if found := _TUPAC.fullmatch(patient_id):
        return f"TUPAC {int(found[1])}"
    return None


def case_of(patient_id: str) -> str:
    """Name of a public case (:func:`public_case`); any other patient id stays as it is."""
    return public_case(patient_id) or patient_id


def veiled(patient_id: str) -> str:
    """Name under which a model may list a patient: a public case's, or a hash of the id.

    A model that is given away must not carry the ids of a hospital. Who has an id can still ask
    whether it is among them; an id of few digits can be found by trying all of them.
    """
    public = public_case(patient_id)
    if public is not None or patient_id.startswith(_HASH):
        return public or patient_id
    return _HASH + hashlib.sha256(patient_id.encode()).hexdigest()[:32]


def veiled_cases(patients: Iterable[str]) -> list[str]:
    """Sorted names of some patients, each once, by :func:`veiled`."""
    return sorted({veiled(patient) for patient in patients})
