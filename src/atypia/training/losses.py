"""Losses over soft targets: cross-entropy and focal loss, class weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from atypia.config import LossConfig


class SubtypeLoss(nn.Module):
    """Mean loss of logits against target distributions.

    For target t and probability p, both (B, 8)::

        loss = - sum_c  t_c * w_c * (1 - p_c)^gamma * log p_c

    With gamma 0 it is the cross-entropy; otherwise the categorical focal loss (Lin et al., ICCV
    2017).

    ``prior`` is the class distribution as the loss sees it: (8,), frequency times weight, sum 1.

    Args:
        config: Which loss.
        class_mass: (8,) sum of the targets over the training part; all above 0.
    """

    def __init__(self, config: LossConfig, class_mass: torch.Tensor) -> None:
        super().__init__()
        prior = class_mass / class_mass.sum()
        balanced = config.class_weights == "balanced"
        weights = 1 / (len(prior) * prior) if balanced else torch.ones_like(prior)
        self.gamma = config.focal_gamma if config.kind == "focal" else 0.0
        self.weights: torch.Tensor
        self.prior: torch.Tensor
        self.register_buffer("weights", weights)
        self.register_buffer("prior", prior * weights / (prior * weights).sum())

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean over the batch of logits (B, 8) against targets (B, 8) whose rows sum to 1."""
        log_p = logits.float().log_softmax(dim=1)
        terms = targets * self.weights * log_p
        if self.gamma:
            terms = terms * (1 - log_p.exp()).clamp_min(0) ** self.gamma
        return -terms.sum(dim=1).mean()
