"""Pixels of DICOM whole slide images by wsidicom; the only module that imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.errors import InputError, MissingExtraError, Problem
from atypia.slides.reader import Colour, Level

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_WHOLE_SLIDE: Final = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage (PS3.4)."""


def is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM file (PS3.10: "DICM" after 128 bytes), or a folder holds one."""
    if path.is_dir():
        return any(is_dicom(file) for file in sorted(path.iterdir()) if file.is_file())
    with path.open("rb") as stream:
        stream.seek(128)
        return stream.read(4) == b"DICM"


def open_with_wsidicom(path: Path) -> DicomPixels:
    """Open a DICOM slide: a folder, or a file whose series is looked for beside it.

    Raises:
        InputError: It is not 8-bit RGB, or the folder holds several slides.
    """
    try:
        import pydicom
        import wsidicom
    except ImportError:
        raise MissingExtraError("wsidicom", "dicom", "Reading DICOM slides") from None
    series: dict[str, list[Path]] = {}
    folder = path if path.is_dir() else path.parent
    for file in sorted(f for f in folder.iterdir() if f.is_file() and is_dicom(f)):
        header = pydicom.dcmread(file, specific_tags=["SeriesInstanceUID", "SOPClassUID"])
        if header.get("SOPClassUID") == _WHOLE_SLIDE:  # annotations may lie beside it
            series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(file)
    if path.is_file():
        files = next((files for files in series.values() if path in files), [])
        if not files:
            what = "expected a DICOM whole slide image but it is another DICOM object."
            raise InputError(Problem(what, str(path)))
    elif len(series) == 1:
        (files,) = series.values()
    else:
        what = f"expected one series of DICOM files but got {len(series)}. Name one of its files."
        raise InputError(Problem(what, str(path)))
    slide = wsidicom.WsiDicom.open(files)
    try:
        return DicomPixels(path, slide)
    except BaseException:
        slide.close()
        raise


class DicomPixels:
    """See :class:`atypia.slides.reader.Pixels`."""

    background: Colour | None = None
    origin = (0, 0)

    def __init__(self, path: Path, slide: Any) -> None:
        self._slide = slide
        self._numbers = [level.level for level in slide.levels]
        if slide.levels.base_level.default_instance.image_data.samples_per_pixel != 3:
            raise InputError(Problem("expected an RGB image but got a grey one.", str(path)))
        width = slide.size.width
        self.levels = [
            Level(level.size.width, level.size.height, width / level.size.width)
            for level in slide.levels
        ]
        self.mpp = (float(slide.mpp.width), float(slide.mpp.height))

    def read(
        self,
        level: int,
        left: int,
        top: int,
        width: int,
        height: int,
        empty: Colour,  # noqa: ARG002
    ) -> NDArray[np.uint8]:
        """Read a rectangle of a level. wsidicom itself fills what is not stored."""
        region = self._slide.read_region((left, top), self._numbers[level], (width, height))
        return np.asarray(region.convert("RGB"))

    def close(self) -> None:
        """Close the files."""
        self._slide.close()
