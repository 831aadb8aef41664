"""Patches on disk: read strictly, so that a training never sees a pixel that nobody meant.

A patch is an 8-bit RGB image. What can be turned into one without a guess is (palettes, an alpha
channel that is opaque everywhere, EXIF rotation); everything else is refused and the message names
why: transparency, 16 bits, CMYK, grayscale, damaged, truncated or oversized files.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import ExifTags, Image, ImageOps, ImageSequence, UnidentifiedImageError

from atypia.core.errors import InputError, Problem
from atypia.core.found_files import refuse_special

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MAX_PIXELS: Final = 4096 * 4096
"""Largest patch that is decoded. The header is checked first, so a bomb never unfolds."""
MAX_STACK_PIXELS: Final = 2**28
"""Most pixels that one multi-page stack may hold (0.8 GB decoded)."""
MIN_SIDE: Final = 16
"""Shortest side of a patch, px: no figure can be classified on less."""

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})

A_SLIDE: Final = "Of a whole slide, classify the candidates: atypia slide SLIDE --candidates FILE"
_SLIDE_SUFFIXES: Final = frozenset({".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".vms", ".dcm"})
_SUBFILE: Final = 254
"""TIFF tag NewSubfileType; its first bit marks a page in reduced resolution."""
_MOST_SCANS: Final = 32
"""Scans of a progressive JPEG; encoders write some ten, and each is decoded over all pixels."""

# Few decoders, little to attack; none of these is in use for patches beyond the five.
_FORMATS: Final = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")

_REFUSED_MODES: Final = {
    "L": "grayscale",
    "LA": "grayscale",
    "1": "black and white",
    "I": "32-bit grayscale",
    "F": "floating-point grayscale",
    "CMYK": "CMYK",
    "LAB": "CIE L*a*b*",
}


def read_patch(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read one patch, a PNG, JPEG, TIFF, BMP or WebP with one page: (H, W, 3) RGB uint8, upright.

    One of more than `max_pixels` is refused before it is decoded.

    Raises:
        InputError: Names the file, what was expected and what came.
    """
    return _read(path, max_pixels)[0]


def read_pages(path: Path, *, max_pixels: int = MAX_STACK_PIXELS) -> list[NDArray[np.uint8]]:
    """Read every page of an image, all of `max_pixels` at most, as strictly as :func:`read_patch`.

    Raises:
        InputError: Lists every bad page, counted from 1.
    """
    pages: list[NDArray[np.uint8]] = []
    problems: list[Problem] = []
    left = max_pixels
    with _opened(path) as stack:
        for number, page in enumerate(_stacked(stack, path), start=1):
            left -= page.width * page.height
            if left < 0:
                problems.append(_oversized(path, f"page {number} goes beyond", max_pixels))
                break
            fault = _fault(page)
            upright = None if fault else _upright_rgb(page, path)
            if upright is None:
                fault = fault or _TRANSPARENT
                problems.append(Problem(f"page {number}: {fault}", str(path)))
            else:
                pages.append(np.asarray(upright))
    if problems:
        raise InputError(problems)
    return pages


def check_patches(paths: Iterable[Path]) -> list[Problem]:
    """Decode many patches and return the problem of each bad one, in the order of `paths`."""

    def problems_of(path: Path) -> list[Problem]:
        try:
            read_patch(path)
        except InputError as error:
            return error.problems
        return []

    # Threads are enough: Pillow lets go of the interpreter while it decodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [problem for found in pool.map(problems_of, paths) for problem in found]


def export_png(source: Path, target: Path) -> NDArray[np.uint8]:
    """Read a patch strictly and write it as PNG; returns its pixels (H, W, 3).

    The bytes are copied unchanged where the source is a plain RGB PNG already.

    Raises:
        InputError: As in :func:`read_patch`. Nothing is written then.
    """
    pixels, plain_png = _read(source, MAX_PIXELS)
    target.parent.mkdir(parents=True, exist_ok=True)
    if plain_png:
        shutil.copyfile(source, target)
    else:
        write_png(target, pixels)
    return pixels


def write_png(target: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an RGB ``uint8`` array of shape (H, W, 3) as PNG, without metadata."""
    Image.fromarray(pixels, "RGB").save(target, format="PNG")


_TRANSPARENT: Final = (
    "expected an opaque RGB image but got one with transparent pixels. "
    "Flatten it onto its background and save it without alpha."
)


def _read(path: Path, max_pixels: int) -> tuple[NDArray[np.uint8], bool]:
    """Pixels (H, W, 3), and whether the file is a plain RGB PNG whose bytes can be kept."""
    with _opened(path) as image:
        if image.format == "PNG":
            # Decoding stops at the last pixel; only this checks every checksum and the end mark.
            image.verify()
    with _opened(path) as image:
        if image.width * image.height > max_pixels:
            got = f"got {image.width} × {image.height} px, more than"
            raise InputError(_oversized(path, got, max_pixels))
        pages = sum(1 for _ in _stacked(image, path))
        image.seek(0)
        if pages > 1:
            what = f"expected one image but got {pages} pages. Save each page as a file of its own."
            raise InputError(Problem(what, str(path)))
        fault = _fault(image)
        if fault:
            raise InputError(Problem(fault, str(path)))
        plain_png = (
            image.format == "PNG"
            and image.mode == "RGB"
            and not image.has_transparency_data
            and _orientation(image) == 1
        )
        upright = _upright_rgb(image, path)
        if upright is None:
            raise InputError(Problem(_TRANSPARENT, str(path)))
        return np.asarray(upright), plain_png


def _stacked(stack: Image.Image, path: Path) -> Iterator[Image.Image]:
    """Pages that show a figure each: of a JPEG no previews, of a TIFF none in reduced resolution.

    Raises:
        InputError: It is animated.
    """
    if stack.format in ("PNG", "WEBP") and getattr(stack, "n_frames", 1) > 1:
        what = f"expected a still image but got {stack.n_frames} frames. Save one as a file."  # type: ignore[attr-defined]
        raise InputError(Problem(what, str(path)))
    for page in ImageSequence.Iterator(stack):
        if stack.format != "TIFF" or not int(page.tag_v2.get(_SUBFILE, 0)) & 1:  # type: ignore[attr-defined]
            yield page
        if stack.format in ("JPEG", "MPO"):
            return


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever a decoder raises inside the block becomes an InputError."""
    try:
        refuse_special(path)
        if path.suffix.lower() in _SLIDE_SUFFIXES:
            raise InputError(Problem(f"expected a patch but got a slide. {A_SLIDE}", str(path)))
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except InputError:
        raise
    except FileNotFoundError:
        what = "expected an image but there is no such file."
        raise InputError(Problem(what, str(path))) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(_oversized(path, "got far more than", MAX_PIXELS)) from None
    except UnidentifiedImageError:
        what = (
            "expected a PNG, JPEG, TIFF, BMP or WebP image but the file is none of these, "
            "or its first bytes are damaged."
        )
        raise InputError(Problem(what, str(path))) from None
    except Exception as error:
        # On damaged bytes decoders raise nearly anything: OSError, SyntaxError, struct.error ...
        if isinstance(error, OSError) and error.errno is not None:
            what = f"expected a readable image but it cannot be opened: {error.strerror}."
        else:
            what = f"expected a whole image but the file is damaged or truncated ({error})."
        raise InputError(Problem(what, str(path))) from error


def _oversized(path: Path, got: str, max_pixels: int) -> Problem:
    return Problem(
        f"expected at most {max_pixels:,} pixels but {got} that. A patch shows one figure; "
        f"crop it from the source image with --field-um. {A_SLIDE}",
        str(path),
    )


def _fault(image: Image.Image) -> str | None:
    """Describe what makes an image, not decoded yet, unfit for a patch; None if nothing does."""
    if min(image.size) < MIN_SIDE:
        return f"expected at least {MIN_SIDE} px a side but got {image.width} × {image.height} px."
    if _is_16_bit(image):
        return "expected 8 bits per channel but got 16. Save it as 8-bit RGB."
    if image.mode in ("RGB", "RGBA", "P", "PA"):
        return None
    kind = _REFUSED_MODES.get(image.mode, f"mode {image.mode}")
    return f"expected an RGB image but got {kind}. Export it again as 8-bit RGB."


def _is_16_bit(image: Image.Image) -> bool:
    """Whether the stored samples have 16 bits; Pillow would halve them to 8 in silence."""
    if image.mode.startswith("I;16"):
        return True
    # The raw mode of the stored bytes, such as "RGB;16B", is an argument of each tile.
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _upright_rgb(image: Image.Image, path: Path) -> Image.Image | None:
    """Decode, rotate by the EXIF orientation, convert to RGB; None if any pixel is transparent."""
    if image.format in ("JPEG", "MPO"):
        # Pillow is silent where libjpeg fills in what is missing; this decoder is not.
        import simplejpeg

        data = path.read_bytes()
        # Within a scan every 0xFF is escaped, so that these bytes begin one.
        if (scans := data.count(b"\xff\xda")) > _MOST_SCANS:
            raise InputError(Problem(f"expected a JPEG of a few scans but got {scans}.", str(path)))
        simplejpeg.decode_jpeg(data, strict=True)
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        if upright.getchannel("A").getextrema()[0] != 255:
            return None
    return upright.convert("RGB")
