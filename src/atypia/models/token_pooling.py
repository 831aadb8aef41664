"""From an encoder's tokens to one vector, as its authors do it; and the encoder as a backbone.

A vision transformer gives a class token, register tokens in some, and one token per square of the
image. timm offers the class token by itself; the two other ways are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import timm
import torch
from timm.layers.mlp import SwiGLUPacked
from torch import nn
from torch.nn import functional

from atypia.core.errors import InputError

if TYPE_CHECKING:
    from atypia.models.encoders import Encoder

_N_HEADS: Final = 8  # of both attentional poolers


def build_encoder(encoder: Encoder, drop_path: float = 0.0) -> nn.Module:
    """Build an encoder with random weights; it maps (B, 3, S, S) to (B, encoder.features).

    Raises:
        InputError: The installed timm lacks the architecture.
    """
    options: dict[str, Any] = {"num_classes": 0, **encoder.options}
    if encoder.swiglu:
        options |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    if drop_path:
        options["drop_path_rate"] = drop_path
    if not timm.is_model(encoder.architecture):
        raise InputError(
            f"model.backbone: {encoder.name} is a {encoder.architecture}, which timm "
            f"{timm.__version__} does not know. Install a newer one: pip install -U timm"
        )
    if encoder.embedding == "class_token":
        return timm.create_model(encoder.architecture, global_pool="token", **options)
    trunk = timm.create_model(encoder.architecture, global_pool="", **options)
    if encoder.embedding == "class_token_and_patch_mean":
        return ClassTokenAndPatchMean(trunk)
    width: Any = trunk.num_features
    kind = CrossAttention if encoder.names == "conch" else BiasFreeCrossAttention
    return AttentionPool(trunk, kind(encoder.features, width), encoder.features)


class _WithTrunk(nn.Module):
    """A transformer and what is made of its tokens."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk: Any = trunk

    @property
    def patch_embed(self) -> Any:
        """Of the transformer: its grid and the side of a square."""
        return self.trunk.patch_embed

    def set_input_size(self, img_size: int) -> None:
        """Make the transformer one for images of another side."""
        self.trunk.set_input_size(img_size=img_size)


class ClassTokenAndPatchMean(_WithTrunk):
    """The class token, then the mean of the squares' tokens; registers are left out (Virchow)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, S, S) to (B, 2 D)."""
        tokens = self.trunk.forward_features(images)  # (B, prefix + squares, D)
        squares = tokens[:, self.trunk.num_prefix_tokens :]
        return torch.cat([tokens[:, 0], squares.mean(1)], dim=1)


class AttentionPool(_WithTrunk):
    """One learned query looks at all tokens (CONCH: Lu et al. 2024; CoCa: Yu et al. 2022)."""

    def __init__(self, trunk: nn.Module, pool: nn.Module, features: int) -> None:
        super().__init__(trunk)
        self.attn_pool_contrast = pool
        self.ln_contrast = nn.LayerNorm(features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, S, S) to (B, F)."""
        pooled = self.attn_pool_contrast(self.trunk.forward_features(images))
        out: torch.Tensor = self.ln_contrast(pooled)
        return out


class CrossAttention(nn.Module):
    """CONCH's pooler: tokens (B, T, D) to (B, F)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, features))
        self.attn = nn.MultiheadAttention(
            features, _N_HEADS, kdim=width, vdim=width, batch_first=True
        )
        self.ln_q = nn.LayerNorm(features)
        self.ln_k = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Answer of the query to (B, T, D)."""
        keys = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(len(tokens), 1, -1)
        out: torch.Tensor = self.attn(query, keys, keys, need_weights=False)[0]
        return out[:, 0]


class BiasFreeCrossAttention(nn.Module):
    """CONCH v1.5's pooler: tokens (B, T, D) to (B, F)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, features))
        self.ln_q = nn.LayerNorm(features)
        self.ln_k = nn.LayerNorm(width)
        self.to_q = nn.Linear(features, features, bias=False)
        self.to_kv = nn.Linear(width, 2 * features, bias=False)
        self.to_out = nn.Linear(features, features, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Answer of the query to (B, T, D)."""
        query = self.to_q(self.ln_q(self.query)).expand(len(tokens), 1, -1)
        keys, values = self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1)
        split = [
            part.unflatten(-1, (_N_HEADS, -1)).transpose(1, 2) for part in (query, keys, values)
        ]
        mixed = functional.scaled_dot_product_attention(*split)  # (B, heads, 1, F / heads)
        out: torch.Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return out[:, 0]
