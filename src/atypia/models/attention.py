"""Attention of few tokens, written out: faster to train in bf16 on a CPU than the fused kernel.

A mitotic figure is some forty tokens. Measured with LoRA on a ViT-S, 32 images of 6 x 6 tokens, one
thread of an AMD EPYC: a step took 1,146 ms with the fused kernel and 831 ms without, in bf16; in
fp32 the two are alike (1,649 and 1,687 ms). Images of many tokens were not measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def write_out_attention(network: nn.Module) -> None:
    """Let timm's attention layers inside `network` multiply step by step; weights stay.

    The same numbers up to rounding. Layers without a choice are left alone.
    """
    for layer in network.modules():
        if hasattr(layer, "fused_attn"):
            layer.fused_attn = False  # type: ignore[assignment] # a bool, for TorchScript
