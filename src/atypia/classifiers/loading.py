"""Networks in torch or ONNX Runtime, rules, joined models: load one with what is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from atypia.classifiers.bundle import (
    HYBRID,
    MITOSIS,
    NETWORK,
    RULES,
    STACK,
    find_bundle,
    parts_of,
    read_kind,
)
from atypia.classifiers.mitosis_network import MitosisNetwork
from atypia.classifiers.onnx_classifier import OnnxEnsemble
from atypia.classifiers.onnx_files import HEADER
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.choices import BACKENDS, BALANCED, BEST, RELEASED
from atypia.core.errors import InputError

if TYPE_CHECKING:
    from atypia.classifiers.protocol import SubtypeModel


def find_model(model: Path | str = RELEASED) -> Path:
    """Find the folder of a bundle, or of an export; loads nothing.

    Raises:
        InputError: There is neither.
    """
    return Path(model) if (Path(model) / HEADER).is_file() else find_bundle(model)


def load_ensemble(
    model: Path | str = RELEASED,
    quality: str = BEST,
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    operating_point: str = BALANCED,
) -> SubtypeModel:
    """Load a model on a device.

    Args:
        model: ``released``, ``rules``, a bundle, a run folder, or a folder that ``atypia export``
            wrote. Rules need no backend; hybrids and stacks take it for their networks.
        quality: ``best`` or ``fast``, where the model has it.
        backend: ``torch``; ``onnx``, with an export beside or instead of the bundle; ``onnx-int8``,
            the same in 8-bit integers; or ``auto``: ``onnx`` where `model` is an export or torch
            is not installed, else ``torch``.
        device: ``auto``, ``cpu``, ``cuda``; ``mps`` with torch.
        threads: On the CPU; None: as the backend takes them. With torch they are those of the
            whole process.
        operating_point: From what p_atypical on figures are called atypical, by a name of
            ``thresholds.points`` in the header; one that has none offers ``balanced``.

    Raises:
        InputError: No such model, quality, backend, device or operating point; or damaged files.
        MissingExtraError: What the backend needs is not installed.
    """
    loaded = _load(model, quality, backend, device, threads)
    loaded.postprocessing = loaded.postprocessing.with_operating_point(operating_point)
    return loaded


def _load(
    model: Path | str, quality: str, backend: str, device: str, threads: int | None
) -> SubtypeModel:
    if backend not in BACKENDS:
        raise InputError(f"--backend: expected one of {list(BACKENDS)} but got {backend!r}.")
    is_export = (Path(model) / HEADER).is_file()
    kind = NETWORK if is_export else _kind(model)
    if kind == RULES:
        return _load_rules(model, quality, backend)
    if kind in (HYBRID, STACK) and quality != BEST:
        raise InputError(f"--quality: expected best, which {model} offers, but got {quality!r}.")
    if kind == STACK:
        from atypia.classifiers.combined import StackClassifier

        models = [
            load_ensemble(
                folder,
                backend="auto" if _kind(folder) == RULES else backend,
                device=device,
                threads=threads,
            )
            for folder in parts_of(find_bundle(model))
        ]
        return StackClassifier.load(model, models)
    if kind == HYBRID:
        from atypia.classifiers.combined import HybridClassifier

        (inner,) = parts_of(find_bundle(model))
        network = load_ensemble(inner, backend=backend, device=device, threads=threads)
        return HybridClassifier.load(model, network)
    has_torch = importlib.util.find_spec("torch") is not None
    if backend == "auto":
        backend = "onnx" if is_export or not has_torch else "torch"
    mitosis = None if is_export else _load_mitosis(model, device)
    if backend != "torch":
        folder = find_bundle(model) if str(model) == RELEASED else model
        exported = OnnxEnsemble.load(
            folder, quality, int8=backend == "onnx-int8", device=device, threads=threads
        )
        exported.mitosis = mitosis
        return exported
    if not has_torch:
        raise InputError(
            "--backend torch: torch is not installed. Install it (pip install 'atypia[train]'), or "
            "give an export: --backend onnx"
        )
    import torch

    from atypia.classifiers.ensemble import Ensemble
    from atypia.models.hardware import choose_device

    if threads is not None:
        torch.set_num_threads(threads)
    ensemble = Ensemble.load(model, quality).to(choose_device(device))
    ensemble.mitosis = mitosis
    return ensemble


def _load_mitosis(model: Path | str, device: str) -> MitosisNetwork | None:
    """Load the networks in a bundle that decide what is a mitotic figure; None without any."""
    try:
        bundle = find_bundle(model)
    except InputError:  # the folder of an export, or nothing, which is reported by what loads it
        return None
    if not (parts := parts_of(bundle)):
        return None
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            f"{bundle}: expected torch, which the networks of its guard need, but it is not "
            "installed. Install it: pip install 'atypia[train]'"
        )
    from atypia.classifiers.ensemble import Ensemble
    from atypia.models.hardware import choose_device

    networks = Ensemble.load(parts[0], kind=MITOSIS).to(choose_device(device))
    fitted, networks.postprocessing = networks.postprocessing, Postprocessing()
    return MitosisNetwork(networks, fitted.calibration, fitted.threshold)


def _kind(model: Path | str) -> str:
    """Kind of a bundle; that of networks where there is none, whose loader raises the error."""
    try:
        return read_kind(find_bundle(model))
    except InputError:
        return NETWORK


def _load_rules(model: Path | str, quality: str, backend: str) -> SubtypeModel:
    from atypia.classifiers.rules.rules_classifier import RulesClassifier

    if quality != BEST or backend != "auto":
        raise InputError(
            f"{model}: rules have no network, hence no --quality {quality} or --backend {backend}. "
            "Leave both out."
        )
    return RulesClassifier.load(model)
