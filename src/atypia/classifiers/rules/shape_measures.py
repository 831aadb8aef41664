"""Measurements of a segmented figure: lengths in µm, areas in µm², densities relative to chromatin.

Everything is measured around the figure's own centre and axes, so that neither its place nor its
direction matters.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from atypia.classifiers.rules.chromatin_shape import PIXEL_UM2, Shape, convex_hull, find_halves
from atypia.classifiers.rules.segmentation import MPP, SIDE

if TYPE_CHECKING:
    from atypia.classifiers.rules.chromatin_shape import Vector
    from atypia.classifiers.rules.segmentation import Chromatin, Labels, Map

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
_BODY_UM2: Final = 3.0
"""A smaller part is a fragment: a chromosome or two, not a set of them."""


@dataclass(frozen=True)
class Measures:
    """What is measured of one figure. The ending of a name is its unit; without one: a ratio.

    ``main`` is the part with the most chromatin. Density is 0 in the cytoplasm around the figure
    and 1 where its chromatin is dark.
    """

    area_um2: float
    """Of all parts."""
    length_um: float
    """Greatest extent of the figure in any direction (maximum Feret diameter)."""
    width_um: float
    """Extent across the figure's long axis."""
    elongation: float
    """Long to short axis of the ellipse with the same moments; 1 is round."""
    solidity: float
    """Area to that of the convex hull of all parts."""
    bodies: float
    """Number of parts of at least 3 µm²."""
    fragments: float
    """Number of smaller parts."""
    fragment_share: float
    """Share of the chromatin that is in them."""
    grains_um2: float
    """Of small grains within 3.5 µm of the figure, paler than its parts may be."""
    second_share: float
    """Chromatin of the second largest part to that of the largest."""
    third_share: float
    """Chromatin of the third largest part to that of the largest."""
    main_area_um2: float
    """Of the main part."""
    main_length_um: float
    """Extent of the main part along its long axis."""
    main_width_um: float
    """Extent of the main part across it."""
    main_elongation: float
    """Of the main part alone."""
    main_solidity: float
    """Of the main part alone."""
    main_thickness_um: float
    """Diameter of the largest disc that fits into the main part."""
    main_roughness: float
    """Perimeter of the main part, holes included, to that of its convex hull."""
    main_bend: float
    """How far the hull's centre lies from the main part's, in radii of a disc of the same area."""
    off_centre_um: float
    """Distance of the main part's centre from the middle of the patch."""
    mottling: float
    """Standard deviation of the density inside the main part, half a µm off the edge."""
    darkness: float
    """Mean density of all parts."""
    sharpness_per_um: float
    """Fall of the density per µm at the edge of the main part."""
    contrast_od: float
    """Haematoxylin of the chromatin above the cytoplasm's, optical density."""
    hole_depth: float
    """Density that the deepest hole inside is lacking; 0 without a hole, 1 as pale as cytoplasm."""
    hole_um2: float
    """Area inside that lacks at least 0.2 of the density."""
    ring_contrast: float
    """Density around the hull's centre, at its highest on each ray, less that at the centre."""
    ring_closure: float
    """Share of the directions from the hull's centre in which there is chromatin."""
    cleft: float
    """Depth of the cleft between two halves: 0 none, 1 nothing in it. What begins with ``halves``,
    and the three that follow, is of the two halves at the deepest cleft."""
    halves_apart_um: float
    """Between the halves' centres."""
    halves_balance: float
    """Chromatin of the smaller half to that of the larger one."""
    halves_length_balance: float
    """Length of the shorter half to that of the longer one."""
    halves_elongation: float
    """Mean of both."""
    halves_across_deg: float
    """Angle between the plates and the line that joins them: 90 is straight across."""
    halves_tilt_deg: float
    """Angle between the two plates: 0 is parallel."""
    strand: float
    """Density at the thinnest place of what joins the halves, in the middle third between them."""
    lagging: float
    """Highest density in the middle third between the halves."""
    between_share: float
    """Share of the chromatin in the middle third between the halves' centres."""
    arms: float
    """Number of ends that stand out by 1 µm and more."""
    two_fold: float
    """Two-fold symmetry of the chromatin around its centre: 0 for a disc, 1 if all of it lies on
    two opposite rays."""
    three_fold: float
    """Likewise with three rays."""
    four_fold: float
    """Likewise with four rays."""

    def to_dict(self) -> dict[str, float]:
        """Every measure by name."""
        return asdict(self)


NAMES: Final = tuple(field.name for field in fields(Measures))


def measure(chromatin: Chromatin) -> Measures:
    """Measure a figure; see :func:`atypia.classifiers.rules.segmentation.segment`."""
    density, parts = chromatin.density, chromatin.parts
    figure, main = Shape(parts > 0, density), Shape(parts == 1, density)
    sizes = np.bincount(parts.ravel())[1:] * PIXEL_UM2
    masses = np.bincount(parts.ravel(), density.ravel())[1:]
    small = sizes < _BODY_UM2
    share = np.append(masses / masses[0], [0.0, 0.0])
    main_hull, main_solidity, main_roughness = convex_hull(parts == 1)
    hull, solidity, _ = convex_hull(parts > 0)
    depth = _depth_um(parts)
    lacking = _holes(density, figure.box)
    ring_contrast, ring_closure, arms = _rays(density, parts, hull)
    halves = find_halves(figure, density)
    return Measures(
        area_um2=figure.area_um2,
        length_um=figure.feret_um,
        width_um=figure.width_um,
        elongation=figure.elongation,
        solidity=solidity,
        bodies=float((~small).sum()),
        fragments=float(small.sum()),
        fragment_share=float(masses[small].sum() / masses.sum()),
        grains_um2=_grains_um2(density, parts),
        second_share=float(share[1]),
        third_share=float(share[2]),
        main_area_um2=main.area_um2,
        main_length_um=main.length_um,
        main_width_um=main.width_um,
        main_elongation=main.elongation,
        main_solidity=main_solidity,
        main_thickness_um=2 * float(depth.max()),
        main_roughness=main_roughness,
        main_bend=float(np.hypot(*(main_hull - main.centre)) / np.sqrt(main.area_um2 / np.pi)),
        off_centre_um=float(np.hypot(*main.centre)),
        mottling=_mottling(density, depth),
        darkness=float(density[parts > 0].mean()),
        sharpness_per_um=_sharpness_per_um(density, depth),
        contrast_od=chromatin.contrast,
        hole_depth=float(lacking.max(initial=0)),
        hole_um2=float((lacking > 0.2).sum() * PIXEL_UM2),
        ring_contrast=ring_contrast,
        ring_closure=ring_closure,
        **halves._asdict(),
        arms=float(arms),
        two_fold=figure.symmetry(2),
        three_fold=figure.symmetry(3),
        four_fold=figure.symmetry(4),
    )


def _holes(density: Map, box: tuple[slice, slice]) -> Map:
    """Density that holes inside a figure are lacking, by grey-scale reconstruction."""
    from skimage.morphology import reconstruction

    crop = np.clip(density[box], 0, 1)
    seed = np.full_like(crop, crop.max())
    seed[0], seed[-1], seed[:, 0], seed[:, -1] = crop[0], crop[-1], crop[:, 0], crop[:, -1]
    return np.asarray(reconstruction(seed, crop, method="erosion") - crop, dtype=np.float32)


def _rays(density: Map, parts: Labels, centre: Vector) -> tuple[float, float, int]:
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


def _grains_um2(density: Map, parts: Labels) -> float:
    """Area of small dark grains around a figure, paler than its parts may be."""
    from skimage.morphology import disk, white_tophat

    apart = ndimage.distance_transform_edt(parts == 0) * MPP
    fine = white_tophat(np.clip(density, 0, 1), disk(_GRAIN_RADIUS_PX))
    grain = (fine > 0.2) & (apart > 0.5) & (apart < 3.5)
    return float(grain.sum() * PIXEL_UM2)


def _depth_um(parts: Labels) -> Map:
    """(S, S) distance of each pixel inside the main part from its edge."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(parts == 1, 1))[1:-1, 1:-1] * MPP)


def _sharpness_per_um(density: Map, depth: Map) -> float:
    """Fall of the density per µm at the edge of the main part."""
    steep = ndimage.gaussian_gradient_magnitude(density, 0.8) / MPP
    return float(steep[(depth > 0) & (depth <= MPP)].mean())


def _mottling(density: Map, depth: Map) -> float:
    """Take the standard deviation of the density inside the main part, half a µm off the edge."""
    deep = density[depth > 0.5]
    return float(deep.std()) if deep.size > 8 else 0.0
