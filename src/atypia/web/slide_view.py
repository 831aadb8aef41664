"""A slide as a browser shows it: tiles of a pyramid, figures, their density, the hot-spot."""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image
from scipy import ndimage

from atypia.biomarker import find_hotspot
from atypia.biomarker.hotspot import AREA_MM2, TissueWindows
from atypia.core.errors import InputError
from atypia.slides.tissue import tissue_of
from atypia.web.pictures import as_jpeg, no_picture

if TYPE_CHECKING:
    from atypia.biomarker import SlideFigures
    from atypia.biomarker.hotspot import Hotspot
    from atypia.slides.slide_pool import SlidePool

TILE_PX: Final = 256
_KEPT_TILES: Final = 2048
"""About 40 MB."""
_GRID: Final = 160
"""Cells of the density map along the longer side."""
_BANDWIDTH_UM: Final = 150.0
"""Standard deviation of the kernel of the density map."""


class SlideView:
    """An open slide and its figures, None where there are no results."""

    def __init__(self, pool: SlidePool, found: SlideFigures | None) -> None:
        self._pool = pool
        self._all = found
        self._found = None if found is None else found.counted()
        assert pool.info.mpp is not None  # see open_source
        self._mpp = pool.info.mpp
        self.tile = lru_cache(_KEPT_TILES)(self._make_tile)

    @property
    def most_level(self) -> int:
        """Of the full resolution; on level 0 the whole slide is one pixel."""
        return math.ceil(math.log2(max(self._pool.info.width, self._pool.info.height)))

    def about(self) -> dict[str, Any]:
        """Describe the slide, the places of its figures, and the hot-spot."""
        info = self._pool.info
        answer: dict[str, Any] = {
            "name": info.path.name,
            "width": info.width,
            "height": info.height,
            "tile": TILE_PX,
            "max_level": self.most_level,
            "mpp": info.mpp,
            "places": [],
            "hotspot": None,
        }
        if self._all is None or self._found is None or not len(self._all):
            return answer
        answer["places"] = self._all.centres_px.round(1).tolist()
        hotspot = self._hotspot
        if hotspot is not None:
            inside = hotspot.contains(self._found.centres_um)
            called = self._found.figures.predicted_atypical[inside]
            answer["hotspot"] = {
                "area_mm2": AREA_MM2,
                "outline": (hotspot.outline_um / self._mpp).round(1).tolist(),
                "figures": int(inside.sum()),
                "atypical": int(called.sum()),
                "left_out": int(hotspot.contains(self._found.left_out.centres_um).sum()),
            }
        return answer

    @cached_property
    def _hotspot(self) -> Hotspot | None:
        """Where most figures are, on tissue; None where no hot-spot fits on it."""
        assert self._found is not None
        tissue = tissue_of(self._pool)
        windows = None if tissue is None else TissueWindows(tissue, AREA_MM2, "circle")
        return find_hotspot(self._found.centres_um, windows=windows)

    def density(self) -> dict[str, Any]:
        """Give figures per mm² on a grid over the slide, smoothed with a Gaussian kernel."""
        info = self._pool.info
        cell = max(info.width, info.height) / _GRID  # px
        columns, rows = math.ceil(info.width / cell), math.ceil(info.height / cell)
        counts = np.zeros((rows, columns))
        if self._found is not None:
            places = np.clip(
                (self._found.centres_px // cell).astype(int), 0, [columns - 1, rows - 1]
            )
            np.add.at(counts, (places[:, 1], places[:, 0]), 1)
        cell_um = cell * self._mpp
        smooth = ndimage.gaussian_filter(counts, _BANDWIDTH_UM / cell_um, mode="constant")
        per_mm2 = smooth / (cell_um / 1000) ** 2
        return {
            "columns": columns,
            "rows": rows,
            "cell_px": cell,
            "spread_um": _BANDWIDTH_UM,
            "most": round(float(per_mm2.max()), 3),
            "per_mm2": per_mm2.round(3).reshape(-1).tolist(),
        }

    def _make_tile(self, level: int, column: int, row: int) -> bytes:
        """JPEG of a tile; an error where there is none, or where the slide is damaged."""
        info = self._pool.info
        if not 0 <= level <= self.most_level:
            raise no_picture()
        scale = 2 ** (self.most_level - level)  # px of level 0 to one of the tile
        width, height = math.ceil(info.width / scale), math.ceil(info.height / scale)
        if not (0 <= column * TILE_PX < width and 0 <= row * TILE_PX < height):
            raise no_picture()
        side = TILE_PX * scale
        centre = np.array([[(column + 0.5) * side, (row + 0.5) * side]])
        (pixels,) = self._pool.read(centre, side * self._mpp, scale * self._mpp)
        if not isinstance(pixels, np.ndarray):
            raise InputError(pixels)
        size = (min(TILE_PX, width - column * TILE_PX), min(TILE_PX, height - row * TILE_PX))
        return as_jpeg(Image.fromarray(pixels[: size[1], : size[0]]))
