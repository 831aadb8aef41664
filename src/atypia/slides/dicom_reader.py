"""Pixels of DICOM whole slide images by wsidicom; the only module that imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.errors import InputError, MissingExtraError, Problem
from atypia.slides.reader import Colour, Level

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_PIXELS: Final = (
    *("SamplesPerPixel", "BitsStored", "PixelRepresentation"),
    "PhotometricInterpretation",
)
_COLOURS: Final = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
"""Colour spaces that the decoders turn into RGB."""
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
    pixels_of: dict[Path, list[object]] = {}
    folder = path if path.is_dir() else path.parent
    for file in sorted(f for f in folder.iterdir() if f.is_file() and is_dicom(f)):
        tags = ["SeriesInstanceUID", "SOPClassUID", *_PIXELS]
        header = pydicom.dcmread(file, specific_tags=tags)
        if header.get("SOPClassUID") == _WHOLE_SLIDE:  # annotations may lie beside it
            series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(file)
            pixels_of[file] = [header.get(name) for name in _PIXELS]
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
    if problems := [
        Problem(
            f"expected 8-bit RGB but got {got[0]} samples of {got[1]} bits, {got[3]}. "
            "Convert it to 8-bit RGB first.",
            str(file),
        )
        for file, got in pixels_of.items()
        if file in files and (got[:3] != [3, 8, 0] or got[3] not in _COLOURS)
    ]:
        raise InputError(problems)
    slide = wsidicom.WsiDicom.open(files)
    try:
        return DicomPixels(slide)
    except BaseException:
        slide.close()
        raise


class DicomPixels:
    """See :class:`atypia.slides.reader.Pixels`."""

    background: Colour | None = None
    origin = (0, 0)

    def __init__(self, slide: Any) -> None:
        self._slide = slide
        self._numbers = [level.level for level in slide.levels]
        width = slide.size.width
        self.levels = [
            Level(level.size.width, level.size.height, width / level.size.width)
            for level in slide.levels
        ]
        try:
            self.mpp: tuple[float, float] | None = float(slide.mpp.width), float(slide.mpp.height)
        except (AttributeError, TypeError, ValueError, ArithmeticError):
            self.mpp = None

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
