"""From the body of a request to files with names of the server's own.

What a client calls its images is text that comes back with the answers; no part of it ever names a
file here. What a request will cost is read from headers of images and from the length of lists,
before anything is decoded.
"""

from __future__ import annotations

import base64
import json
import logging
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, TypeVar

from PIL import Image
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from atypia.core.errors import InputError, Problem
from atypia.data.images import IMAGE_SUFFIXES
from atypia.inference.patch_predictions import PatchFile
from atypia.server.guard import BYTES_PER_PIXEL
from atypia.server.refusals import RefusalError
from atypia.server.schemas import CandidatesForm, CandidatesRequest, PatchesForm, PatchesRequest
from atypia.slides.read_candidates import read_candidates
from atypia.slides.tiff_reader import tiff_mpp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from atypia.classifiers.protocol import SubtypeModel
    from atypia.server.guard import ServerLimits
    from atypia.slides import SlideInfo
    from atypia.slides.candidates import CandidateList

    SentImage = tuple[str | None, str, float | None, Callable[[], bytes]]
    """Id, name for sentences, µm per pixel, and what reads the bytes."""

Sent = TypeVar("Sent", bound=BaseModel)

_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COMMAS_PER_PATCH: Final = 20
"""A patch needs three; ids may have some."""
_MARKS_PER_CANDIDATE: Final = 256
"""Commas and brackets: an outline of 60 corners and 20 measurements."""
_ROWS_PER_CANDIDATE: Final = 4
"""A table may hold other slides' candidates, too."""
_MOST_PROBLEMS: Final = 1000
"""Sentences about one body."""

log = logging.getLogger("atypia")


def parse(kind: type[Sent], sent: bytes | Mapping[str, list[Any]], limits: ServerLimits) -> Sent:
    """Check a JSON body, or the fields of a form.

    Raises:
        RefusalError: 422; lists every entry that is missing or wrong. 413: so many entries that
            to list what is wrong with them would take more memory than the body itself.
    """
    try:
        if not isinstance(sent, bytes):
            return kind.model_validate(sent)
        if sent.count(b",") > _COMMAS_PER_PATCH * limits.patches + 1000:
            raise too_many(limits)
        return kind.model_validate_json(sent)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        problems = [f"{'.'.join(map(str, f['loc'])) or 'body':.300}: {f['msg']}." for f in faults]
        raise RefusalError(422, problems[:_MOST_PROBLEMS]) from None


def too_many(limits: ServerLimits) -> RefusalError:
    """Make the refusal of a request with more patches than one may hold."""
    what = f"expected at most {limits.patches:,} patches in a request but got more."
    return RefusalError(413, f"{what} Send several requests.")


@dataclass(frozen=True)
class Upload:
    """One image of a request."""

    patch_id: str
    name: str
    """What the client calls it, for sentences."""
    path: Path
    mpp: float | None


def store_images(sent: PatchesRequest | PatchesForm, folder: Path) -> list[Upload]:
    """Put the images of a request into a folder.

    Raises:
        RefusalError: 422; another number of resolutions than of images, or not in base64.
    """
    uploads, problems = [], []
    images = _files(sent) if isinstance(sent, PatchesForm) else _patches(sent)
    for number, (patch_id, name, mpp, read) in enumerate(images):
        try:
            data = read()
        except ValueError as error:
            problems.append(f"{name}: expected an image in base64 but it cannot be read ({error}).")
            continue
        # Only the resolution of a TIFF hangs on a suffix.
        path = folder / (f"{number}.tif" if data.startswith(_TIFF) else str(number))
        path.write_bytes(data)
        uploads.append(Upload(patch_id or str(number), name, path, mpp))
    if problems:
        raise RefusalError(422, problems[:_MOST_PROBLEMS])
    return uploads


def _files(sent: PatchesForm) -> Iterator[SentImage]:
    n = len(sent.images)
    if len(sent.mpp) not in (0, 1, n):
        what = f"expected one value, or {n} for as many images, but got {len(sent.mpp)}."
        raise RefusalError(422, f"mpp: {what}")
    mpps: list[float | None] = [*sent.mpp] or [None]
    mpps *= n // len(mpps)
    for number, (file, mpp) in enumerate(zip(sent.images, mpps, strict=True)):
        name = file.filename or f"images.{number}"
        suffix = PurePosixPath(name).suffix
        is_image = suffix.lower() in IMAGE_SUFFIXES
        yield name.removesuffix(suffix) if is_image else name, name, mpp, file.file.read


def _patches(sent: PatchesRequest) -> Iterator[SentImage]:
    for number, patch in enumerate(sent.patches):
        name = f"patches.{number} ({patch.patch_id or str(number)!r})"
        # Line breaks are what many encoders put in.
        read = partial(base64.b64decode, "".join(patch.image.split()), validate=True)
        yield patch.patch_id, name, patch.mpp or sent.mpp, read


@dataclass
class Weighed:
    """What a request will cost, by the headers of its images."""

    items: list[PatchFile] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)
    """Bytes of each item's decoded pixels."""
    patches: int = 0
    mirrored: int = 0
    """Patches that are smaller than the field of view."""
    oversized: bool = False
    """Whether an image has more pixels than allowed."""
    problems: list[Problem] = field(default_factory=list)

    def parts(self, most: int) -> Iterator[tuple[list[PatchFile], int]]:
        """Cut the items into runs of at most so many bytes; a larger one stands alone."""
        items: list[PatchFile] = []
        total = 0
        for item, cost in zip(self.items, self.costs, strict=True):
            if items and total + cost > most:
                yield items, total
                items, total = [], 0
            items.append(item)
            total += cost
        if items:
            yield items, total


def weigh(uploads: Iterable[Upload], model: SubtypeModel, limits: ServerLimits) -> Weighed:
    """Read the headers of images, and take what may be decoded.

    Files that are no images are taken as well: decoding them finds what is wrong.

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
            weighed.problems.append(Problem(what, file))
            weighed.oversized = True
            continue
        weighed.patches += pages
        if weighed.patches > limits.patches:
            raise too_many(limits)
        if mpp is None:
            what = "the file does not tell its µm per pixel, which a model must know. Give mpp."
            weighed.problems.append(Problem(what, file))
        elif other := named.get(upload.patch_id):
            what = f"has the patch id {upload.patch_id!r}, like {other}. Rename one."
            weighed.problems.append(Problem(what, file))
        else:
            named[upload.patch_id] = upload.name
            about = {"patient_id": "", "domain": ""}
            weighed.items.append(PatchFile(upload.patch_id, upload.path, mpp, about))
            weighed.costs.append(pixels * BYTES_PER_PIXEL)
            weighed.mirrored += mirrored
    return weighed


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


def store_candidates(sent: CandidatesRequest | CandidatesForm, folder: Path) -> dict[str, str]:
    """Put the file of a form into a folder; returns its name at the client by its paths here."""
    file, name = folder / "candidates", "candidates"
    if isinstance(sent, CandidatesForm):
        name = sent.candidates.filename or name
        with file.open("wb") as stream:
            shutil.copyfileobj(sent.candidates.file, stream)
    return {str(file.with_suffix(suffix)): name for suffix in (".json", ".csv", "")}


def stored_candidates(
    sent: CandidatesRequest | CandidatesForm, folder: Path, limits: ServerLimits, slide: SlideInfo
) -> CandidateList:
    """Read the candidates of a request from its folder, and check them against the slide.

    Raises:
        InputError: Lists everything that is wrong.
        RefusalError: 413; to read the file would take many times the memory that its bytes do.
    """
    file = folder / "candidates"
    if isinstance(sent, CandidatesRequest):
        file = file.with_suffix(".json")
        file.write_text(json.dumps(_as_features(sent, slide)), encoding="utf-8")
        return read_candidates(file, slide, skip_bad=sent.skip_bad)
    file = file.rename(file.with_suffix(".json" if _is_json(file, limits) else ".csv"))
    try:
        return read_candidates(
            file,
            slide,
            units=sent.units,
            skip_bad=sent.skip_bad,
            all_classes=sent.all_classes,
        )
    except InputError:
        raise
    except Exception as error:
        # A file of a stranger: whatever it breaks is wrong with it; our log has the traceback.
        log.exception("candidates that were sent could not be read")
        what = f"expected a sound file of candidates but it cannot be read ({error})."
        raise InputError(Problem(what, str(file))) from error


def _as_features(sent: CandidatesRequest, slide: SlideInfo) -> list[dict[str, Any]]:
    """GeoJSON, which keeps ids as they are, and counts from the corner that QuPath shows."""
    assert slide.mpp is not None
    scale = 1.0 if sent.units == "px" else 1 / slide.mpp
    places = [
        [centre.x * scale - slide.origin[0], centre.y * scale - slide.origin[1]]
        for centre in sent.candidates
    ]
    return [
        {"type": "Feature", "id": centre.id, "geometry": {"type": "Point", "coordinates": place}}
        for centre, place in zip(sent.candidates, places, strict=True)
    ]


def _is_json(file: Path, limits: ServerLimits) -> bool:
    """Whether a file is JSON and no table; counts what becomes an object each, before any does."""
    content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    start = content[:64].lstrip()
    if start.startswith(b"\x1f\x8b"):
        what = "expected a plain file but got a compressed one. Send it uncompressed."
        raise InputError(Problem(what, str(file)))
    is_json = start[:1] in (b"{", b"[")
    marks = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    rows = 0 if is_json else max(content.count(b"\n"), content.count(b"\r"))
    if (
        marks > _MARKS_PER_CANDIDATE * limits.patches + 1000
        or rows > _ROWS_PER_CANDIDATE * limits.patches + 1000
    ):
        what = f"expected a file of at most {limits.patches:,} candidates but got a longer one."
        raise RefusalError(413, f"{what} Send several requests.")
    if is_json:
        try:
            from_json(content)
        except ValueError as error:  # nested too deep for Python's own parser, too
            what = f"expected GeoJSON or MIDOG JSON but it cannot be read ({error})."
            raise InputError(Problem(what, str(file))) from None
    return is_json
