"""The network: a backbone and a linear head with one score per subtype (and rater)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from atypia.config import InputSpec
from atypia.labels import N_SUBTYPES
from atypia.models.depthwise import speed_up_small_maps

if TYPE_CHECKING:
    from atypia.config import InputConfig, ModelConfig


class Network(nn.Module):
    """Maps normalised images (B, 3, S, S) to logits (B, 8).

    With several raters each has scores of its own while the network learns, (B, R * 8); those of
    the first one answer.
    """

    def __init__(
        self, backbone: nn.Module, n_features: int, dropout: float, n_raters: int = 1
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(n_features, n_raters * N_SUBTYPES)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Score images (B, 3, S, S) float32; returns logits (B, 8), in training (B, R * 8)."""
        scores = cast("torch.Tensor", self.head(self.dropout(self.backbone(images))))
        return scores if self.training else scores[:, :N_SUBTYPES]

    def start_from(self, prior: torch.Tensor) -> None:
        """Let the first answer be the class distribution (8,), not "all eight are as likely".

        Else the first epochs are spent on learning how rare the rare classes are, at the cost of
        their weights (Lin et al., ICCV 2017, section 3.3).
        """
        with torch.no_grad():
            self.head.bias.copy_(prior.log().repeat(len(self.head.bias) // N_SUBTYPES))

    def answering_tensors(self) -> dict[str, torch.Tensor]:
        """Weights without the scores of further raters, to be saved."""
        tensors = self.state_dict()
        for name in ("head.weight", "head.bias"):
            tensors[name] = tensors[name][:N_SUBTYPES]
        return tensors

    def freeze_backbone(self, frozen: bool) -> None:
        """Let only the head learn, or everything. A frozen backbone stays in evaluation mode."""
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(not frozen)
        self._frozen = frozen

    def train(self, mode: bool = True) -> Network:
        """Switch to training mode, except for a frozen backbone."""
        super().train(mode)
        if getattr(self, "_frozen", False):
            self.backbone.eval()
        return self

    def parameter_groups(self, weight_decay: float) -> list[dict[str, object]]:
        """Parameters for an optimiser: matrices and kernels decay, biases and norms do not."""
        decayed: list[nn.Parameter] = []
        kept: list[nn.Parameter] = []
        for parameter in self.parameters():
            (decayed if parameter.ndim > 1 else kept).append(parameter)
        return [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]


def make_network(
    model: ModelConfig, size: InputConfig, *, initial_weights: bool = True, n_raters: int = 1
) -> tuple[Network, InputSpec, str]:
    """Build a network from its configuration.

    Args:
        model: Backbone, weights, dropout.
        size: Field of view and pixels of the input.
        initial_weights: False skips pretrained weights, for a network that is about to be loaded.
        n_raters: How many raters get scores of their own while the network learns.

    Returns:
        The network, what it sees, and the origin of its initial weights.
    """
    # Importing timm takes seconds, and prediction need not know it; see atypia.models.lite.
    from atypia.models.backbones import make_backbone

    backbone = make_backbone(
        model.backbone,
        size_px=size.size_px,
        pretrained=model.pretrained and initial_weights,
        weights=Path(model.weights) if model.weights else None,
        drop_path=model.drop_path,
        reduction=model.reduction,
    )
    spec = InputSpec(
        field_of_view_um=size.field_of_view_um,
        size_px=size.size_px,
        mean=backbone.mean,
        std=backbone.std,
    )
    speed_up_small_maps(backbone.module)
    network = Network(backbone.module, backbone.n_features, model.dropout, n_raters)
    return network, spec, backbone.origin
