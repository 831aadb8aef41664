"""Low-rank adaptation: a large backbone stays as it is and learns small additions to its matrices.

Each chosen matrix W (or convolution of 1 x 1 pixels) gets a product of two thin ones, W + (alpha /
rank) B A, of which only A and B learn (LoRA: Hu et al., ICLR 2022). B starts at zero: the network
starts as the pretrained one. A saved network holds W + (alpha / rank) B A and needs no peft.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from atypia.core.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from atypia.core.config import ModelConfig

_MARK: Final = "lora_"  # in the names that peft gives to A and B
_ATTENTION: Final = re.compile(r"(.*\.)?blocks\.\d+\.attn\.(qkv|q_proj|k_proj|v_proj|proj)")
_MLP: Final = re.compile(r"(.*\.)?blocks\.\d+\.mlp\.(fc\d\w*)")
_POINTWISE: Final = re.compile(r"(.*\.)?(conv_pw|conv_pwl|conv_head)")


def adapt(backbone: nn.Module, model: ModelConfig, size_px: int) -> int:
    """Freeze a backbone of (B, 3, S, S) and add what learns, in place; returns how many numbers.

    A is drawn from torch's generator. Of `model` the ``lora_*`` settings count; the rank is above
    0.

    Raises:
        MissingExtraError: peft is not installed.
        InputError: No matrix of this backbone can be adapted.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError:
        raise MissingExtraError("peft", "lora", "model.lora_rank") from None
    targets = adaptable(backbone, with_mlp=model.lora_targets == "attention_and_mlp")
    if not targets:
        raise InputError(
            f"model.lora_rank: expected a vision transformer or a network of the EfficientNet "
            f"family but got {model.backbone}, in which no matrix is known that could be adapted."
        )
    inject_adapter_in_model(
        LoraConfig(
            r=model.lora_rank,
            lora_alpha=model.lora_alpha,  # type: ignore[arg-type] # any number will do
            lora_dropout=model.lora_dropout,
            target_modules=targets,
        ),
        backbone,
    )
    learning = {n: p for n, p in backbone.named_parameters() if p.requires_grad}
    idle = _idle(backbone, learning, size_px)
    if idle:
        raise InputError(
            f"model.lora_rank: {model.backbone} goes around {len(idle)} of its own layers, such as "
            f"{idle[0]}: what is added there would learn nothing. Choose another backbone."
        )
    return sum(p.numel() for p in learning.values())


def adaptable(backbone: nn.Module, *, with_mlp: bool) -> list[str]:
    """Names of the layers that get something to learn.

    Of a vision transformer: query, key, value and output of its attention, `with_mlp` its MLP as
    well. Of a network of the EfficientNet family: its convolutions of 1 x 1 pixels.
    """
    names = []
    for name, module in backbone.named_modules():
        linear = isinstance(module, nn.Linear) and (
            _ATTENTION.fullmatch(name) or (with_mlp and _MLP.fullmatch(name))
        )
        pointwise = (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (1, 1)
            and module.groups == 1
            and _POINTWISE.fullmatch(name)
        )
        if linear or pointwise:
            names.append(name)
    return names


def adapters(module: nn.Module) -> list[nn.Parameter]:
    """List what learns in an adapted module; empty where nothing was added."""
    return [p for name, p in module.named_parameters() if _MARK in name]


def merged(module: nn.Module) -> nn.Module:
    """Copy a module with what was learned added to its matrices; names are those of the original.

    A module without additions is returned as it is.
    """
    if not adapters(module):
        return module
    from peft.tuners.tuners_utils import BaseTunerLayer

    module = copy.deepcopy(module)
    for name, layer in list(module.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            adapted: Any = layer
            adapted.merge()
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, adapted.get_base_layer())
    return module


def _idle(backbone: nn.Module, learning: dict[str, nn.Parameter], size_px: int) -> list[str]:
    """Names of additions that the backbone's answer does not depend on.

    Some models read a layer's weight instead of calling the layer, which leaves the addition out.
    """
    was_training = backbone.training
    backbone.eval()
    with torch.enable_grad():
        answer = backbone(torch.ones(1, 3, size_px, size_px)).sum()
        gradients = torch.autograd.grad(answer, list(learning.values()), allow_unused=True)
    backbone.train(was_training)
    return [name for name, g in zip(learning, gradients, strict=True) if g is None]
