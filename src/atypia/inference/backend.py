"""Torch or ONNX Runtime: load a model with what is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from atypia.bundle import BEST, RELEASED, find_bundle
from atypia.errors import InputError
from atypia.inference.onnx import OnnxEnsemble
from atypia.inference.onnx_export import HEADER

if TYPE_CHECKING:
    from atypia.inference.model import SubtypeModel

BACKENDS: Final = ("auto", "torch", "onnx", "onnx-int8")


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
) -> SubtypeModel:
    """Load a model on a device.

    Args:
        model: ``released``, a bundle, a run folder, or a folder that ``atypia export`` wrote.
        quality: ``best`` or ``fast``, where the model has it.
        backend: ``torch``; ``onnx``, with an export beside or instead of the bundle; ``onnx-int8``,
            the same in 8-bit integers; or ``auto``: ``onnx`` where `model` is an export or torch
            is not installed, else ``torch``.
        device: ``auto``, ``cpu``, ``cuda``; ``mps`` with torch.
        threads: On the CPU; None: as the backend takes them. With torch they are those of the
            whole process.

    Returns:
        An :class:`atypia.ensemble.Ensemble` or an :class:`OnnxEnsemble`.

    Raises:
        InputError: No such model, quality, backend or device; or damaged files.
        MissingExtraError: What the backend needs is not installed.
    """
    if backend not in BACKENDS:
        raise InputError(f"--backend: expected one of {list(BACKENDS)} but got {backend!r}.")
    has_torch = importlib.util.find_spec("torch") is not None
    if backend == "auto":
        is_export = (Path(model) / HEADER).is_file()
        backend = "onnx" if is_export or not has_torch else "torch"
    if backend != "torch":
        folder = find_bundle(model) if str(model) == RELEASED else model
        return OnnxEnsemble.load(
            folder, quality, int8=backend == "onnx-int8", device=device, threads=threads
        )
    if not has_torch:
        raise InputError(
            "--backend torch: torch is not installed. Install it (pip install atypia), or give an "
            "export: --backend onnx"
        )
    import torch

    from atypia.ensemble import Ensemble
    from atypia.models.hardware import choose_device

    if threads is not None:
        torch.set_num_threads(threads)
    return Ensemble.load(model, quality).to(choose_device(device))
