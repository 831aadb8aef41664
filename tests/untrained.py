"""A network that was never trained: quick to make, and its answers vary with the patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atypia.classifiers.ensemble import Ensemble


def untrained_ensemble() -> Ensemble:
    """An ensemble of one small network with random weights, the same each time."""
    import torch

    from atypia.classifiers.ensemble import Ensemble
    from atypia.core.config import InputConfig, ModelConfig
    from atypia.models.network import make_network

    torch.manual_seed(1)
    model = ModelConfig(backbone="test_convnext", pretrained=False)
    size = InputConfig(field_of_view_um=18, size_px=48)
    network, spec, _ = make_network(model, size, initial_weights=False)
    return Ensemble([network.eval()], spec, model, tta=False)
