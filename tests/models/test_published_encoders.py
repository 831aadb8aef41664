"""Encoders at full size against what their authors have published, not against our own build.

No weights are needed: networks are made on the device ``meta``, which holds shapes alone.
"""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.layers.mlp import SwiGLUPacked
from torch import nn

from atypia.models.encoders import encoders
from atypia.models.token_pooling import build_encoder
from atypia.models.weight_files import renamed

GATED_MLP = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}

# How the networks are made into which the authors' files are loaded with strict=True, as Mahmood
# Lab's github.com/mahmoodlab/TRIDENT does it: trident/patch_encoder_models/load.py.
PUBLISHED_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "virchow": (
        "vit_huge_patch14_224",
        {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", **GATED_MLP},
    ),
    "virchow2": (
        "vit_huge_patch14_224",
        {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", "reg_tokens": 4, **GATED_MLP},
    ),
    "uni": ("vit_large_patch16_224", {"patch_size": 16, "init_values": 1e-5}),
    "uni2-h": (
        "vit_giant_patch14_224",
        {
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "init_values": 1e-5,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "reg_tokens": 8,
            **GATED_MLP,
        },
    ),
    "h-optimus-0": ("vit_giant_patch14_reg4_dinov2", {"init_values": 1e-5, "global_pool": "token"}),
    "h-optimus-1": ("vit_giant_patch14_reg4_dinov2", {"init_values": 1e-5, "global_pool": "token"}),
    "prov-gigapath": (
        "vit_giant_patch14_dinov2",
        {"patch_size": 16, "embed_dim": 1536, "depth": 40, "num_heads": 24, "mlp_ratio": 5.33334},
    ),
}

# Width, blocks, heads, registers, side of a patch, and how tokens become one vector.
#   Virchow, Virchow2: ViT-H/14 (Vorontsov et al. 2024; Zimmermann et al. 2024); TRIDENT, as above:
#     class token and mean of the patch tokens, which in Virchow2 stand behind four registers.
#   UNI: ViT-L/16 (Chen et al. 2024). UNI2-h, H-optimus, Prov-GigaPath: TRIDENT, as above.
#   Phikon-v2: ViT-L/16, class token (Filiot et al. 2024).
#   DINOv3: ViT-S, -B and -L/16 with four registers (Siméoni et al. 2025).
#   CONCH: conch_ViT-B-16.json, coca_model.py, vision_tower.py and transformer.py of
#     github.com/mahmoodlab/CONCH, conch/open_clip_custom.
#   CONCH v1.5: conch_v1_5.py and configuration_titan.py of huggingface.co/MahmoodLab/TITAN.
BOTH, ATTENTION, CLASS = "class_token_and_patch_mean", "attention_pool", "class_token"
PUBLISHED: dict[str, tuple[int, int, int, int, int, str, int]] = {
    #              width blocks heads registers patch pooling features
    "virchow": (1280, 32, 16, 0, 14, BOTH, 2560),
    "virchow2": (1280, 32, 16, 4, 14, BOTH, 2560),
    "uni": (1024, 24, 16, 0, 16, CLASS, 1024),
    "uni2-h": (1536, 24, 24, 8, 14, CLASS, 1536),
    "h-optimus-0": (1536, 40, 24, 4, 14, CLASS, 1536),
    "h-optimus-1": (1536, 40, 24, 4, 14, CLASS, 1536),
    "prov-gigapath": (1536, 40, 24, 0, 16, CLASS, 1536),
    "phikon-v2": (1024, 24, 16, 0, 16, CLASS, 1024),
    "dinov3-vits16": (384, 12, 6, 4, 16, CLASS, 384),
    "dinov3-vitb16": (768, 12, 12, 4, 16, CLASS, 768),
    "dinov3-vitl16": (1024, 24, 16, 4, 16, CLASS, 1024),
    "conch": (768, 12, 12, 0, 16, ATTENTION, 512),
    "conch-v1.5": (1024, 24, 16, 0, 16, ATTENTION, 768),
}

# Names in the file and their shapes, from the code that the authors load it with (as above).
ATTENTIONAL_POOLERS = {
    "conch": {
        "attn_pool_contrast.query": (1, 512),
        "attn_pool_contrast.attn.q_proj_weight": (512, 512),
        "attn_pool_contrast.attn.k_proj_weight": (512, 768),
        "attn_pool_contrast.attn.v_proj_weight": (512, 768),
        "attn_pool_contrast.attn.in_proj_bias": (3 * 512,),
        "attn_pool_contrast.attn.out_proj.weight": (512, 512),
        "attn_pool_contrast.attn.out_proj.bias": (512,),
        "attn_pool_contrast.ln_q.weight": (512,),
        "attn_pool_contrast.ln_q.bias": (512,),
        "attn_pool_contrast.ln_k.weight": (768,),
        "attn_pool_contrast.ln_k.bias": (768,),
        "ln_contrast.weight": (512,),
        "ln_contrast.bias": (512,),
    },
    "conch-v1.5": {
        "attn_pool_contrast.query": (1, 768),
        "attn_pool_contrast.ln_q.weight": (768,),
        "attn_pool_contrast.ln_q.bias": (768,),
        "attn_pool_contrast.ln_k.weight": (1024,),
        "attn_pool_contrast.ln_k.bias": (1024,),
        "attn_pool_contrast.to_q.weight": (768, 768),
        "attn_pool_contrast.to_kv.weight": (2 * 768, 1024),
        "attn_pool_contrast.to_out.weight": (768, 768),
        "ln_contrast.weight": (768,),
        "ln_contrast.bias": (768,),
    },
}


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build_encoder(encoders()[name])


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def test_every_encoder_is_checked() -> None:
    assert PUBLISHED.keys() == encoders().keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_encoder_has_the_published_layout(name: str) -> None:
    encoder, module = encoders()[name], on_meta(name)
    width, blocks, heads, registers, patch, pooling, features = PUBLISHED[name]
    trunk: Any = getattr(module, "trunk", module)
    assert trunk.embed_dim == width
    assert len(trunk.blocks) == blocks
    assert {block.attn.num_heads for block in trunk.blocks} == {heads}
    assert trunk.num_prefix_tokens == 1 + registers
    assert trunk.patch_embed.patch_size == (patch, patch)
    assert (encoder.embedding, encoder.features) == (pooling, features)
    assert trunk.global_pool == ("token" if pooling == CLASS else "")
    parameters = sum(p.numel() for p in module.parameters())
    assert parameters == pytest.approx(encoder.parameters, rel=0.01)
    side = encoder.size_px
    assert module(torch.empty(1, 3, side, side, device="meta")).shape == (1, features)


@pytest.mark.parametrize("name", PUBLISHED_CALLS)
def test_an_encoder_takes_what_the_network_of_its_authors_holds(name: str) -> None:
    architecture, options = PUBLISHED_CALLS[name]
    with torch.device("meta"):
        theirs = timm.create_model(architecture, img_size=224, num_classes=0, **options)
    assert shapes(renamed(encoders()[name], theirs.state_dict())) == shapes(
        on_meta(name).state_dict()
    )


@pytest.mark.parametrize("name", ATTENTIONAL_POOLERS)
def test_a_pooler_has_the_published_tensors(name: str) -> None:
    own = shapes(on_meta(name).state_dict())
    assert {k: v for k, v in own.items() if not k.startswith("trunk.")} == ATTENTIONAL_POOLERS[name]
    assert own["trunk.pos_embed"] == (1, 1 + 28 * 28, PUBLISHED[name][0])  # of 448 px
