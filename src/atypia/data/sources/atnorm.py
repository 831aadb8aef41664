"""AtNorM-Br and AtNorM-MD: ``Atypical/`` and ``Normal/`` with crops, and a table of the votes.

Banerjee et al., "Benchmarking deep learning and vision foundation models for atypical vs. normal
mitosis classification with cross-dataset evaluation", MELBA 2026, arXiv 2506.21444;
https://github.com/DeepMicroscopy/AMi-Br_Benchmark. AtNorM-Br is from TCGA's breast cancers,
AtNorM-MD from MIDOG++.

The folders are those that the authors' programs read. The table could not be reached when this was
written: its columns are found by what they hold. That of the crops is the one that names the most
files; experts are columns such as ``expert1``, ``Expert 2`` or ``rater_3``; the majority is
``majority``, ``majority_vote``, ``consensus`` or the like, and must agree with the folder.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from atypia.core.errors import InputError, Problem
from atypia.core.found_files import entries_in
from atypia.data.cohort import MAJORITY_COLUMN
from atypia.data.patient_names import midog_patient, tcga_patient
from atypia.data.sources.crops import column_of_crops, images_in, path_in_cell, tables_in
from atypia.data.sources.patients import assign_patients, check_patient_options
from atypia.data.sources.records import (
    Record,
    SourceRecords,
    resolution_problems,
    table_facts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from atypia.core.tables import Row, Table
    from atypia.data.sources.records import PrepareOptions

_FOLDERS: Final = {"atypical": "True", "normal": "False"}
_EXPERT = re.compile(
    r"(?:expert|rater|annotator|pathologist)[ _-]*(\w)(?:[ _-]*(?:vote|label))?", re.I
)
_MAJORITY = re.compile(r"(?:majority|consensus|final)(?:[ _-]*(?:vote|label|atypical))?", re.I)
_SET = re.compile(r"AtNorM[-_ ]?(Br|MD)(?![a-z])", re.I)
_CASE = re.compile(r"(?:patient|case|slide|wsi|file ?name|tcga)(?:[ _-]*(?:id|name))?", re.I)


def is_atnorm(source: Path) -> bool:
    """Whether a folder has both folders of crops and a table with experts' votes."""
    if not source.is_dir() or len(_class_folders(source)) < len(_FOLDERS):
        return False
    return any(_experts(table) for table in tables_in(source))


def read_atnorm(source: Path, options: PrepareOptions) -> SourceRecords:
    """Read the crops with the votes of the table.

    A patient is what the table names as case, slide or patient, or a TCGA barcode in the name of a
    crop; else the user must give it.

    Raises:
        InputError: Several tables with votes, a table without a column of crops, no resolution, or
            no patients. What is wrong with a crop is with its record.
    """
    folders = _class_folders(source)
    crops = {path: vote for vote, folder in folders.items() for path in images_in(folder)}
    voting = [table for table in tables_in(source) if _experts(table)]
    problems = []
    if len(voting) > 1:
        names = [table.path.name for table in voting]
        problems.append(Problem(f"expected one table of votes but got {names}.", str(source)))
    table = voting[0]
    column = column_of_crops(table, crops)
    if column is None:
        what = f"expected a column with the names of the crops but got {list(table.columns)}."
        problems.append(Problem(what, str(table.path), row=1))
    problems += resolution_problems(options, "crops")
    if problems or column is None:
        raise InputError(problems)

    case = next((c for c in table.columns if c != column and _CASE.fullmatch(c)), None)
    given = options.gives_patients
    found = case or ("the names of the crops" if any(tcga_patient(p.name) for p in crops) else None)
    problems = check_patient_options(options, column=None if given else found)
    if problems:
        raise InputError(problems)
    naming, without = _rows_of_crops(table, column, crops)
    records = []
    for path, vote in crops.items():
        problem = _problem_of(path, naming[path], table.path.name)
        row = None if problem else naming[path][0][0]
        record = _record(source, path, vote, table, row, case, options)
        if problem:
            record.fault(problem)
        records.append(record)
    if given:
        assign_patients(records, options)
    for record in records:
        if record.row is not None and not record.patient_id and not given:
            record.fault("expected to find the patient but did not.", case or column)
    records += [_without_crop(table, row, column) for row in without]
    return SourceRecords("atnorm", records, table_facts(table.path), _name(source, table))


def _name(source: Path, table: Table) -> str:
    """Name of the set, by the table or the folder; a folder that was renamed keeps its name."""
    found = _SET.search(table.path.name) or _SET.search(source.resolve().name)
    return f"AtNorM-{found[1].upper().replace('BR', 'Br')}" if found else source.resolve().name


def _rows_of_crops(
    table: Table, column: str, crops: Mapping[Path, str]
) -> tuple[dict[Path, list[tuple[Row, list[Path]]]], list[Row]]:
    """Find the rows that name each crop, each with all crops that it names; and those of none.

    A row names a file, with its extension or without, and its folder where that is given, too.
    """
    by_name: dict[str, list[Path]] = {}
    for path in crops:
        for name in {path.name, path.stem}:
            by_name.setdefault(name, []).append(path)
    naming: dict[Path, list[tuple[Row, list[Path]]]] = {path: [] for path in crops}
    without = []
    for row in table.rows:
        found = path_in_cell(row.cells[column])
        vote = _FOLDERS.get(found.parent.name.lower())
        paths = [p for p in by_name.get(found.name, []) if vote in (None, crops[p])]
        for path in paths:
            naming[path].append((row, paths))
        if not paths:
            without.append(row)
    return naming, without


def _problem_of(path: Path, rows: list[tuple[Row, list[Path]]], table: str) -> str:
    """Explain why it is not one row that names a crop, and no other crop; empty where it is."""
    if not rows:
        return f"expected a row for this crop in {table} but there is none."
    lines = ", ".join(str(row.line) for row, _ in rows)
    others = {p for _, paths in rows for p in paths} - {path}
    if others:
        found = " and ".join(sorted(f"{p.parent.name}/{p.name}" for p in others))
        return (
            f"expected a row of this crop alone in {table} but row {lines} could be of {found}, "
            "too. Write folder and extension there."
        )
    return f"expected one row for this crop in {table} but got {lines}." if len(rows) > 1 else ""


def _class_folders(source: Path) -> dict[str, Path]:
    """Vote to folder, of those that there are."""
    folders = (path for path in entries_in(source) if path.is_dir())
    return {_FOLDERS[p.name.lower()]: p for p in folders if p.name.lower() in _FOLDERS}


def _experts(table: Table) -> Mapping[str, str]:
    """Column of the manifest to column of the table."""
    found = ((c, _EXPERT.fullmatch(c)) for c in table.columns)
    return {f"atypical_expert{m[1].lower()}": c for c, m in found if m}


def _record(
    source: Path,
    path: Path,
    vote: str,
    table: Table,
    row: Row | None,
    case: str | None,
    options: PrepareOptions,
) -> Record:
    below = path.relative_to(source)
    record = Record(
        file=str(path) if row is None else str(table.path),
        row=None if row is None else row.line,
        origin=path,
        path_text=below.as_posix(),
        patch_id=below.with_suffix("").as_posix(),
        domain=options.domain or _name(source, table),
        scanner=options.scanner,
        mpp=options.mpp,
        answers={MAJORITY_COLUMN: vote},
    )
    if row is None:
        return record
    if row.problem:
        record.problems.append(row.problem)
    for target, column in _experts(table).items():
        record.read_vote(target, row.cells[column], column)
    majority = next((c for c in table.columns if _MAJORITY.fullmatch(c)), None)
    if majority is not None:
        record.read_vote(MAJORITY_COLUMN, row.cells[majority], majority)
        if record.answers[MAJORITY_COLUMN] not in ("", vote):
            what = f"expected what the folder {below.parent.name} says"
            record.fault(f"{what} but got {row.cells[majority]!r}.", majority)
        record.answers[MAJORITY_COLUMN] = vote
        record.check_majority(majority)
    text = row.cells[case] if case else path.name
    record.patient_id = tcga_patient(text) or midog_patient(text) or (text if case else "")
    return record


def _without_crop(table: Table, row: Row, column: str) -> Record:
    record = Record(file=str(table.path), row=row.line, patch_id=row.cells[column])
    record.fault(f"expected a crop {row.cells[column]!r} but there is none.", column)
    return record
