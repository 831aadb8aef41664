"""EfficientNet-Lite without timm: the same tensors and the same answers as timm's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from atypia.models import lite
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
        network = Network(ours, lite.N_FEATURES, 0.2).eval()
        fused = lite.fused(network)
        torch.testing.assert_close(fused.backbone(images), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            fused(images).softmax(1), network(images).softmax(1), atol=1e-5, rtol=0
        )
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules()), "the original is kept"


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
        "import sys, atypia.ensemble\n"
        "assert not {'timm', 'torchvision', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
