"""Small maps through matrix products give what the convolution gives, forward and backward."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from atypia.core.config import InputConfig, ModelConfig
from atypia.models.cpu_speed import SmallMapDepthwise, speed_up_small_maps
from atypia.models.network import make_network


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (3, 3), (4, 4), (2, 5), (6, 6)])
@pytest.mark.parametrize("kernel", [3, 5, (3, 5)])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_the_convolution(
    height: int, width: int, kernel: int | tuple[int, int], bias: bool
) -> None:
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    torch.manual_seed(0)
    plain = nn.Conv2d(
        6, 6, sides, padding=(sides[0] // 2, sides[1] // 2), groups=6, bias=bias
    ).double()
    fast = copy.deepcopy(plain)
    speed_up_small_maps(fast)
    assert type(fast) is SmallMapDepthwise
    gradient = torch.randn(3, 6, height, width, dtype=torch.float64)
    found = []
    for conv in (plain, fast):
        maps = torch.arange(3 * 6 * height * width, dtype=torch.float64).view_as(gradient)
        maps = (maps / 10).sin().contiguous(memory_format=torch.channels_last).requires_grad_()
        answer = conv(maps)
        answer.backward(gradient)
        found.append([answer.detach(), maps.grad, *(p.grad for p in conv.parameters())])
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, stride=2, groups=4),
        nn.Conv2d(4, 4, 3, padding=0, groups=4),
        nn.Conv2d(4, 4, 2, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
    ],
)
def test_other_convolutions_are_left_alone(other: nn.Conv2d) -> None:
    speed_up_small_maps(other)
    assert type(other) is nn.Conv2d


def test_a_network_learns_the_same_with_and_without() -> None:
    config = ModelConfig(backbone="tf_efficientnet_lite0", pretrained=False)
    torch.manual_seed(0)
    network, _, _ = make_network(config, InputConfig(field_of_view_um=18, size_px=64))
    assert sum(type(m) is SmallMapDepthwise for m in network.modules()) == 12
    plain = copy.deepcopy(network)
    for module in plain.modules():
        if type(module) is SmallMapDepthwise:
            module.__class__ = nn.Conv2d
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for each in (network, plain):
        each.train().double()
        each(images.double()).square().sum().backward()
        gradients.append([p.grad for p in each.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])
