"""Answers as DICOM Microscopy Bulk Simple Annotations, by highdicom; imported only here.

One annotation group per subtype, and one per status of what has no call, points in px of the total
pixel matrix, probabilities as measurements (DICOM PS3.3 A.87; Sup. 222).
"""

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia._version import __version__
from atypia.core.errors import InputError, MissingExtraError, Problem
from atypia.core.files import atomic_write
from atypia.core.labels import STATUSES, SUBTYPES
from atypia.slides.geojson_writer import MEASUREMENTS, class_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from atypia.slides import SlideInfo

_SCHEME = "99ATYPIA"
"""Private codes, as no public scheme has one for each subtype: F0 to F7, and N1 to N4 for what has
no call."""


def write_dicom_annotations(path: Path, table: pd.DataFrame, slide: SlideInfo) -> None:
    """Write the answers for a DICOM slide, to whose series annotations refer, atomically.

    Raises:
        InputError: The slide is not in DICOM format.
        MissingExtraError: The extra ``dicom`` is not installed.
    """
    _check_installed()
    import highdicom
    from highdicom.ann import AnnotationGroup, Measurements, MicroscopyBulkSimpleAnnotations
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="Atypia", family=codes.DCM.ArtificialIntelligence, version=__version__
    )
    groups: list[AnnotationGroup] = []
    answers = table["predicted_subtype"]
    answers = answers.where(answers != "", table.get("status", ""))
    codes_of = {subtype: f"F{k}" for k, subtype in enumerate(SUBTYPES)}
    codes_of |= {status: f"N{k}" for k, status in enumerate(STATUSES)}
    for answer, code in codes_of.items():
        rows = table[answers == answer]
        if not len(rows):
            continue
        points = rows[["x_px", "y_px"]].to_numpy(np.float64)
        measurements = [
            Measurements(
                name=CodedConcept(f"P{k}", _SCHEME, f"Probability: {_meaning(name)}"),
                values=rows[name].to_numpy(np.float32),
                unit=codes.UCUM.NoUnits,
            )
            for k, name in enumerate(MEASUREMENTS)
            if name in rows.columns and rows[name].notna().any()
        ]
        groups.append(
            AnnotationGroup(
                number=len(groups) + 1,
                uid=highdicom.UID(),
                label=class_name(answer),
                annotated_property_category=codes.SCT.Cell,
                annotated_property_type=CodedConcept(code, _SCHEME, class_name(answer)),
                graphic_type="POINT",
                graphic_data=list(points[:, None]),
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
                measurements=measurements,
            )
        )
    annotations = MicroscopyBulkSimpleAnnotations(
        source_images=[find_base_image(slide)],
        annotation_coordinate_type="2D",
        annotation_groups=groups,
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Atypia",
        manufacturer_model_name="Atypia",
        software_versions=__version__,
        device_serial_number="none",
        content_label="MITOTIC_FIGURES",
        content_description="Subtypes of mitotic figures",
    )
    buffer = io.BytesIO()
    annotations.save_as(buffer)
    with atomic_write(path, "wb") as stream:
        stream.write(buffer.getvalue())


def _check_installed() -> None:
    if importlib.util.find_spec("highdicom") is None:
        raise MissingExtraError("highdicom", "dicom", "Writing DICOM annotations")


def _meaning(measurement: str) -> str:
    subtype = measurement.removeprefix("p_")
    return class_name(subtype) if subtype in SUBTYPES else subtype


def check_dicom_output(outs: Sequence[Path], slide: SlideInfo, n_candidates: int) -> None:
    """Check what DICOM annotations need before the work, not after it.

    Raises:
        InputError: The slide is not in DICOM format, a file to write is a part of one, or there is
            no figure.
        MissingExtraError: The extra ``dicom`` is not installed.
    """
    if not outs:
        return
    find_base_image(slide)
    for out in outs:
        header = _header(out) if out.is_file() else None
        if header is not None and "TotalPixelMatrixColumns" in header:
            raise InputError(f"--out: {out} is a part of a DICOM slide. Choose another name.")
    if not n_candidates:
        what = "--out: DICOM annotations hold at least one figure and there is none to classify."
        raise InputError(f"{what} Leave out {outs[0].name}.")


def find_base_image(slide: SlideInfo) -> Any:
    """Find the header of the file with the slide's full resolution.

    Raises:
        InputError: The slide is not in DICOM format.
        MissingExtraError: The extra ``dicom`` is not installed.
    """
    _check_installed()
    folder, series = slide.path, None
    if slide.path.is_file():  # other slides may lie beside it, and be as large
        folder = slide.path.parent
        own = _header(slide.path)
        series = None if own is None else own.get("SeriesInstanceUID")
        if series is None:
            raise _other_format(slide)
    for file in sorted(f for f in folder.iterdir() if f.is_file()):
        header = _header(file)
        if header is None or (series is not None and header.get("SeriesInstanceUID") != series):
            continue
        size = header.get("TotalPixelMatrixColumns"), header.get("TotalPixelMatrixRows")
        if size == (slide.width, slide.height):
            return header
    raise _other_format(slide)


def _header(file: Path) -> Any:
    """Read a DICOM file but for its pixels; None where it is no such file."""
    import pydicom

    try:
        return pydicom.dcmread(file, stop_before_pixels=True)
    except pydicom.errors.InvalidDicomError:
        return None


def _other_format(slide: SlideInfo) -> InputError:
    what = "expected a DICOM slide, since DICOM annotations refer to one. Write .geojson instead."
    return InputError(Problem(what, str(slide.path)))
