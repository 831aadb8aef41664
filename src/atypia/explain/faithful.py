"""Deletion and insertion: whether the places that a map points at matter to the answer.

The field of view is cut into cells of 1 µm. Deletion hides them in the order of a map, the
strongest first: the probability should fall soon. Insertion starts from nothing and shows them in
the same order: it should rise soon. The mean of either curve is its area, from 0 to 1 (Petsiuk et
al., BMVC 2018). "Nothing" is the median colour of the field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.floating[Any]]
    Answer = Callable[[npt.NDArray[np.uint8]], FloatArray]
    """Patches (N, H, W, 3) to the probability of what is explained, (N,)."""

CELL_UM: Final = 1.0
STEPS: Final = 10
_BLOB_CELLS: Final = 2.0
"""Of random maps: as smooth as those of the methods, else cells apart from each other would hide
the figure like a fence, which is another question."""


@dataclass(frozen=True)
class Grid:
    """Cells of the field of view in the pixels of a patch."""

    rows: npt.NDArray[np.int64]
    """(K + 1,) edges."""
    columns: npt.NDArray[np.int64]
    """(K + 1,) edges."""

    @classmethod
    def of(cls, shape: tuple[int, ...], mpp: float, field_um: float) -> Grid:
        """Cut the central square of patches (H, W) into K x K cells of about :data:`CELL_UM`."""
        height, width = shape
        side = min(height, width, round(field_um / mpp))
        n = max(1, min(side, round(side * mpp / CELL_UM)))
        edges = np.round(np.linspace(0, side, n + 1)).astype(np.int64)
        return cls((height - side) // 2 + edges, (width - side) // 2 + edges)

    @property
    def side(self) -> int:
        """K."""
        return len(self.rows) - 1

    def mean(self, maps: FloatArray) -> FloatArray:
        """Mean of maps (N, H, W) in each cell: (N, K, K)."""
        inside = maps[:, self.rows[0] : self.rows[-1], self.columns[0] : self.columns[-1]]
        sums = np.add.reduceat(inside, self.rows[:-1] - self.rows[0], axis=1)
        sums = np.add.reduceat(sums, self.columns[:-1] - self.columns[0], axis=2)
        return np.asarray(sums / np.outer(np.diff(self.rows), np.diff(self.columns)))

    def mask(self, cells: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Which pixels (N, H, W) lie in chosen cells (N, K, K)."""
        wide = np.repeat(np.repeat(cells, np.diff(self.rows), 1), np.diff(self.columns), 2)
        mask = np.zeros((len(cells), *shape), dtype=bool)
        mask[:, self.rows[0] : self.rows[-1], self.columns[0] : self.columns[-1]] = wide
        return mask

    def field(self, patches: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Cut out the square itself, (N, S, S, 3)."""
        return patches[:, self.rows[0] : self.rows[-1], self.columns[0] : self.columns[-1]]


@dataclass(frozen=True)
class Curves:
    """The course of the probability; arrays (N, steps + 1)."""

    deletion: FloatArray
    insertion: FloatArray

    @property
    def deletion_area(self) -> FloatArray:
        """(N,), low where a map is faithful."""
        return _area(self.deletion)

    @property
    def insertion_area(self) -> FloatArray:
        """(N,), high where a map is faithful."""
        return _area(self.insertion)


def curves(answer: Answer, patches: npt.NDArray[np.uint8], grid: Grid, cells: FloatArray) -> Curves:
    """Hide and show cells (N, K, K) of patches (N, H, W, 3), the largest first."""
    flat = np.median(grid.field(patches), axis=(1, 2)).astype(np.uint8)[:, None, None, :]
    n = grid.side**2
    order = np.argsort(-cells.reshape(len(cells), n), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable").reshape(cells.shape)
    deletion, insertion = [], []
    for step in range(STEPS + 1):
        first = grid.mask(rank < round(n * step / STEPS), patches.shape[1:3])[..., None]
        deletion.append(answer(np.where(first, flat, patches)))
        outside = ~grid.mask(np.ones(cells.shape, dtype=bool), patches.shape[1:3])[..., None]
        insertion.append(answer(np.where(first | outside, patches, flat)))
    return Curves(np.stack(deletion, axis=1), np.stack(insertion, axis=1))


def random_cells(n: int, side: int, seed: int) -> FloatArray:
    """Draw smooth maps (n, side, side) that depend on no network."""
    noise = np.random.default_rng(seed).normal(size=(n, side, side))
    return np.asarray(gaussian_filter(noise, (0, _BLOB_CELLS, _BLOB_CELLS), mode="wrap"))


def central_cells(n: int, side: int) -> FloatArray:
    """Make maps (n, side, side) that are largest in the middle, where every figure is."""
    offset = np.arange(side) - (side - 1) / 2
    distance = np.hypot(offset[:, None], offset)
    return np.broadcast_to(-distance, (n, side, side))


def dark_cells(patches: npt.NDArray[np.uint8], grid: Grid) -> FloatArray:
    """Make maps (N, K, K) that are largest where patches (N, H, W, 3) are darkest."""
    return -grid.mean(patches.astype(np.float32).mean(axis=3))


def _area(curve: FloatArray) -> FloatArray:
    """Area under curves (N, steps + 1) over 0..1, by trapezoids."""
    return np.asarray((curve[:, 1:] + curve[:, :-1]).mean(axis=1) / 2)
