"""What the authors of the MIDOG challenges publish.

The training set of MIDOG 2025 for atypical figures: a table, and a folder of crops.

Weiss et al., "A dataset of atypical vs normal mitoses classification for MIDOG - 2025", Zenodo
2025, https://doi.org/10.5281/zenodo.16044804: ``MIDOG25_Atypical_Classification_Train_Set.csv``
and ``MIDOG25_Binary_Classification_Train_Set/``. Each row names a crop (``image_id``), its source
image among those of MIDOG++ (``filename``) with the centre (``coordinateX``, ``coordinateY``),
``Tumor``, ``Scanner``, ``Origin`` and ``Species``, and has the votes ``AMF`` or ``NMF`` of
``expert1``, ``expert2``, where these differ of ``expert3``, and the ``majority``.

MIDOG 2021, 2022 and MIDOG++: source images, and a JSON file of boxes around cells.

Aubreville et al., "A comprehensive multi-domain dataset for mitotic figure detection", Scientific
Data 10, 2023; https://github.com/DeepMicroscopy/MIDOGpp, ``MIDOGpp.json`` or ``MIDOG++.json``. The
file looks like COCO's, but a box is two corners (x1, y1, x2, y2), as in those of the earlier years.
``datasets_xvalidation.csv`` of the same authors has tumour and scanner, where it lies beside.

The labels are for mitotic figures, not their subtypes: the figures become patches
without a label. Cells of any other category (hard negatives, non-mitotic figures) are look-alikes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from atypia.core.errors import InputError, Problem
from atypia.core.files import read_json
from atypia.core.found_files import entries_in
from atypia.core.tables import read_table
from atypia.data.cohort import MAJORITY_COLUMN, MITOSIS_COLUMN
from atypia.data.patient_names import midog_patient
from atypia.data.sources.crops import folder_of_crops, table_with
from atypia.data.sources.records import ImageRegion, Record, SourceRecords, table_facts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from atypia.core.tables import Row, Table
    from atypia.data.sources.records import PrepareOptions

NAME_2025: Final = "MIDOG25"
MPP_2025: Final = 0.25
"""µm per pixel, nominal, as for the same cases in AMi-Br. Hamamatsu's scanners make 0.23."""
_EXPERTS: Final = ("expert1", "expert2", "expert3")
_COLUMNS_2025: Final = (
    *("image_id", "filename", "coordinateX", "coordinateY", "Tumor", "Scanner"),
    *(*_EXPERTS, "majority"),
)


def find_midog25(source: Path) -> Table | None:
    """Find the table of the set: the file itself, or in a folder."""
    return table_with(source, _COLUMNS_2025)


def read_midog25(table: Table, options: PrepareOptions) -> SourceRecords:
    """Read the crops or, given ``options.images``, the source images.

    A domain is a type of tumour; a patient is a case of MIDOG++.

    Raises:
        InputError: There are no crops. What is wrong with a row is with its record.
    """
    crops = None
    if options.images is None:
        crops = folder_of_crops(table, (row.cells["image_id"] for row in table.rows))
    records = [_crop_record(table, row, crops, options) for row in table.rows]
    kind = "midog25" if crops else "midog25 from images"
    return SourceRecords(kind, records, table_facts(table.path), NAME_2025)


def _crop_record(table: Table, row: Row, crops: Path | None, options: PrepareOptions) -> Record:
    cells = row.cells
    patient = midog_patient(cells["filename"])
    record = Record.of_row(
        table,
        row,
        path_text=cells["image_id"],
        patch_id=cells["image_id"].rpartition(".")[0],
        patient_id=patient or "",
        domain=cells["Tumor"] or options.domain or "",
        scanner=cells["Scanner"] or options.scanner,
        mpp=options.mpp or MPP_2025,
    )
    if patient is None:
        record.fault(f"expected an image like 201.tiff but got {cells['filename']!r}.", "filename")
    for expert in _EXPERTS:
        record.read_vote(f"atypical_{expert}", cells[expert], expert)
    record.read_vote(MAJORITY_COLUMN, cells["majority"], "majority")
    record.check_majority("majority")
    if crops is not None:
        record.origin = crops / cells["image_id"]
    elif options.images is not None:
        image = options.images / cells["filename"]
        record.read_centre(image, cells, ("coordinateX", "coordinateY"), options)
    return record


FIELD_UM: Final = 32.0
"""Side of the crops, as in AMi-Br, where the user gives none."""
MITOTIC: Final = "mitotic figure"
_PARTS: Final = ("images", "annotations", "categories")
_CASES: Final = "datasets_xvalidation.csv"


def find_midog_json(source: Path) -> Path | None:
    """Find the JSON file: the file itself, or the only one of a folder with all of its parts."""
    files = entries_in(source) if source.is_dir() else [source]
    fitting = [file for file in files if file.suffix.lower() == ".json" and _fits(file)]
    return fitting[0] if len(fitting) == 1 else None


def _fits(file: Path) -> bool:
    try:
        tree = read_json(file)
    except InputError:
        return False
    return isinstance(tree, dict) and set(_PARTS) <= set(tree)


def read_midog_json(file: Path, options: PrepareOptions) -> SourceRecords:
    """Read the mitotic figures and the look-alikes, to be cropped from the source images.

    These lie beside the file, or in ``options.images``. A domain is a type of tumour, where it is
    given; a patient is a case.

    Raises:
        InputError: The file is not of this kind; all problems at once. What is wrong with a figure
            is with its record.
    """
    tree = read_json(file)
    problems = _json_problems(tree, str(file))
    if problems:
        raise InputError(problems)
    names = {c["id"]: str(c["name"]).strip().lower() for c in tree["categories"]}
    images = {image["id"]: image for image in tree["images"]}
    cases = _cases_by_number(file.parent / _CASES)
    of_2022 = "2022" in f"{file.name} {tree.get('info', {}).get('description', '')}"
    records = [
        _box_record(file, annotation, images[annotation["image_id"]], cases, of_2022, options)
        for annotation in tree["annotations"]
    ]
    mitotic = [names[annotation["category_id"]] == MITOTIC for annotation in tree["annotations"]]
    for record, is_mitotic in zip(records, mitotic, strict=True):
        record.answers[MITOSIS_COLUMN] = str(is_mitotic)
    about = table_facts(file) | {"n_not_mitotic": mitotic.count(False)}
    return SourceRecords("midog json", records, about, file.stem)


def _box_record(
    file: Path,
    annotation: Mapping[str, Any],
    image: Mapping[str, Any],
    cases: Mapping[int, Mapping[str, str]],
    of_2022: bool,
    options: PrepareOptions,
) -> Record:
    name = str(image["file_name"])
    patient = midog_patient(name)
    if patient is not None and of_2022:  # whose cases are numbered in another way from 151 on
        patient = patient.replace("MIDOG", "MIDOG22")
    case = cases.get(int(patient[-3:]), {}) if patient and not of_2022 else {}
    x1, y1, x2, y2 = (float(value) for value in annotation["bbox"])
    record = Record(
        file=str(file),
        path_text=name,
        patch_id=f"{patient}_{annotation['id']}",
        patient_id=patient or "",
        domain=case.get("Tumor", "") or str(image.get("tumor_type", "")) or options.domain or "",
        scanner=case.get("Scanner", "") or options.scanner,
        mpp=options.mpp,
        origin=ImageRegion(
            image=(options.images or file.parent) / name,
            x=(x1 + x2) / 2,
            y=(y1 + y2) / 2,
            unit="px",
            field_um=options.field_um or FIELD_UM,
        ),
        unlabelled=True,
    )
    if patient is None:
        record.fault(f"expected an image like 201.tiff but got {name!r}.", "file_name")
    return record


def _cases_by_number(file: Path) -> dict[int, Mapping[str, str]]:
    """Rows of the authors' table of cases by number; empty without it."""
    if not file.is_file():
        return {}
    table = read_table(file)
    table.require("Slide", "Tumor", "Scanner")
    return {
        int(row.cells["Slide"]): row.cells for row in table.rows if row.cells["Slide"].isdigit()
    }


def _json_problems(tree: Any, place: str) -> list[Problem]:
    keys = {
        "images": {"id", "file_name"},
        "annotations": {"id", "image_id", "category_id", "bbox"},
        "categories": {"id", "name"},
    }
    for part, wanted in keys.items():
        for i, entry in enumerate(tree[part]):
            if not isinstance(entry, dict) or not wanted <= set(entry):
                what = f"expected {sorted(wanted)} in entry {i} of {part!r} but got {entry!r:.100}."
                return [Problem(what, place)]
    problems = []
    names = [str(c["name"]).strip().lower() for c in tree["categories"]]
    if MITOTIC not in names:
        problems.append(Problem(f"expected a category {MITOTIC!r} but got {names}.", place))
    known = {c["id"] for c in tree["categories"]}, {image["id"] for image in tree["images"]}
    for annotation in tree["annotations"]:
        which = f"annotation {annotation['id']}"
        if annotation["category_id"] not in known[0] or annotation["image_id"] not in known[1]:
            problems.append(Problem(f"{which}: its category or image is not listed.", place))
        box = annotation["bbox"]
        if not (isinstance(box, list) and len(box) == len("xyxy")):
            problems.append(Problem(f"{which}: expected a box of 4 numbers but got {box}.", place))
        elif not (box[2] > box[0] and box[3] > box[1]):
            what = "expected a box from corner to corner (x1, y1, x2, y2), as MIDOG writes it"
            problems.append(Problem(f"{which}: {what}, but got {box}.", place))
    return problems
