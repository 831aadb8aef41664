"""Slides that stay open for the next request: to open one starts a process and takes a second."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from atypia.slides.slide_pool import SlidePool

if TYPE_CHECKING:
    from collections.abc import Iterator

    Key = tuple[str, float | None, int]


class OpenSlides:
    """A few slides that nobody uses at the moment. Use it as a context manager.

    Args:
        most: Slides to keep; the one that was used longest ago goes first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._idle: dict[Key, SlidePool] = {}

    @contextmanager
    def borrow(self, slide_id: str, path: Path, mpp: float | None = None) -> Iterator[SlidePool]:
        """Open a slide, or take it as the last request has left it; nobody else uses it meanwhile.

        Args:
            slide_id: What its answers call it.
            path: Where it lies.
            mpp: µm per pixel; None is what the file says.

        Raises:
            InputError: The slide cannot be opened.
            AtypiaError: A process that should read it ended.
        """
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            changed = 0  # opening it tells what is wrong
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
            self._put_back(key, pool)

    def _put_back(self, key: Key, pool: SlidePool) -> None:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pool in self._idle.values():
            pool.close()
