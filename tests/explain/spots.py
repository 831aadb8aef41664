"""Networks whose evidence is at a known place, and the images that show it."""

from __future__ import annotations

import numpy as np
import timm
import torch
from torch import nn
from torch.nn import functional

from atypia.classifiers.ensemble import Ensemble
from atypia.core.config import InputSpec, ModelConfig
from atypia.models.hierarchical import SideBySide
from atypia.models.network import Network

SIZE = 32
MPP = 0.5
SPEC = InputSpec(field_of_view_um=16.0, size_px=SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
MODEL = ModelConfig(backbone="test_convnext", pretrained=False)
TARGET = 2
TISSUE = (200, 160, 190)


class RedFinder(nn.Module):
    """Finds red, and says how much of it there is: its evidence is where red is."""

    def __init__(self) -> None:
        super().__init__()
        self.find = nn.Conv2d(3, 2, 4, stride=4)
        self.feature_info = [{"module": "find"}]
        with torch.no_grad():
            self.find.weight.zero_()
            self.find.weight[0, 0] = 1 / 16
            self.find.weight[0, 1:] = -0.5 / 16
            self.find.bias.copy_(torch.tensor([-0.25, 1.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.find(images)).mean((2, 3))


def red_network(stages: str = "one") -> Network:
    """A network that calls red the subtype TARGET."""
    separate = stages == "separate"
    backbone = SideBySide([RedFinder() for _ in range(3)]) if separate else RedFinder()
    network = Network(backbone, 6 if separate else 2, 0.0, 1, stages)
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.zero_()
        if stages == "one":
            network.head.weight[TARGET, 0] = 40.0
        else:
            network.head.side.weight[0, 0] = 40.0
            network.head.atypical.weight[TARGET, 0] = 40.0
    return network.eval()


def ensemble_of(members: list[Network], spec: InputSpec = SPEC) -> Ensemble:
    return Ensemble(
        members=members,
        spec=spec,
        model=MODEL,
        tta=True,
    )


def tissue(n: int, seed: int = 0, side: int = SIZE) -> np.ndarray:
    """Patches (n, side, side, 3) without a spot."""
    noise = np.random.default_rng(seed).normal(0, 6, (n, side, side, 3))
    return np.clip(np.array(TISSUE) + noise, 0, 255).astype(np.uint8)


def spotted(
    n: int, seed: int = 0, colour: tuple[int, int, int] = (230, 20, 40), side: int = SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Patches with a square of 6 x 6 pixels at a random place, and its corner (n, 2)."""
    patches = tissue(n, seed, side)
    corners = np.random.default_rng(seed + 1).integers(2, side - 8, (n, 2))
    for patch, (row, column) in zip(patches, corners, strict=True):
        patch[row : row + 6, column : column + 6] = colour
    return patches, corners


def inside(maps: np.ndarray, corners: np.ndarray, margin: int = 2) -> np.ndarray:
    """Whether each map is strongest in its square, or at most `margin` pixels from it."""
    found = []
    for map_, corner in zip(maps, corners, strict=True):
        peak = np.array(np.unravel_index(map_.argmax(), map_.shape))
        found.append(bool(((peak >= corner - margin) & (peak <= corner + 5 + margin)).all()))
    return np.array(found)


class TinyConv(nn.Module):
    """Two convolutions with batch norms; learns to find spots in a second."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.feature_info = [{"module": "first"}, {"module": "second"}]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(images)).mean((2, 3))


def tiny_transformer() -> nn.Module:
    """timm's vision transformer, small, answering by its class token; the same one each time."""
    torch.manual_seed(0)
    return timm.models.VisionTransformer(
        img_size=SIZE, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=0,
        global_pool="token",
    )  # fmt: skip


def trained(backbone: nn.Module, n_features: int, steps: int, seed: int = 0) -> Network:
    """Teach a network that a red spot is TARGET, a blue one or none is another subtype."""
    torch.manual_seed(seed)
    network = Network(backbone, n_features, 0.0)
    for parameter in backbone.parameters():
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=0.1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    network.train()
    for step in range(steps):
        red, _ = spotted(8, seed=10_000 + 2 * step)
        blue, _ = spotted(4, seed=20_000 + 2 * step, colour=(30, 40, 220))
        pixels = np.concatenate([red, blue, tissue(4, seed=30_000 + step)])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        labels = torch.tensor([TARGET] * 8 + [6] * 8)
        loss = functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()
