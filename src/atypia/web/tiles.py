"""Thumbnails of all figures, many on one sheet, made once.

The browser asks for sheets, not for figures: ten thousand requests would take longer than their
pictures. A large sheet has 8 × 8 thumbnails, by rows; a small one has 4 × 4 blocks, each a large
sheet made smaller. The browser holds all small ones, so that a wall that is scrolled faster than
large ones arrive still shows every figure.
"""

from __future__ import annotations

import io
import logging
import threading
from typing import TYPE_CHECKING, Final

from PIL import Image

from atypia.core.errors import AtypiaError
from atypia.web.pictures import GoneError, as_jpeg, no_picture

if TYPE_CHECKING:
    from atypia.web.pictures import Cache, Pictures

LARGE_PX: Final = 80
SMALL_PX: Final = 32
COLUMNS: Final = 8
PER_LARGE: Final = COLUMNS**2
BLOCKS: Final = 4
PER_SMALL: Final = BLOCKS**2 * PER_LARGE
FIELD_UM: Final = 24.0
"""Of a thumbnail: a metaphase plate with its cell, and the two plates of a telophase."""
_VERSION: Final = 1
"""In the names of files; goes up when sheets are made in another way."""
_UNREADABLE: Final = (128, 128, 128)

log = logging.getLogger("atypia")


class Tiles:
    """The sheets of all figures, kept in the cache of these pictures."""

    def __init__(self, pictures: Pictures, cache: Cache) -> None:
        self._pictures = pictures
        self._cache = cache
        self._making = [threading.Lock() for _ in range(self.n_large)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._make_all, name="tiles", daemon=True)

    @property
    def n_large(self) -> int:
        """Number of large sheets."""
        return -(-len(self._pictures) // PER_LARGE)

    @property
    def n_small(self) -> int:
        """Number of small sheets."""
        return -(-len(self._pictures) // PER_SMALL)

    def start(self) -> None:
        """Make the sheets that nobody has asked for yet, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Leave what is not made yet."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def large(self, number: int) -> bytes:
        """JPEG of a large sheet; a RefusalError where there is no such sheet."""
        if not 0 <= number < self.n_large:
            raise no_picture()
        name = f"large-{_VERSION}-{number}.jpg"
        with self._making[number]:
            return self._cache.kept(name, lambda: self._make_large(number))

    def small(self, number: int) -> bytes:
        """JPEG of a small sheet; a RefusalError where there is no such sheet."""
        if not 0 <= number < self.n_small:
            raise no_picture()
        name = f"small-{_VERSION}-{number}.jpg"
        return self._cache.kept(name, lambda: self._make_small(number))

    def _make_large(self, number: int) -> bytes:
        side = COLUMNS * LARGE_PX
        sheet = Image.new("RGB", (side, side), _UNREADABLE)
        first = number * PER_LARGE
        for place, figure in enumerate(range(first, min(first + PER_LARGE, len(self._pictures)))):
            corner = (place % COLUMNS * LARGE_PX, place // COLUMNS * LARGE_PX)
            thumbnail = self._thumbnail(figure)
            if thumbnail is not None:
                sheet.paste(thumbnail, corner)
        return as_jpeg(sheet)

    def _make_small(self, number: int) -> bytes:
        side = COLUMNS * SMALL_PX
        sheet = Image.new("RGB", (BLOCKS * side, BLOCKS * side), _UNREADABLE)
        first = number * BLOCKS**2
        for place, large in enumerate(range(first, min(first + BLOCKS**2, self.n_large))):
            with Image.open(io.BytesIO(self.large(large))) as image:
                block = image.resize((side, side), Image.Resampling.BOX)
            sheet.paste(block, (place % BLOCKS * side, place // BLOCKS * side))
        return as_jpeg(sheet)

    def _thumbnail(self, figure: int) -> Image.Image | None:
        """Cut out the middle; None where the picture cannot be read."""
        try:
            pixels = self._pictures.patch(figure)
        except GoneError:  # a sheet without it would be kept
            raise
        except AtypiaError:
            return None
        height, width = pixels.shape[:2]
        side = min(FIELD_UM / self._pictures.mpp(figure), height, width)
        left, top = (width - side) / 2, (height - side) / 2
        return Image.fromarray(pixels).resize(
            (LARGE_PX, LARGE_PX),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
            reducing_gap=2,
        )

    def _make_all(self) -> None:
        try:
            for large in range(self.n_large):
                if self._stop.is_set():
                    return
                self.large(large)
                if (large + 1) % BLOCKS**2 == 0 or large + 1 == self.n_large:
                    self.small(large // BLOCKS**2)
        except GoneError as error:
            log.warning("No more thumbnails are made before they are asked for: %s", error)
