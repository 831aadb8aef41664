"""The training set of MIDOG 2025 for atypical figures: a table, and a folder of crops.

Weiss et al., "A dataset of atypical vs normal mitoses classification for MIDOG - 2025", Zenodo
2025, https://doi.org/10.5281/zenodo.16044804: ``MIDOG25_Atypical_Classification_Train_Set.csv``
and ``MIDOG25_Binary_Classification_Train_Set/``. Each row names a crop (``image_id``), its source
image among those of MIDOG++ (``filename``) with the centre (``coordinateX``, ``coordinateY``),
``Tumor``, ``Scanner``, ``Origin`` and ``Species``, and has the votes ``AMF`` or ``NMF`` of
``expert1``, ``expert2``, where these differ of ``expert3``, and the ``majority``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from atypia.core.files import sha256_file
from atypia.data.cohort import MAJORITY_COLUMN
from atypia.data.sources.cases import midog_patient
from atypia.data.sources.crops import folder_of_crops, table_with
from atypia.data.sources.options import field_of
from atypia.data.sources.records import ImageRegion, Record, SourceRecords

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.core.tables import Row, Table
    from atypia.data.sources.options import PrepareOptions

NAME: Final = "MIDOG25"
MPP: Final = 0.25
"""µm per pixel, nominal, as for the same cases in AMi-Br. Hamamatsu's scanners make 0.23."""
_EXPERTS: Final = ("expert1", "expert2", "expert3")
COLUMNS: Final = (
    *("image_id", "filename", "coordinateX", "coordinateY", "Tumor", "Scanner"),
    *(*_EXPERTS, "majority"),
)


def find_midog25(source: Path) -> Table | None:
    """Find the table of the set: the file itself, or in a folder."""
    return table_with(source, COLUMNS)


def read_midog25(table: Table, options: PrepareOptions) -> SourceRecords:
    """Read the crops or, given ``options.images``, the source images.

    A domain is a type of tumour; a patient is a case of MIDOG++.

    Raises:
        InputError: There are no crops. What is wrong with a row is with its record.
    """
    crops = None
    if options.images is None:
        crops = folder_of_crops(table, (row.cells["image_id"] for row in table.rows))
    records = [_record(table, row, crops, options) for row in table.rows]
    about = {"table": table.path.name, "table_sha256": sha256_file(table.path)}
    return SourceRecords("midog25" if crops else "midog25 from images", records, about, NAME)


def _record(table: Table, row: Row, crops: Path | None, options: PrepareOptions) -> Record:
    cells = row.cells
    patient = midog_patient(cells["filename"])
    record = Record(
        file=str(table.path),
        row=row.line,
        path_text=cells["image_id"],
        patch_id=cells["image_id"].rpartition(".")[0],
        patient_id=patient or "",
        domain=cells["Tumor"] or options.domain or "",
        scanner=cells["Scanner"] or options.scanner,
        mpp=options.mpp or MPP,
    )
    if row.problem:
        record.problems.append(row.problem)
    if patient is None:
        record.fault(f"expected an image like 201.tiff but got {cells['filename']!r}.", "filename")
    for expert in _EXPERTS:
        record.read_vote(f"atypical_{expert}", cells[expert], expert)
    record.read_vote(MAJORITY_COLUMN, cells["majority"], "majority")
    if crops is not None:
        record.origin = crops / cells["image_id"]
    elif options.images is not None:
        x, y = (record.read_number(cells[f"coordinate{a}"], f"coordinate{a}", "px") for a in "XY")
        if x is not None and y is not None:
            image = options.images / cells["filename"]
            record.origin = ImageRegion(image, x, y, "px", field_of(options))
    return record
