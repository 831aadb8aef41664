"""Measurements of the rules as lines to draw on a figure: how long, how wide, how far apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.classifiers.rules.chromatin import MPP, segment
from atypia.classifiers.rules.outline import Shape, principal_axes
from atypia.classifiers.rules.rules_classifier import SPEC
from atypia.classifiers.rules.stain import haematoxylin
from atypia.data.field_of_view import sample_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Points = NDArray[np.float64]

_BODY_UM2: Final = 3.0
"""A smaller part is a fragment, whose distance says little."""


@dataclass(frozen=True)
class Line:
    """A length."""

    ends: Points
    """(2, 2) row and column in px of the patch."""
    um: float
    """Its length, µm."""


def measured_lines(patch: NDArray[np.uint8], mpp: float) -> list[Line]:
    """Find the lines whose lengths the rules tell.

    Args:
        patch: (H, W, 3) RGB, centred on one figure.
        mpp: µm per pixel.

    Returns:
        Along the main part (``main_length_um``), across it (``main_width_um``) and, where there is
        a second body, between the centres of both; nothing where no chromatin is found.
    """
    field = sample_field(patch[None], mpp, SPEC)[0].transpose(1, 2, 0)
    found = segment(field, haematoxylin(field))
    if found is None:
        return []
    middle = (np.array(patch.shape[:2]) - 1) / 2

    def line(ends_um: Points, um: float) -> Line:
        return Line(ends_um / mpp + middle, um)

    main = Shape(found.parts == 1, found.density)
    _, axes = principal_axes(main.points, main.mass)
    lines = [
        line(_across(main, axes[:, 1]), main.length_um),
        line(_across(main, axes[:, 0]), main.width_um),
    ]
    if found.parts.max() > 1:
        second = Shape(found.parts == 2, found.density)
        if second.area_um2 >= _BODY_UM2:
            centres = np.stack([main.centre, second.centre])
            lines.append(line(centres, float(np.hypot(*(centres[0] - centres[1])))))
    return lines


def _across(shape: Shape, axis: Points) -> Points:
    """Both ends of a shape along an axis through its centre, µm from the field's middle."""
    along = (shape.points - shape.centre) @ axis
    reach = np.array([along.min() - MPP / 2, along.max() + MPP / 2])
    return np.asarray(shape.centre + reach[:, None] * axis)
