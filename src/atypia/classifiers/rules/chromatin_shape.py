"""The shape of chromatin as weighted points: size, axes, hull, symmetry; halves and their cleft."""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy import ndimage

from atypia.classifiers.rules.segmentation import MPP, SIDE

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.classifiers.rules.segmentation import Map, Mask

    Vector = npt.NDArray[np.float64]

PIXEL_UM2: Final = MPP**2
_DIRECTIONS: Final = 60
"""In which extents are taken; 3 degrees apart, the greatest is missed by less than 0.1 %."""
_CLEFT_DIRECTIONS: Final = 24
"""In which the figure is tried for a cleft, over half a turn."""
_REACH_UM: Final = 18.0
"""No pixel of a field lies farther from a figure's centre along any line."""
_PROFILE_UM: Final = 0.4
"""Smoothing of a profile, standard deviation."""
_LEAST_HALF: Final = 0.08
"""Share of the chromatin that a half must have to be one."""


class Shape:
    """Pixels of a region (S, S), weighted by density, as points in µm around the field's middle."""

    def __init__(self, region: Mask, density: Map) -> None:
        ys, xs = np.nonzero(region)
        self.points: Vector = (np.stack([ys, xs], 1).astype(np.float64) - (SIDE - 1) / 2) * MPP
        """(K, 2), y and x."""
        self.mass: Vector = density[ys, xs].astype(np.float64)
        """(K,)."""
        self.box = slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)
        """Rows and columns that hold the region."""

    @property
    def area_um2(self) -> float:
        """Area."""
        return len(self.points) * PIXEL_UM2

    @cached_property
    def centre(self) -> Vector:
        """(2,) centre of mass, y and x."""
        return np.asarray(self.mass @ self.points / self.mass.sum())

    @cached_property
    def _axes(self) -> tuple[Vector, Vector]:
        return principal_axes(self.points, self.mass)

    @property
    def elongation(self) -> float:
        """Long to short axis of the ellipse with the same moments; 1 is round."""
        variance, _ = self._axes
        return float(np.sqrt(variance[1] / variance[0]))

    @property
    def length_um(self) -> float:
        """Extent along the long axis."""
        return self._extent(1)

    @property
    def width_um(self) -> float:
        """Extent across the long axis."""
        return self._extent(0)

    @property
    def feret_um(self) -> float:
        """Greatest extent in any direction (maximum Feret diameter).

        A long axis is a matter of chance where three arms are alike; this is not.
        """
        angles = np.linspace(0, np.pi, _DIRECTIONS, endpoint=False)
        along = self.points @ np.stack([np.cos(angles), np.sin(angles)])  # (K, directions)
        return float(np.ptp(along, axis=0).max() + MPP)

    def _extent(self, axis: int) -> float:
        _, axes = self._axes
        return float(np.ptp(self.points @ axes[:, axis]) + MPP)

    def symmetry(self, n: int) -> float:
        """Strength of the n-fold symmetry: 1 if all mass lies on n rays, 0 for a disc."""
        around = self.points - self.centre
        z = around[:, 1] + 1j * around[:, 0]
        r = np.abs(z)
        unit = np.divide(z, r, out=np.zeros_like(z), where=r > 0)
        weight = self.mass * r**2
        total = weight.sum()
        return float(abs((weight * unit**n).sum()) / total) if total > 0 else 0.0


def principal_axes(points: Vector, mass: Vector) -> tuple[Vector, Vector]:
    """Variances (2,), the smaller one first, and the axes that go with them (2, 2), as columns.

    A pixel has a variance of its own, which keeps a line of pixels from being infinitely thin.
    """
    around = points - mass @ points / mass.sum()
    covariance = (mass[:, None] * around).T @ around / mass.sum() + np.eye(2) * PIXEL_UM2 / 12
    variance, axes = np.linalg.eigh(covariance)
    return variance, axes


def convex_hull(region: Mask) -> tuple[Vector, float, float]:
    """Centre of the convex hull in µm (y, x), solidity, and perimeter to that of the hull."""
    from skimage.measure import perimeter_crofton
    from skimage.morphology import convex_hull_image

    rows, columns = ndimage.find_objects(region.astype(np.uint8))[0]
    crop = np.pad(region[rows, columns], 1)
    hull = convex_hull_image(crop)
    ys, xs = np.nonzero(hull)
    corner = np.array([rows.start - 1, columns.start - 1])
    centre = (np.array([ys.mean(), xs.mean()]) + corner - (SIDE - 1) / 2) * MPP
    around = perimeter_crofton(hull, directions=4)
    return centre, float(crop.sum() / hull.sum()), float(perimeter_crofton(crop, 4) / around)


def angle_deg(a: Vector, b: Vector) -> float:
    """Angle between two unit vectors without regard to their sense, 0 to 90."""
    return float(np.degrees(np.arccos(np.clip(abs(a @ b), 0, 1))))


class Halves(NamedTuple):
    """How two halves lie to each other, one field per measure of the same name."""

    cleft: float = 0.0
    halves_apart_um: float = 0.0
    halves_balance: float = 0.0
    halves_length_balance: float = 0.0
    halves_elongation: float = 1.0
    halves_across_deg: float = 0.0
    halves_tilt_deg: float = 90.0
    strand: float = 1.0
    lagging: float = 1.0
    between_share: float = 1.0


def find_halves(figure: Shape, density: Map) -> Halves:
    """Cut a figure, all its parts, at its deepest cleft and measure both halves.

    The halves are found without cutting the figure into parts, so that plates which still touch
    are two as well: the chromatin is projected on lines in all directions, and the deepest valley
    between two peaks of such a profile, weighted by the share of the variance that lies between
    its sides (Otsu's criterion, IEEE Trans Syst Man Cybern 9, 1979), is the cleft.
    """
    around = figure.points - figure.centre
    along = around @ _cleft_directions().T  # (K, directions), µm
    n = 2 * int(_REACH_UM / MPP) + 1
    bins = np.clip(np.round(along / MPP).astype(int) + n // 2, 0, n - 1)
    flat = (bins + np.arange(_CLEFT_DIRECTIONS) * n).ravel()
    profiles = np.bincount(flat, np.repeat(figure.mass, _CLEFT_DIRECTIONS), _CLEFT_DIRECTIONS * n)
    depth, score = _clefts(np.asarray(profiles.reshape(_CLEFT_DIRECTIONS, n)))
    direction, cut = np.unravel_index(int(np.argmax(score)), score.shape)
    if score[direction, cut] <= 0:
        return Halves()
    side = along[:, direction] > (int(cut) - n // 2) * MPP
    if side.all() or not side.any():
        return Halves()
    return _compared(figure, side, float(depth[direction, cut]), density)


@cache
def _cleft_directions() -> Vector:
    angle = np.arange(_CLEFT_DIRECTIONS) * np.pi / _CLEFT_DIRECTIONS
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
    both = np.maximum(share * (1 - share), 1e-9)
    between = (mean * share - moment) ** 2 / both / np.maximum(variance, 1e-9)
    allowed = np.minimum(share, 1 - share) >= _LEAST_HALF
    return depth, np.where(allowed, depth * between, 0.0)


def _compared(figure: Shape, side: Mask, cleft: float, density: Map) -> Halves:
    """Measure two halves; `side` (K,) is True for pixels beyond the cut."""
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
        halves_apart_um=apart,
        halves_balance=float(min(mass) / max(mass)),
        halves_length_balance=float(min(lengths) / max(lengths)),
        halves_elongation=float(np.mean(ratios)),
        halves_across_deg=float((firmness * across).sum() / max(firmness.sum(), 1e-9)),
        halves_tilt_deg=angle_deg(plates[0], plates[1]),
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
