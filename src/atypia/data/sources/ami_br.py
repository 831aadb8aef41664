"""The AMi-Br release: ``AMI-BR.csv`` and ``patches/``.

Bertram et al., "Histologic dataset of normal and atypical mitotic figures on human breast cancer
(AMi-Br)", BVM 2025; https://github.com/DeepMicroscopy/AMi-Br.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from atypia.core.files import sha256_file
from atypia.core.found_files import files_below
from atypia.core.tables import Row, read_table
from atypia.data.cohort import MAJORITY_COLUMN
from atypia.data.sources.records import Record, SourceRecords

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.core.tables import Table
    from atypia.data.sources.records import PrepareOptions

NAME: Final = "AMi-Br"
TABLE_NAME: Final = "AMI-BR.csv"
MPP: Final = 0.25
"""µm per pixel, nominal for both data sets."""

DATASETS: Final = ("MIDOG21", "TUPAC16")
_SUBTYPE_RATERS: Final = ("expert1", "expert2")
_VOTE_RATERS: Final = ("expert1", "expert2", "expert3")
_COLUMNS: Final = (
    *("slide", "dataset", "uid", "x", "y"),
    *(f"{rater}_label" for rater in _SUBTYPE_RATERS),
    *(f"{rater}_atypical" for rater in _VOTE_RATERS),
    MAJORITY_COLUMN,
)

# Cases of the MIDOG 2021 training set by scanner (Aubreville et al., Medical Image Analysis 2023).
_MIDOG21_SCANNERS: Final = (
    (range(1, 51), "Hamamatsu XR"),
    (range(51, 101), "Hamamatsu S360"),
    (range(101, 151), "Aperio CS2"),
)


def read_ami_br(source: Path, options: PrepareOptions) -> SourceRecords:
    """Read a checkout, with its own crops or, given ``options.images``, the source images.

    A patient is one (data set, slide) pair.

    Raises:
        InputError: The table cannot be read or lacks columns. What is wrong with a row is with
            its record.
    """
    table = read_table(source / TABLE_NAME)
    table.require(*_COLUMNS)
    records = [_record(source, table, row, options) for row in table.rows]
    about: dict[str, object] = {"table_sha256": sha256_file(table.path)}
    if options.images is not None:
        return SourceRecords("ami-br from images", records, about, NAME)
    listed = {record.origin for record in records}
    ignored = [p for p in files_below(source / "patches") if p.suffix == ".png" and p not in listed]
    if ignored:
        about["ignored_files"] = [p.relative_to(source).as_posix() for p in ignored]
    return SourceRecords("ami-br", records, about, NAME)


def _record(source: Path, table: Table, row: Row, options: PrepareOptions) -> Record:
    cells = row.cells
    dataset, slide = cells["dataset"], cells["slide"]
    stem = slide.rsplit(".", 1)[0]
    record = Record.of_row(
        table,
        row,
        patch_id=f"{dataset}_{cells['uid']}",
        patient_id=f"{dataset}_{stem}",
        domain=dataset,
        mpp=options.mpp or MPP,
    )
    for column in ("slide", "uid"):
        if not cells[column]:
            record.fault("expected a value but the cell is empty.", column)
    if dataset in DATASETS:
        record.scanner = scanner_of(dataset, stem)
    else:
        record.fault(f"expected one of {list(DATASETS)} but got {dataset!r}.", "dataset")
    for rater in _SUBTYPE_RATERS:
        record.read_label(f"label_{rater}", cells[f"{rater}_label"], f"{rater}_label")
    for rater in _VOTE_RATERS:
        record.read_vote(f"atypical_{rater}", cells[f"{rater}_atypical"], f"{rater}_atypical")
    record.read_vote(MAJORITY_COLUMN, cells[MAJORITY_COLUMN], MAJORITY_COLUMN)
    record.check_majority(MAJORITY_COLUMN)

    if options.images is not None:
        below = options.images / dataset / slide
        image = below if below.is_file() else options.images / slide
        record.read_centre(image, cells, ("x", "y"), options)
    else:
        folder = "atypical" if record.answers[MAJORITY_COLUMN] == "True" else "normal"
        record.origin = source / "patches" / folder / f"{record.patch_id}.png"
    return record


def scanner_of(dataset: str, stem: str) -> str:
    """Scanner of a case, ``""`` where the release does not give it (all of TUPAC16)."""
    if dataset != "MIDOG21" or not re.fullmatch(r"\d+", stem):
        return ""
    return next((scanner for cases, scanner in _MIDOG21_SCANNERS if int(stem) in cases), "")
