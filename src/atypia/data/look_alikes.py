"""What is no mitotic figure, out of the patches of figures: examples for a guard to learn from.

A patch shows one figure in its middle and, around it, what a detector may take for one: nuclei,
stroma, the edge of a gland. Crops around those, mirrored where the patch ends, are examples of the
one class. Crops around the middle are of the other: shifted as far as a detector may be off, and
mirrored likewise, so that neither a mirror nor a perfect centre gives the answer away.

Real look-alikes are rare among them. Those drawn onto tissue (pyknotic nuclei, clumps, pigment,
ink, folds) stand in, and are no substitute for annotated ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from atypia.data.synthetic import chromatin_depth

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    from numpy.random import Generator

    Array = npt.NDArray[np.floating[Any]]
    Pixels = npt.NDArray[np.uint8]
    Places = npt.NDArray[np.int64]

FIGURE: Final = "figure"
NEAR: Final = "figure off centre"
NUCLEUS: Final = "nucleus"
STROMA: Final = "stroma"
MADE: Final = ("pyknotic", "clump", "pigment", "ink", "fold")
"""Kinds of examples; the last are drawn."""

MOST_OFF_UM: Final = 3.0
"""How far from a figure's centre a detector may point, to be answered still."""
_APART_UM: Final = 8.0
"""From a figure's centre on something is no part of it: the plates of a telophase reach 8 µm."""
_EDGE_UM: Final = 4.0
_SMOOTHING_UM: Final = 0.75
_BLACK: Final = 2.0
"""Optical density beyond the edge of a scan."""
_NUCLEUS_UM: Final = 5.0
_LEAST_CONTRAST: Final = 0.1
"""Optical density of a nucleus above the median of its patch."""
_PIGMENT: Final = (0.50, 0.65, 0.80)
_INKS: Final = ((1.0, 0.5, 0.15), (0.9, 0.25, 0.6), (0.1, 0.9, 0.7), (1.0, 1.0, 1.0))
"""Optical density in red, green and blue."""


@dataclass(frozen=True)
class GuardExamples:
    """Examples of both classes."""

    crops: Pixels
    """(M, S, S, 3) RGB; a side is the field of view."""
    rows: npt.NDArray[np.int64]
    """(M,) which patch each is from."""
    kinds: npt.NDArray[np.str_]
    """(M,)"""

    @property
    def is_figure(self) -> npt.NDArray[np.bool_]:
        """Which examples are mitotic figures, (M,)."""
        return np.isin(self.kinds, (FIGURE, NEAR))


def least_side_um(field_of_view_um: float) -> float:
    """Side that patches must have to show something besides the figure."""
    return max(0.75 * field_of_view_um, 2 * (_APART_UM + _EDGE_UM) + 2)


def guard_examples(
    patches: Pixels,
    mpp: float,
    field_of_view_um: float,
    seed: int,
    others: Sequence[Places] | None = None,
) -> GuardExamples:
    """Cut examples out of patches (N, H, W, 3), each centred on one figure.

    Args:
        patches: At least :func:`least_side_um` large; else there are figures alone.
        mpp: µm per pixel.
        field_of_view_um: Side of the examples.
        seed: The same gives the same examples.
        others: For each patch the (n, 2) places, y and x in px, of further figures in it.
    """
    side = round(field_of_view_um / mpp)
    crops, rows, kinds = [], [], []
    for i, patch in enumerate(patches):
        known = np.empty((0, 2), np.int64) if others is None else others[i]
        for kind, crop in _examples(patch, mpp, side, known, np.random.default_rng([seed, i])):
            crops.append(crop)
            rows.append(i)
            kinds.append(kind)
    return GuardExamples(np.stack(crops), np.array(rows), np.array(kinds))


def _examples(
    patch: Pixels, mpp: float, side: int, known: Places, rng: Generator
) -> Iterator[tuple[str, Pixels]]:
    height, width, _ = patch.shape
    centre = np.array([height, width]) // 2
    dyes = -np.log10(np.maximum(patch, 1) / 255)
    density = dyes.mean(axis=2)
    smooth = ndimage.gaussian_filter(density, _SMOOTHING_UM / mpp)
    far = _far_from(np.vstack([centre[None], known]), density.shape, _APART_UM / mpp)
    edge = round(_EDGE_UM / mpp)
    far &= smooth < _BLACK
    far[:edge] = far[-edge:] = far[:, :edge] = far[:, -edge:] = False

    yield FIGURE, crop_at(patch, centre, side)
    nuclei = _darkest(np.where(far, smooth, -np.inf), float(np.median(density)), mpp)
    away = nuclei[0] - centre if len(nuclei) else rng.integers(-centre, centre)
    angle, distance = rng.uniform(0, 2 * np.pi), MOST_OFF_UM / mpp * np.sqrt(rng.random())
    off = np.rint(distance * np.array([np.sin(angle), np.cos(angle)])).astype(int)
    # Cut off so much of the patch that the figure is as near its edge as the nucleus is.
    low, high = np.maximum(0, -away), np.array([height, width]) - np.maximum(0, away)
    shown = patch[low[0] : high[0], low[1] : high[1]]
    yield NEAR, crop_at(shown, np.clip(centre + off - low, 0, np.array(shown.shape[:2]) - 1), side)
    for nucleus in nuclei:
        yield NUCLEUS, crop_at(patch, nucleus, side)
    pale = np.argwhere(far & (smooth < np.median(smooth)))
    if len(pale):
        tissue = crop_at(patch, rng.choice(pale), side)
        yield STROMA, tissue
        kind = str(rng.choice(MADE))
        chromatin = dyes[density >= np.quantile(density[density < _BLACK], 0.98)].mean(axis=0)
        yield kind, drawn(kind, tissue, mpp, chromatin, rng)


def crop_at(patch: Pixels, centre: Places, side: int) -> Pixels:
    """Cut (side, side, 3) around a place, y and x in px; beyond the edge pixels are mirrored."""
    half = side // 2
    around = ((half, side - half), (half, side - half), (0, 0))
    y, x = centre
    cut: Pixels = np.pad(patch, around, mode="symmetric")[y : y + side, x : x + side]
    return cut


def _far_from(places: Places, shape: tuple[int, ...], px: float) -> npt.NDArray[np.bool_]:
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    far = [np.hypot(ys - y, xs - x) >= px for y, x in places]
    return np.asarray(np.all(far, axis=0))


def _darkest(smooth: Array, middle: float, mpp: float, most: int = 2) -> Places:
    """Places (n, 2) of the darkest spots, a nucleus apart."""
    places: list[Places] = []
    while len(places) < most:
        spot = np.array(np.unravel_index(smooth.argmax(), smooth.shape))
        if not smooth[tuple(spot)] > middle + _LEAST_CONTRAST:
            break
        places.append(spot)
        smooth = np.where(_far_from(spot[None], smooth.shape, _NUCLEUS_UM / mpp), smooth, -np.inf)
    return np.array(places).reshape(-1, 2)


def drawn(kind: str, tissue: Pixels, mpp: float, chromatin: Array, rng: Generator) -> Pixels:
    """Draw something that may be taken for a mitotic figure onto tissue (S, S, 3).

    `chromatin` is the optical density (3,) of what is darkest there. What is drawn absorbs
    light beside what is there (Beer-Lambert).
    """
    side = len(tissue)
    density = -np.log10(np.maximum(tissue, 1) / 255)
    if kind == "fold":
        angle, axis = rng.uniform(0, np.pi), (np.arange(side) - side / 2) * mpp
        across = np.abs(np.sin(angle) * axis[:, None] + np.cos(angle) * axis)
        band = _inside(rng.uniform(1.5, 5) - across, 0.5)[..., None]
        density = density * (1 + rng.uniform(1, 2) * band)
    else:
        discs, colour, strength = _DRAWN[kind](rng)
        depth = chromatin_depth(discs, side, mpp) + 0.1 * rng.standard_normal((side, side))
        amount = strength * _inside(ndimage.gaussian_filter(depth, 1.0), 0.15)
        density = density + amount[..., None] * (chromatin if colour is None else np.array(colour))
    return _pixels(255 * 10**-density)


def restained(crop: Pixels, rng: Generator) -> Pixels:
    """Show a crop (S, S, 3) as another laboratory might: other dyes, another focus."""
    density = -np.log10(np.maximum(crop, 1) / 255)
    density = density * np.exp(rng.uniform(-0.45, 0.45)) * np.exp(rng.uniform(-0.2, 0.2, 3))
    light = 255 * 10 ** -(density + rng.uniform(-0.015, 0.03))
    blurred = ndimage.gaussian_filter(light, (1, 1, 0))
    # Blurred a little, or sharpened: the second is what scanners do.
    light = light + rng.uniform(-0.9, 1.8) * (light - blurred)
    return _pixels(light)


def _pixels(light: Array) -> Pixels:
    return np.asarray(light.clip(0, 255).round(), dtype=np.uint8)


def _inside(depth: Array, softness: float) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(depth / softness, -30, 30))))


def _discs(rng: Generator, n: int, spread: float, low: float, high: float) -> Array:
    return np.hstack([rng.normal(0, spread, (n, 2)), rng.uniform(low, high, (n, 1))])


_DRAWN: Final[dict[str, Any]] = {
    "pyknotic": lambda rng: (_discs(rng, 1, 0.3, 1.5, 3.2), None, rng.uniform(0.6, 1.2)),
    "clump": lambda rng: (
        _discs(rng, int(rng.integers(3, 9)), 2.2, 0.6, 1.6),
        None,
        rng.uniform(0.6, 1.2),
    ),
    "pigment": lambda rng: (
        _discs(rng, int(rng.integers(10, 60)), 2.5, 0.2, 0.7),
        _PIGMENT,
        rng.uniform(0.4, 1.2),
    ),
    "ink": lambda rng: (
        _discs(rng, int(rng.integers(3, 12)), 5, 2, 6),
        _INKS[rng.integers(len(_INKS))],
        rng.uniform(0.4, 1.5),
    ),
}
"""Discs (n, 3) in µm, optical density per channel (None: of
chromatin), and strength of what is drawn, by kind."""
