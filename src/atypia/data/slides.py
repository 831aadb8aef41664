"""Source images (.svs, .tif, .tiff): their resolution, their background, and regions of them.

Slides and tiled TIFF are read by OpenSlide, plain TIFF by tifffile; both come with the extra
``slides`` and are imported nowhere else.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from atypia.errors import InputError, MissingExtraError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

PLAUSIBLE_MPP: Final = (0.05, 4.0)
"""µm per pixel of a light microscope; a TIFF that says 72 dpi (353 µm) only has a default."""

_LARGE_BYTES: Final = 2**29
_WHITE: Final = (255, 255, 255)
_BRIGHT: Final = 200
"""A pixel counts as background where no channel is darker."""


@dataclass(frozen=True)
class SourceImage:
    """An open source image, addressed in pixels of its full resolution (level 0)."""

    path: Path
    width: int
    height: int
    mpp: float | None
    """µm per pixel as the file says, None where it says nothing plausible."""
    background: tuple[int, int, int]
    """Colour of empty glass."""
    read: Callable[[int, int, int, int], NDArray[np.uint8]]
    """``read(left, top, width, height)`` gives RGB ``uint8`` (height, width, 3); the rectangle
    must lie inside the image."""

    def crop(self, x: float, y: float, side: int) -> NDArray[np.uint8]:
        """Cut out a square of `side` px centred on (`x`, `y`), both in px on level 0.

        What lies beyond the edge is filled with the background, never with black: a black bar
        is something a network learns from.

        Returns:
            RGB ``uint8``, shape (side, side, 3).

        Raises:
            InputError: The image is damaged at this place.
        """
        left, top = (int(np.floor(centre - side / 2 + 0.5)) for centre in (x, y))
        canvas = np.empty((side, side, 3), np.uint8)
        canvas[:] = self.background
        x0, x1 = max(left, 0), min(left + side, self.width)
        y0, y1 = max(top, 0), min(top + side, self.height)
        if x0 < x1 and y0 < y1:
            with _reading(self.path):
                inside = self.read(x0, y0, x1 - x0, y1 - y0)
            canvas[y0 - top : y1 - top, x0 - left : x1 - left] = inside
        return canvas


@contextmanager
def open_source_image(path: Path) -> Iterator[SourceImage]:
    """Open a slide or a TIFF image.

    Raises:
        InputError: The file is missing, damaged, or not 8-bit RGB.
        MissingExtraError: The extra ``slides`` is not installed.
    """
    try:
        import openslide
        import tifffile
    except ImportError as error:
        package = "openslide-python" if "openslide" in str(error) else "tifffile"
        raise MissingExtraError(package, "slides", "Reading source images") from None

    if not path.is_file():
        raise InputError(Problem("expected a source image but there is no such file.", str(path)))
    with ExitStack() as stack:
        with _reading(path):
            if openslide.OpenSlide.detect_format(path) is not None:
                image = _from_openslide(path, stack.enter_context(openslide.OpenSlide(path)))
            else:
                image = _from_tifffile(path, stack.enter_context(tifffile.TiffFile(path)))
        yield image


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged bytes into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        what = f"expected a sound .svs, .tif or .tiff image but it cannot be read ({error})."
        raise InputError(Problem(what, str(path))) from error


def _from_openslide(path: Path, slide: Any) -> SourceImage:
    properties = slide.properties
    colour = properties.get("openslide.background-color")
    width, height = slide.dimensions

    def read_over(
        left: int, top: int, size: tuple[int, int], colour: tuple[int, int, int]
    ) -> NDArray[np.uint8]:
        region = slide.read_region((left, top), 0, size)
        canvas = Image.new("RGB", size, colour)
        canvas.paste(region, mask=region)  # transparent where the scanner stored no tile
        return np.asarray(canvas)

    if colour is not None:
        background = (int(colour[0:2], 16), int(colour[2:4], 16), int(colour[4:6], 16))
    else:
        background = _background(
            lambda left, top, w, h: read_over(left, top, (w, h), _WHITE), width, height
        )
    return SourceImage(
        path=path,
        width=width,
        height=height,
        mpp=_mpp(path, properties.get("openslide.mpp-x"), properties.get("openslide.mpp-y")),
        background=background,
        read=lambda left, top, w, h: read_over(left, top, (w, h), background),
    )


def _from_tifffile(path: Path, tiff: Any) -> SourceImage:
    page = tiff.pages[0]
    if page.dtype != np.uint8 or page.ndim != 3 or page.shape[-1] != 3:
        what = (
            "expected an 8-bit RGB image of shape (height, width, 3) "
            f"but got {page.dtype} of shape {page.shape}."
        )
        raise InputError(Problem(what, str(path)))
    # A temporary file instead of memory for the few that would not fit.
    pixels = page.asarray(out="memmap") if page.nbytes > _LARGE_BYTES else page.asarray()

    def read(left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        return np.asarray(pixels[top : top + height, left : left + width])

    per_um = page.get_resolution(unit="MICROMETER") if "XResolution" in page.tags else (0, 0)
    mpp_x, mpp_y = (1 / r if r else None for r in per_um)
    height, width = pixels.shape[:2]
    return SourceImage(
        path=path,
        width=width,
        height=height,
        mpp=_mpp(path, mpp_x, mpp_y),
        background=_background(read, width, height),
        read=read,
    )


def _mpp(path: Path, mpp_x: Any, mpp_y: Any) -> float | None:
    if mpp_x is None or mpp_y is None:
        return None
    x, y = float(mpp_x), float(mpp_y)
    if not PLAUSIBLE_MPP[0] <= x <= PLAUSIBLE_MPP[1]:
        return None
    if abs(x - y) > 0.01 * x:
        what = f"expected square pixels but got {x:g} × {y:g} µm."
        raise InputError(Problem(what, str(path)))
    return x


def _background(
    read: Callable[[int, int, int, int], NDArray[np.uint8]], width: int, height: int
) -> tuple[int, int, int]:
    """Median of the bright pixels along the border; white where tissue runs over all of it."""
    border = np.concatenate(
        [
            read(0, 0, width, 1).reshape(-1, 3),
            read(0, height - 1, width, 1).reshape(-1, 3),
            read(0, 0, 1, height).reshape(-1, 3),
            read(width - 1, 0, 1, height).reshape(-1, 3),
        ]
    )
    bright = border[border.min(axis=1) >= _BRIGHT]
    if len(bright) < len(border) / 100:
        return _WHITE
    red, green, blue = (int(v) for v in np.median(bright, axis=0))
    return red, green, blue
