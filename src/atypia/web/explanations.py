"""Why a model or a rule says what it says of one figure, where this installation can tell."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Patch = NDArray[np.uint8]
    Read = Callable[[Patch, float], dict[str, Any]]
    """A patch (H, W, 3) and its µm per pixel to a reading by rules."""
    Heat = Callable[[Patch, float, int], NDArray[np.float32]]
    """A patch, its µm per pixel and a subtype to what speaks for it, (H, W) in 0..1."""


@dataclass(frozen=True)
class Explanations:
    """What can be asked; None is what cannot."""

    read: Read | None = None
    heat: Heat | None = None


def find_explanations(model: object) -> Explanations:
    """Tell what this installation and this model can explain.

    Args:
        model: As :func:`atypia.inference.backend.load_ensemble` gives it.
    """
    return Explanations(_rules(), _heat(model))


def _rules() -> Read | None:
    return None


def _heat(model: object) -> Heat | None:
    if importlib.util.find_spec("atypia.explain") is None or not hasattr(model, "members"):
        return None
    return None
