"""Features of figures: what a model's backbone makes of them, before it names a subtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from atypia.classifiers.ensemble import Ensemble

    Embed = Callable[[npt.NDArray[np.uint8], float], npt.NDArray[np.float32]]
    """Patches (N, H, W, 3) and their µm per pixel to features (N, D)."""


def embedder(model: object) -> tuple[Embed, str] | None:
    """Make the function that reads features, and a hash of the weights behind it.

    The first member's backbone alone: features of different members lie in different spaces.

    Args:
        model: As :func:`atypia.classifiers.loading.load_ensemble` gives it.

    Returns:
        None for a model that gives no features, such as an ONNX graph.
    """
    if not hasattr(model, "members"):
        return None
    import hashlib

    import torch

    from atypia.models.transforms import normalise, sample_field

    ensemble = cast("Ensemble", model)
    network = ensemble.members[0]
    spec = (ensemble.specs or [ensemble.spec])[0]
    digest = hashlib.sha256(repr(spec).encode())
    for name, tensor in network.backbone.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())

    @torch.inference_mode()
    def embed(patches: npt.NDArray[np.uint8], mpp: float) -> npt.NDArray[np.float32]:
        pixels = torch.from_numpy(np.ascontiguousarray(patches)).to(ensemble.device)
        images = normalise(sample_field(pixels, mpp, spec), spec)
        features = network.backbone(images.contiguous(memory_format=torch.channels_last))
        return np.asarray(features.float().cpu().numpy(), dtype=np.float32)

    return embed, digest.hexdigest()
