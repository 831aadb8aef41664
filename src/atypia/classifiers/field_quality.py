"""Whether the pixels around a candidate show stained tissue at all, before any network is asked.

The limits lie far outside of what mitotic figures look like: of the 4,743 figures of AMi-Br and
AtNorM-MD no more than one in five hundred may fall to them, under other stains, brighter or darker,
or compressed to JPEG 40. They hold for every model, so what is doubtful is left to the model's own
guard (:mod:`.guard`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.labels import ANSWERED, STATUSES
from atypia.data.field_of_view import nearest_pixels

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.floating[Any]]

_NO_TISSUE, _POOR_IMAGE = STATUSES[1:3]
_SIDE: Final = 36
_FIELD_UM: Final = 18.0
"""Pixels of 0.5 µm: coarse enough for a 20x scan, and for the noise of a camera not to matter."""
_CENTRE_UM: Final = 5.0
"""Radius in which a figure's chromatin is looked for."""

_BLACK: Final = 8
"""A pixel without a brighter channel was not scanned."""
_MOST_BLACK: Final = 0.6
_LEAST_DENSITY: Final = 0.10
"""Optical density (mean of the channels) of the darkest spot near the centre. The palest
figure has 0.17."""
_LEAST_CONTRAST: Final = 0.05
"""Of that spot against the palest tenth of the field. The faintest figure has 0.07."""
_MOST_DENSITY: Final = 0.9
"""Median of the field: folds, ink. The darkest has 0.57."""
_MOST_CLIPPED: Final = 0.5
"""Share of the centre that is white in every channel."""
_LEAST_SHARPNESS: Final = 0.18
"""Deviation of the Laplacian over that of the density. Figures have 0.26 and more. A Gaussian
of 1.5 µm brings all but one in a hundred below, one of 1 µm two thirds, one of 0.5 µm half a
percent."""

# Shares of red, green and blue in the absorbed light. Haematoxylin and eosin absorb green most: all
# figures, restained too, have 0.10 to 0.37 red, more than 0.36 green and less than 0.39 blue.
_INK_RED, _INK_GREEN = 0.44, 0.30
"""More red, as blue ink, or less green, as green ink."""
_LEAST_RED, _LEAST_GREEN, _MOST_BLUE = 0.07, 0.345, 0.40
"""Red ink; no colour at all; the brown of diaminobenzidine."""


def field_status(
    patches: npt.NDArray[np.uint8], mpp: float, field_of_view_um: float
) -> npt.NDArray[np.str_]:
    """Judge what is around the centre of patches (N, H, W, 3) uint8 RGB at `mpp` µm per pixel.

    No more than the model's `field_of_view_um` is looked at, nor more than 18 µm.

    Returns:
        (N,) out of :data:`atypia.core.labels.STATUSES`: ``no_tissue``, ``poor_image``, or
        ``answered`` where pixels give no reason not to.
    """
    side_um = min(field_of_view_um, _FIELD_UM)
    fields = nearest_pixels(patches, mpp, side_um, _SIDE)
    near = _from_centre(side_um) < _CENTRE_UM
    black = fields.max(axis=0) < _BLACK  # (N, S, S)
    light = np.maximum(fields, 1).astype(np.float32) / 255
    density = -np.log(light) / np.float32(np.log(10))  # (3, N, S, S)
    grey = density.mean(axis=0)
    central = np.sort(grey[:, near], axis=1)
    darkest = central[:, int(0.95 * central.shape[1])]
    ranked = np.sort(grey.reshape(len(grey), _SIDE**2), axis=1)
    palest, middle = ranked[:, ranked.shape[1] // 10], ranked[:, ranked.shape[1] // 2]
    red, green, blue = _shares(density * ~black)

    no_tissue = (black.mean(axis=(1, 2)) > _MOST_BLACK) | black[:, near].all(axis=1)
    no_tissue |= (darkest < _LEAST_DENSITY) | (darkest - palest < _LEAST_CONTRAST)
    no_tissue |= (red > _INK_RED) | (green < _INK_GREEN)
    poor = (red < _LEAST_RED) | (green < _LEAST_GREEN) | (blue > _MOST_BLUE)
    poor |= (middle > _MOST_DENSITY) | (_sharpness(grey) < _LEAST_SHARPNESS)
    poor |= (central == 0).mean(axis=1) > _MOST_CLIPPED
    return np.where(no_tissue, _NO_TISSUE, np.where(poor, _POOR_IMAGE, ANSWERED))


def _from_centre(side_um: float) -> Array:
    axis = ((np.arange(_SIDE) + 0.5) / _SIDE - 0.5) * side_um
    return np.asarray(np.hypot(axis[:, None], axis[None, :]))


def _shares(density: Array) -> Array:
    """Share of each channel in the light that fields (3, N, S, S) absorb: (3, N)."""
    absorbed = density.sum(axis=(2, 3)) + 1e-6  # of black alone: grey
    return np.asarray(absorbed / absorbed.sum(axis=0))


def _sharpness(grey: Array) -> Array:
    """How much of the density (N, S, S) varies from pixel to pixel."""
    inner = grey[:, 1:-1, 1:-1]
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return np.asarray((4 * inner - around).std(axis=(1, 2)) / (grey.std(axis=(1, 2)) + 1e-3))
