"""The head of the guard: a score for mitotic figures, and a distance from the trained ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from atypia.models.lite import Lite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atypia.models.network import Network


def features_and_seen(network: Network, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (B, F) of a network's backbone, and what its guard looks at (B, G), in one pass.

    The guard also looks at the middle of the maps before they are averaged, where the backbone is
    one of :mod:`atypia.models.lite`; else at the features alone.
    """
    if isinstance(network.backbone, Lite):
        return network.backbone.with_middle(images)
    features = network.backbone(images)
    return features, features


class GuardHead(nn.Module):
    """Maps what the guard looks at (B, G) to scores and distances (B, 2).

    The score is that of a network with one hidden layer. The distance is that of Mahalanobis from
    the figures of the training (Lee et al., "A simple unified framework for detecting
    out-of-distribution samples", NeurIPS 2018), in standardised features.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    whitening: torch.Tensor
    centre: torch.Tensor

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("whitening", torch.eye(inputs))
        self.register_buffer("centre", torch.zeros(inputs))

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """Score and distance of (B, G), (B, 2)."""
        x = (seen - self.mean) / self.scale
        distance = ((x @ self.whitening - self.centre) ** 2).mean(dim=1, keepdim=True).sqrt()
        return torch.cat([self.score(x), distance], dim=1)


def heads_from(tensors: dict[str, torch.Tensor]) -> list[GuardHead]:
    """Build heads from the tensors of :func:`tensors_of`.

    Raises:
        KeyError: A tensor is missing.
        RuntimeError: One has another shape.
    """
    heads: list[GuardHead] = []
    while f"{len(heads)}.mean" in tensors:
        own = f"{len(heads)}."
        state = {k.removeprefix(own): v for k, v in tensors.items() if k.startswith(own)}
        hidden, inputs = state["score.0.weight"].shape
        head = GuardHead(inputs, hidden)
        head.load_state_dict(state)
        heads.append(head.eval())
    return heads


def tensors_of(heads: Sequence[GuardHead]) -> dict[str, torch.Tensor]:
    """Give the tensors of heads, named by number."""
    return {
        f"{i}.{name}": tensor.detach().cpu().contiguous()
        for i, head in enumerate(heads)
        for name, tensor in head.state_dict().items()
    }
