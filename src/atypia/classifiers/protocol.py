"""What prediction needs of a model: networks in torch or ONNX, the rules, a hybrid, a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from atypia.classifiers.answers import Answers
    from atypia.classifiers.conformal import ConformalSets
    from atypia.classifiers.postprocessing import Postprocessing
    from atypia.core.config import InputSpec


class SubtypeModel(Protocol):
    """Anything that predicts the subtypes of patches."""

    postprocessing: Postprocessing
    """From probabilities to calls, subtypes and sets."""

    @property
    def threshold(self) -> float:
        """A figure is called atypical from this p_atypical on."""

    @property
    def conformal(self) -> ConformalSets | None:
        """Sets of subtypes that a figure may have; None where the model makes none."""

    @property
    def specs(self) -> Sequence[InputSpec]:
        """What the members see."""

    @property
    def field_of_view_um(self) -> float:
        """Side of the square that the members see together, in µm."""

    def predict_proba(
        self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64
    ) -> npt.NDArray[np.float32]:
        """Calibrated probabilities, (N, 8) float32, rows summing to 1.

        Args:
            patches: (N, H, W, 3) uint8 RGB, each centred on one mitotic figure. Where they are
                smaller than the field of view, their pixels are mirrored beyond the edge.
            mpp: µm per pixel.
            batch_size: Patches per step; the answer does not depend on it.

        Raises:
            InputError: Patches of another type, or much smaller than the field of view; see
                :data:`atypia.data.field_of_view.MIRRORED_DOWN_TO`.
        """

    def answer(self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64) -> Answers:
        """As :meth:`predict_proba`, with each patch's status and, from some models, a reason."""

    def size_problem(self, side_px: int, mpp: float) -> str | None:
        """Explain why patches of this shorter side cannot be classified; None if they can."""
