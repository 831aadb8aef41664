"""From an ensemble to maps: averaged over members and views, in the pixels of the patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

from atypia.core.errors import InputError
from atypia.core.progress import OnDone, silent
from atypia.data.field_of_view import check_patches
from atypia.explain.attribution import integrated_gradients, nothing, occlusion
from atypia.explain.cam import activation_map
from atypia.explain.target import log_odds
from atypia.models import lite
from atypia.models.transforms import dihedral, gaussian_blur, normalise, sample_field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from atypia.classifiers.ensemble import Ensemble
    from atypia.core.config import InputSpec
    from atypia.explain.sanity import Maps
    from atypia.models.network import Network

    Method = Callable[[Network, torch.Tensor, torch.Tensor, InputSpec], torch.Tensor]
    """A network, images (B, 3, S, S), targets (B,) and what it sees to maps (B, S, S)."""

METHODS: Final[Mapping[str, Method]] = {
    "gradcam": activation_map,
    "occlusion": occlusion,
    "integrated": integrated_gradients,
}
BATCH: Final = 8
_SMOOTH_UM: Final = 0.5
_STRONG: Final = 99.5
"""Percentile of a map that is shown at full strength: single pixels would leave the rest pale."""


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against a target in N patches."""

    maps: npt.NDArray[np.float32]
    """(N, H, W): above 0 for, below 0 against; 0 beyond the field of view."""
    scores: npt.NDArray[np.float32]
    """(N,) log-odds of the target, mean over members and views."""
    flat_scores: npt.NDArray[np.float32]
    """(N,) the same of a flat field in the patch's median colour."""
    totals: npt.NDArray[np.float32]
    """(N,) sum of the maps over the fields of view; with integrated gradients it is
    `scores - flat_scores`, but for the error of the integration."""


def explain(
    ensemble: Ensemble,
    patches: npt.NDArray[np.uint8],
    mpp: float,
    targets: npt.NDArray[np.int64],
    method: str = "gradcam",
    *,
    on_done: OnDone = silent,
) -> Evidence:
    """Explain the predictions of an ensemble on patches.

    Args:
        ensemble: Its members count; calibration, which changes no order, is left out.
        patches: (N, H, W, 3) uint8 RGB, each centred on one figure.
        mpp: µm per pixel.
        targets: (N,) subtype indices, or :data:`.target.ANY_ATYPICAL`.
        method: One of :data:`METHODS`.
        on_done: Called with the number of patches done since the last call.

    Raises:
        InputError: No such method, patches that the ensemble would refuse, or a network in which
            the method finds no layer.
        MissingExtraError: The method needs captum, which is not installed.
    """
    check_method(method)
    check_patches(patches, mpp, ensemble.specs or ())
    parts = []
    for start in range(0, len(patches), BATCH):
        chosen = slice(start, start + BATCH)
        parts.append(_explain_batch(ensemble, patches[chosen], mpp, targets[chosen], method))
        on_done(len(patches[chosen]))
    if not parts:
        none = np.empty(0, np.float32)
        return Evidence(np.empty(patches.shape[:3], np.float32), none, none, none)
    return Evidence(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def check_method(method: str) -> None:
    """Raise an InputError where there is no such method."""
    if method not in METHODS:
        raise InputError(f"--method: expected one of {list(METHODS)} but got {method!r}.")


def maps_by(method: str) -> Maps:
    """Make the way to maps by one of :data:`METHODS` for :func:`atypia.explain.sanity.check`."""

    def maps_of(
        ensemble: Ensemble,
        patches: npt.NDArray[np.uint8],
        mpp: float,
        targets: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]:
        return explain(ensemble, patches, mpp, targets, method).maps

    return maps_of


def shown(maps: npt.NDArray[np.float32], mpp: float) -> npt.NDArray[np.float32]:
    """Prepare maps (N, H, W) for the eye: smoothed by half a µm, each scaled to -1..1."""
    sigma = _SMOOTH_UM / mpp
    radius = min(int(np.ceil(2.5 * sigma)), min(maps.shape[1:]) - 1)
    layers = torch.from_numpy(maps)[:, None].expand(-1, 3, -1, -1)
    if radius > 0:
        layers = gaussian_blur(layers, torch.full((len(maps),), sigma), radius)
    smooth = layers[:, 0].numpy()
    strongest = np.percentile(np.abs(smooth), _STRONG, axis=(1, 2), keepdims=True)
    scaled = np.divide(smooth, strongest, out=np.zeros_like(smooth), where=strongest > 0)
    return np.asarray(np.clip(scaled, -1, 1))


def _explain_batch(
    ensemble: Ensemble,
    patches: npt.NDArray[np.uint8],
    mpp: float,
    targets: npt.NDArray[np.int64],
    method: str,
) -> tuple[npt.NDArray[np.float32], ...]:
    pixels = torch.from_numpy(np.ascontiguousarray(patches)).to(ensemble.device)
    wanted = torch.from_numpy(targets).to(ensemble.device)
    members = ensemble.members
    weights = np.array(ensemble.join.weights or [1.0] * len(members))
    maps = torch.zeros(patches.shape[:3], device=ensemble.device)
    sums = torch.zeros(3, len(patches), device=ensemble.device)
    for network, spec, weight in zip(
        members, ensemble.specs or (), weights / weights.sum(), strict=True
    ):
        network = lite.fused(network.eval())
        images = normalise(sample_field(pixels, mpp, spec), spec)
        found = field_map(network, images, wanted, spec, METHODS[method])
        sums += float(weight) * torch.stack(
            [
                _mean_score(network, images, wanted),
                _flat_score(network, images, wanted),
                found.sum((1, 2)),
            ]
        )
        maps += float(weight) * _in_patch(found, patches.shape[1:3], mpp, spec)
    return maps.cpu().numpy(), *sums.cpu().numpy()


def field_map(
    network: Network, images: torch.Tensor, targets: torch.Tensor, spec: InputSpec, method: Method
) -> torch.Tensor:
    """Average a network's maps (B, S, S) over the eight rotations and flips, each turned back.

    Turning or flipping the images, (B, 3, S, S) normalised, turns or flips it.
    """
    total = torch.zeros(len(images), *images.shape[2:], device=images.device)
    for i, view in enumerate(dihedral(images)):
        view = view.contiguous(memory_format=torch.channels_last)
        total += _turned_back(method(network, view, targets, spec), i)
    return total / 8


def _turned_back(view: torch.Tensor, number: int) -> torch.Tensor:
    """Undo the view of that number in :func:`atypia.models.transforms.dihedral`."""
    upright = torch.rot90(view, -(number % 4), (-2, -1))
    return upright.flip(-1) if number >= 4 else upright


@torch.no_grad()
def _mean_score(network: Network, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-odds (B,), mean over the eight views."""
    views = [v.contiguous(memory_format=torch.channels_last) for v in dihedral(images)]
    return torch.stack([log_odds(network(view), targets) for view in views]).mean(0)


@torch.no_grad()
def _flat_score(network: Network, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-odds (B,) of flat fields, which look the same from all sides."""
    return log_odds(network(nothing(images)), targets)


def _in_patch(
    maps: torch.Tensor, shape: tuple[int, ...], mpp: float, spec: InputSpec
) -> torch.Tensor:
    """Put maps (B, S, S) of the field of view where it lies in patches (B, H, W)."""
    height, width = shape
    across, down = (
        (torch.arange(side, device=maps.device) - (side - 1) / 2)
        * (2 * mpp / spec.field_of_view_um)
        for side in (width, height)
    )
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)  # (H, W, 2)
    placed = functional.grid_sample(
        maps[:, None], grid.expand(len(maps), height, width, 2), align_corners=False
    )
    return placed[:, 0]
