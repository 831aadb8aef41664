"""A CSV file that lists patches, or centres of figures in source images, with their labels."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from atypia.core.errors import InputError, Problem
from atypia.core.tables import Row, Table, read_table
from atypia.data.cohort import MAJORITY_COLUMN, MITOSIS_COLUMN
from atypia.data.sources.patients import assign_patients, check_patient_options
from atypia.data.sources.records import Record, SourceRecords, table_facts

if TYPE_CHECKING:
    from atypia.data.sources.records import PrepareOptions


def read_listing(source: Path, options: PrepareOptions) -> SourceRecords:
    """Read a table of image paths or, given ``options.field_um``, of centres.

    Raises:
        InputError: The table cannot be read, lacks columns, or there are no patients or no
            resolution. What is wrong with a row is with its record.
    """
    table = read_table(source)
    centres = options.field_um is not None
    labels, votes = _answer_columns(table, options)
    patient = _patient_column(table, options)
    problems = _column_problems(table, options, centres=centres)
    if not labels and not votes and not options.unlabelled:
        what = (
            "expected a column of subtypes (label_<rater>) or of votes (atypical_<rater>) but got "
            f"{list(table.columns)}. Name yours with --label-column or --vote-column, or say that "
            "there is none: --unlabelled."
        )
        problems.append(Problem(what, str(source), row=1))
    problems += check_patient_options(options, column=patient)
    if problems:
        raise InputError(problems)

    records = []
    for row in table.rows:
        record = _record(table, row, options, centres=centres)
        for target, column in labels.items():
            record.read_label(target, row.cells[column], column)
        for target, column in votes.items():
            record.read_vote(target, row.cells[column], column)
        record.check_majority(votes.get(MAJORITY_COLUMN, ""))
        if patient is not None:
            record.patient_id = row.cells[patient]
            if record.patient_id.lower() in ("", "nan"):
                got = record.patient_id or "an empty cell"
                record.fault(f"expected the patient of the patch but got {got}.", patient)
        records.append(record)
    if patient is None:
        assign_patients(records, options)
    return SourceRecords("centres" if centres else "table", records, table_facts(table.path))


def _answer_columns(table: Table, options: PrepareOptions) -> tuple[dict[str, str], dict[str, str]]:
    """Manifest column → table column, for subtypes and for votes."""
    columns = options.columns
    labels = {f"label_{rater}": column for rater, column in columns.labels.items()} or {
        column: column for column in table.columns if column.startswith("label_")
    }
    votes = {f"atypical_{rater}": column for rater, column in columns.votes.items()} or {
        column: column for column in table.columns if column.startswith("atypical_")
    }
    if columns.majority in table.columns:
        votes[MAJORITY_COLUMN] = columns.majority
    if MITOSIS_COLUMN in table.columns:
        votes[MITOSIS_COLUMN] = MITOSIS_COLUMN
    return labels, votes


def _patient_column(table: Table, options: PrepareOptions) -> str | None:
    """Name the patient column, if it is there and the user asks for no other way."""
    other = options.gives_patients
    explicit = "patient" in options.columns.model_fields_set
    present = options.columns.patient in table.columns
    return options.columns.patient if explicit or (present and not other) else None


def _column_problems(table: Table, options: PrepareOptions, *, centres: bool) -> list[Problem]:
    columns = options.columns
    needed = [columns.image, columns.x, columns.y] if centres else [columns.file]
    named = [
        getattr(columns, field)
        for field in ("patch_id", "patient", "domain", "scanner", "mpp", "majority")
        if field in columns.model_fields_set
    ]
    answers = [*columns.labels.values(), *columns.votes.values()]
    problems = table.missing(dict.fromkeys([*needed, *named, *answers]))
    if not centres and columns.file not in table.columns and columns.x in table.columns:
        what = "To crop from source images say the field of view: --field-um (and --images DIR)."
        problems.append(Problem(what, str(table.path)))
    if not centres and options.mpp is None and columns.mpp not in table.columns:
        what = "expected the resolution: give --mpp, or a column of µm per pixel (--mpp-column)."
        problems.append(Problem(what, str(table.path)))
    return problems


def _record(table: Table, row: Row, options: PrepareOptions, *, centres: bool) -> Record:
    columns, cells = options.columns, row.cells
    record = Record.of_row(
        table,
        row,
        domain=cells.get(columns.domain, "") or options.domain or "",
        scanner=cells.get(columns.scanner, "") or options.scanner,
        mpp=options.mpp,
        unlabelled=options.unlabelled,
    )
    stated = cells.get(columns.mpp, "")
    if stated or ("mpp" in columns.model_fields_set and options.mpp is None):
        mpp = record.read_number(stated, columns.mpp, "µm per pixel")
        if mpp is not None and not 0.01 <= mpp <= 10:
            record.fault(f"expected µm per pixel (0.01 to 10) but got {stated!r}.", columns.mpp)
        record.mpp = mpp
    elif record.mpp is None and not centres:
        record.fault("expected µm per pixel but the cell is empty.", columns.mpp)

    text = cells[columns.image if centres else columns.file].replace("\\", "/")
    record.path_text = text
    if not text:
        what = "expected the path of an image but the cell is empty."
        record.fault(what, columns.image if centres else columns.file)
    elif centres:
        image = (options.images or table.path.parent) / text
        record.read_centre(image, cells, (columns.x, columns.y), options, options.centre_unit)
    else:
        record.origin = table.path.parent / text
    record.patch_id = _patch_id(row, options, text, centres=centres)
    return record


def _patch_id(row: Row, options: PrepareOptions, text: str, *, centres: bool) -> str:
    columns = options.columns
    if columns.patch_id in row.cells:
        return row.cells[columns.patch_id]
    path = PurePosixPath(text)
    if centres:
        return f"{path.stem}_{row.cells[columns.x]}_{row.cells[columns.y]}"
    # A path that leads out of the table's folder cannot be a path below the cohort's.
    if Path(text).is_absolute() or ".." in path.parts:
        return path.stem
    return (path.parent / path.stem).as_posix() if path.stem else ""
