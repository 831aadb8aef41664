"""The two halves of a figure on either side of its deepest cleft, such as an anaphase's plates."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy import ndimage

from atypia.classifiers.rules.chromatin import MPP, SIDE
from atypia.classifiers.rules.outline import angle_deg, principal_axes

if TYPE_CHECKING:
    from atypia.classifiers.rules.chromatin import Map, Mask
    from atypia.classifiers.rules.outline import Shape, Vector

_DIRECTIONS: Final = 24
"""In which the figure is tried for a cleft, over half a turn."""
_REACH_UM: Final = 18.0
"""No pixel of a field lies farther from a figure's centre along any line."""
_PROFILE_UM: Final = 0.4
"""Smoothing of a profile, standard deviation."""
_LEAST_HALF: Final = 0.08
"""Share of the chromatin that a half must have to be one."""


class Halves(NamedTuple):
    """How two halves lie to each other, one field per measure."""

    cleft: float = 0.0
    apart_um: float = 0.0
    balance: float = 0.0
    length_balance: float = 0.0
    elongation: float = 1.0
    across_deg: float = 0.0
    tilt_deg: float = 90.0
    strand: float = 1.0
    lagging: float = 1.0
    between_share: float = 1.0


def find_halves(figure: Shape, density: Map) -> Halves:
    """Cut a figure at its deepest cleft and measure both halves.

    The halves are found without cutting the figure into parts, so that plates which still touch
    are two as well: the chromatin is projected on lines in all directions, and the deepest valley
    between two peaks of such a profile, weighted by the share of the variance that lies between
    its sides (Otsu's criterion, IEEE Trans Syst Man Cybern 9, 1979), is the cleft.

    Args:
        figure: All parts.
        density: (S, S).
    """
    around = figure.points - figure.centre
    along = around @ _directions().T  # (K, directions), µm
    n = 2 * int(_REACH_UM / MPP) + 1
    bins = np.clip(np.round(along / MPP).astype(int) + n // 2, 0, n - 1)
    flat = (bins + np.arange(_DIRECTIONS) * n).ravel()
    profiles = np.bincount(flat, np.repeat(figure.mass, _DIRECTIONS), _DIRECTIONS * n)
    depth, score = _clefts(np.asarray(profiles.reshape(_DIRECTIONS, n)))
    direction, cut = np.unravel_index(int(np.argmax(score)), score.shape)
    if score[direction, cut] <= 0:
        return Halves()
    side = along[:, direction] > (int(cut) - n // 2) * MPP
    if side.all() or not side.any():
        return Halves()
    return _compared(figure, side, float(depth[direction, cut]), density)


@cache
def _directions() -> Vector:
    angle = np.arange(_DIRECTIONS) * np.pi / _DIRECTIONS
    return np.stack([np.sin(angle), np.cos(angle)], 1)


def _clefts(profiles: Vector) -> tuple[Vector, Vector]:
    """Depth of the valley at each place of profiles (P, B), and how well it parts them."""
    smooth = ndimage.gaussian_filter1d(profiles, _PROFILE_UM / MPP, axis=1)
    left = np.maximum.accumulate(smooth, axis=1)
    right = np.maximum.accumulate(smooth[:, ::-1], axis=1)[:, ::-1]
    depth = 1 - smooth / np.maximum(np.minimum(left, right), 1e-9)
    place = np.arange(profiles.shape[1])
    total = profiles.sum(axis=1, keepdims=True)
    share = np.cumsum(profiles, axis=1) / total
    moment = np.cumsum(profiles * place, axis=1) / total
    mean = moment[:, -1:]
    variance = (profiles * place**2).sum(axis=1, keepdims=True) / total - mean**2
    spread = np.maximum(share * (1 - share), 1e-9)
    between = (mean * share - moment) ** 2 / spread / np.maximum(variance, 1e-9)
    allowed = np.minimum(share, 1 - share) >= _LEAST_HALF
    return depth, np.where(allowed, depth * between, 0.0)


def _compared(figure: Shape, side: Mask, cleft: float, density: Map) -> Halves:
    """Measure two halves; `side` (K,) tells which pixels are beyond the cut."""
    mass, centres, lengths, ratios, plates = [], [], [], [], []
    for half in (side, ~side):
        points, weight = figure.points[half], figure.mass[half]
        variance, axes = principal_axes(points, weight)
        mass.append(weight.sum())
        centres.append(weight @ points / weight.sum())
        lengths.append(np.sqrt(12 * variance[1]))  # of a bar with this variance
        ratios.append(np.sqrt(variance[1] / variance[0]))
        plates.append(axes[:, 1])
    between = centres[0] - centres[1]
    apart = float(np.hypot(*between))
    joining = between / apart
    # A round half has no direction; an elongated one speaks for both.
    firmness = np.array([r - 1 for r in ratios])
    across = np.array([angle_deg(plate, joining) for plate in plates])
    along = (figure.points - centres[1]) @ joining / apart
    strand, lagging = _between(density, centres, min(lengths))
    return Halves(
        cleft=cleft,
        apart_um=apart,
        balance=float(min(mass) / max(mass)),
        length_balance=float(min(lengths) / max(lengths)),
        elongation=float(np.mean(ratios)),
        across_deg=float((firmness * across).sum() / max(firmness.sum(), 1e-9)),
        tilt_deg=angle_deg(plates[0], plates[1]),
        strand=strand,
        lagging=lagging,
        between_share=float(figure.mass[(along > 1 / 3) & (along < 2 / 3)].sum() / sum(mass)),
    )


def _between(density: Map, centres: list[Vector], length: float) -> tuple[float, float]:
    """Strand and lagging chromatin in the middle third between two plates.

    On lines parallel to the plates, as long as the shorter one, the highest density is taken: its
    minimum over the lines is that of a strand which joins the plates, its maximum that of a grain.
    """
    joining = centres[0] - centres[1]
    across = np.array([-joining[1], joining[0]]) / np.hypot(*joining)
    steps = np.linspace(1 / 3, 2 / 3, 9)[:, None, None] * joining
    offsets = np.linspace(-length / 2, length / 2, max(2, round(length / MPP) + 1))
    place = centres[1] + steps + offsets[None, :, None] * across
    seen = ndimage.map_coordinates(
        density, np.moveaxis(place / MPP + (SIDE - 1) / 2, -1, 0), order=1
    )
    highest = np.clip(seen.max(axis=1, initial=0), 0, 1)
    return float(highest.min()), float(highest.max())
