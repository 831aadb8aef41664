"""Plain TIFF and OME-TIFF: pixels by tifffile, which only this module imports; the resolution.

Only the tiles or strips that a rectangle touches are decoded. :func:`tiff_mpp` needs Pillow alone.
"""

from __future__ import annotations

import html
import logging
import re
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from atypia.core.errors import InputError, MissingExtraError, Problem
from atypia.slides.reader import Colour, Level, mean_mpp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_CACHE_BYTES: Final = 2**26
"""Decoded tiles or strips that are kept: candidates often lie close to each other."""

_PLANES: Final = 2
"""Planar configuration (TIFF 6.0): each channel on its own."""

UM_OF_UNIT: Final = {
    **dict.fromkeys(("\u00b5m", "\u03bcm", "\\u00B5m", "um", "micron", "microns"), 1.0),
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
}
"""Micrometres in one unit, as OME-XML and ImageJ write it: with the micro sign, the Greek letter,
or an escape."""
_ORIENTATION: Final = 274
_ASSOCIATED, _UNASSOCIATED = 1, 2
"""Meaning of a fourth sample (TIFF 6.0): opacity, the colours multiplied by it or not."""
_LARGEST_TILE: Final = 2**26
"""Pixels; a larger number comes from damaged headers, and would fill the memory."""
_JPEG: Final = (6, 7, 34892)
_SCANNERS: Final = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif")
"""Slides in TIFF that OpenSlide reads."""
_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 270, 282, 283, 296
_UM_OF_TAG: Final = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre


def check_slide_tiff(path: Path) -> None:
    """Check the pixels of a scanner's TIFF, which OpenSlide reads whatever they are.

    Raises:
        InputError: Its largest image is not 8-bit RGB.
    """
    if path.suffix.lower() not in _SCANNERS:
        return
    with _tifffile().TiffFile(path) as tiff:
        page = max((s.keyframe for s in tiff.series), key=lambda p: p.imagelength * p.imagewidth)
        if problem := _pixel_problem(page, by_openslide=True):
            raise InputError(Problem(problem, str(path)))


def open_with_tifffile(path: Path) -> TiffPixels:
    """Open a TIFF file.

    Raises:
        InputError: It is cut short, is not 8-bit RGB, or has several planes.
    """
    tiff = _tifffile().TiffFile(path)
    try:
        if not tiff.series:
            what = (
                f"expected a TIFF image but the file ends ({path.stat().st_size:,} bytes) before "
                "the directory that says where its pixels are. Is it copied in full?"
            )
            raise InputError(Problem(what, str(path)))
        return TiffPixels(path, tiff)
    except BaseException:
        tiff.close()
        raise


def _tifffile() -> Any:
    try:
        import imagecodecs  # noqa: F401 - without it tifffile fails later, at the first tile
        import tifffile
    except ImportError as error:
        package = "imagecodecs" if "imagecodecs" in str(error) else "tifffile"
        raise MissingExtraError(package, "slides", "Reading source images") from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs, it also raises
    return tifffile


class TiffPixels:
    """See :class:`atypia.slides.reader.Pixels`."""

    background: Colour | None = None
    origin = (0, 0)

    def __init__(self, path: Path, tiff: Any) -> None:
        self._tiff = tiff
        series = _largest(tiff, path)
        if len(series.pages) > 1:
            what = (
                f"expected one image but got {len(series.pages)} planes. "
                "Save the one to read as a file of its own."
            )
            raise InputError(Problem(what, str(path)))
        self._pages = _levels(tiff, series)
        first = self._pages[0]
        if problem := _pixel_problem(first):
            raise InputError(Problem(problem, str(path)))
        self._alpha = tuple(first.extrasamples)[:1] if first.samplesperpixel == 4 else ()
        self.levels = [
            Level(page.imagewidth, page.imagelength, first.imagewidth / page.imagewidth)
            for page in self._pages
        ]
        self.mpp = _mpp(tiff, first)
        # Uncompressed pixels in one piece need no decoding.
        self._maps = [_map(page) if page.is_memmappable else None for page in self._pages]
        self._tables = [_jpeg_tables(page) for page in self._pages]
        self._cache: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()

    def read(
        self, level: int, left: int, top: int, width: int, height: int, empty: Colour
    ) -> NDArray[np.uint8]:
        """Read a rectangle of a level."""
        mapped = self._maps[level]
        if mapped is not None:
            return self._on(empty, np.asarray(mapped[top : top + height, left : left + width]))
        canvas = np.empty((height, width, self._pages[0].samplesperpixel), np.uint8)
        canvas[:] = (*empty, 255)[: canvas.shape[2]]
        for index in _segments(self._pages[level], left, top, width, height):
            pixels, (plane, _, y, x, _) = self._segment(level, index)
            if pixels is None:  # a tile that was never written
                continue
            # Planes of a channel each, or all three channels together.
            channels = slice(plane, plane + 1) if pixels.shape[-1] == 1 else slice(None)
            x0, x1 = max(left, x), min(left + width, x + pixels.shape[1])
            y0, y1 = max(top, y), min(top + height, y + pixels.shape[0])
            canvas[y0 - top : y1 - top, x0 - left : x1 - left, channels] = pixels[
                y0 - y : y1 - y, x0 - x : x1 - x
            ]
        return self._on(empty, canvas)

    def _on(self, empty: Colour, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB of pixels that may have a fourth sample; where that is an opacity, on glass."""
        rgb = pixels[..., :3]
        if not self._alpha or self._alpha[0] not in (_ASSOCIATED, _UNASSOCIATED):
            return rgb  # what a sample of no stated meaning holds is nothing to be seen
        opacity = pixels[..., 3:] / 255.0
        own = rgb * (opacity if self._alpha[0] == _UNASSOCIATED else 1.0)
        return np.asarray(np.clip(np.round(own + (1 - opacity) * empty), 0, 255), np.uint8)

    def _segment(self, level: int, index: int) -> Any:
        """Pixels (h, w, channels) of one tile or strip, None if it is empty, and its indices."""
        key = (level, index)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        page = self._pages[level]
        data = None
        if page.databytecounts[index]:
            with self._lock:
                self._tiff.filehandle.seek(page.dataoffsets[index])
                data = self._tiff.filehandle.read(page.databytecounts[index])
        pixels, indices, _ = page.decode(data, index, jpegtables=self._tables[level])
        if pixels is None:
            return None, indices
        answer = pixels[0], indices  # the first of one z plane
        with self._lock:
            self._cache[key] = answer
            self._cached_bytes += pixels.nbytes
            while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
                _, (dropped, _) = self._cache.popitem(last=False)
                self._cached_bytes -= dropped.nbytes
        return answer

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()


def _map(page: Any) -> NDArray[np.uint8]:
    """Map the pixels (height, width, 3) of a page, whether channels lie together or in planes."""
    pixels: NDArray[np.uint8] = page.asarray(out="memmap")
    return np.moveaxis(pixels, 0, -1) if page.planarconfig == _PLANES else pixels


def _segments(page: Any, left: int, top: int, width: int, height: int) -> Iterator[int]:
    """Yield the indices of the tiles or strips that a rectangle touches, in all planes."""
    tile_height = page.tilelength if page.is_tiled else page.rowsperstrip
    tile_width = page.tilewidth if page.is_tiled else page.imagewidth
    columns = -(-page.imagewidth // tile_width)
    rows = -(-page.imagelength // tile_height)
    for plane in range(len(page.dataoffsets) // (rows * columns)):
        for row in range(top // tile_height, (top + height - 1) // tile_height + 1):
            for column in range(left // tile_width, (left + width - 1) // tile_width + 1):
                yield (plane * rows + row) * columns + column


def _jpeg_tables(page: Any) -> bytes | None:
    tag = page.tags.get("JPEGTables")
    return None if tag is None else bytes(tag.value)


def _pixel_problem(page: Any, *, by_openslide: bool = False) -> str:
    """Why the pixels of a page are not 8-bit RGB, or would not be read as such; "" if they are."""
    photometric = getattr(page.photometric, "name", str(page.photometric))
    samples, bits = page.samplesperpixel, page.bitspersample
    whole = page.dtype == np.uint8 and page.sampleformat in (1, 4)  # unsigned, or not stated
    # What libjpeg stores as YCbCr it gives back as RGB; nothing else converts it.
    rgb = photometric == "RGB" or (
        photometric == "YCBCR" and (by_openslide or page.compression in _JPEG)
    )
    if not whole or bits != 8 or not rgb or samples not in (3, 4):
        return (
            f"expected 8-bit RGB but got {samples} samples of {bits} bits ({page.dtype}), "
            f"{photometric}. Convert it to 8-bit RGB first."
        )
    tile = (page.tilelength, page.tilewidth) if page.is_tiled else (0, 0)
    if tile[0] * tile[1] > _LARGEST_TILE:
        return f"expected tiles of up to {_LARGEST_TILE:,} px but got {tile[1]} × {tile[0]} px."
    orientation = page.tags.valueof(_ORIENTATION, 1)
    if orientation != 1:
        return (
            f"expected pixels in their order (TIFF Orientation 1) but got {orientation}, a turned "
            "or mirrored image. Save it upright."
        )
    return ""


def _largest(tiff: Any, path: Path) -> Any:
    """Series of the largest image in full resolution: labels, macros and thumbnails may be first.

    Raises:
        InputError: Several are equally large.
    """
    full = [s for s in tiff.series if not s.keyframe.is_reduced] or tiff.series
    areas = [s.keyframe.imagewidth * s.keyframe.imagelength for s in full]
    same = [s for s, area in zip(full, areas, strict=True) if area == max(areas)]
    if len(same) > 1:
        what = (
            f"expected one image but got {len(same)} of {same[0].keyframe.imagewidth} × "
            f"{same[0].keyframe.imagelength} px. Save the one to read as a file of its own."
        )
        raise InputError(Problem(what, str(path)))
    return same[0]


def _levels(tiff: Any, series: Any) -> list[Any]:
    """Pages of a pyramid, finest first: of the series, or reduced pages of the same shape."""
    first = series.pages[0]
    if len(series.levels) > 1:
        return [level.pages[0] for level in series.levels]
    kind = (first.dtype, first.samplesperpixel, first.photometric, first.planarconfig)
    levels = [first]
    for page in tiff.pages:
        like = (page.dtype, page.samplesperpixel, page.photometric, page.planarconfig) == kind
        if page.is_reduced and page.is_tiled and like and page.imagewidth < levels[-1].imagewidth:
            factor = first.imagewidth / page.imagewidth
            if abs(first.imagelength / factor - page.imagelength) <= 1:
                levels.append(page)
    return levels


def _mpp(tiff: Any, page: Any) -> tuple[float, float] | None:
    if tiff.is_ome:
        size = page.imagewidth, page.imagelength
        return _ome_mpp(tiff.ome_metadata or "", size) or _ome_mpp(tiff.ome_metadata or "")
    if not tiff.is_imagej:
        return _tag_mpp(page)
    # ImageJ's unit is in its own metadata; by the tag there is none.
    unit = UM_OF_UNIT.get(str((tiff.imagej_metadata or {}).get("unit")))
    if unit is None or "XResolution" not in page.tags:
        return None
    x, y = page.get_resolution()
    return (unit / x, unit / y) if x and y else None


def _tag_mpp(page: Any) -> tuple[float, float] | None:
    if "XResolution" not in page.tags:
        return None
    x, y = page.get_resolution(unit="MICROMETER")
    return (1 / x, 1 / y) if x and y else None


def tiff_mpp(path: Path) -> float | None:
    """µm per pixel of the first page of a TIFF, by its headers alone.

    None where the file is no TIFF, or holds nothing that a light microscope could mean.

    Raises:
        InputError: The pixels are not square.
    """
    if path.suffix.lower() not in {".tif", ".tiff"}:
        return None
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            sizes = _pixel_size_um(getattr(image, "tag_v2", {}))
    except Exception:
        return None  # damaged; whoever decodes the pixels reports how
    mpp, aspect = mean_mpp(sizes)
    if mpp is not None and sizes is not None and aspect != 1:
        what = f"expected square pixels but got {sizes[0]:g} × {sizes[1]:g} µm. Give --mpp."
        raise InputError(Problem(what, str(path)))
    return mpp


def _pixel_size_um(tags: Mapping[int, Any]) -> tuple[float, float] | None:
    """Width and height of a pixel in µm by the tags of a page."""
    # Pillow takes the bytes of a description for Latin-1.
    description = (
        str(tags.get(_DESCRIPTION, "")).encode("latin-1", "replace").decode(errors="replace")
    )
    if "<OME" in description:
        return _ome_mpp(description)
    per_unit = [float(tags.get(tag, 0)) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
    if description.startswith("ImageJ="):
        unit = re.search(r"^unit=(.*)$", description, re.MULTILINE)
        um = UM_OF_UNIT.get(unit[1].strip()) if unit else None
    else:
        um = _UM_OF_TAG.get(tags.get(_RESOLUTION_UNIT, 2))
    if um is None or not all(per_unit):
        return None
    return um / per_unit[0], um / per_unit[1]


def _ome_mpp(
    description: str, size_px: tuple[int, int] | None = None
) -> tuple[float, float] | None:
    """Size of a pixel in µm by OME-XML, of the first image, or of that with this size in px."""
    for pixels in re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", description):
        entries = dict(re.findall(r'([\w:]+)\s*=\s*"([^"]*)"', html.unescape(pixels)))
        if size_px is None or (entries.get("SizeX"), entries.get("SizeY")) == tuple(
            map(str, size_px)
        ):
            break
    else:
        return None
    sizes = []
    for axis in "XY":
        unit = UM_OF_UNIT.get(entries.get(f"PhysicalSize{axis}Unit", "um"))
        try:
            sizes.append(float(entries[f"PhysicalSize{axis}"]) * unit)  # type: ignore[operator]
        except (KeyError, TypeError, ValueError):
            return None
    return sizes[0], sizes[1]
