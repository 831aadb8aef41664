"""Losses over soft targets: cross-entropy and focal loss, class weights, the atypical term."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from atypia.core.labels import N_ATYPICAL, N_SUBTYPES

if TYPE_CHECKING:
    from atypia.core.config import LossConfig


class SubtypeLoss(nn.Module):
    """Mean loss of logits against the raters' labels.

    For target t and probability p, both (B, 8)::

        loss = - sum_c  t_c * w_c * (1 - p_c)^gamma * log p_c

    With gamma 0 it is the cross-entropy; otherwise the categorical focal loss (Lin et al., ICCV
    2017). With several raters it is the mean over those who gave a subtype, each against its own
    scores. With a share a of atypical votes and P the sum of the first four p of the first
    rater, ``- atypical * (a * log P + (1 - a) * log(1 - P))`` is added.

    On the sides alone it is the same formula over two classes: P and 1 - P against the majority of
    the votes (a tie counts half for each), w_c being the sides' weights.

    ``prior`` is the class distribution as the loss sees it: (8,), frequency times weight, sum 1. On
    the sides alone the frequencies of the sides are those of the votes, which is what they are
    learned from; within a side they are those of the subtypes.

    Args:
        config: Which loss.
        class_mass: (8,) sum of the targets over the training part; all above 0, or all 0.
        side_mass: (2,) figures of the training part that are atypical, and normal, by the majority
            of the votes; both above 0.
    """

    def __init__(
        self, config: LossConfig, class_mass: torch.Tensor, side_mass: torch.Tensor
    ) -> None:
        super().__init__()
        if not class_mass.any():  # votes alone: nothing is learned within a side
            class_mass = torch.ones_like(class_mass)
        prior = class_mass / class_mass.sum()
        self.on_sides = config.of == "sides"
        weights = torch.ones_like(prior)
        if self.on_sides:
            within = prior.view(2, N_ATYPICAL) / prior.view(2, N_ATYPICAL).sum(dim=1, keepdim=True)
            sides = (side_mass / side_mass.sum()).to(prior)
            prior = (within * sides[:, None]).flatten()
            if config.class_weights == "balanced":
                weights = (0.5 / sides).repeat_interleave(N_ATYPICAL)
        elif config.class_weights == "balanced":
            weights = 1 / (len(prior) * prior)
        self.gamma = config.focal_gamma if config.kind == "focal" else 0.0
        self.atypical = config.atypical
        self.weights: torch.Tensor
        self.prior: torch.Tensor
        self.register_buffer("weights", weights)
        self.register_buffer("prior", prior * weights / (prior * weights).sum())

    def forward(
        self, logits: torch.Tensor, subtypes: torch.Tensor, atypical: torch.Tensor
    ) -> torch.Tensor:
        """Mean over the batch.

        Args:
            logits: (B, R * 8), the raters' scores side by side.
            subtypes: (B, R, 8) as in :class:`atypia.training.targets.Targets`.
            atypical: (B,) likewise.
        """
        batch = len(logits)
        log_p = logits.float().view(batch, -1, N_SUBTYPES).log_softmax(dim=2)
        if self.on_sides:
            return self._of_sides(log_p[:, 0], atypical)
        terms = subtypes * self.weights * log_p
        if self.gamma:
            terms = terms * (1 - log_p.exp()).clamp_min(0) ** self.gamma
        raters = (subtypes.sum(dim=2) > 0).sum(dim=1).clamp_min(1)
        loss = -(terms.sum(dim=(1, 2)) / raters).mean()
        if self.atypical:
            log_atypical = log_p[:, 0, :N_ATYPICAL].logsumexp(dim=1)
            log_normal = log_p[:, 0, N_ATYPICAL:].logsumexp(dim=1)
            known = ~atypical.isnan()
            share = atypical.nan_to_num()
            term = share * log_atypical + (1 - share) * log_normal
            loss = loss - self.atypical * (term * known).mean()
        return loss

    def _of_sides(self, log_p: torch.Tensor, atypical: torch.Tensor) -> torch.Tensor:
        """Mean loss of log-probabilities (B, 8) against the majority of the votes (B,)."""
        sides = torch.stack(
            [log_p[:, :N_ATYPICAL].logsumexp(dim=1), log_p[:, N_ATYPICAL:].logsumexp(dim=1)], dim=1
        )
        majority = ((atypical - 0.5).sign() + 1) / 2
        # torch gives a NaN the sign 0; a figure without a vote adds nothing to the loss.
        target = torch.stack([majority, 1 - majority], dim=1) * ~atypical.isnan()[:, None]
        terms = target * self.weights[[0, -1]] * sides
        if self.gamma:
            terms = terms * (1 - sides.exp()).clamp_min(0) ** self.gamma
        return -terms.sum(dim=1).mean()
