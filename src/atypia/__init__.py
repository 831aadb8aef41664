"""Atypia: subtype mitotic figures in H&E histology.

:func:`load_model` gives a model that classifies patches. The story of the package is told in
:mod:`atypia.pipeline`; the eight subtypes and their order are in :mod:`atypia.labels`. Importing
this package loads neither torch nor pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.api import Classifier

__all__ = ["__version__", "load_model"]
__version__ = "0.1.0"


def load_model(
    name_or_path: str | Path = "released",
    quality: str = "best",
    *,
    backend: str = "auto",
    device: str = "auto",
) -> Classifier:
    """Load a model to classify patches with; see :class:`atypia.api.Classifier`.

    Args:
        name_or_path: ``released`` for the model in the package, a bundle, a run folder, or an
            export.
        quality: ``best``, or ``fast`` where the model has it.
        backend: ``auto``, ``torch``, ``onnx`` or ``onnx-int8``.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.

    Raises:
        InputError: No such model, quality, backend or device, or damaged files.
    """
    from atypia.api import load_model as load

    return load(name_or_path, quality, backend=backend, device=device)
