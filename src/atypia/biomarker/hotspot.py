"""The hot-spot: the place of a standard area that holds the most figures.

Mitoses are counted where they are densest, in 2.37 mm², which is ten fields of a microscope with
a field number of 22 mm at ×400 (Donovan et al., Veterinary Pathology 58(2), 2021; areas in mm²
instead of fields: Cree et al., Modern Pathology 34, 2021). The default shape is a circle: unlike a
rectangle it finds the same place however the section lies on the glass. The other one is the
upright 4:3 rectangle of Aubreville et al., Scientific Reports 10:16447, 2020. Where the tissue of
the slide is known, at least four fifths of the window lie on it (:class:`TissueWindows`).

The count of a hot-spot is the largest of many. It overstates the density of its surroundings, and
would be smaller if the same place were counted again on the next section.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
import scipy  # loads scipy.spatial where it is used

from atypia.core.errors import InputError
from atypia.slides.tissue import PIXEL_UM

if TYPE_CHECKING:
    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray
    from atypia.slides.tissue import Tissue

Shape: TypeAlias = Literal["circle", "rectangle"]

AREA_MM2: Final = 2.37
RESOLUTION_UM: Final = 0.1
"""The search ends when no window drawn in by this much could hold more figures."""

LEAST_TISSUE: Final = 0.8
"""Share of a window that must be tissue."""

_RIM = 1 + 1e-9  # figures exactly on the edge count, whatever the rounding
_CORNERS = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) / 2
_MAX_SEEDS = 4096
_CIRCLE_VERTICES = 128


@dataclass(frozen=True)
class Hotspot:
    """A window of a standard area. All lengths in µm on the slide, y downwards."""

    shape: Shape
    area_mm2: float
    centre_um: tuple[float, float]

    def contains(self, points_um: FloatArray) -> BoolArray:
        """Which of the points (N, 2) lie inside or on the edge, (N,)."""
        half, norm = _window(self.area_mm2, self.shape)
        apart = np.abs(points_um - np.array(self.centre_um)) / half
        return np.asarray(np.linalg.norm(apart, ord=norm, axis=1) <= _RIM)

    @property
    def outline_um(self) -> FloatArray:
        """(V, 2) vertices of a closed polygon, the last as the first; a circle has 128 sides."""
        half, norm = _window(self.area_mm2, self.shape)
        if norm == 2:
            angle = np.linspace(0, 2 * np.pi, _CIRCLE_VERTICES + 1)
            ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
            ring[-1] = ring[0]
        else:
            ring = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]], dtype=float)
        return np.asarray(np.array(self.centre_um) + ring * half)


class TissueWindows:
    """How much of each window is tissue: the mask averaged over the window around each pixel."""

    def __init__(self, tissue: Tissue, area_mm2: float, shape: Shape) -> None:
        self._tissue = tissue
        half, _ = _window(area_mm2, shape)
        x, y = (np.arange(-n, n + 1) * tissue.pixel_um for n in np.ceil(half / tissue.pixel_um))
        grid = np.stack(np.meshgrid(x, y), axis=-1)
        window = Hotspot(shape, area_mm2, (0, 0)).contains(grid.reshape(-1, 2))
        kernel = window.reshape(grid.shape[:2]) / window.sum()
        self._share = scipy.signal.fftconvolve(np.pad(tissue.mask, 1), kernel, mode="same")

    @property
    def any(self) -> bool:
        """Whether a window fits on the tissue at all."""
        return bool((self._share >= LEAST_TISSUE).any())

    def share(self, centres_um: FloatArray) -> FloatArray:
        """Share of tissue in the windows around centres (N, 2), (N,); 0 beyond the mask."""
        place = (centres_um - np.array(self._tissue.corner_um)) // self._tissue.pixel_um + 1
        rows, columns = self._share.shape
        x, y = np.clip(place, 0, [columns - 1, rows - 1]).astype(np.intp).T
        return np.asarray(self._share[y, x])

    def fit(self, centres_um: FloatArray) -> BoolArray:
        """Which windows lie on the tissue, (N,)."""
        return self.share(centres_um) >= LEAST_TISSUE


def find_hotspot(
    points_um: FloatArray,
    area_mm2: float = AREA_MM2,
    shape: Shape = "circle",
    windows: TissueWindows | None = None,
) -> Hotspot | None:
    """Find the window that holds the most points (N, 2), by branch and bound; None without any.

    A window whose centre lies in a square cell reaches no further than a window around the cell's
    centre that is wider by half the cell's diagonal. Cells whose wider window holds no more than
    the best window so far are dropped; the others are quartered. The answer is the maximum, except
    that a window may be missed whose points would not fit one drawn in by 0.1 µm. It does not
    depend on the order of the points. The window may reach beyond their extent, but with `windows`
    it must lie on the tissue; which windows do is decided to a pixel of the mask.

    Raises:
        InputError: `area_mm2` is not a positive number.
    """
    if not (np.isfinite(area_mm2) and area_mm2 > 0):
        raise InputError(f"expected a hot-spot of more than 0 mm² but got {area_mm2:g}.")
    if len(points_um) == 0:
        return None
    half, norm = _window(area_mm2, shape)
    points = np.asarray(points_um, dtype=np.float64)
    points = points[np.lexsort(points.T)] / half  # in these units the window has radius 1
    tree = scipy.spatial.cKDTree(points)
    reach = np.sqrt(2) if norm == 2 else 1.0  # from a cell's centre to its corner, per half side

    def count(centres: FloatArray, radius: float) -> IntArray:
        found = tree.query_ball_point(centres, radius * _RIM, p=norm, return_length=True)
        return np.asarray(found, dtype=np.int64)

    def fit(centres: FloatArray) -> BoolArray:
        return np.ones(len(centres), np.bool_) if windows is None else windows.fit(centres * half)

    seeds = points[:: -(-len(points) // _MAX_SEEDS)]
    held = count(seeds, 1) * fit(seeds)
    best, centre = int(held.max()), seeds[held.argmax()]
    low, high = points.min(axis=0), points.max(axis=0)
    cells = ((low + high) / 2)[None]  # (K, 2) centres of square cells
    side = float((high - low).max())
    while len(cells) and side / 2 * reach > RESOLUTION_UM / half.max():
        cells = cells[count(cells, 1 + side / 2 * reach) > best]
        if side * half.max() <= PIXEL_UM:
            cells = cells[fit(cells)]
        if not len(cells):
            break
        held = count(cells, 1) * fit(cells)
        if held.max() > best:
            best, centre = int(held.max()), cells[held.argmax()]
        side /= 2
        cells = (cells[:, None] + side * _CORNERS).reshape(-1, 2)
    if best == 0:
        return None  # no window with a figure lies on the tissue
    middle = _centred(points, centre, best, norm)
    x, y = (middle if fit(middle[None])[0] else centre) * half
    return Hotspot(shape, float(area_mm2), (float(x), float(y)))


def _window(area_mm2: float, shape: Shape) -> tuple[FloatArray, float]:
    """Half width and half height in µm, and the order of the norm in which it is a unit ball."""
    if shape == "circle":
        return np.full(2, np.sqrt(area_mm2 * 1e6 / np.pi)), 2
    width = np.sqrt(area_mm2 * 1e6 * 4 / 3)
    return np.array([width, width * 3 / 4]) / 2, np.inf


def _centred(points: FloatArray, centre: FloatArray, best: int, norm: float) -> FloatArray:
    """Move the window to the middle of its points, away from their edge, if it keeps them all."""
    inside = points[np.linalg.norm(points - centre, ord=norm, axis=1) <= _RIM]
    for middle in ((inside.min(axis=0) + inside.max(axis=0)) / 2, inside.mean(axis=0)):
        if (np.linalg.norm(points - middle, ord=norm, axis=1) <= 1).sum() >= best:
            return np.asarray(middle)
    return centre
