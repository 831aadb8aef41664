"""Low-rank adaptation: what learns, what stays, and what is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

pytest.importorskip("peft")

from atypia.classifiers.ensemble import load_network, save_network
from atypia.core.config import InputConfig, ModelConfig
from atypia.core.errors import InputError
from atypia.models.lora import adapters
from atypia.models.network import make_network

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.models.network import Network

SIZE = InputConfig(field_of_view_um=18, size_px=64)
IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def network(backbone: str, rank: int = 4, **settings: object) -> Network:
    torch.manual_seed(3)
    model = ModelConfig(backbone=backbone, pretrained=False, lora_rank=rank, **settings)  # type: ignore[arg-type]
    return make_network(model, SIZE)[0]


def learn(net: Network) -> None:
    net.freeze_backbone(False)
    net.train()
    optimizer = torch.optim.AdamW(net.parameter_groups(0.01), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(IMAGES), torch.arange(4)).backward()
        optimizer.step()
    net.eval()


@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet"])
def test_it_starts_as_the_pretrained_network_and_only_additions_learn(backbone: str) -> None:
    net, plain = network(backbone).eval(), network(backbone, rank=0).eval()
    own = {k: v for k, v in net.state_dict().items() if "lora_" not in k}
    plain.load_state_dict({k.replace(".base_layer", ""): v for k, v in own.items()})
    torch.testing.assert_close(net(IMAGES), plain(IMAGES))
    before = {k: v.clone() for k, v in net.backbone.named_parameters()}
    learn(net)
    changed = {k for k, v in net.backbone.named_parameters() if not torch.equal(v, before[k])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert len(changed) == len(adapters(net.backbone))


@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet", "tf_efficientnet_lite0"])
def test_what_is_saved_is_a_plain_network_with_the_same_answers(
    backbone: str, tmp_path: Path
) -> None:
    net = network(backbone, lora_targets="attention_and_mlp")
    learn(net)
    expected = net(IMAGES)
    save_network(net, tmp_path / "member.safetensors")
    torch.testing.assert_close(net(IMAGES), expected)  # the one that goes on learning is untouched
    model = ModelConfig(backbone=backbone, pretrained=False, lora_rank=4)
    spec = make_network(model, SIZE, initial_weights=False)[1]
    loaded = load_network(model, spec, tmp_path / "member.safetensors")
    assert not adapters(loaded)
    torch.testing.assert_close(loaded(IMAGES), expected, atol=1e-4, rtol=1e-4)


def test_a_frozen_start_lets_the_head_learn_alone() -> None:
    net = network("test_vit")
    net.freeze_backbone(True)
    assert [n for n, p in net.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    net.freeze_backbone(False)
    assert all(p.requires_grad == ("lora_" in n) for n, p in net.backbone.named_parameters())


def test_the_mlp_learns_where_it_is_asked_for() -> None:
    few, many = network("test_vit"), network("test_vit", lora_targets="attention_and_mlp")
    assert not [n for n, _ in few.named_parameters() if "mlp" in n and "lora_" in n]
    assert [n for n, _ in many.named_parameters() if "mlp" in n and "lora_" in n]


def test_a_backbone_without_such_matrices_is_refused() -> None:
    with pytest.raises(InputError, match="no matrix is known"):
        network("test_convnext")
