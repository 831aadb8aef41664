"""Pixels by OpenSlide; the only module that imports it."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from atypia.core.errors import MissingExtraError
from atypia.slides.reader import Colour, Level

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


def detect_format(path: Path) -> str | None:
    """OpenSlide's name for the format of a file, None where it supports none."""
    name = _openslide().OpenSlide.detect_format(path)
    return None if name is None else str(name)


def open_with_openslide(path: Path) -> OpenSlidePixels:
    """Open a file whose format OpenSlide supports."""
    return OpenSlidePixels(lambda: _openslide().OpenSlide(path))


def _openslide() -> Any:
    try:
        import openslide
    except ImportError:
        raise MissingExtraError("openslide-python", "slides", "Reading source images") from None
    return openslide


class OpenSlidePixels:
    """See :class:`atypia.slides.reader.Pixels`."""

    def __init__(self, open_file: Callable[[], Any]) -> None:
        self._open_file = open_file
        self._slide = open_file()
        self._replacing = threading.Lock()
        self._readers: Counter[int] = Counter()
        """Threads that read from a handle now, by its id."""
        properties = self._slide.properties
        sizes, downsamples = self._slide.level_dimensions, self._slide.level_downsamples
        self.levels = [Level(w, h, d) for (w, h), d in zip(sizes, downsamples, strict=True)]
        self.mpp: tuple[float, float] | None = None
        with suppress(KeyError, ValueError):  # missing or broken
            self.mpp = float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"])
        colour = properties.get("openslide.background-color")
        self.background: Colour | None = None
        if colour is not None:
            self.background = int(colour[:2], 16), int(colour[2:4], 16), int(colour[4:6], 16)
        self.origin = (
            int(properties.get("openslide.bounds-x", 0)),
            int(properties.get("openslide.bounds-y", 0)),
        )

    def read(
        self, level: int, left: int, top: int, width: int, height: int, empty: Colour
    ) -> NDArray[np.uint8]:
        """Read a rectangle of a level."""
        downsample = self.levels[level].downsample
        place = (round(left * downsample), round(top * downsample)), level, (width, height)
        with self._replacing:
            slide = self._slide
            self._readers[id(slide)] += 1
        try:
            region = slide.read_region(*place)
        except Exception:
            # After one error OpenSlide refuses everything on that handle, so a damaged tile would
            # take all others with it. A new handle shows whether it is this region's fault.
            self._replace(slide)
            with self._open_file() as fresh:
                region = fresh.read_region(*place)
        finally:
            with self._replacing:
                self._readers[id(slide)] -= 1
                if slide is not self._slide and not self._readers[id(slide)]:
                    del self._readers[id(slide)]
                    slide.close()  # a spoilt one keeps its cache of tiles as long as it is open
        canvas = Image.new("RGB", region.size, empty)
        canvas.paste(region, mask=region)  # transparent where the scanner stored no tile
        return np.asarray(canvas)

    def _replace(self, slide: Any) -> None:
        with self._replacing:
            if self._slide is slide:  # not yet by another thread
                self._slide = self._open_file()

    def close(self) -> None:
        """Close the file."""
        self._slide.close()
