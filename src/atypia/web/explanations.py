"""Why a model or the rules say what they say of one figure, where this installation can tell."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from atypia.ensemble import Ensemble

    Patch = NDArray[np.uint8]
    Read = Callable[[Patch, float], dict[str, Any]]
    """A patch (H, W, 3) and its µm per pixel to a reading by rules."""
    Heat = Callable[[Patch, float, int, str], NDArray[np.float32]]
    """A patch, its µm per pixel, a target and a method to what speaks for it, (H, W) in 0..1."""

METHODS: Final[Mapping[str, tuple[str, str | None]]] = {
    "gradcam": ("Grad-CAM", None),
    "occlusion": ("Occlusion", "captum"),
    "integrated": ("Integrated gradients", "captum"),
}
"""By the name that :mod:`atypia.explain` knows: the name for people, and a package it needs."""


@dataclass(frozen=True)
class Explanations:
    """What can be asked; None is what cannot."""

    read: Read | None = None
    heat: Heat | None = None
    methods: Mapping[str, str] = field(default_factory=dict)
    """Methods of `heat`, and what people call them."""


def find_explanations(model: object) -> Explanations:
    """Tell what this installation and this model can explain.

    Args:
        model: As :func:`atypia.inference.backend.load_ensemble` gives it.
    """
    read = _rules() if _is_there("skimage") else None
    # An ONNX graph has no gradients, and rules have no network.
    if not hasattr(model, "members") or not _is_there("atypia.explain"):
        return Explanations(read)
    methods = {
        key: title for key, (title, needs) in METHODS.items() if needs is None or _is_there(needs)
    }
    return Explanations(read, _heat(cast("Ensemble", model)), methods)


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _rules() -> Read:
    from atypia.models.rules.reading import told_measure
    from atypia.rules import RulesClassifier

    rules = RulesClassifier()

    def read(patch: Patch, mpp: float) -> dict[str, Any]:
        reading = rules.explain(patch, mpp)
        return {
            "text": reading.reason(),
            "measures": [told_measure(name, value) for name, value in reading.measures.items()],
            "contours": [_points(line) for line in reading.outlines],
            "lines": [],
        }

    return read


def _points(line: NDArray[np.float32]) -> list[list[float]]:
    """Rows and columns of pixels' middles to x and y in the picture."""
    return [[round(float(x) + 0.5, 2), round(float(y) + 0.5, 2)] for y, x in line]


def _heat(model: Ensemble) -> Heat:
    one_at_a_time = threading.Lock()  # each takes all cores, and memory for its gradients

    def heat(patch: Patch, mpp: float, target: int, method: str) -> NDArray[np.float32]:
        from atypia.explain.evidence import explain_figure

        with one_at_a_time:
            return explain_figure(model, patch, mpp, target, method)

    return heat
