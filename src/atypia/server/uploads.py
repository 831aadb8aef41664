"""From the body of a request to files with names of the server's own.

What a client calls its images is text that comes back with the answers; no part of it ever names a
file here. What images will cost is read from their headers, before anything is decoded.
"""

from __future__ import annotations

import base64
import binascii
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final, TypeVar

from PIL import Image
from pydantic import BaseModel, ValidationError

from atypia.core.errors import InputError, Problem
from atypia.data.images import IMAGE_SUFFIXES
from atypia.inference.patch_predictions import PatchFile
from atypia.server.limits import BYTES_PER_PIXEL
from atypia.server.refusal import RefusalError
from atypia.slides.tiff_resolution import tiff_mpp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from atypia.classifiers.protocol import SubtypeModel
    from atypia.server.limits import ServerLimits
    from atypia.server.schemas import PatchesRequest

Model = TypeVar("Model", bound=BaseModel)

_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COMMAS_PER_PATCH: Final = 20
"""A patch needs three; ids may have some."""
_MOST_TOLD: Final = 1000
"""Sentences about one body."""


@dataclass(frozen=True)
class Upload:
    """One image of a request."""

    patch_id: str
    name: str
    """What the client calls it, for sentences."""
    path: Path
    mpp: float | None


@dataclass(frozen=True)
class UploadPart:
    """Images that are decoded together."""

    items: Sequence[PatchFile]
    n_bytes: int
    """Of their decoded pixels."""


@dataclass
class Weighed:
    """What a request will cost, by the headers of its images."""

    items: list[PatchFile] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)
    """Bytes of each item's decoded pixels."""
    patches: int = 0
    mirrored: int = 0
    """Patches that are smaller than the field of view."""
    oversized: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def parts(self, most: int) -> list[UploadPart]:
        """Cut the items into runs of at most so many bytes; a larger one stands alone."""
        parts: list[UploadPart] = []
        items: list[PatchFile] = []
        total = 0
        for item, cost in zip(self.items, self.costs, strict=True):
            if items and total + cost > most:
                parts.append(UploadPart(items, total))
                items, total = [], 0
            items.append(item)
            total += cost
        return [*parts, UploadPart(items, total)] if items else parts


def read_as(kind: type[Model], body: bytes, limits: ServerLimits) -> Model:
    """Read a JSON body.

    Raises:
        RefusalError: 422; lists every entry that is missing or wrong. 413: so many entries that
            to list what is wrong with them would take more memory than the body itself.
    """
    if body.count(b",") > _COMMAS_PER_PATCH * limits.patches + 1000:
        raise too_many(limits)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        told = [f"{'.'.join(map(str, f['loc'])) or 'body':.300}: {f['msg']}." for f in faults]
        raise RefusalError(422, told[:_MOST_TOLD]) from None


def store_json(request: PatchesRequest, folder: Path) -> list[Upload]:
    """Put the images of a JSON request into a folder.

    Raises:
        RefusalError: 422; lists every image that is not in base64.
    """
    uploads, problems = [], []
    for number, patch in enumerate(request.patches):
        patch_id = str(number) if patch.patch_id is None else patch.patch_id
        name = f"patches.{number} ({patch_id!r})"
        try:
            # Line breaks are what many encoders put in.
            data = base64.b64decode("".join(patch.image.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            problems.append(f"{name}: expected an image in base64 but it cannot be read ({error}).")
            continue
        path = _path(folder, number, data[:4])
        path.write_bytes(data)
        uploads.append(Upload(patch_id, name, path, patch.mpp or request.mpp))
    if problems:
        raise RefusalError(422, problems[:_MOST_TOLD])
    return uploads


def store_files(
    files: Sequence[tuple[str, IO[bytes]]], mpps: Sequence[float], folder: Path
) -> list[Upload]:
    """Put the files of a form into a folder.

    Args:
        files: Name and content of each.
        mpps: µm per pixel of all of them, of each, or none where TIFF files say it.
        folder: Where to.

    Raises:
        RefusalError: 422; another number of `mpps`.
    """
    if len(mpps) not in (0, 1, len(files)):
        raise RefusalError(
            422,
            f"mpp: expected one value, or {len(files)} for as many images, but got {len(mpps)}.",
        )
    uploads = []
    for number, (name, source) in enumerate(files):
        path = _path(folder, number, source.read(4))
        source.seek(0)
        copy(source, path)
        mpp = None if not mpps else mpps[number if len(mpps) > 1 else 0]
        uploads.append(Upload(_without_suffix(name) or str(number), name, path, mpp))
    return uploads


def copy(source: IO[bytes], target: Path) -> Path:
    """Write a file that was sent; returns `target`."""
    with target.open("wb") as stream:
        shutil.copyfileobj(source, stream)
    return target


def parse_mpp(text: str) -> float:
    """Read µm per pixel.

    Raises:
        RefusalError: 422; no number, or out of range.
    """
    try:
        mpp = float(text)
    except ValueError:
        mpp = math.nan
    if not 0.01 <= mpp <= 10:
        raise RefusalError(422, f"mpp: expected µm per pixel (0.01 to 10) but got {text[:50]!r}.")
    return mpp


def _path(folder: Path, number: int, start: bytes) -> Path:
    """Tell where an image goes; only the resolution of a TIFF hangs on a suffix."""
    return folder / (f"{number}.tif" if start in _TIFF else str(number))


def _without_suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else name


def weigh(uploads: Iterable[Upload], model: SubtypeModel, limits: ServerLimits) -> Weighed:
    """Look at the headers of images, and take what may be decoded.

    Images that are no images are taken as well: what is wrong with them, decoding tells.

    Raises:
        RefusalError: 413; more patches than a request may hold.
    """
    weighed = Weighed()
    named: dict[str, str] = {}
    for upload in uploads:
        file, mpp = str(upload.path), upload.mpp
        try:
            mpp = tiff_mpp(upload.path) if mpp is None else mpp
        except InputError as error:
            weighed.problems += error.problems
            continue
        needed_px = model.field_of_view_um * 0.999 / mpp if mpp else 0
        pages, pixels, mirrored = _measure(upload.path, needed_px, limits)
        if pixels > limits.image_pixels:
            what = (
                f"expected at most {limits.image_pixels:,} pixels in an image, all its pages "
                "together, but got more. A patch shows one figure."
            )
            weighed.oversized.append(Problem(what, file))
            continue
        weighed.patches += pages
        if weighed.patches > limits.patches:
            raise too_many(limits)
        if mpp is None:
            what = "the file does not tell its µm per pixel, which a model must know. Give mpp."
            weighed.problems.append(Problem(what, file))
        elif upload.patch_id in named:
            what = (
                f"has the patch id {upload.patch_id!r}, like {named[upload.patch_id]}. Rename one."
            )
            weighed.problems.append(Problem(what, file))
        else:
            named[upload.patch_id] = upload.name
            about = {"patient_id": "", "domain": ""}
            weighed.items.append(PatchFile(upload.patch_id, upload.path, mpp, about))
            weighed.costs.append(pixels * BYTES_PER_PIXEL)
            weighed.mirrored += mirrored
    return weighed


def too_many(limits: ServerLimits) -> RefusalError:
    """Make the refusal of a request with more patches than one may hold."""
    what = f"expected at most {limits.patches:,} patches in a request but got more."
    return RefusalError(413, f"{what} Send several requests.")


def _measure(path: Path, needed_px: float, limits: ServerLimits) -> tuple[int, int, int]:
    """Pages, pixels of all pages, and pages with a side below `needed_px`; stops at a limit.

    Where the headers are damaged, what comes before.
    """
    pages = pixels = small = 0
    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF", "BMP", "WEBP")) as image:
            if image.format in ("PNG", "WEBP"):
                # All pages have one size, and a look at the next one would decode this one.
                pages = getattr(image, "n_frames", 1)
                area = image.width * image.height
                return pages, pages * area, pages * (min(image.size) < needed_px)
            while pixels <= limits.image_pixels and pages <= limits.patches:
                image.seek(pages)
                pages += 1
                pixels += image.width * image.height
                small += min(image.size) < needed_px
    except Image.DecompressionBombError:
        return 1, limits.image_pixels + 1, 0
    except Exception:  # the end of the pages; and on damaged bytes decoders raise anything
        pass
    return max(pages, 1), pixels, small
