"""The field of view of a network, sampled from patches with NumPy.

The pixels are those of :func:`atypia.models.transforms.sample_field`, which needs torch. The
sampling is linear in the pixels and treats rows and columns apart, so it is one matrix for each: a
row of the matrix holds what each pixel gives to one sample.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.errors import InputError
from atypia.data.images import A_SLIDE

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from atypia.core.config import InputSpec

MIRRORED_DOWN_TO: Final = 0.75
"""Least share of the field of view that a patch shows; beyond its edge its pixels are mirrored."""

LARGEST_PATCH_UM: Final = 300.0
"""Shorter side of a patch, at most. The field in which figures are counted measures 500 µm and
more: what is larger shows many figures or none, and its centre means nothing."""

_BATCH = 64


def check_patches(patches: npt.NDArray[np.uint8], mpp: float, specs: Iterable[InputSpec]) -> None:
    """Check that patches are (N, H, W, 3) uint8 and large enough for all `specs`.

    Raises:
        InputError: They are not.
    """
    if patches.ndim != 4 or patches.shape[-1] != 3 or patches.dtype != np.uint8:
        raise InputError(
            f"Expected patches of shape (N, H, W, 3) and type uint8 but got {patches.shape}, "
            f"{patches.dtype}."
        )
    if problem := size_problem(min(patches.shape[1:3]), mpp, specs):
        raise InputError(problem)


def size_problem(side_px: int, mpp: float, specs: Iterable[InputSpec]) -> str | None:
    """Explain why patches of this shorter side do not fit `specs`; None if they do."""
    field_um = max(spec.field_of_view_um for spec in specs)
    needed = MIRRORED_DOWN_TO * field_um
    if side_px * mpp > LARGEST_PATCH_UM:
        return (
            f"expected a patch centred on one mitotic figure, up to {LARGEST_PATCH_UM:g} µm, but "
            f"got {side_px * mpp:g} µm ({side_px} px at {mpp:g} µm per pixel). Is the resolution "
            f"(--mpp) right? {A_SLIDE}"
        )
    if side_px * mpp >= needed * 0.999:
        return None
    return (
        f"expected a patch of at least {needed:g} µm ({MIRRORED_DOWN_TO:.0%} of the model's "
        f"field of view, {field_um:g} µm) but got {side_px * mpp:g} µm "
        f"({side_px} px at {mpp:g} µm per pixel). Is the resolution (--mpp) right?"
    )


def sample_field(
    pixels: npt.NDArray[np.uint8], mpp: float, spec: InputSpec
) -> npt.NDArray[np.float32]:
    """Cut the central field of view out of patches and resample it to the network's size.

    Of (N, H, W, 3) uint8 RGB with `mpp` µm per pixel it makes (N, 3, S, S) float32 RGB in 0..1,
    within 1e-4 of what the networks were trained on. Beyond the patch's edge pixels are mirrored.
    """
    batch, height, width, _ = pixels.shape
    down = sampling_matrix(height, mpp, spec)  # (S, H)
    across = sampling_matrix(width, mpp, spec)  # (S, W)
    ys, xs = _seen(down), _seen(across)
    fields = np.empty((batch, 3, spec.size_px, spec.size_px), np.float32)
    for start in range(0, batch, _BATCH):  # float copies of many large patches would fill memory
        part = pixels[start : start + _BATCH, ys, xs].transpose(0, 3, 1, 2)
        planes = part.astype(np.float32, order="C")  # (n, 3, H', W'); else BLAS is not used
        fields[start : start + _BATCH] = down[:, ys] @ planes @ across[:, xs].T
    fields /= 255
    return fields


def nearest_pixels(
    pixels: npt.NDArray[np.uint8], mpp: float, field_of_view_um: float, side: int
) -> npt.NDArray[np.uint8]:
    """Take the pixels nearest to a grid over the central field, as they are and fast.

    Of (N, H, W, 3) it makes (3, N, side, side). Beyond the patch's edge pixels are mirrored.
    """
    grid = ((np.arange(side) + 0.5) / side - 0.5) * field_of_view_um / mpp
    ys, xs = (
        np.rint(_mirrored((length - 1) / 2 + grid, length)).astype(int)
        for length in pixels.shape[1:3]
    )
    taken = pixels.take(ys, axis=1).take(xs, axis=2)
    return np.ascontiguousarray(taken.transpose(3, 0, 1, 2))


def sampling_matrix(side: int, mpp: float, spec: InputSpec) -> npt.NDArray[np.float32]:
    """Weights (S, side) of the `side` pixels of a line in the S samples of its central field.

    Bilinear interpolation, after a Gaussian blur where samples lie so far apart that they would
    alias. Positions beyond the edge are mirrored at the edge, as torch's ``grid_sample`` does it
    (``reflection``, ``align_corners=False``); the blur mirrors at the centre of the last pixel
    (``reflect``).
    """
    size = spec.size_px
    field_px = spec.field_of_view_um / mpp
    # Pixel centres are at 0, 1, ...; the field's centre is the line's.
    position = (side - 1) / 2 + ((np.arange(size) + 0.5) / size - 0.5) * field_px
    position = _mirrored(position, side)
    left = np.floor(position).astype(int)
    share = position - left  # of the right neighbour
    weights = np.zeros((size, side))
    samples = np.arange(size)
    weights[samples, left] += 1 - share
    weights[samples, np.minimum(left + 1, side - 1)] += share
    step = field_px / size
    if step > 1.25:
        weights = weights @ _blur_matrix(side, math.sqrt(step**2 - 1) / 2)
    return weights.astype(np.float32)


def _seen(weights: npt.NDArray[np.float32]) -> slice:
    """Find which pixels of a line any sample looks at."""
    pixels = np.flatnonzero(weights.any(axis=0))
    return slice(pixels[0], pixels[-1] + 1)


def _mirrored(position: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Fold positions back between the outer edges of the first and the last pixel."""
    offset = np.mod(position + 0.5, 2 * side)
    folded = np.where(offset < side, offset, 2 * side - offset) - 0.5
    return np.asarray(np.clip(folded, 0, side - 1))


def _blur_matrix(side: int, sigma: float) -> npt.NDArray[np.float64]:
    """(side, side): row i holds the weights of a Gaussian around pixel i."""
    radius = math.ceil(3 * sigma)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    source = np.pad(np.arange(side), radius, mode="reflect")
    matrix = np.zeros((side, side))
    for i in range(side):
        np.add.at(matrix[i], source[i : i + 2 * radius + 1], kernel)
    return matrix
