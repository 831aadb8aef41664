"""Samples joined in pairs, their targets with them: MixUp and CutMix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from atypia.core.config import AugmentConfig


def mixed(
    config: AugmentConfig,
    random: np.random.Generator,
    images: torch.Tensor,
    *targets: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """Join each sample of a batch with another one, as far as the configuration asks for it.

    Args:
        config: Its `mixup` and `cutmix`; with both, a coin decides for the batch.
        random: Of this batch.
        images: (B, 3, S, S).
        targets: (B, ...) each. What is unknown (NaN) of either sample stays unknown.

    Returns:
        Images and targets, of the same shapes.
    """
    both = bool(config.mixup and config.cutmix)
    if config.cutmix and not (both and random.random() < 0.5):
        return cutmix(config.cutmix, random, images, *targets)
    if config.mixup:
        return mixup(config.mixup, random, images, *targets)
    return images, *targets


def mixup(
    alpha: float, random: np.random.Generator, images: torch.Tensor, *targets: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Lay the partner over each image, with one share for the batch (Zhang et al., ICLR 2018)."""
    share = float(random.beta(alpha, alpha))
    partner = _partners(random, images)
    return tuple(_joined(share, part, partner) for part in (images, *targets))


def cutmix(
    alpha: float, random: np.random.Generator, images: torch.Tensor, *targets: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Set a rectangle of the partner into each image (Yun et al., ICCV 2019).

    One rectangle for the batch: its area has a Beta-distributed share, its centre lies anywhere,
    and what reaches beyond the edge is cut off. Targets are mixed by the area that is left.

    A mitotic figure is in the centre of its patch and fills a small part of it. A rectangle at the
    edge therefore brings in the partner's label with none of its chromosomes, one over the centre
    the reverse: area says less about the label here than it does in photographs, and the targets
    are noisier. That is what this method is, and a reason to compare it with :func:`mixup`.
    """
    share = float(random.beta(alpha, alpha))
    partner = _partners(random, images)
    height, width = images.shape[-2:]
    half = np.sqrt(1 - share) / 2
    y, x = random.random(2)
    top, bottom = (round(float(np.clip(y + side, 0, 1)) * height) for side in (-half, half))
    left, right = (round(float(np.clip(x + side, 0, 1)) * width) for side in (-half, half))
    images = images.clone()
    images[..., top:bottom, left:right] = images[partner, ..., top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return images, *(_joined(kept, part, partner) for part in targets)


def _partners(random: np.random.Generator, images: torch.Tensor) -> torch.Tensor:
    """(B,) for each sample another one of the batch; at times itself."""
    return torch.from_numpy(random.permutation(len(images))).to(images.device)


def _joined(share: float, part: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    return share * part + (1 - share) * part[partner]
