"""Patches of pixels into the network's input: the field of view, its augmentation, its symmetry.

Everything works on a whole batch on the device of its tensors. Training, evaluation and
prediction all sample the field of view through :func:`sample_field`, so a network never meets
other pixels than those it was trained on.

Every random number is a function of (seed, pass over the training set, sample). Results therefore
depend neither on the order of samples, nor on the number of processes, nor on a restart.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional
from torchvision.transforms.v2.functional import gaussian_blur

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from atypia.config import AugmentConfig, InputSpec

_DRAWS_PER_SAMPLE = 16
_NOISE_BANK = 1 << 21


def sample_field(
    pixels: torch.Tensor, mpp: float, spec: InputSpec, placement: torch.Tensor | None = None
) -> torch.Tensor:
    """Cut the central field of view out of patches and resample it to the network's size.

    Args:
        pixels: (B, H, W, 3) uint8.
        mpp: µm per pixel of `pixels`.
        spec: Field of view and size of the output.
        placement: (B, 2, 3) maps a point of the field, in -1..1, to a point of the patch, in units
            of half a field of view from the patch's centre. None is the identity.

    Returns:
        (B, 3, S, S) float32 RGB in 0..1. Beyond the patch's edge its pixels are mirrored.
    """
    batch, height, width, _ = pixels.shape
    images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255  # (B, 3, H, W)
    step = spec.field_of_view_um / spec.size_px / mpp  # pixels of the patch from sample to sample
    if step > 1.25:  # bilinear samples that far apart would skip pixels and alias
        sigma = math.sqrt(step**2 - 1) / 2
        images = gaussian_blur(images, 2 * math.ceil(3 * sigma) + 1, sigma)
    if placement is None:
        placement = torch.eye(2, 3, device=pixels.device).expand(batch, 2, 3)
    field_px = spec.field_of_view_um / mpp
    extent = torch.tensor(
        [[field_px / width], [field_px / height]], dtype=torch.float32, device=pixels.device
    )
    grid = functional.affine_grid(
        placement * extent, [batch, 3, spec.size_px, spec.size_px], align_corners=False
    )
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def normalise(images: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Scale RGB in 0..1, (B, 3, S, S), with the mean and standard deviation of the backbone."""
    mean = torch.tensor(spec.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(spec.std, device=images.device).view(3, 1, 1)
    return (images - mean) / std


def dihedral(images: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the eight rotations and flips (the group D4) of (B, 3, S, S); the identity first."""
    for flipped in (images, images.flip(-1)):
        for quarter_turns in range(4):
            yield torch.rot90(flipped, quarter_turns, (-2, -1))


class Augmenter:
    """Random views of patches for training.

    Geometry (flip, any rotation, scale, shift) is one resampling. Stain varies as a factor and an
    offset on each channel's optical density, -log I (Tellez et al., IEEE TMI 2018); noise is
    Gaussian on RGB.
    """

    def __init__(self, config: AugmentConfig, spec: InputSpec, seed: int) -> None:
        self.config = config
        self.spec = spec
        self.seed = seed
        # Normal numbers are drawn once; a sample's noise is a window of them at a random place.
        # Fresh numbers for every pixel would cost a tenth of a training step on a CPU.
        bank = np.random.Generator(np.random.Philox(key=[seed, 2**63 - 1]))
        size = max(_NOISE_BANK, 6 * spec.size_px**2)
        self._noise = torch.from_numpy(bank.standard_normal(size, dtype=np.float32))

    def __call__(
        self,
        pixels: torch.Tensor,
        mpp: float,
        samples: npt.NDArray[np.int64],
        passes: npt.NDArray[np.int64],
    ) -> torch.Tensor:
        """Augment and normalise a batch.

        Args:
            pixels: (B, H, W, 3) uint8.
            mpp: µm per pixel of `pixels`.
            samples: (B,) index of each sample in the training set.
            passes: (B,) number of the pass over the training set that shows it.

        Returns:
            (B, 3, S, S) float32, normalised.
        """
        uniform = self._draw(samples, passes)  # (B, 16)
        placement = torch.from_numpy(self._placement(uniform[:, :5])).to(pixels.device)
        images = sample_field(pixels, mpp, self.spec, placement)
        if self.config.optical_density:
            images = self._jitter_stain(images, uniform[:, 5:11])
        if self.config.noise:
            images = self._add_noise(images, uniform[:, 11:13])
        return normalise(images, self.spec)

    def _draw(
        self, samples: npt.NDArray[np.int64], passes: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """(B, 16) uniform numbers in 0..1; row b is a function of (seed, passes[b], samples[b])."""
        rows = [
            np.random.Generator(np.random.Philox(key=[self.seed, (int(i) << 32) + int(sample)]))
            for sample, i in zip(samples, passes, strict=True)
        ]
        return np.stack([row.random(_DRAWS_PER_SAMPLE) for row in rows])

    def _placement(self, uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """(B, 2, 3) placements of the field from (B, 5) uniform numbers."""
        c = self.config
        angle = 2 * np.pi * uniform[:, 0] * c.rotate
        mirror = np.where((uniform[:, 1] < 0.5) & c.flip, -1.0, 1.0)
        # Uniform in the logarithm: larger and smaller by the same factor are as likely.
        scale = np.exp(np.log1p(c.scale) * (2 * uniform[:, 2] - 1))
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        half_field = self.spec.field_of_view_um / 2
        shift = (2 * uniform[:, 3:5] - 1) * c.shift_um / half_field
        rows = [[mirror * cos, -sin, shift[:, 0]], [mirror * sin, cos, shift[:, 1]]]
        return np.moveaxis(np.array(rows, dtype=np.float32), -1, 0)

    def _jitter_stain(self, images: torch.Tensor, uniform: npt.NDArray[np.float64]) -> torch.Tensor:
        strength = self.config.optical_density * np.sqrt(3)  # of a uniform draw with that deviation
        draws = torch.from_numpy((2 * uniform - 1) * strength).float().to(images.device)
        factor = (1 + draws[:, :3]).clamp_min(0.1)[..., None, None]
        offset = draws[:, 3:, None, None] / 10
        density = -torch.log(images.clamp(1 / 256, 1))
        return torch.exp(-(density * factor + offset)).clamp(0, 1)

    def _add_noise(self, images: torch.Tensor, uniform: npt.NDArray[np.float64]) -> torch.Tensor:
        size = images[0].numel()
        self._noise = self._noise.to(images.device)
        starts = (uniform[:, 0] * (len(self._noise) - size)).astype(int)
        noise = torch.stack([self._noise[s : s + size].view(images.shape[1:]) for s in starts])
        deviation = torch.from_numpy(uniform[:, 1] * self.config.noise).float().to(images.device)
        return images + deviation[:, None, None, None] * noise
