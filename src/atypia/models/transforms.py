"""Patches of pixels into the network's input: the field of view, its augmentation, its symmetry.

Everything works on a whole batch on the device of its tensors. Every random number is a function
of (seed, pass over the training set, sample). Results therefore depend neither on the order of
samples, nor on the number of processes, nor on a restart.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from atypia.core.config import AugmentConfig, InputSpec

_DRAWS_PER_SAMPLE = 24
_NOISE_BANK = 1 << 21
# Optical densities of haematoxylin, eosin and a residual in R, G, B (Ruifrok and Johnston 2001).
_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))


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
        sigmas = torch.full((batch,), sigma, device=pixels.device)
        images = gaussian_blur(images, sigmas, math.ceil(3 * sigma))
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


def gaussian_blur(images: torch.Tensor, sigma: torch.Tensor, radius: int) -> torch.Tensor:
    """Blur images (B, 3, H, W), each with its own standard deviation of `sigma` (B,), in pixels.

    The kernel ends `radius` pixels from its centre; beyond the edge pixels are mirrored. These are
    torchvision's numbers, but its import takes longer than a prediction.
    """
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)  # (3 B, taps)
    batch, _, height, width = images.shape
    flat = images.reshape(1, batch * 3, height, width)
    flat = functional.pad(flat, (radius,) * 4, mode="reflect")
    flat = functional.conv2d(flat, kernel[:, None, None, :], groups=batch * 3)
    flat = functional.conv2d(flat, kernel[:, None, :, None], groups=batch * 3)
    return flat.view(batch, 3, height, width)


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


def optical_density(images: torch.Tensor) -> torch.Tensor:
    """Minus the logarithm of RGB in 0..1, whose zeros count as one grey level."""
    return -torch.log(images.clamp(1 / 256, 1))


def colour_styles(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Mean and standard deviation of each patch's optical density, (N, 2, 3), from (N, H, W, 3)."""
    styles = []
    for start in range(0, len(pixels), 256):
        images = torch.from_numpy(pixels[start : start + 256]).float() / 255
        density = optical_density(images).flatten(1, 2)  # (n, H * W, 3)
        styles.append(torch.stack([density.mean(1), density.std(1)], dim=1))
    return torch.cat(styles)


def _factor_and_offset(
    uniform: npt.NDArray[np.float64], deviation: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors around 1 and offsets around 0, (B, 3) each, from (B, 6) uniform numbers."""
    strength = deviation * np.sqrt(3)  # of a uniform draw with that deviation
    draws = torch.from_numpy((2 * uniform - 1) * strength).float().to(device)
    return (1 + draws[:, :3]).clamp_min(0.1), draws[:, 3:] / 10


class Augmenter:
    """Random views of patches for training.

    Geometry (flip, any rotation, scale, shift) is one resampling. Stain varies as a factor and an
    offset on each channel's optical density, -log I, or on the amount of each dye (Tellez et al.,
    IEEE TMI 2018), and towards the colours of other training patches, their `styles` (N, 2, 3)
    from :func:`colour_styles`, which `config.style` needs; noise is Gaussian on RGB.
    """

    def __init__(
        self, config: AugmentConfig, spec: InputSpec, seed: int, styles: torch.Tensor | None = None
    ) -> None:
        self.config = config
        self.spec = spec
        self.seed = seed
        self.styles = styles
        if config.style and styles is None:
            raise ValueError("augment.style: expected the styles of the training patches")
        # Normal numbers are drawn once; a sample's noise is a window of them at a random place.
        # Fresh numbers for every pixel would cost a tenth of a training step on a CPU.
        bank = np.random.Generator(np.random.Philox(key=[seed, 2**63 - 1]))
        size = max(_NOISE_BANK, 6 * spec.size_px**2)
        self._noise = torch.from_numpy(bank.standard_normal(size, dtype=np.float32))

    def at_size(self, size_px: int) -> Augmenter:
        """Make the same random views with another number of pixels."""
        other = copy.copy(self)
        other.spec = self.spec.model_copy(update={"size_px": size_px})
        return other

    def with_seed(self, seed: int) -> Augmenter:
        """Make other random views of the same kind."""
        other = copy.copy(self)
        other.seed = seed
        return other

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
        uniform = self._draw(samples, passes)  # (B, 24)
        placement = torch.from_numpy(self._placement(uniform[:, :5])).to(pixels.device)
        images = sample_field(pixels, mpp, self.spec, placement)
        if self.config.optical_density or self.config.stain or self.config.style:
            images = self._recolour(images, uniform)
        if self.config.blur_um:
            images = self._blur(images, uniform[:, 22])
        if self.config.noise:
            images = self._add_noise(images, uniform[:, 11:13])
        return normalise(images, self.spec)

    def _draw(
        self, samples: npt.NDArray[np.int64], passes: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """(B, 24) uniform numbers in 0..1; row b is a function of (seed, passes[b], samples[b])."""
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

    def _recolour(self, images: torch.Tensor, uniform: npt.NDArray[np.float64]) -> torch.Tensor:
        """All changes of colour are one affine map of optical density per sample.

        Images are (B, 3, S, S) RGB in 0..1, uniform numbers (B, 24).
        """
        c, device = self.config, images.device
        density = optical_density(images)
        matrix = torch.eye(3, device=device).expand(len(images), 3, 3)  # (B, from, to)
        offset = torch.zeros(len(images), 3, device=device)
        if c.style and self.styles is not None:
            mean, spread = density.mean((2, 3)), density.std((2, 3)).clamp_min(1e-3)  # (B, 3)
            other = self.styles[(uniform[:, 14] * len(self.styles)).astype(int)].to(device)
            amount = torch.from_numpy(uniform[:, 15:16] * (uniform[:, 13:14] < c.style))
            amount = amount.float().to(device)
            # Factors between patches are held within what one laboratory's stain varies by.
            factor = (other[:, 1] / spread).clamp(0.5, 2) ** amount
            matrix = torch.diag_embed(factor)
            offset = mean + amount * (other[:, 0] - mean) - factor * mean
        if c.stain:
            factor, shift = _factor_and_offset(uniform[:, 16:22], c.stain, device)
            dyes = torch.tensor(_STAINS, device=device)
            dyes = dyes / dyes.norm(dim=1, keepdim=True)
            change = torch.linalg.inv(dyes) @ torch.diag_embed(factor) @ dyes
            matrix = matrix @ change
            offset = (offset[:, None] @ change)[:, 0] + shift @ dyes
        if c.optical_density:
            factor, shift = _factor_and_offset(uniform[:, 5:11], c.optical_density, device)
            matrix = matrix * factor[:, None]
            offset = offset * factor + shift
        flat = torch.baddbmm(offset[..., None], matrix.mT, density.flatten(2))
        return torch.exp(-flat).clamp(0, 1).view_as(images)

    def _blur(self, images: torch.Tensor, uniform: npt.NDArray[np.float64]) -> torch.Tensor:
        pixels_per_um = self.spec.size_px / self.spec.field_of_view_um
        largest = self.config.blur_um * pixels_per_um
        # A wide blur of a small field ends where the field, mirrored at its edge, would repeat.
        radius = min(max(1, math.ceil(2.5 * largest)), self.spec.size_px - 1)
        sigma = torch.from_numpy(uniform * largest).float().clamp_min(0.05).to(images.device)
        return gaussian_blur(images, sigma, radius)

    def _add_noise(self, images: torch.Tensor, uniform: npt.NDArray[np.float64]) -> torch.Tensor:
        size = images[0].numel()
        self._noise = self._noise.to(images.device)
        starts = (uniform[:, 0] * (len(self._noise) - size)).astype(int)
        noise = torch.stack([self._noise[s : s + size].view(images.shape[1:]) for s in starts])
        deviation = torch.from_numpy(uniform[:, 1] * self.config.noise).float().to(images.device)
        return images + deviation[:, None, None, None] * noise
