"""The network: a backbone and a head with one score per subtype (and rater)."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from atypia.core.config import InputSpec
from atypia.core.errors import InputError
from atypia.core.labels import N_SUBTYPES
from atypia.models.cpu_speed import speed_up_small_maps
from atypia.models.hierarchical import N_STAGES, SideBySide, StagedHead
from atypia.models.lora import adapt, adapters, merged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from atypia.core.config import InputConfig, ModelConfig, Stages
    from atypia.models.backbones import Backbone


class FlatHead(nn.Linear):
    """Maps features (B, F) to logits of the subtypes (B, R * 8), R raters side by side."""

    def __init__(self, in_features: int, n_raters: int = 1) -> None:
        super().__init__(in_features, n_raters * N_SUBTYPES)
        self.n_raters = n_raters
        nn.init.trunc_normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)

    def start_from(self, prior: torch.Tensor) -> None:
        """Let the first answer be the class distribution (8,)."""
        with torch.no_grad():
            self.bias.copy_(prior.log().repeat(self.n_raters))


class Network(nn.Module):
    """Maps normalised images (B, 3, S, S) to logits (B, 8).

    With several raters each has scores of its own while the network learns, (B, R * 8); those of
    the first one answer. The backbone maps images to features (B, F); for the stages ``separate``
    it is a :class:`SideBySide`, see :mod:`atypia.models.hierarchical`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        dropout: float,
        n_raters: int = 1,
        stages: Stages = "one",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head: FlatHead | StagedHead = (
            FlatHead(n_features, n_raters)
            if stages == "one"
            else StagedHead(n_features, n_raters, separate=stages == "separate")
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Score images (B, 3, S, S) float32; returns logits (B, 8), in training (B, R * 8)."""
        return self.scores(self.backbone(images))

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """Score features (B, F); returns what the network returns of their images."""
        scores = cast("torch.Tensor", self.head(self.dropout(features)))
        return scores if self.training else scores[:, :N_SUBTYPES]

    def on(self, backbone: nn.Module) -> Network:
        """Put the same head on a backbone; neither is copied."""
        other = copy.copy(self)
        other._modules = self._modules | {"backbone": backbone}
        return other

    def start_from(self, prior: torch.Tensor) -> None:
        """Let the first answer be the class distribution (8,), not "all eight are as likely".

        Else the first epochs are spent on learning how rare the rare classes are, at the cost of
        their weights (Lin et al., ICCV 2017, section 3.3).
        """
        self.head.start_from(prior)

    def answering_tensors(self) -> dict[str, torch.Tensor]:
        """Weights to be saved: additions merged, the scores of further raters left out."""
        return {
            name: tensor[: len(tensor) // self.head.n_raters]
            if name.startswith("head.")
            else tensor
            for name, tensor in merged(self).state_dict().items()
        }

    def freeze_backbone(self, frozen: bool) -> None:
        """Let only the head learn, or all that may. A frozen backbone stays in evaluation mode."""
        for parameter in adapters(self.backbone) or self.backbone.parameters():
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

    Without `initial_weights` it is one that is about to be loaded. Returns the network, what it
    sees, and the origin of its initial weights.
    """
    # Importing timm takes seconds, and prediction does without; see atypia.models.lite.
    from atypia.models.backbones import make_backbone

    def make() -> Backbone:
        made = make_backbone(
            model.backbone,
            size_px=size.size_px,
            pretrained=model.pretrained and initial_weights,
            weights=Path(model.weights) if model.weights else None,
            drop_path=model.drop_path,
            reduction=model.reduction,
        )
        speed_up_small_maps(made.module)
        if model.lora_rank and initial_weights:  # what is loaded has the additions merged
            adapt(made.module, model, size.size_px)
        return made

    backbones = [make() for _ in range(n_backbones(model))]
    first = backbones[0]
    spec = InputSpec(
        field_of_view_um=size.field_of_view_um, size_px=size.size_px, mean=first.mean, std=first.std
    )
    network = assemble([b.module for b in backbones], first.n_features, model, n_raters)
    return network, spec, first.origin


def n_backbones(model: ModelConfig) -> int:
    """How many backbones of its kind a network has."""
    return N_STAGES if model.stages == "separate" else 1


@contextmanager
def at_most_parameters(most: int) -> Iterator[None]:
    """Stop a network that is built in this block once it has more parameters than `most`.

    torch reserves memory for a layer and fills it later, so that a giant one costs little until it
    is refused.

    Raises:
        InputError: It has more.
    """
    total = 0

    def count(_: nn.Module, __: str, parameter: nn.Parameter) -> None:
        nonlocal total
        total += 0 if parameter is None else parameter.numel()
        if total > most:
            raise InputError(
                f"expected a network of at most {most / 1e6:,.0f} million parameters, for which "
                "its file of weights has room, but it has more. Copy the model again."
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def assemble(
    backbones: Sequence[nn.Module], n_features: int, model: ModelConfig, n_raters: int = 1
) -> Network:
    """Join a head and :func:`n_backbones` backbones, each of which gives features (B, F)."""
    backbone = backbones[0] if len(backbones) == 1 else SideBySide(backbones)
    n_features *= len(backbones)
    return Network(backbone, n_features, model.dropout, n_raters, model.stages)
