"""EfficientNet-Lite without timm: the same tensors and the same answers as timm's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from atypia.core.errors import InputError
from atypia.models import lite
from atypia.models.backbones import make_backbone
from atypia.models.network import Network


def shake(module: nn.Module) -> None:
    """Give batch norms statistics and factors that are not those of the start."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.weight, 0.7, 1.3)
            nn.init.normal_(part.bias, std=0.1)


@pytest.mark.parametrize(
    ("name", "size"), [("tf_efficientnet_lite0", 64), ("tf_efficientnet_lite2", 33)]
)
def test_answers_are_those_of_timm(name: str, size: int) -> None:
    reference = timm.create_model(name, num_classes=0).eval()
    shake(reference)
    ours = lite.Lite(name).eval()
    ours.load_state_dict(reference.state_dict())  # all names and shapes agree
    images = torch.randn(2, 3, size, size + 7)
    with torch.inference_mode():
        expected = reference(images)
        torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=1e-5)
        network = Network(ours, ours.n_features, 0.2).eval()
        fused = lite.fused(network)
        torch.testing.assert_close(fused.backbone(images), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            fused(images).softmax(1), network(images).softmax(1), atol=1e-5, rtol=0
        )
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules()), "the original is kept"


@pytest.mark.parametrize(("reduction", "n_features"), [(8, 40), (16, 112), (32, 320)])
def test_a_cut_network_gives_timms_feature_maps(reduction: int, n_features: int) -> None:
    name = "tf_efficientnet_lite0"
    whole = timm.create_model(name, num_classes=0).eval()
    shake(whole)
    images = torch.randn(2, 3, 64, 64)
    taps = [stage["reduction"] for stage in whole.feature_info]
    with torch.inference_mode():
        (expected,) = whole.forward_intermediates(
            images, indices=[taps.index(reduction)], intermediates_only=True
        )
        ours = lite.Lite(name, reduction).eval()
        kept = {k: v for k, v in whole.state_dict().items() if k in ours.state_dict()}
        ours.load_state_dict(kept)
        torch.testing.assert_close(ours(images), expected.mean((2, 3)), atol=1e-5, rtol=1e-5)
        network = Network(ours, ours.n_features, 0).eval()
        torch.testing.assert_close(
            lite.fused(network).backbone(images), expected.mean((2, 3)), atol=1e-4, rtol=1e-4
        )
    assert ours.n_features == n_features
    trained = make_backbone(name, size_px=64, pretrained=False, reduction=reduction)
    assert trained.n_features == n_features
    assert trained.module(images).shape == (2, n_features)
    shapes = {k: v.shape for k, v in trained.module.state_dict().items()}
    assert shapes == {k: v.shape for k, v in ours.state_dict().items()}


def test_a_reduction_that_a_backbone_has_not_is_refused() -> None:
    with pytest.raises(InputError, match=r"EfficientNet family .* but got convnext_atto"):
        make_backbone("convnext_atto", size_px=64, pretrained=False, reduction=16)


def test_every_scale_has_timms_tensors() -> None:
    for name in lite.SCALES:
        with torch.device("meta"):
            reference = timm.create_model(name, num_classes=0).state_dict()
            ours = lite.Lite(name).state_dict()
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in reference.items()}


def test_other_networks_are_left_alone() -> None:
    network = Network(nn.Flatten(), 12, 0)
    assert lite.fused(network) is network


def test_prediction_needs_no_timm() -> None:
    code = (
        "import sys, atypia.classifiers.ensemble\n"
        "assert not {'timm', 'torchvision', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
