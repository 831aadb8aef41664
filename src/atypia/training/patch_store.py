"""Decoded patches of a cohort."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.data.images import read_patch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.core.config import AugmentConfig, InputSpec
    from atypia.data.cohort import Cohort

# Above this the pixels live in a memory-mapped file instead of memory.
IN_MEMORY_BYTES = 2 << 30


@dataclass(frozen=True)
class PatchStore:
    """Every patch of a cohort, decoded once, all of one size and resolution."""

    pixels: npt.NDArray[np.uint8]
    """(N, H, W, 3), in the order of the manifest; H = W."""
    mpp: float
    """µm per pixel of `pixels`."""

    def __len__(self) -> int:
        return len(self.pixels)


def open_store(
    cohort: Cohort, spec: InputSpec, augment: AugmentConfig | None, cache: Path
) -> PatchStore:
    """Decode the part of each patch that training can reach.

    Patches of different resolution are brought to one: the finest of them, but no finer than the
    network needs. Those of one resolution stay as they are. Rotation, scale and shift of `augment`
    ask for a margin around the field; it is kept as far as the smallest patch has it.

    `cache` is a file for the pixels where they do not fit in memory.

    Raises:
        InputError: Lists every patch that cannot be read or is smaller than the field of view.
    """
    mpps = cohort.manifest["mpp"].to_numpy(dtype=float)
    mpp = float(mpps[0])
    if not np.allclose(mpps, mpp):
        mpp = max(float(mpps.min()), spec.field_of_view_um / spec.size_px)
    field = spec.field_of_view_um
    if augment is not None:
        field *= (1 + augment.scale) * (math.sqrt(2) if augment.rotate else 1)
        field += 2 * augment.shift_um
    paths = cohort.image_paths()
    smallest = math.floor(_extents_um(paths, mpps, spec).min() / mpp + 1e-6)
    side = min(math.ceil(field / mpp), smallest)
    side -= (smallest - side) % 2  # an odd margin would shift the centre by half a pixel
    shape = (len(paths), side, side, 3)
    fits = math.prod(shape) <= IN_MEMORY_BYTES
    pixels = np.empty(shape, np.uint8) if fits else _allocate(cache, shape)

    def decode(i: int) -> list[Problem]:
        try:
            pixels[i] = central_window(read_patch(paths[i]), float(mpps[i]), mpp, side)
        except InputError as error:
            return error.problems
        return []

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        problems = [p for found in pool.map(decode, range(len(paths))) for p in found]
    if problems:
        raise InputError(problems)
    return PatchStore(pixels, mpp)


def _allocate(file: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Make an array in a file whose space is really there: a sparse one would crash later."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with file.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
    except OSError as error:
        raise AtypiaError(
            f"{file}: {math.prod(shape) / 1e9:.1f} GB for the decoded patches could not be had: "
            f"{error.strerror or error}."
        ) from error
    return pixels


def central_window(
    patch: npt.NDArray[np.uint8], patch_mpp: float, mpp: float, side: int
) -> npt.NDArray[np.uint8]:
    """Cut the central (side, side, 3) of a (H, W, 3) patch brought from `patch_mpp` to `mpp`."""
    if not math.isclose(patch_mpp, mpp, rel_tol=1e-3):
        ratio = patch_mpp / mpp
        size = (max(side, round(patch.shape[1] * ratio)), max(side, round(patch.shape[0] * ratio)))
        image = Image.fromarray(patch)
        patch = np.asarray(image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
    top, left = (patch.shape[0] - side) // 2, (patch.shape[1] - side) // 2
    return patch[top : top + side, left : left + side]


def _extents_um(
    paths: Sequence[Path], mpps: npt.NDArray[np.float64], spec: InputSpec
) -> npt.NDArray[np.float64]:
    """(N,) shorter side of each patch in µm, from the file headers."""
    problems = []
    extents = np.empty(len(paths))
    for i, (path, mpp) in enumerate(zip(paths, mpps, strict=True)):
        try:
            with Image.open(path) as image:
                extents[i] = min(image.size) * mpp
        except OSError as error:
            what = f"expected an image but it cannot be read ({error})."
            problems.append(Problem(what, str(path)))
            continue
        if extents[i] < spec.field_of_view_um - 1e-6:
            what = (
                f"expected at least the field of view of {spec.field_of_view_um:g} µm but got "
                f"{extents[i]:g} µm. Choose a smaller input.field_of_view_um."
            )
            problems.append(Problem(what, str(path)))
    if problems:
        raise InputError(problems)
    return extents
