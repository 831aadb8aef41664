"""The slides that clients may ask about: by id, chosen at the start, and open for a while."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from atypia.core.errors import InputError, Problem
from atypia.core.found_files import entries_in
from atypia.slides.slide_pool import SlidePool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What OpenSlide, tifffile and wsidicom read.
_SUFFIXES: Final = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif"}
    | {".czi", ".dcm"}
)
_LONGEST_ID: Final = 200

log = logging.getLogger("atypia")


def register_slides(
    folder: Path | None = None, named: Iterable[tuple[str, Path]] = ()
) -> dict[str, Path]:
    """List slides by id: those of a folder, DICOM folders too, by name; and those with given ids.

    Raises:
        InputError: Lists what does not exist, ids that occur twice or cannot be part of an
            address; or the folder holds no slide.
    """
    problems: list[Problem] = []
    found = [] if folder is None else _slides_in(folder, problems)
    slides: dict[str, Path] = {}
    for slide_id, path in [*found, *named]:
        if not path.exists():
            problems.append(Problem("expected a slide but there is no such file.", str(path)))
        if not _is_id(slide_id):
            what = (
                f"expected an id of 1 to {_LONGEST_ID} printable characters without slashes but "
                f"got {slide_id!r}."
            )
            problems.append(Problem(what, str(path)))
        if slide_id in slides:
            what = f"has the id {slide_id!r}, like {slides[slide_id]}."
            problems.append(Problem(what, str(path)))
        slides.setdefault(slide_id, path.absolute())
    if problems:
        raise InputError(problems)
    return slides


def _slides_in(folder: Path, problems: list[Problem]) -> list[tuple[str, Path]]:
    if not folder.is_dir():
        problems.append(Problem("expected a folder of slides but there is none.", str(folder)))
        return []
    entries = entries_in(folder)
    slides = [entry for entry in entries if _is_slide(entry)]
    if len(slides) < len(entries):
        log.warning("%s: %d entries are no slides", folder, len(entries) - len(slides))
    if not slides:
        problems.append(Problem("expected slides in this folder but found none.", str(folder)))
    return [(slide.name, slide) for slide in slides]


def _is_slide(entry: Path) -> bool:
    if entry.is_dir():
        return any(file.suffix.lower() == ".dcm" for file in entry.iterdir())
    return entry.suffix.lower() in _SUFFIXES


def _is_id(text: str) -> bool:
    allowed = text.isprintable() and not set(text) & set("/\\")
    return allowed and 0 < len(text) <= _LONGEST_ID and text not in (".", "..")


class OpenSlides:
    """Up to `most` slides that nobody uses at the moment; to open one starts a process.

    Use it as a context manager. The one that was used longest ago is closed first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, float | None, int], SlidePool] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pool in self._idle.values():
            pool.close()

    @contextmanager
    def borrow(self, slide_id: str, path: Path, mpp: float | None = None) -> Iterator[SlidePool]:
        """Open a slide, or take it as the last request has left it; nobody else uses it meanwhile.

        Errors are those of :class:`atypia.slides.slide_pool.SlidePool`.
        """
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            changed = 0  # to open it finds what is wrong
        key = (slide_id, mpp, changed)
        with self._lock:
            pool = self._idle.pop(key, None)
        if pool is None:
            pool = SlidePool(path, mpp=mpp)
            # To clients a slide is its id.
            pool.info = replace(pool.info, path=Path(slide_id))
        try:
            yield pool
        finally:
            with self._lock:
                surplus = [self._idle.pop(key)] if key in self._idle else []  # opened twice at once
                if pool.lost is None:
                    self._idle[key] = pool
                else:  # the next request opens it anew
                    surplus.append(pool)
                while len(self._idle) > self._most:
                    surplus.append(self._idle.pop(next(iter(self._idle))))
            for other in surplus:
                other.close()
