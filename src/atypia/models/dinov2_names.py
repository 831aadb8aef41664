"""Names of a DINOv2's tensors in Hugging Face's transformers, as timm names the same layers."""

from __future__ import annotations

import re
from typing import Final

import torch

_RENAMED: Final = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
)
_QKV: Final = re.compile(r"(?P<block>.*)\.attention\.attention\.(?:query|key|value)\.(?P<kind>\w+)")


def from_dinov2(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename tensors; query, key and value go into the one layer that timm has for them.

    A name that is not known stays as it is, so that whoever fills a network tells of it.
    """
    renamed = {_rename(name): tensor for name, tensor in tensors.items()}
    joined = {}
    for name, tensor in renamed.items():
        part = _QKV.fullmatch(name)
        if part is None:
            joined[name] = tensor
            continue
        block, kind = part["block"], part["kind"]
        three = [f"{block}.attention.attention.{p}.{kind}" for p in ("query", "key", "value")]
        if all(p in renamed for p in three):  # else the filling tells which tensor is missing
            joined[f"{block}.attn.qkv.{kind}"] = torch.cat([renamed[p] for p in three])
    return joined


def _rename(name: str) -> str:
    for pattern, new in _RENAMED:
        name = re.sub(pattern, new, name)
    return name
