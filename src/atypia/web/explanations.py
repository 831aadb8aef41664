"""Explanations of one figure, as far as this installation and this model have them.

Heat maps of a network; and of the rules a sentence, outlines, and measurements as lines to draw.
"""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from atypia.classifiers.rules.chromatin_shape import Shape, principal_axes
from atypia.classifiers.rules.rules_classifier import RulesClassifier
from atypia.classifiers.rules.segmentation import MPP, haematoxylin, segment
from atypia.classifiers.rules.shape_features import SPEC, worded_measure
from atypia.data.field_of_view import sample_field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from atypia.classifiers.ensemble import Ensemble

    Patch = NDArray[np.uint8]
    Points = NDArray[np.float64]
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
_BODY_UM2: Final = 3.0
"""A smaller part is a fragment, whose distance means little."""


@dataclass(frozen=True)
class Explanations:
    """What can be asked; None is what cannot."""

    read: Read | None = None
    heat: Heat | None = None
    methods: Mapping[str, str] = field(default_factory=dict)
    """Of `heat`: names for people by name."""


def find_explanations(model: object) -> Explanations:
    """Find what this installation, and this model from ``load_ensemble``, can explain."""
    read = _rules() if importlib.util.find_spec("skimage") is not None else None
    if not hasattr(model, "members"):  # an ONNX graph has no gradients, rules have no network
        return Explanations(read)
    return Explanations(read, _heat(cast("Ensemble", model)), METHODS)


def _rules() -> Read:
    rules = RulesClassifier()

    def read(patch: Patch, mpp: float) -> dict[str, Any]:
        reading = rules.explain(patch, mpp)
        return {
            "text": reading.reason(),
            "measures": [worded_measure(name, value) for name, value in reading.measures.items()],
            "contours": [_points(line) for line in reading.outlines],
            "lines": [
                {"ends": _points(ends), "text": f"{um:.1f} µm"}
                for ends, um in _measured_lines(patch, mpp)
            ],
        }

    return read


def _points(line: NDArray[np.floating[Any]]) -> list[list[float]]:
    """Rows and columns of pixels' middles to x and y in the picture."""
    return [[round(float(x) + 0.5, 2), round(float(y) + 0.5, 2)] for y, x in line]


def _measured_lines(patch: Patch, mpp: float) -> Iterator[tuple[Points, float]]:
    """Yield ends (2, 2), rows and columns in px, and µm of the lengths that the rules measure.

    Along the main part (``main_length_um``), across it (``main_width_um``) and, where there is a
    second body, between the centres of both; nothing where no chromatin is found.
    """
    pixels = sample_field(patch[None], mpp, SPEC)[0].transpose(1, 2, 0)
    found = segment(pixels, haematoxylin(pixels))
    if found is None:
        return
    middle = (np.array(patch.shape[:2]) - 1) / 2
    main = Shape(found.parts == 1, found.density)
    _, axes = principal_axes(main.points, main.mass)
    yield _across(main, axes[:, 1]) / mpp + middle, main.length_um
    yield _across(main, axes[:, 0]) / mpp + middle, main.width_um
    if found.parts.max() > 1:
        second = Shape(found.parts == 2, found.density)
        if second.area_um2 >= _BODY_UM2:
            centres = np.stack([main.centre, second.centre])
            yield centres / mpp + middle, float(np.hypot(*(centres[0] - centres[1])))


def _across(shape: Shape, axis: Points) -> Points:
    """Both ends of a shape along an axis through its centre, µm from the field's middle."""
    along = (shape.points - shape.centre) @ axis
    reach = np.array([along.min() - MPP / 2, along.max() + MPP / 2])
    return np.asarray(shape.centre + reach[:, None] * axis)


def _heat(model: Ensemble) -> Heat:
    one_at_a_time = threading.Lock()  # each takes all cores, and memory for its gradients

    def heat(patch: Patch, mpp: float, target: int, method: str) -> NDArray[np.float32]:
        from atypia.explain.evidence import explain, shown

        targets = np.array([target], dtype=np.int64)
        with one_at_a_time:
            found = explain(model, patch[None], mpp, targets, method)
        return np.asarray(shown(found.maps, mpp)[0])

    return heat
