"""Answers as DICOM Microscopy Bulk Simple Annotations, by highdicom; imported only here.

One annotation group per subtype, points in px of the total pixel matrix, probabilities as
measurements (DICOM PS3.3 A.87; Sup. 222).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia import __version__
from atypia.errors import InputError, MissingExtraError, Problem
from atypia.inference.geojson import MEASUREMENTS, class_name
from atypia.labels import SUBTYPES
from atypia.runs import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from atypia.data.slides import SlideInfo

_SCHEME = "99ATYPIA"
"""Private codes, as no public scheme has one for each subtype."""


def write_dicom_annotations(path: Path, table: pd.DataFrame, slide: SlideInfo) -> None:
    """Write the answers for a DICOM slide, atomically.

    Args:
        path: Of the DICOM file.
        table: From :func:`atypia.inference.slide.classify_slide`.
        slide: The slide; a DICOM slide, since annotations refer to its series.

    Raises:
        InputError: The slide is not in DICOM format.
        MissingExtraError: The extra ``dicom`` is not installed.
    """
    try:
        import highdicom
        from pydicom.sr.codedict import codes
    except ImportError:
        raise MissingExtraError("highdicom", "dicom", "Writing DICOM annotations") from None
    from highdicom.ann import AnnotationGroup, Measurements, MicroscopyBulkSimpleAnnotations
    from highdicom.sr import CodedConcept

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="Atypia", family=codes.DCM.ArtificialIntelligence, version=__version__
    )
    groups: list[AnnotationGroup] = []
    for number, subtype in enumerate(SUBTYPES):
        rows = table[table["predicted_subtype"] == subtype]
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
        ]
        groups.append(
            AnnotationGroup(
                number=len(groups) + 1,
                uid=highdicom.UID(),
                label=class_name(subtype),
                annotated_property_category=codes.SCT.Cell,
                annotated_property_type=CodedConcept(f"F{number}", _SCHEME, class_name(subtype)),
                graphic_type="POINT",
                graphic_data=list(points[:, None]),
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
                measurements=measurements,
            )
        )
    annotations = MicroscopyBulkSimpleAnnotations(
        source_images=[_base_image(slide)],
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


def _meaning(measurement: str) -> str:
    subtype = measurement.removeprefix("p_")
    return class_name(subtype) if subtype in SUBTYPES else subtype


def _base_image(slide: SlideInfo) -> Any:
    """Header of the file with the slide's full resolution."""
    import pydicom

    folder = slide.path if slide.path.is_dir() else slide.path.parent
    for file in sorted(f for f in folder.iterdir() if f.is_file()):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            continue
        size = header.get("TotalPixelMatrixColumns"), header.get("TotalPixelMatrixRows")
        if size == (slide.width, slide.height):
            return header
    what = "expected a DICOM slide, since DICOM annotations refer to one. Write .geojson instead."
    raise InputError(Problem(what, str(slide.path)))
