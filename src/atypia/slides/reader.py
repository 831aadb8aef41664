"""A slide, or any other source image: its resolution, its background, and fields of it.

One class for every format. What reads the bytes is chosen by the file: OpenSlide (.svs, .ndpi,
.mrxs, .scn, tiled TIFF ...), tifffile (plain TIFF, OME-TIFF) or wsidicom (DICOM).
"""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
from PIL import Image

from atypia.core.errors import InputError, MissingExtraError, Problem
from atypia.core.found_files import refuse_special

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger("atypia")

PLAUSIBLE_MPP: Final = (0.05, 4.0)
"""µm per pixel of a light microscope; a TIFF with 72 dpi (353 µm) only has a default."""
_LONGEST_SIDE: Final = 2**21
"""More than a slide of 50 cm has; a larger number comes from damaged headers."""
_SQUARE: Final = 0.01
"""Pixels whose sides differ by less than this share are square."""
_MOST_ASPECT: Final = 0.25
"""No scanner makes pixels whose sides differ by a larger share."""
WHITE: Final = (255, 255, 255)
_BRIGHT: Final = 200
"""A pixel counts as background where no channel is darker."""


Colour = tuple[int, int, int]
"""RGB, 0..255."""


class Level(NamedTuple):
    """One level of a pyramid."""

    width: int
    height: int
    downsample: float
    """Pixels of level 0 to one of this level, in x and in y."""


class Pixels(Protocol):
    """What a format gives. Safe to use from several threads at once."""

    @property
    def levels(self) -> Sequence[Level]:
        """Finest first."""

    @property
    def mpp(self) -> tuple[float, float] | None:
        """µm per pixel of level 0 in x and y, None where the file holds none."""

    @property
    def background(self) -> Colour | None:
        """Colour of empty glass, None where the file holds none."""

    @property
    def origin(self) -> tuple[int, int]:
        """Where the scanned part begins, px on level 0."""

    def read(
        self, level: int, left: int, top: int, width: int, height: int, empty: Colour
    ) -> NDArray[np.uint8]:
        """RGB (height, width, 3) of a rectangle inside a level, in px of that level.

        What the scanner stored no pixels for is `empty`.
        """

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True)
class SlideInfo:
    """What is known of a slide without its pixels."""

    path: Path
    width: int
    """Of level 0, px."""
    height: int
    mpp: float | None
    """µm per pixel of level 0, None where neither the file nor the user gives it."""
    background: Colour
    """Colour of empty glass."""
    origin: tuple[int, int]
    """Where the scanned part begins, px on level 0. QuPath shows that part alone and counts from
    its corner; (0, 0) for most formats."""
    stated_mpp: float | None = None
    """µm per pixel by the file, None where it holds nothing plausible."""
    aspect: float = 1.0
    """Width of a pixel over its height. Where it is not 1, `mpp` is the side of the square of the
    same area, so that areas are right."""

    @property
    def um_per_px(self) -> tuple[float, float]:
        """µm per pixel of level 0 in x and y; needs a known resolution."""
        assert self.mpp is not None
        return self.mpp * math.sqrt(self.aspect), self.mpp / math.sqrt(self.aspect)

    def log_oddities(self, given_mpp: float | None) -> None:
        """Log where coordinates of QuPath differ, and where pixels are not as one expects them."""
        if self.origin != (0, 0):
            log.info(
                "%s: the scanned part begins at %d, %d px; QuPath, and so GeoJSON, counts from "
                "there, everything else from the corner of level 0",
                self.path,
                *self.origin,
            )
        if self.aspect != 1:
            log.warning(
                "%s: pixels of %.4g × %.4g µm, each axis is read by its own size; --mpp takes one "
                "for both",
                self.path,
                *self.um_per_px,
            )
        stated = self.stated_mpp
        if given_mpp is not None and stated and abs(stated / given_mpp - 1) > 0.02:
            log.warning(
                "%s says %.4g µm per pixel, but --mpp %.4g is taken", self.path, stated, given_mpp
            )


class Slide:
    """An open slide, addressed in pixels of its full resolution (level 0).

    A pixel covers the unit square from its coordinates on: the slide reaches from 0 to
    ``info.width``. What lies beyond it, and what the scanner stored no pixels for, is filled with
    the background, never with black: a black bar is something a network learns from.
    """

    def __init__(self, pixels: Pixels, info: SlideInfo) -> None:
        self._pixels = pixels
        self.info = info

    def crop(self, x: float, y: float, side: int) -> NDArray[np.uint8]:
        """Cut out a square of `side` px centred on (`x`, `y`), both in px on level 0.

        Returns:
            RGB ``uint8``, shape (side, side, 3). The centre is moved by at most half a pixel, so
            that pixels stay as they are.

        Raises:
            InputError: The image is damaged at this place.
        """
        return self._square(0, x, y, side)

    def read_field(
        self, x_px: float, y_px: float, field_um: float, out_mpp: float
    ) -> NDArray[np.uint8]:
        """Read the square field of `field_um` around a point of level 0 at `out_mpp` µm per pixel.

        The pyramid's level next finer than `out_mpp` is resampled with a Lanczos filter as wide
        as it must be not to alias; a level that has this resolution is cropped as it is.

        Returns:
            RGB ``uint8``, shape (S, S, 3) with S = ``round(field_um / out_mpp)``.

        Raises:
            InputError: The resolution is unknown, or the image is damaged at this place.
        """
        if self.info.mpp is None:
            raise InputError(unknown_resolution(self.info.path))
        side = round(field_um / out_mpp)
        wanted = [out_mpp / um for um in self.info.um_per_px]  # px of level 0 to one of the answer
        levels = self._pixels.levels
        fine = [i for i, level in enumerate(levels) if level.downsample <= min(wanted)]
        number = max(fine, default=0)
        downsample = levels[number].downsample
        steps = [w / downsample for w in wanted]  # px of the level to one of the answer, x and y
        x, y = x_px / downsample, y_px / downsample
        if max(abs(step - 1) for step in steps) * side < 0.5:
            return self._square(number, x, y, side)
        left, top = x - side * steps[0] / 2, y - side * steps[1] / 2
        reach = math.ceil(3 * max(*steps, 1)) + 1  # of the filter, px of the level
        x0, y0 = math.floor(left) - reach, math.floor(top) - reach
        size = math.ceil(side * max(steps)) + 1 + 2 * reach
        box = (left - x0, top - y0, left - x0 + side * steps[0], top - y0 + side * steps[1])
        region = Image.fromarray(self._region(number, x0, y0, size))
        return np.asarray(region.resize((side, side), Image.Resampling.LANCZOS, box=box))

    def _square(self, level: int, x: float, y: float, side: int) -> NDArray[np.uint8]:
        left, top = (math.floor(centre - side / 2 + 0.5) for centre in (x, y))
        return self._region(level, left, top, side)

    def _region(self, level: int, left: int, top: int, side: int) -> NDArray[np.uint8]:
        canvas = np.empty((side, side, 3), np.uint8)
        canvas[:] = self.info.background
        x0, x1 = max(left, 0), min(left + side, self._pixels.levels[level].width)
        y0, y1 = max(top, 0), min(top + side, self._pixels.levels[level].height)
        if x0 < x1 and y0 < y1:
            with _reading(self.info.path):
                inside = self._pixels.read(level, x0, y0, x1 - x0, y1 - y0, self.info.background)
                canvas[y0 - top : y1 - top, x0 - left : x1 - left] = inside
        return canvas


@contextmanager
def open_slide(
    path: Path, *, mpp: float | None = None, background: Colour | None = None
) -> Iterator[Slide]:
    """Open a slide or another source image.

    Args:
        path: A slide, a TIFF image, a DICOM file (its series is looked for beside it), or a
            folder with one DICOM slide.
        mpp: µm per pixel of level 0; None is that of the file.
        background: Colour of empty glass; None is that of the file, else the median of the
            bright pixels along the border, else white.

    Raises:
        InputError: The file is missing, damaged, or not 8-bit RGB.
        MissingExtraError: The extra ``slides`` or ``dicom`` is not installed.
    """
    refuse_special(path)
    if not path.exists():
        raise InputError(Problem("expected a source image but there is no such file.", str(path)))
    with _reading(path):
        pixels = _open(path)
    try:
        with _reading(path):
            info = _describe(path, pixels, mpp, background)
        yield Slide(pixels, info)
    finally:
        pixels.close()


def _open(path: Path) -> Pixels:
    from atypia.slides.dicom_reader import is_dicom, open_with_wsidicom
    from atypia.slides.openslide_reader import detect_format, open_with_openslide
    from atypia.slides.tiff_reader import check_slide_tiff, open_with_tifffile

    if is_dicom(path):
        return open_with_wsidicom(path)
    kind = detect_format(path)
    # Of a TIFF that no scanner wrote OpenSlide sees neither OME's pyramid nor the colour space.
    if kind in (None, "generic-tiff"):
        return open_with_tifffile(path)
    check_slide_tiff(path)
    return open_with_openslide(path)


def _describe(
    path: Path, pixels: Pixels, mpp: float | None, background: Colour | None
) -> SlideInfo:
    first = pixels.levels[0]
    if not all(1 <= side <= _LONGEST_SIDE for side in first[:2]):
        what = (
            f"expected an image of up to {_LONGEST_SIDE:,} px a side but got "
            f"{first.width} × {first.height} px."
        )
        raise InputError(Problem(what, str(path)))
    stated, aspect = mean_mpp(pixels.mpp)
    return SlideInfo(
        path=path,
        width=first.width,
        height=first.height,
        mpp=stated if mpp is None else mpp,
        background=background or pixels.background or _estimate_background(pixels),
        origin=pixels.origin,
        stated_mpp=stated,
        aspect=aspect if mpp is None else 1.0,
    )


def mpp_problems(mpp: float | None, option: str = "--mpp") -> list[Problem]:
    """One problem where µm per pixel are given, and are no plausible number."""
    if mpp is None or (isinstance(mpp, Real) and 0.01 <= mpp <= 10):
        return []
    return [Problem(f"{option}: expected µm per pixel (0.01 to 10) but got {mpp!r}.")]


def unknown_resolution(path: Path) -> Problem:
    """Make the problem of a slide without µm per pixel."""
    return Problem("the file does not say its µm per pixel. Give --mpp.", str(path))


def mean_mpp(sizes: tuple[float, float] | None) -> tuple[float | None, float]:
    """µm per pixel, and the width of a pixel over its height, from both in µm.

    None and 1 where a file holds none that a microscope could mean. Of pixels that are not square
    it is the side of the square of the same area.
    """
    low, high = PLAUSIBLE_MPP
    if sizes is None or not all(low <= size <= high for size in sizes):
        return None, 1.0
    x, y = sizes
    if abs(x - y) <= _SQUARE * x:
        return x, 1.0
    if abs(x / y - 1) > _MOST_ASPECT:
        return None, 1.0
    return math.sqrt(x * y), x / y


def _estimate_background(pixels: Pixels) -> Colour:
    """Median of the bright pixels along the border; white where tissue runs over all of it."""
    number = len(pixels.levels) - 1
    width, height, _ = pixels.levels[number]
    edges = [
        (0, 0, width, 1),
        (0, height - 1, width, 1),
        (0, 0, 1, height),
        (width - 1, 0, 1, height),
    ]
    try:
        border = np.concatenate([pixels.read(number, *e, WHITE).reshape(-1, 3) for e in edges])
    except Exception:
        # A damaged tile at the border must not keep one from all others; reading it is an error.
        return WHITE
    bright = border[border.min(axis=1) >= _BRIGHT]
    if len(bright) < len(border) / 100:
        return WHITE
    red, green, blue = (int(v) for v in np.median(bright, axis=0))
    return red, green, blue


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged bytes into an InputError."""
    try:
        yield
    except (InputError, MissingExtraError):
        raise
    except Exception as error:
        why = str(error) or type(error).__name__
        what = f"expected a sound slide or TIFF image but it cannot be read ({why})."
        raise InputError(Problem(what, str(path))) from error
