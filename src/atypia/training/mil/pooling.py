"""From the figures of a patient to one answer: by attention, or by the mean.

Attention is that of Ilse, Tomczak and Welling (ICML 2018), gated: a small network gives each figure
a weight, the weights of a patient sum to 1, and the patient is the weighted mean of the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from atypia.core.config import PoolingKind


class BagClassifier(nn.Module):
    """Maps bags of figures (B, T, D), some of them shorter than T, to scores (B, C).

    Args:
        n_features: D.
        n_classes: C.
        pooling: ``attention`` or ``mean``.
        width: Of the attention's hidden layer.
        dropout: On the features of the figures.
    """

    def __init__(
        self, n_features: int, n_classes: int, pooling: PoolingKind, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.attends = pooling == "attention"
        if self.attends:
            self.content = nn.Linear(n_features, width)
            self.gate = nn.Linear(n_features, width)
            self.weight = nn.Linear(width, 1)
        self.classifier = nn.Linear(n_features, n_classes)

    def forward(
        self, figures: torch.Tensor, present: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score bags.

        Args:
            figures: (B, T, D).
            present: (B, T) which of them are there; at least one in each bag.

        Returns:
            Scores (B, C), and the weights (B, T) of the figures, which sum to 1 over those that are
            there.
        """
        x = self.dropout(figures)
        if self.attends:
            hidden = torch.tanh(self.content(x)) * torch.sigmoid(self.gate(x))
            raw = self.weight(hidden).squeeze(2)
        else:
            raw = torch.zeros_like(figures[..., 0])
        weights = raw.masked_fill(~present, -torch.inf).softmax(dim=1)
        return self.classifier((weights[..., None] * x).sum(dim=1)), weights
