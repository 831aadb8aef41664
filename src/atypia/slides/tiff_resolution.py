"""The resolution that a TIFF file carries: OME metadata, ImageJ's, or the baseline tags."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from atypia.core.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PLAUSIBLE_MPP: Final = (0.05, 4.0)
"""µm per pixel of a light microscope; a TIFF that says 72 dpi (353 µm) only has a default."""

UM_OF_UNIT: Final = {
    **dict.fromkeys(("\u00b5m", "\u03bcm", "\\u00B5m", "um", "micron", "microns"), 1.0),
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
}
"""Micrometres in one unit, as OME-XML and ImageJ write it: with the micro sign, the Greek letter,
or an escape."""
_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 270, 282, 283, 296
_UM_OF_TAG: Final = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre


def tiff_mpp(path: Path) -> float | None:
    """µm per pixel of the first page of a TIFF.

    Args:
        path: Of any file; only headers are read.

    Returns:
        None where the file is no TIFF, says nothing, or nothing that a light microscope could mean.

    Raises:
        InputError: The pixels are not square.
    """
    if path.suffix.lower() not in {".tif", ".tiff"}:
        return None
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            sizes = _pixel_size_um(getattr(image, "tag_v2", {}))
    except Exception:
        return None  # damaged; whoever decodes the pixels tells how
    if sizes is None or not PLAUSIBLE_MPP[0] <= sizes[0] <= PLAUSIBLE_MPP[1]:
        return None
    x, y = sizes
    if abs(x - y) > 0.01 * x:
        what = f"expected square pixels but the file says {x:g} × {y:g} µm. Give --mpp."
        raise InputError(Problem(what, str(path)))
    return x


def _pixel_size_um(tags: Mapping[int, Any]) -> tuple[float, float] | None:
    """Width and height of a pixel in µm by the tags of a page."""
    # Pillow takes the bytes of a description for Latin-1.
    description = (
        str(tags.get(_DESCRIPTION, "")).encode("latin-1", "replace").decode(errors="replace")
    )
    if "<OME" in description:
        return _of_ome(description)
    per_unit = [float(tags.get(tag, 0)) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
    if description.startswith("ImageJ="):
        unit = re.search(r"^unit=(.*)$", description, re.MULTILINE)
        um = UM_OF_UNIT.get(unit[1].strip()) if unit else None
    else:
        um = _UM_OF_TAG.get(tags.get(_RESOLUTION_UNIT, 2))
    if um is None or not all(per_unit):
        return None
    return um / per_unit[0], um / per_unit[1]


def _of_ome(description: str) -> tuple[float, float] | None:
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", description)
    entries = dict(re.findall(r'([\w:]+)\s*=\s*"([^"]*)"', pixels[0])) if pixels else {}
    sizes = []
    for axis in "XY":
        size = entries.get(f"PhysicalSize{axis}")
        unit = UM_OF_UNIT.get(entries.get(f"PhysicalSize{axis}Unit", "um"))
        if size is None or unit is None:
            return None
        sizes.append(float(size) * unit)
    return sizes[0], sizes[1]
