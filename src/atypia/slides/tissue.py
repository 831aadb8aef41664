"""Where tissue lies on a slide.

Tissue has colour, glass has none: of each pixel of the slide at low resolution, its background
taken out, the chroma (largest less smallest channel) is compared with the threshold that separates
the slide's own pixels best (Otsu, IEEE Transactions SMC 9, 1979). The threshold is held between
what compression leaves on glass and the palest eosin, for a slide may be all tissue. A median
filter closes gaps and takes out dust of up to some 50 µm. Black is no tissue, coloured ink is.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import scipy  # loads scipy.ndimage where it is used

from atypia.core.errors import Problem
from atypia.slides.reader import WHITE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from atypia.slides.slide_pool import SlidePool

log = logging.getLogger("atypia")

PIXEL_UM: Final = 20.0
"""Side of a pixel of the mask."""
_TILE_PX: Final = 64
"""Side of what is read at once; a slide without a pyramid is decoded in tiles of this size."""
_CHROMA: Final = (10, 20)
_MEDIAN_PX: Final = 5


@dataclass(frozen=True)
class Tissue:
    """A mask of tissue; lengths in µm on the slide, y downwards."""

    mask: NDArray[np.bool_]
    """(H, W)"""
    pixel_um: float = PIXEL_UM
    corner_um: tuple[float, float] = (0.0, 0.0)
    """x and y of the outer corner of the first pixel."""

    @property
    def area_mm2(self) -> float:
        """Area of the tissue."""
        return float(self.mask.sum()) * self.pixel_um**2 / 1e6

    @property
    def places_um(self) -> NDArray[np.float64]:
        """(T, 2) x and y of the centres of all pixels that are tissue."""
        rows, columns = np.nonzero(self.mask)
        centres = np.stack([columns, rows], axis=1) + 0.5
        return np.asarray(centres * self.pixel_um + np.array(self.corner_um))

    def scattered(self, n: int, seed: int = 0) -> NDArray[np.float64]:
        """Draw n points (n, 2), µm, evenly over the tissue; none where there is no tissue."""
        rng, places = np.random.default_rng(seed), self.places_um
        n = n if len(places) else 0
        within = rng.random((n, 2)) - 0.5
        return np.asarray(places[rng.integers(0, len(places), n)] + within * self.pixel_um)


def tissue_of(slide: SlidePool) -> Tissue | None:
    """Find the tissue of a slide; None where its resolution is unknown."""
    info = slide.info
    if info.mpp is None:
        return None
    um_per_px = np.array(info.um_per_px)
    columns, rows = (
        math.ceil(size * um / PIXEL_UM)
        for size, um in zip((info.width, info.height), um_per_px, strict=True)
    )
    tiles = [(x, y) for y in range(0, rows, _TILE_PX) for x in range(0, columns, _TILE_PX)]
    centres = (np.array(tiles) + _TILE_PX / 2) * PIXEL_UM / um_per_px
    glass = np.array(info.background)
    if np.ptp(glass) > _CHROMA[1]:  # pale tissue along the border
        glass = np.array(WHITE)
    chroma = np.zeros((rows + _TILE_PX, columns + _TILE_PX), np.uint8)
    unread = []
    for (x, y), tile in zip(tiles, slide.read(centres, _TILE_PX * PIXEL_UM, PIXEL_UM), strict=True):
        if isinstance(tile, Problem):
            unread.append(tile)
            continue
        pixels = np.minimum(tile / np.maximum(glass, 1), 1) * 255
        chroma[y : y + _TILE_PX, x : x + _TILE_PX] = pixels.max(axis=2) - pixels.min(axis=2)
    if unread:
        log.warning(
            "%s: %d of %d parts cannot be read and count as glass: %s",
            info.path,
            len(unread),
            len(tiles),
            unread[0],
        )
    chroma = scipy.ndimage.median_filter(chroma[:rows, :columns], _MEDIAN_PX)
    return Tissue(chroma > np.clip(_otsu(chroma), *_CHROMA))


def _otsu(values: NDArray[np.uint8]) -> int:
    """Threshold of the largest variance between the values up to it and those above it."""
    counts = np.bincount(values.ravel(), minlength=256)
    below, level = np.cumsum(counts), np.cumsum(counts * np.arange(256.0))
    apart = (level[-1] * below / below[-1] - level) ** 2
    return int(np.argmax(apart / np.maximum(below * (below[-1] - below), 1)))
