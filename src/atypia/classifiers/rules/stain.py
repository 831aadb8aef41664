"""Stain separation: how much haematoxylin there is in each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

    Map = npt.NDArray[np.float32]
    Mask = npt.NDArray[np.bool_]

_DARKEST = 1 / 255
"""Of light that is told from none in 8 bits; its logarithm must exist."""
_BLACK = 8 / 255
"""A pixel with no channel above this at the patch's edge lies beyond the scanned part."""


def haematoxylin(fields: Map) -> Map:
    """Separate the stains by colour deconvolution.

    Method and stain vectors are those of Ruifrok & Johnston (Anal Quant Cytol Histol 23, 2001).
    The vectors are fixed: estimated ones follow whatever else is on a patch, and what is measured
    later is relative to the cell's own cytoplasm and chromatin, so that neither the strength of a
    stain nor the brightness of a scanner matters.

    Args:
        fields: (N, S, S, 3) RGB in 0..1.

    Returns:
        (N, S, S) haematoxylin, optical density (log10), at least 0.
    """
    from skimage.color import rgb2hed

    # rgb2hed takes logarithms to the base of 1e-6; six times that is optical density.
    return np.asarray(6 * rgb2hed(np.clip(fields, _DARKEST, 1))[..., 0], dtype=np.float32)


def beyond_scan(field: Map) -> Mask:
    """Find the black border that patches from the edge of a scan are filled up with.

    Args:
        field: (S, S, 3) RGB in 0..1.

    Returns:
        (S, S) True where there is no tissue.
    """
    black = field.max(axis=-1) < _BLACK
    if not (black[0].any() or black[-1].any() or black[:, 0].any() or black[:, -1].any()):
        return np.zeros_like(black)
    labels, _ = ndimage.label(black)
    at_edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    border = np.isin(labels, at_edge[at_edge > 0])
    return np.asarray(ndimage.binary_dilation(border, iterations=2))
