"""Class activation maps: where a layer's activations, times their gradients, speak for a target.

The product is summed over channels at each place, without averaging the gradients first (HiResCAM:
Draelos and Carin 2020). Where features are pooled by their mean and scored by one linear layer,
that is Grad-CAM (Selvaraju et al., ICCV 2017); elsewhere it is still a first-order account of the
score, and in a transformer it keeps what each token gives to the class token. Negative evidence is
kept.

The layer is the deepest one whose map is still fine enough: the last one of a network that sees 80
pixels has 3 x 3 places. All blocks of a transformer have the same places; their mean is taken.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import LayerNorm, Sequential, functional

from atypia.core.errors import InputError
from atypia.explain.target import log_odds
from atypia.models.hierarchical import SideBySide
from atypia.models.lite import Lite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from atypia.core.config import InputSpec
    from atypia.models.network import Network

LEAST_PLACES: Final = 8
"""Places along a side that a layer must have, where the network has such a layer."""


def activation_map(
    network: Network, images: torch.Tensor, targets: torch.Tensor, spec: InputSpec
) -> torch.Tensor:
    """Map what speaks for (above 0) and against (below 0) the targets.

    Args:
        network: In evaluation mode.
        images: (B, 3, S, S) normalised.
        targets: (B,); see :func:`atypia.explain.target.log_odds`.
        spec: What the network sees.

    Returns:
        (B, S, S); in a layer that is pooled by its mean, places sum to the score but for a
        constant.

    Raises:
        InputError: The backbone has no layer that is known to keep places apart.
    """
    del spec
    backbone = network.backbone
    parts = list(backbone.backbones) if isinstance(backbone, SideBySide) else [backbone]
    total = torch.zeros(len(images), *images.shape[2:], device=images.device)
    with torch.enable_grad(), _recorded([_layers(part) for part in parts]) as recorded:
        score = log_odds(network(images), targets).sum()
        chosen = [
            (part, output)
            for part, outputs in zip(parts, recorded, strict=True)
            for output in _choose(part, outputs)
        ]
        gradients = torch.autograd.grad(score, [output for _, output in chosen])
    for (part, activation), gradient in zip(chosen, gradients, strict=True):
        places = _places(part, (activation * gradient).detach())  # (B, h, w)
        scale = places.shape[1] * places.shape[2] / images.shape[2] / images.shape[3]
        total += _enlarged(places, images.shape[2]) * (scale * len(parts) / len(chosen))
    return total


def _layers(backbone: Any) -> list[nn.Module]:
    """Layers whose outputs keep places apart, from the first to the last."""
    if isinstance(backbone, Lite):
        return list(backbone.blocks)
    trunk = getattr(backbone, "trunk", backbone)
    if hasattr(trunk, "num_prefix_tokens"):
        # Behind the last attention a token is not looked at again where the class token answers.
        return [block.norm1 for block in trunk.blocks]
    known = dict(trunk.named_modules())
    infos = list(getattr(trunk, "feature_info", []))
    names = [info["module"] for info in infos if info["module"] in known]  # others were cut off
    if not names:
        raise InputError(
            f"--method gradcam: expected a network of timm with named stages or a vision "
            f"transformer but got {type(trunk).__name__}. The methods occlusion and integrated "
            "work with any."
        )
    return _before_what_normalises([known[name] for name in names])


def _before_what_normalises(stages: list[nn.Module]) -> list[nn.Module]:
    """Take, for a stage whose places the next one normalises (ConvNeXt), the normalised places.

    A norm does not care how large a place's activations are: the sum of their products with the
    gradients is zero before it, at every place.
    """
    layers = list(stages)
    for i, following in enumerate(stages[1:]):
        downsample = getattr(following, "downsample", None)
        if isinstance(downsample, Sequential) and isinstance(downsample[0], LayerNorm):
            layers[i] = downsample[0]
    return layers


@contextmanager
def _recorded(groups: list[list[nn.Module]]) -> Iterator[list[list[torch.Tensor]]]:
    """Note what the layers of each group put out in this thread, while the block runs.

    A server asks the same network for answers in other threads.
    """
    thread = threading.get_ident()
    recorded: list[list[torch.Tensor]] = [[] for _ in groups]
    handles = []
    for layers, outputs in zip(groups, recorded, strict=True):

        def note(
            _: nn.Module, __: Any, output: torch.Tensor, outputs: list[torch.Tensor] = outputs
        ) -> None:
            if threading.get_ident() == thread:
                outputs.append(output)

        handles += [layer.register_forward_hook(note) for layer in layers]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _choose(backbone: Any, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Choose all outputs of a transformer, else the deepest one with enough places or with most."""
    if outputs[0].ndim == 3:
        return outputs

    def side(output: torch.Tensor) -> int:
        return _places(backbone, output.detach()).shape[1]

    enough = [output for output in outputs if side(output) >= LEAST_PLACES]
    return [enough[-1] if enough else max(outputs, key=side)]


def _places(backbone: Any, product: torch.Tensor) -> torch.Tensor:
    """Sum a layer's products over channels and put them where they lie in the image: (B, h, w)."""
    trunk = getattr(backbone, "trunk", backbone)
    if product.ndim == 3:  # (B, prefix + h w, D)
        squares = product[:, trunk.num_prefix_tokens :].sum(2)
        return squares.view(len(squares), *trunk.patch_embed.grid_size)
    channels = 3 if getattr(trunk, "output_fmt", "NCHW") == "NHWC" else 1
    return product.sum(channels)


def _enlarged(places: torch.Tensor, side: int) -> torch.Tensor:
    """Interpolate (B, h, w) to (B, side, side)."""
    enlarged = functional.interpolate(
        places[:, None], size=(side, side), mode="bilinear", align_corners=False
    )
    return enlarged[:, 0]
