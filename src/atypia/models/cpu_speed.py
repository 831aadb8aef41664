"""Layers written so that they train faster on a CPU: the same numbers, up to rounding."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

LARGEST_MAP = 16
"""Pixels up to which the products are faster than the convolution: measured with 48 maps of 1,152
channels and 5 x 5 taps, forward and backward, 8 ms against 62 ms at 2 x 2, 13 ms against 65 ms at
3 x 3, and 33 ms against 53 ms (672 channels) at 4 x 4; at 5 x 5 the convolution wins."""


class SmallMapDepthwise(nn.Conv2d):
    """A depthwise convolution of stride 1 that keeps the size of its map.

    On the small maps of an EfficientNet's last stages its backward pass is the slowest part of a
    training step on a CPU. There it is a product with an (S, S) matrix of a channel's weights on
    S pixels; everything else goes through the ordinary convolution.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Filter each channel of (B, C, H, W) on its own; returns (B, C, H, W)."""
        batch, channels, height, width = input.shape
        size = height * width
        if not self.training or input.device.type != "cpu" or size > LARGEST_MAP:
            return super().forward(input)
        taps = _taps(height, width, *cast("tuple[int, int]", self.kernel_size)).to(input.dtype)
        matrices = (taps @ self.weight.flatten(1).T).view(size, size, channels)
        pixels = input.permute(0, 2, 3, 1).reshape(batch, size, channels)
        product: torch.Tensor = _PixelsTimesMatrices.apply(pixels, matrices)
        output = product.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return output if self.bias is None else output + self.bias[:, None, None]


class _PixelsTimesMatrices(torch.autograd.Function):
    """A matrix product per channel: (B, S, C) with (S, S, C), from, to, gives (B, S, C).

    Channels are the last and longest axis, so sums over few pixels are cheap element-wise passes.
    """

    @staticmethod
    def forward(ctx: Any, pixels: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(pixels, matrices)
        output = pixels[:, 0, None] * matrices[0]
        for i in range(1, len(matrices)):
            output.addcmul_(pixels[:, i, None], matrices[i])
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, matrices = ctx.saved_tensors
        of_pixels = gradient[:, 0, None] * matrices[:, 0]
        for i in range(1, len(matrices)):
            of_pixels.addcmul_(gradient[:, i, None], matrices[:, i])
        of_matrices = torch.stack(
            [(pixels[:, i, None] * gradient).sum(0) for i in range(len(matrices))]
        )
        return of_pixels, of_matrices


@lru_cache(maxsize=32)
def _taps(height: int, width: int, kernel_height: int, kernel_width: int) -> torch.Tensor:
    """Which tap of the kernel joins which two pixels: (S * S, taps) of 0 and 1, from, to."""
    size, n_taps = height * width, kernel_height * kernel_width
    each_tap = torch.eye(n_taps).view(n_taps, 1, kernel_height, kernel_width)
    each_pixel = torch.eye(size).view(size, 1, height, width)
    padding = (kernel_height // 2, kernel_width // 2)
    joined = functional.conv2d(each_pixel, each_tap, padding=padding)  # (from, taps, H, W)
    return joined.flatten(2).transpose(1, 2).reshape(size * size, n_taps)


def speed_up_small_maps(module: nn.Module) -> None:
    """Let the depthwise convolutions inside `module` take the faster way; weights stay."""
    for part in module.modules():
        if type(part) is nn.Conv2d and _keeps_its_map(part):
            part.__class__ = SmallMapDepthwise


def _keeps_its_map(conv: nn.Conv2d) -> bool:
    return (
        conv.groups == conv.in_channels == conv.out_channels > 1
        and conv.stride == (1, 1)
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and all(k % 2 == 1 for k in conv.kernel_size)
        and conv.padding == tuple(k // 2 for k in conv.kernel_size)
    )


def write_out_attention(network: nn.Module) -> None:
    """Let timm's attention layers inside `network` multiply step by step; weights stay.

    Layers without a choice are left alone. With few tokens this trains faster in bf16 than the
    fused kernel: LoRA on a ViT-S, 32 images of 6 x 6 tokens, one thread of an AMD EPYC, took 831 ms
    a step against 1,146 ms; in fp32 the two are alike. Images of many tokens were not measured.
    """
    for layer in network.modules():
        if hasattr(layer, "fused_attn"):
            layer.fused_attn = False  # type: ignore[assignment] # a bool, for TorchScript
