"""Segmentation: stains separated, and the chromatin of the figure in the middle of a patch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

    Map = npt.NDArray[np.float32]
    Mask = npt.NDArray[np.bool_]
    Labels = npt.NDArray[np.int32]

MPP: Final = 0.25
"""Every field is brought to this resolution, µm per px."""
SIDE: Final = 96
"""Side of a field, px: 24 µm, which holds the two plates of a telophase."""

_DARKEST: Final = 1 / 255
"""Least light that 8 bits hold; its logarithm must exist."""
_BLACK: Final = 8 / 255
"""A pixel with no channel above this at the patch's edge lies beyond the scanned part."""
_PIXEL_UM2: Final = MPP**2
_SMOOTHING_UM: Final = 0.2
_CORE_UM: Final = 0.5
"""Smoothing at which the figure's darkness is read: a mean over a chromosome's width."""
_CELL_UM: Final = 8.0
"""Radius around the centre in which the cytoplasm is looked for."""
_LEAST_CONTRAST: Final = 0.15
"""Optical density above the cytoplasm below which nothing is called chromatin. The palest figure
among the training patients of AMi-Br has 0.35."""
_SMALLEST_UM2: Final = 0.15
_FRAGMENT_UM2: Final = 3.0
"""A smaller part is a fragment: it belongs to chromatin that is near."""
_NEAR_UM: Final = 2.0
_SISTER_UM: Final = 12.0
"""Widest gap between the plates of a telophase."""
_EIGHT: Final = np.ones((3, 3), dtype=bool)


def haematoxylin(fields: Map) -> Map:
    """Optical density (log10, at least 0) of haematoxylin in fields (N, S, S, 3), RGB in 0..1.

    Method and stain vectors are those of Ruifrok & Johnston (Anal Quant Cytol Histol 23, 2001).
    The vectors are fixed: estimated ones follow whatever else is on a patch, and what is measured
    later is relative to the cell's own cytoplasm and chromatin, so that neither the strength of a
    stain nor the brightness of a scanner matters.
    """
    from skimage.color import rgb2hed

    # rgb2hed takes logarithms to the base of 1e-6; six times that is optical density.
    return np.asarray(6 * rgb2hed(np.clip(fields, _DARKEST, 1))[..., 0], dtype=np.float32)


def beyond_scan(field: Map) -> Mask:
    """Find the black border (S, S) that patches from the edge of a scan are filled up with."""
    black = field.max(axis=-1) < _BLACK
    if not (black[0].any() or black[-1].any() or black[:, 0].any() or black[:, -1].any()):
        return np.zeros_like(black)
    labels, _ = ndimage.label(black)
    at_edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    border = np.isin(labels, at_edge[at_edge > 0])
    return np.asarray(ndimage.binary_dilation(border, iterations=2))


@dataclass(frozen=True)
class Chromatin:
    """The segmented figure of one patch."""

    density: Map
    """(S, S) haematoxylin: 0 in the cytoplasm around the figure, 1 where its chromatin is dark."""
    parts: Labels
    """(S, S) 0 outside the figure, 1 the part with the most chromatin, 2 the next one, and so on.
    A part ends where the density falls to half."""
    neighbours: Mask
    """(S, S) other tissue that is as dark as chromatin."""
    contrast: float
    """Haematoxylin of dark chromatin above that of the cytoplasm, optical density."""


@dataclass(frozen=True)
class _Piece:
    """A connected dark region; it may be the figure's or a neighbour's."""

    label: int
    pixels: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
    darkness: float
    """Its darkest spot; 1 is the figure's chromatin."""
    at_edge: bool

    @property
    def area_um2(self) -> float:
        return len(self.pixels[0]) * _PIXEL_UM2

    @property
    def box(self) -> tuple[int, int, int, int]:
        ys, xs = self.pixels
        return int(ys.min()), int(xs.min()), int(ys.max()), int(xs.max())


def segment(field: Map, haematoxylin: Map) -> Chromatin | None:
    """Segment the chromatin in the middle of a field (S, S, 3); None where nothing is darker there.

    The cytoplasm's density is the median of what Otsu's threshold (IEEE Trans Syst Man Cybern 9,
    1979) leaves out around the centre; the figure's is that of the darkest spot near the centre.
    Chromatin ends half-way between, where a blurred edge is not displaced.

    Of the regions beyond that threshold, the one with the most chromatin near the centre is the
    figure's. Fragments near it belong to it. Whether a larger region does, the patch decides: it
    is centred on the whole figure, so a region belongs if it brings the figure's middle to that of
    the patch, as the sister plate of an anaphase does and a neighbouring nucleus does not.
    """
    from skimage.filters import threshold_otsu

    beyond = beyond_scan(field)
    fine = ndimage.gaussian_filter(haematoxylin, _SMOOTHING_UM / MPP)
    near = (_from_centre() < _CELL_UM) & ~beyond
    if not near.any():
        return None
    level = threshold_otsu(fine[near])
    pale = fine[near & (fine <= level)]
    cytoplasm = float(np.median(pale))
    core = ndimage.gaussian_filter(haematoxylin, _CORE_UM / MPP) - cytoplasm
    core[beyond] = 0
    contrast = float(core.flat[np.argmax(core * _weight())])
    if contrast < _LEAST_CONTRAST:
        return None
    density = (fine - cytoplasm) / contrast
    density[beyond] = 0
    found, n = ndimage.label(density > 0.5, _EIGHT)
    labels = found.astype(np.int32)
    if n == 0:
        return None
    pieces = _pieces(labels, n, density)
    mass = ndimage.sum(density * _weight() ** 2, labels, range(1, n + 1))
    mine = _figure(pieces, pieces[int(np.argmax(mass))])
    return Chromatin(density, _numbered(mine, density), _others(labels, mine), contrast)


@cache
def _from_centre() -> Map:
    axis = (np.arange(SIDE) - (SIDE - 1) / 2) * MPP
    return np.asarray(np.hypot(axis[:, None], axis[None, :]), dtype=np.float32)


@cache
def _weight() -> Map:
    """How much a dark spot counts as the figure's own: fully up to 3 µm, half at 9 µm."""
    return np.asarray(np.clip(1.25 - _from_centre() / 12, 0, 1), dtype=np.float32)


def _pieces(labels: Labels, n: int, density: Map) -> list[_Piece]:
    darkness = ndimage.maximum(density, labels, range(1, n + 1))
    pieces = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        ys, xs = np.nonzero(labels[rows, columns] == label)
        at_edge = min(rows.start, columns.start) == 0 or max(rows.stop, columns.stop) == SIDE
        pixels = (ys + rows.start, xs + columns.start)
        pieces.append(_Piece(label, pixels, float(darkness[label - 1]), at_edge))
    return pieces


def _figure(pieces: list[_Piece], main: _Piece) -> list[_Piece]:
    """Choose the pieces of the figure, beginning with its main one."""
    mine, box = [main], main.box
    gap = _gap_um(main)
    rest = [p for p in pieces if p is not main and p.area_um2 >= _SMALLEST_UM2]
    while rest:
        best: _Piece | None = None
        best_gain = 0.0
        off = _off_centre_um(box)
        for piece in rest:
            apart = float(gap[piece.pixels].min())
            if piece.area_um2 < _FRAGMENT_UM2 and apart < _NEAR_UM and piece.darkness > 0.6:
                best = piece
                break
            gain = off - _off_centre_um(_union(box, piece.box))
            if _is_sister(piece, apart, off, gain) and (best is None or gain > best_gain):
                best, best_gain = piece, gain
        if best is None:
            break
        rest.remove(best)
        mine.append(best)
        box = _union(box, best.box)
        gap = np.minimum(gap, _gap_um(best))
    return mine


def _is_sister(piece: _Piece, apart_um: float, off_um: float, gain_um: float) -> bool:
    """Decide whether a piece beyond the nearest surroundings belongs to the figure."""
    if piece.at_edge or apart_um > _SISTER_UM:
        return False
    if piece.area_um2 >= _FRAGMENT_UM2 and piece.darkness > 0.75:
        return gain_um > 0.5 or (apart_um < 1 and gain_um > -0.5)
    # Where the main piece lies far out, the patch itself shows that something is missing; then a
    # paler or smaller piece will do.
    return piece.area_um2 > 1 and piece.darkness > 0.6 and off_um > 2.5 and gain_um > 0.5 * off_um


def _gap_um(piece: _Piece) -> Map:
    outside = np.ones((SIDE, SIDE), dtype=bool)
    outside[piece.pixels] = False
    return np.asarray(ndimage.distance_transform_edt(outside) * MPP, dtype=np.float32)


def _off_centre_um(box: tuple[int, int, int, int]) -> float:
    """Distance of a box' middle from that of the field."""
    middle = (SIDE - 1) / 2
    return MPP * float(np.hypot((box[0] + box[2]) / 2 - middle, (box[1] + box[3]) / 2 - middle))


def _union(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _numbered(mine: list[_Piece], density: Map) -> Labels:
    parts = np.zeros((SIDE, SIDE), np.int32)
    mass = [float(density[piece.pixels].sum()) for piece in mine]
    for number, i in enumerate(np.argsort(mass)[::-1], start=1):
        parts[mine[i].pixels] = number
    return parts


def _others(labels: Labels, mine: list[_Piece]) -> Mask:
    return np.asarray((labels > 0) & ~np.isin(labels, [piece.label for piece in mine]))
