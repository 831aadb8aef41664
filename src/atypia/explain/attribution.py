"""Occlusion and integrated gradients, as the package captum does them.

Both compare the image with a flat field in its median colour, which is that of the tissue around a
figure. Black or grey, the usual choices, are colours that no slide has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from atypia.core.errors import MissingExtraError
from atypia.explain.target import log_odds

if TYPE_CHECKING:
    from collections.abc import Callable

    from atypia.core.config import InputSpec
    from atypia.models.network import Network

WINDOW_UM: Final = 4.5
"""Side of the square that is hidden: a part of most figures, not all of one."""
STRIDE_UM: Final = 3.0
STEPS: Final = 8
"""Points on the way from nothing to the image, at the nodes of Gauss and Legendre."""
_BATCH: Final = 64


def nothing(images: torch.Tensor) -> torch.Tensor:
    """Make a flat field in the median colour of each of the images (B, 3, S, S)."""
    median = images.flatten(2).median(dim=2).values
    return median[:, :, None, None].expand_as(images).contiguous()


def occlusion(
    network: Network, images: torch.Tensor, targets: torch.Tensor, spec: InputSpec
) -> torch.Tensor:
    """Map by how much the log-odds fall when a square is hidden (Zeiler and Fergus, ECCV 2014).

    Arguments as for :func:`atypia.explain.cam.activation_map`; the mean over the squares that hid a
    pixel, (B, S, S).

    Raises:
        MissingExtraError: captum is not installed.
    """
    pixels_per_um = spec.size_px / spec.field_of_view_um
    window = max(1, min(spec.size_px, round(WINDOW_UM * pixels_per_um)))
    stride = max(1, min(window, round(STRIDE_UM * pixels_per_um)))
    with torch.no_grad():
        found: torch.Tensor = (
            _captum()
            .Occlusion(_scores(network))
            .attribute(
                images,
                sliding_window_shapes=(3, window, window),
                strides=(3, stride, stride),
                baselines=nothing(images),
                additional_forward_args=(targets,),
                perturbations_per_eval=max(1, _BATCH // len(images)),
            )
        )
    return found[:, 0].detach()  # all channels are hidden together, hence equal


def integrated_gradients(
    network: Network, images: torch.Tensor, targets: torch.Tensor, spec: InputSpec
) -> torch.Tensor:
    """Map each pixel's share of the difference to a flat field (Sundararajan et al., ICML 2017).

    Arguments as for :func:`atypia.explain.cam.activation_map`. Maps (B, S, S) sum to the log-odds
    of the image less those of the flat field.

    Raises:
        MissingExtraError: captum is not installed.
    """
    del spec
    found: torch.Tensor = (
        _captum()
        .IntegratedGradients(_scores(network))
        .attribute(
            images,
            baselines=nothing(images),
            additional_forward_args=(targets,),
            n_steps=STEPS,
            method="gausslegendre",
            internal_batch_size=_BATCH,
        )
    )
    return found.sum(1).detach().float()


def _scores(network: Network) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def score(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        images = images.to(memory_format=torch.channels_last)
        return log_odds(network(images), targets)

    return score


def _captum() -> Any:
    try:
        from captum import attr
    except ModuleNotFoundError:
        raise MissingExtraError("captum", "explain", "--method occlusion or integrated") from None
    return attr
