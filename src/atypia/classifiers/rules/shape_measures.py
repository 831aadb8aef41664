"""Measurements of a segmented figure: lengths in µm, areas in µm², densities relative to chromatin.

Everything is measured around the figure's own centre and axes, so that neither its place nor its
direction matters.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.classifiers.rules import texture
from atypia.classifiers.rules.halves import find_halves
from atypia.classifiers.rules.outline import PIXEL_UM2, Shape, convex_hull

if TYPE_CHECKING:
    from atypia.classifiers.rules.chromatin import Chromatin

_BODY_UM2: Final = 3.0
"""A smaller part is a fragment: a chromosome or two, not a set of them."""


@dataclass(frozen=True)
class Measures:
    """What the rules know of one figure. The ending of a name is its unit; without one: a ratio.

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
    """Measure a figure.

    Args:
        chromatin: From :func:`atypia.classifiers.rules.chromatin.segment`.
    """
    density, parts = chromatin.density, chromatin.parts
    figure, main = Shape(parts > 0, density), Shape(parts == 1, density)
    sizes = np.bincount(parts.ravel())[1:] * PIXEL_UM2
    masses = np.bincount(parts.ravel(), density.ravel())[1:]
    small = sizes < _BODY_UM2
    share = np.append(masses / masses[0], [0.0, 0.0])
    main_hull, main_solidity, main_roughness = convex_hull(parts == 1)
    hull, solidity, _ = convex_hull(parts > 0)
    depth = texture.depth_um(parts)
    lacking = texture.holes(density, figure.box)
    ring_contrast, ring_closure, arms = texture.rays(density, parts, hull)
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
        grains_um2=texture.grains_um2(density, parts),
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
        mottling=texture.mottling(density, depth),
        darkness=float(density[parts > 0].mean()),
        sharpness_per_um=texture.sharpness_per_um(density, depth),
        contrast_od=chromatin.contrast,
        hole_depth=float(lacking.max(initial=0)),
        hole_um2=float((lacking > 0.2).sum() * PIXEL_UM2),
        ring_contrast=ring_contrast,
        ring_closure=ring_closure,
        cleft=halves.cleft,
        halves_apart_um=halves.apart_um,
        halves_balance=halves.balance,
        halves_length_balance=halves.length_balance,
        halves_elongation=halves.elongation,
        halves_across_deg=halves.across_deg,
        halves_tilt_deg=halves.tilt_deg,
        strand=halves.strand,
        lagging=halves.lagging,
        between_share=halves.between_share,
        arms=float(arms),
        two_fold=figure.symmetry(2),
        three_fold=figure.symmetry(3),
        four_fold=figure.symmetry(4),
    )
