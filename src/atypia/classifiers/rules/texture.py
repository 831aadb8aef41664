"""What lies in, around and on the rim of the chromatin: holes, rings, arms, grains, edges."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from atypia.classifiers.rules.chromatin import MPP, SIDE
from atypia.classifiers.rules.outline import PIXEL_UM2

if TYPE_CHECKING:
    from atypia.classifiers.rules.chromatin import Labels, Map
    from atypia.classifiers.rules.outline import Vector

_RAYS: Final = 36
_REACH_UM: Final = 9.0
_RING_UM: Final = 5.0
"""Largest radius of a ring."""
_MIDDLE_UM: Final = 0.75
"""Around the hull's centre, where a ring is pale."""
_ARM_UM: Final = 1.0
"""How far an end must stand out to be an arm."""
_GRAIN_RADIUS_PX: Final = 3
"""Of the top-hat: structures up to 1.75 µm across, such as single chromosomes, pass."""


def holes(density: Map, box: tuple[slice, slice]) -> Map:
    """Density that holes inside a figure are lacking, by grey-scale reconstruction.

    Args:
        density: (S, S).
        box: Rows and columns that hold the figure.
    """
    from skimage.morphology import reconstruction

    crop = np.clip(density[box], 0, 1)
    seed = np.full_like(crop, crop.max())
    seed[0], seed[-1], seed[:, 0], seed[:, -1] = crop[0], crop[-1], crop[:, 0], crop[:, -1]
    return np.asarray(reconstruction(seed, crop, method="erosion") - crop, dtype=np.float32)


def rays(density: Map, parts: Labels, centre: Vector) -> tuple[float, float, int]:
    """Ring contrast, ring closure and number of arms, seen from a point (y, x) in µm."""
    directions, distances = _star()
    points = centre + directions[:, None, :] * distances[None, :, None]  # (R, D, 2)
    own = np.where(parts > 0, density, 0.0)
    place = np.moveaxis(points / MPP + (SIDE - 1) / 2, -1, 0)
    seen = ndimage.map_coordinates(own, place, order=1, mode="constant")  # (R, D)
    within = place[:, :, distances < _MIDDLE_UM]
    middle = float(ndimage.map_coordinates(density, within, order=1, mode="nearest").mean())
    highest = seen[:, distances < _RING_UM].max(axis=1)
    contrast = float(np.clip(highest, 0, 1).mean() - middle)
    reach = np.where(seen > 0.25, distances, 0).max(axis=1)
    return contrast, float((highest > 0.6).mean()), _arms(reach)


@cache
def _star() -> tuple[Vector, Vector]:
    """Give unit vectors of the rays (R, 2), y and x, and distances along them (D,), µm."""
    angle = np.arange(_RAYS) * 2 * np.pi / _RAYS
    return np.stack([np.sin(angle), np.cos(angle)], 1), np.arange(0, _REACH_UM, MPP)


def _arms(reach: Vector) -> int:
    """Count the peaks of a closed curve that stand out on both sides."""
    from scipy.signal import find_peaks

    smooth = ndimage.gaussian_filter1d(reach, 1.0, mode="wrap")
    turned = np.roll(smooth, -int(smooth.argmin()))
    found, _ = find_peaks(np.append(turned, turned[0]), prominence=_ARM_UM)
    return len(found)


def grains_um2(density: Map, parts: Labels) -> float:
    """Area of small dark grains around a figure, paler than its parts may be."""
    from skimage.morphology import disk, white_tophat

    apart = ndimage.distance_transform_edt(parts == 0) * MPP
    fine = white_tophat(np.clip(density, 0, 1), disk(_GRAIN_RADIUS_PX))
    grain = (fine > 0.2) & (apart > 0.5) & (apart < 3.5)
    return float(grain.sum() * PIXEL_UM2)


def depth_um(parts: Labels) -> Map:
    """(S, S) distance of each pixel inside the main part from its edge."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(parts == 1, 1))[1:-1, 1:-1] * MPP)


def sharpness_per_um(density: Map, depth: Map) -> float:
    """Fall of the density per µm at the edge of the main part."""
    steep = ndimage.gaussian_gradient_magnitude(density, 0.8) / MPP
    return float(steep[(depth > 0) & (depth <= MPP)].mean())


def mottling(density: Map, depth: Map) -> float:
    """Spread of the density inside the main part, half a µm off the edge."""
    deep = density[depth > 0.5]
    return float(deep.std()) if deep.size > 8 else 0.0
