"""Why a model or the rules say what they say of one figure, where this installation can tell."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from atypia.classifiers.ensemble import Ensemble

    Patch = NDArray[np.uint8]
    Read = Callable[[Patch, float], dict[str, Any]]
    """A patch (H, W, 3) and its µm per pixel to a reading by rules."""
    Heat = Callable[[Patch, float, int, str], NDArray[np.float32]]
    """A patch, its µm per pixel, a target and a method to what speaks for it (up to 1) and against
    it (down to -1), (H, W)."""

METHODS: Final[Mapping[str, str]] = {
    "gradcam": "Class activation (Grad-CAM)",
    "occlusion": "Occlusion",
    "integrated": "Integrated gradients",
}
"""Names for people, by those of :data:`atypia.explain.METHODS`."""


@dataclass(frozen=True)
class Explanations:
    """What can be asked; None is what cannot."""

    read: Read | None = None
    heat: Heat | None = None
    methods: Mapping[str, str] = field(default_factory=dict)
    """Of `heat`: names for people by name."""


def find_explanations(model: object) -> Explanations:
    """Tell what this installation and this model can explain.

    Args:
        model: As :func:`atypia.classifiers.loading.load_ensemble` gives it.
    """
    read = _rules() if importlib.util.find_spec("skimage") is not None else None
    if not hasattr(model, "members"):  # an ONNX graph has no gradients, rules have no network
        return Explanations(read)
    return Explanations(read, _heat(cast("Ensemble", model)), METHODS)


def _rules() -> Read:
    from atypia.classifiers.rules.rules_classifier import RulesClassifier
    from atypia.classifiers.rules.shape_reading import told_measure
    from atypia.web.measured import measured_lines

    rules = RulesClassifier()

    def read(patch: Patch, mpp: float) -> dict[str, Any]:
        reading = rules.explain(patch, mpp)
        return {
            "text": reading.reason(),
            "measures": [told_measure(name, value) for name, value in reading.measures.items()],
            "contours": [_points(line) for line in reading.outlines],
            "lines": [
                {"ends": _points(line.ends), "text": f"{line.um:.1f} µm"}
                for line in measured_lines(patch, mpp)
            ],
        }

    return read


def _points(line: NDArray[np.floating[Any]]) -> list[list[float]]:
    """Rows and columns of pixels' middles to x and y in the picture."""
    return [[round(float(x) + 0.5, 2), round(float(y) + 0.5, 2)] for y, x in line]


def _heat(model: Ensemble) -> Heat:
    one_at_a_time = threading.Lock()  # each takes all cores, and memory for its gradients

    def heat(patch: Patch, mpp: float, target: int, method: str) -> NDArray[np.float32]:
        from atypia.explain.evidence import explain, shown

        targets = np.array([target], dtype=np.int64)
        with one_at_a_time:
            found = explain(model, patch[None], mpp, targets, method)
        return np.asarray(shown(found.maps, mpp)[0])

    return heat
