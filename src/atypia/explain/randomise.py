"""Networks that have forgotten what they learned, from the answer back to the image.

Every tensor of weights keeps its values and loses their order, so that a randomised network is made
of numbers of the same sizes; batch norms measure anew what comes to them. What a map shows of such
a network is what it shows of any: edges, dark places, the middle (Adebayo et al., NeurIPS 2018).
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn

from atypia.models.hierarchical import SideBySide
from atypia.models.transforms import dihedral, normalise, sample_field

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from atypia.classifiers.ensemble import Ensemble
    from atypia.models.network import Network

SHARES: Final = (0.25, 0.5, 0.75, 1.0)
"""Shares of the layers, from the answer back, that a cascade randomises."""
_MOST: Final = 32
"""Patches that batch norms are measured on, in eight views each."""


def randomised(
    ensemble: Ensemble,
    patches: npt.NDArray[np.uint8],
    mpp: float,
    share: float = 1.0,
    seed: int = 0,
) -> Ensemble:
    """Copy an ensemble with shuffled weights, in a `share` of the layers from the answer back.

    Statistics of batch norms are those of `patches`, (N, H, W, 3).
    """
    pixels = torch.from_numpy(np.ascontiguousarray(patches[:_MOST])).to(ensemble.device)
    members = []
    for i, (member, spec) in enumerate(zip(ensemble.members, ensemble.specs or (), strict=True)):
        network = copy.deepcopy(member).eval()
        generator = torch.Generator().manual_seed(1000 * seed + i)
        for layer in _last(network, share):
            for parameter in layer.parameters(recurse=False):
                _shuffle(parameter, generator)
        _measure_norms(network, normalise(sample_field(pixels, mpp, spec), spec))
        members.append(network)
    return dataclasses.replace(ensemble, members=members)


def _last(network: Network, share: float) -> list[nn.Module]:
    """List the last layers with weights, from the answer back, alike in backbones side by side."""
    backbone = network.backbone
    parts: Iterable[nn.Module] = (
        backbone.backbones if isinstance(backbone, SideBySide) else [backbone]
    )
    chosen = [m for m in network.head.modules() if _has_weights(m)]
    for part in parts:
        layers = [m for m in part.modules() if _has_weights(m)]
        chosen += layers[round((1 - share) * len(layers)) :]
    return chosen


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _shuffle(parameter: nn.Parameter, generator: torch.Generator) -> None:
    order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
    with torch.no_grad():
        parameter.copy_(parameter.flatten()[order].view_as(parameter))


@torch.no_grad()
def _measure_norms(network: Network, images: torch.Tensor) -> None:
    """Let batch norms take mean and variance from the images."""
    norms: list[Any] = [
        m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    network(torch.cat(list(dihedral(images))).contiguous(memory_format=torch.channels_last))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
