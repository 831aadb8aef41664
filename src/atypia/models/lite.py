"""EfficientNet-Lite for prediction: timm's network without timm, and faster.

Importing timm takes longer than importing torch. The networks that Atypia ships are written down
here under timm's names: the weights of either fill the other, and they give the same answers.

EfficientNet: Tan and Le, ICML 2019. Lite has ReLU6 instead of SiLU, no squeeze-and-excitation, and
a stem and a head that do not grow (github.com/tensorflow/tpu, models/official/efficientnet/lite).
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from atypia.models.network import Network

SCALES: Final = {
    "tf_efficientnet_lite0": (1.0, 1.0),
    "tf_efficientnet_lite1": (1.0, 1.1),
    "tf_efficientnet_lite2": (1.1, 1.2),
    "tf_efficientnet_lite3": (1.2, 1.4),
    "tf_efficientnet_lite4": (1.4, 1.8),
}
"""Backbone to the factors on its width and on its depth."""
_N_FEATURES: Final = 1280

# Expansion, kernel, stride, blocks, channels; the first and the last stage do not get deeper.
_STAGES: Final = (
    (1, 3, 1, 1, 16),
    (6, 3, 2, 2, 24),
    (6, 5, 2, 2, 40),
    (6, 3, 2, 3, 80),
    (6, 5, 1, 3, 112),
    (6, 5, 2, 4, 192),
    (6, 3, 1, 1, 320),
)

_LOOKED_INTO: Final = (2, 3, 4)
"""Stages whose middle a guard looks at, in maps of 1/8 and 1/16 of the side."""
_MIDDLE: Final = 0.15
"""Standard deviation of the Gaussian around it, in sides of the map."""


class _Conv(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow pads ("same")."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        padding = (kernel - 1) // 2 if stride == 1 else 0
        super().__init__(
            inputs, outputs, kernel, stride, padding=padding, groups=groups, bias=False
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, D, H / stride, W / stride), rounded up."""
        stride, kernel = self.stride[0], self.kernel_size[0]
        if stride > 1:
            edges = []
            for size in (images.shape[3], images.shape[2]):  # from the last axis on
                missing = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
                edges += [missing // 2, missing - missing // 2]
            images = functional.pad(images, edges)
        return super().forward(images)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Separable(nn.Module):
    """Depthwise convolution, then a linear mix of the channels."""

    pairs: ClassVar = (("conv_dw", "bn1"), ("conv_pw", "bn2"))

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _Conv(inputs, inputs, kernel, stride, groups=inputs)
        self.bn1 = _norm(inputs)
        self.conv_pw = _Conv(inputs, outputs, 1)
        self.bn2 = _norm(outputs)
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y: torch.Tensor = functional.relu6(self.bn1(self.conv_dw(x)), inplace=True)
        y = self.bn2(self.conv_pw(y))
        return y + x if self.has_skip else y


class _Inverted(nn.Module):
    """Inverted residual: widen, convolve each channel, mix them linearly to fewer."""

    pairs: ClassVar = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.conv_pw = _Conv(inputs, width, 1)
        self.bn1 = _norm(width)
        self.conv_dw = _Conv(width, width, kernel, stride, groups=width)
        self.bn2 = _norm(width)
        self.conv_pwl = _Conv(width, outputs, 1)
        self.bn3 = _norm(outputs)
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y: torch.Tensor = functional.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        y = functional.relu6(self.bn2(self.conv_dw(y)), inplace=True)
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.has_skip else y


class Lite(nn.Module):
    """Maps (B, 3, S, S) to features (B, n_features). For prediction: it has no stochastic depth.

    With a `reduction` it stops where feature maps have 1/reduction of S, and has no head.
    """

    pairs: ClassVar = (("conv_stem", "bn1"), ("conv_head", "bn2"))

    def __init__(self, name: str, reduction: int | None = None) -> None:
        super().__init__()
        width, depth = SCALES[name]
        inputs, reduced = 32, 2
        self.conv_stem = _Conv(3, inputs, 3, stride=2)
        self.bn1 = _norm(inputs)
        self.blocks = nn.Sequential()
        for expansion, kernel, stride, n, channels in _STAGES:
            reduced *= stride
            if reduction is not None and reduced > reduction:
                break
            outputs = _scaled(channels, width)
            n_blocks = n if n == 1 else math.ceil(n * depth)
            stage = nn.Sequential()
            for i in range(n_blocks):
                step = stride if i == 0 else 1
                if expansion == 1:
                    stage.append(_Separable(inputs, outputs, kernel, step))
                else:
                    stage.append(_Inverted(inputs, outputs, kernel, step, expansion))
                inputs = outputs
            self.blocks.append(stage)
        self.has_head = reduction is None
        self.n_features = _N_FEATURES if self.has_head else inputs
        if self.has_head:
            self.conv_head = _Conv(inputs, _N_FEATURES, 1)
            self.bn2 = _norm(_N_FEATURES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mean features of normalised images."""
        return self.with_middle(images)[0]

    def with_middle(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean features (B, n_features), and the same beside the :func:`middle` of some maps."""
        x = functional.relu6(self.bn1(self.conv_stem(images)), inplace=True)
        middles = []
        for i, stage in enumerate(self.blocks):
            x = stage(x)
            if i in _LOOKED_INTO:
                middles.append(middle(x))
        if self.has_head:
            x = functional.relu6(self.bn2(self.conv_head(x)), inplace=True)
        features = x.mean((2, 3))
        return features, torch.cat([features, *middles], dim=1)


def middle(maps: torch.Tensor) -> torch.Tensor:
    """Mean of maps (B, C, H, W) around their middle, (B, C), weighted by a Gaussian."""
    down, across = (_around_middle(side, maps.device) for side in maps.shape[2:])
    return (maps * down[:, None] * across).sum((2, 3))


def _around_middle(side: int, device: torch.device) -> torch.Tensor:
    from_middle = (torch.arange(side, device=device) + 0.5) / side - 0.5
    weights = torch.exp(-((from_middle / _MIDDLE) ** 2) / 2)
    return weights / weights.sum()


def fused(network: Network) -> Network:
    """Copy a network with each batch normalisation folded into the convolution before it.

    A network without a :class:`Lite` is returned as it is.
    """
    if not any(isinstance(module, Lite) for module in network.backbone.modules()):
        return network
    network = copy.deepcopy(network).eval()
    for module in list(network.backbone.modules()):
        for conv, norm in getattr(module, "pairs", ()):
            if not hasattr(module, conv):  # a head that was cut off
                continue
            parts: Any = (module.get_submodule(conv), module.get_submodule(norm))
            setattr(module, conv, fuse_conv_bn_eval(*parts))
            setattr(module, norm, nn.Identity())
    network.to(memory_format=torch.channels_last)
    return network


def _scaled(channels: int, width: float) -> int:
    """Channels times a factor, a multiple of 8 that is not more than a tenth below."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded
