"""OMG-Octo Atypical: a table and a folder of crops.

Shen et al., "OMG-Octo Atypical: a refinement of the original OMG-Octo database to incorporate
atypical mitoses", Zenodo 2025, https://doi.org/10.5281/zenodo.16107743. The table has
``image_file``, such as ``022857018aa597374b6c_x102_y115_577_371_609_403.png`` (slide, tile, box in
the tile), and ``label``.

The record could not be reached when this was written; columns and names are those that programs of
other authors read. Of the labels ``AMF`` and ``MF`` (a figure that is not atypical) are known from
there. ``NMF`` is read as a normal figure where no row has ``MF``, as challenge participants write
it; anything else is taken for a look-alike.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from atypia.core.errors import InputError
from atypia.data.cohort import MAJORITY_COLUMN, MITOSIS_COLUMN
from atypia.data.sources.crops import folder_of_crops, table_with
from atypia.data.sources.patients import assign_patients, check_patient_options
from atypia.data.sources.records import (
    Record,
    SourceRecords,
    resolution_problems,
    table_facts,
)

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.core.tables import Table
    from atypia.data.sources.records import PrepareOptions

NAME: Final = "OMG-Octo"
COLUMNS: Final = ("image_file", "label")
_CROP = re.compile(r"(?P<slide>[^_]+)_x\d+_y\d+_\d+_\d+_\d+_\d+\.\w+")


def find_omg_octo(source: Path) -> Table | None:
    """Find the table of the set: the file itself, or in a folder."""
    table = table_with(source, COLUMNS)
    if table is None or not any(_CROP.fullmatch(row.cells["image_file"]) for row in table.rows):
        return None
    return table


def read_omg_octo(table: Table, options: PrepareOptions) -> SourceRecords:
    """Read the crops. A patient is a slide, unless the user gives another.

    Raises:
        InputError: There are no crops, or no resolution. What is wrong with a row is with its
            record.
    """
    given = options.gives_patients
    problems = check_patient_options(options, column=None if given else "image_file")
    problems += resolution_problems(options, "crops of OMG-Octo")
    if problems:
        raise InputError(problems)
    crops = folder_of_crops(table, (row.cells["image_file"] for row in table.rows))
    labels = {row.cells["label"].upper() for row in table.rows}
    votes = {"AMF": "True", "MF" if "MF" in labels else "NMF": "False"}
    records = []
    for row in table.rows:
        name, label = row.cells["image_file"], row.cells["label"].upper()
        crop = _CROP.fullmatch(name)
        record = Record.of_row(
            table,
            row,
            origin=crops / name,
            path_text=name,
            patch_id=name.rpartition(".")[0],
            patient_id=f"OMG-Octo_{crop['slide']}" if crop else "",
            domain=options.domain or NAME,
            scanner=options.scanner,
            mpp=options.mpp,
            answers={
                MAJORITY_COLUMN: votes.get(label, ""),
                MITOSIS_COLUMN: str(label in votes) if label else "",
            },
        )
        if crop is None:
            what = "expected a name like SLIDE_x1_y2_3_4_5_6.png"
            record.fault(f"{what} but got {name!r}.", "image_file")
        records.append(record)
    if given:
        assign_patients(records, options)
    n_others = sum(record.answers[MITOSIS_COLUMN] == "False" for record in records)
    about = table_facts(table.path) | {"n_not_mitotic": n_others}
    return SourceRecords("omg-octo", records, about, NAME)
