"""A hub cache with a small random encoder of the same family as a large one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from atypia.models import encoders, token_pooling

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from atypia.models.encoders import Encoder

SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 96, "num_heads": 2}


def small(name: str) -> Encoder:
    """The encoder of that name with two thin blocks; all else is its own."""
    encoder = encoders.encoders()[name]
    options = {**encoder.options, **SMALL}
    features = {
        "class_token": SMALL["embed_dim"],
        "class_token_and_patch_mean": 2 * SMALL["embed_dim"],
        "attention_pool": 64,
    }[encoder.embedding]
    return encoder.model_copy(update={"options": options, "features": features})


def use(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the name stand for the small one."""
    others = encoders.encoders()
    monkeypatch.setattr(encoders, "encoders", lambda: {**others, encoder.name: encoder})


def random_encoder(encoder: Encoder) -> torch.nn.Module:
    """With random weights, none of which is 0 or 1 as layers are when they are made."""
    torch.manual_seed(7)
    module = token_pooling.build_encoder(encoder)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.normal_(0, 0.3)
    return module.eval()


def as_published(encoder: Encoder, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Its tensors as the authors' file names them; of dinov2, see the test."""
    tensors = {k: v.clone().contiguous() for k, v in module.state_dict().items()}
    if encoder.names == "conch":  # the text half and what makes captions are in the file as well
        rest = {"text.token_embedding.weight": torch.ones(3, 4), "logit_scale": torch.ones(1)}
        rest |= {
            "visual.attn_pool_caption.query": torch.ones(2, 2),
            "visual.proj_contrast": torch.ones(2),
        }
        return {f"visual.{k}": v for k, v in tensors.items()} | rest
    if encoder.embedding == "class_token_and_patch_mean":
        return {k.removeprefix("trunk."): v for k, v in tensors.items()}
    return tensors


def put(cache: Path, encoder: Encoder, tensors: dict[str, torch.Tensor]) -> Path:
    """Write a file into a hub cache, as the hub's client lays it out."""
    folder = cache / f"models--{encoder.repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0123456789" * 4)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name)
    file = snapshot / encoder.file
    save_file(tensors, file) if file.suffix == ".safetensors" else torch.save(tensors, file)
    return file
