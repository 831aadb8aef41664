"""Two stages: which side a figure is on, then which subtype of that side it is.

Atypical or normal is what pathologists ask first, and the four subtypes of one side resemble each
other in other ways than the sides differ. The score of a subtype is log p(side) + log p(subtype |
side); the eight of them are log-probabilities (their softmax is themselves), so that everything
behind a network takes them as it takes the logits of a flat one: losses, averages over views and
members, distillation, export.

Cross-entropy of the product is the sum of the stages' own: for a target t with the mass t_A on the
atypical subtypes, ``-sum t log p = CE(t_A, side) + t_A CE(t / t_A, atypical) + t_N CE(t / t_N,
normal)``: a stage learns nothing from figures of the other side (but by the focal loss, which
weighs by the product). A temperature divides the log-probabilities of all stages by one number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.nn import functional

from atypia.core.labels import N_ATYPICAL, N_SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

N_STAGES: Final = 3
"""The side, the atypical subtypes, the normal subtypes."""
_N_NORMAL: Final = N_SUBTYPES - N_ATYPICAL


class StagedHead(nn.Module):
    """Maps features (B, F) to log-probabilities of the subtypes (B, R * 8), R raters side by side.

    Stages that are `separate` share no feature: each has a third of them, in the order of
    :data:`N_STAGES`, as :class:`SideBySide` gives them.
    """

    def __init__(self, in_features: int, n_raters: int = 1, *, separate: bool = False) -> None:
        super().__init__()
        self.in_features = in_features
        self.n_raters = n_raters
        self.separate = separate
        own = in_features // N_STAGES if separate else in_features
        self.side = nn.Linear(own, n_raters)
        self.atypical = nn.Linear(own, n_raters * N_ATYPICAL)
        self.normal = nn.Linear(own, n_raters * _N_NORMAL)
        for layer in (self.side, self.atypical, self.normal):
            nn.init.trunc_normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, R * 8) float32."""
        parts = features.chunk(N_STAGES, dim=1) if self.separate else (features,) * N_STAGES
        batch = len(features)
        side = self.side(parts[0]).float().view(batch, self.n_raters, 1)
        atypical = self.atypical(parts[1]).float().view(batch, self.n_raters, N_ATYPICAL)
        normal = self.normal(parts[2]).float().view(batch, self.n_raters, _N_NORMAL)
        joined = torch.cat(
            [
                functional.logsigmoid(side) + atypical.log_softmax(dim=2),
                functional.logsigmoid(-side) + normal.log_softmax(dim=2),
            ],
            dim=2,
        )  # (B, R, 8)
        return joined.flatten(1)

    def start_from(self, prior: torch.Tensor) -> None:
        """Let the first answer be the class distribution (8,)."""
        atypical, normal = prior[:N_ATYPICAL], prior[N_ATYPICAL:]
        with torch.no_grad():
            self.side.bias.fill_(float(atypical.sum().log() - normal.sum().log()))
            self.atypical.bias.copy_(atypical.log().repeat(self.n_raters))
            self.normal.bias.copy_(normal.log().repeat(self.n_raters))


class SideBySide(nn.Module):
    """Backbones that see the same image (B, 3, S, S); their features (B, F) are joined: (B, 3 F).

    With a :class:`StagedHead` that keeps the features apart they are three networks in one module:
    no weight and no gradient is shared, and AdamW treats every weight by itself. In common they
    have the batches (a stage of subtypes sees the figures of the other side in its batch norms,
    though it learns nothing from them), the schedule, the epoch that is kept, the clipping of
    gradients, and a warm-up without labels, which compares their joint description.
    """

    def __init__(self, backbones: Sequence[nn.Module]) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(backbones)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features of all backbones, one after the other."""
        return torch.cat([backbone(images) for backbone in self.backbones], dim=1)
