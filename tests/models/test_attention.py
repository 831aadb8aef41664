"""Attention written out gives what the fused kernel gives, forward and backward."""

from __future__ import annotations

import copy

import timm
import torch

from atypia.models.cpu_speed import write_out_attention


def test_equals_the_fused_attention() -> None:
    torch.manual_seed(0)
    fused = timm.create_model("test_vit", num_classes=3).double().train()
    plain = copy.deepcopy(fused)
    write_out_attention(plain)
    chosen = [layer.fused_attn for layer in plain.modules() if hasattr(layer, "fused_attn")]
    assert chosen
    assert not any(chosen)
    images = torch.randn(2, 3, 160, 160, dtype=torch.float64)
    found = []
    for network in (fused, plain):
        scores = network(images)
        scores.square().sum().backward()
        found.append([scores.detach(), *(p.grad for p in network.parameters())])
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected)


def test_a_network_without_attention_is_left_alone() -> None:
    network = timm.create_model("test_efficientnet", num_classes=3)
    before = [type(layer) for layer in network.modules()]
    write_out_attention(network)
    assert [type(layer) for layer in network.modules()] == before
    assert not any(hasattr(layer, "fused_attn") for layer in network.modules())
