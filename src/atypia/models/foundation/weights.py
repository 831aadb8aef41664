"""An encoder's tensors under the names of the module that :func:`tokens.build` makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from atypia.models.dinov2_names import from_dinov2

if TYPE_CHECKING:
    import torch

    from atypia.models.foundation.catalogue import Encoder

_TRUNK: Final = "trunk."
_VISUAL: Final = "visual."
_OF_CAPTIONS: Final = ("attn_pool_caption.", "ln_caption.", "proj_contrast")


def renamed(encoder: Encoder, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the tensors of an encoder's file the names of its module.

    What describes no image is left out: a text half, captions, a mask token. Other tensors that
    the module does not have keep their names, so that whoever fills it tells of them.
    """
    if encoder.names == "dinov2":
        tensors = from_dinov2(tensors)
    elif encoder.names == "conch":
        visual = {n.removeprefix(_VISUAL): t for n, t in tensors.items() if n.startswith(_VISUAL)}
        tensors = {n: t for n, t in visual.items() if not n.startswith(_OF_CAPTIONS)}
    elif encoder.names == "timm" and encoder.embedding == "class_token_and_patch_mean":
        tensors = {f"{_TRUNK}{n}": t for n, t in tensors.items()}
    return {n: t for n, t in tensors.items() if not n.endswith("mask_token")}
