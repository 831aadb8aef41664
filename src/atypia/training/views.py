"""Augmented images of an epoch, batch by batch, on the device that learns from them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from atypia.training.patch_store import prefetch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from atypia.models.transforms import Augmenter
    from atypia.training.patch_store import Epoch, PatchStore
    from atypia.training.task import ComputePlace


@dataclass
class Views:
    """Iterates over the images of an epoch, (B, 3, S, S) float32 each; counts what they cost."""

    store: PatchStore
    rows: npt.NDArray[np.int64]
    """Rows of the store that the samples of `plan` stand for."""
    plan: Epoch
    augment: Augmenter
    place: ComputePlace
    waited: float = 0.0
    """Seconds spent waiting for pixels so far."""
    augmented: float = 0.0
    """Seconds of augmentation so far."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield one batch after the other, while the next one is read."""
        pixels_of = prefetch(lambda batch: self.store.pixels[self.rows[batch]], self.plan.samples)
        for samples, passes in zip(self.plan.samples, self.plan.passes, strict=True):
            clock = time.perf_counter()
            pixels = torch.from_numpy(next(pixels_of)).to(self.place.device, non_blocking=True)
            self.waited += time.perf_counter() - clock
            clock = time.perf_counter()
            images = self.augment(pixels, self.store.mpp, samples, passes)
            images = images.contiguous(memory_format=self.place.layout)
            self.augmented += time.perf_counter() - clock
            yield images


def seed_of(*parts: int) -> int:
    """One well-mixed seed from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
