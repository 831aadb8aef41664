"""From a model's probabilities to its predictions: what was fitted for it, out of fold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.classifiers.answers import Answers
from atypia.classifiers.bundle import PostprocessingHeader, Thresholds
from atypia.classifiers.calibration import Calibration
from atypia.classifiers.conformal import ConformalSets
from atypia.classifiers.decision import Decision, OperatingPoint
from atypia.classifiers.field_quality import field_status
from atypia.core.choices import BALANCED
from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.core.labels import ANSWERED, N_SUBTYPES
from atypia.data.field_of_view import size_problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from atypia.classifiers.answers import Explanation
    from atypia.classifiers.mitosis_network import MitosisNetwork
    from atypia.classifiers.model_guard import ModelGuard
    from atypia.classifiers.onnx_files import GraphHeader
    from atypia.core.config import InputSpec


def _even() -> Decision:
    return Decision(prior=[1 / N_SUBTYPES] * N_SUBTYPES, power=0)


@dataclass(frozen=True)
class Postprocessing:
    """How a model's probabilities are post-processed; the default leaves them as they are."""

    decision: Decision = field(default_factory=_even)
    threshold: float = 0.5
    """A figure is called atypical from this p_atypical on."""
    calibration: Calibration = field(default_factory=Calibration)
    conformal: ConformalSets | None = None
    """Sets of subtypes that a figure may have, at a guaranteed rate."""
    errors: Mapping[str, Any] | None = None
    """How often calls were wrong out of fold, for the biomarker; see ``ErrorModel.to_json``."""
    points: Mapping[str, OperatingPoint] = field(default_factory=dict)
    """Operating points by name; none: `threshold` alone, which is then the balanced one."""
    operating_point: str = BALANCED
    """Name of the one that `threshold` is of."""

    guard: ModelGuard | None = None
    """How the scores of the networks' guard are read; None: there is none, or these are joined
    models, which take the status from one of them."""

    def with_operating_point(self, name: str) -> Postprocessing:
        """Call figures atypical from the threshold of a named operating point on.

        Raises:
            InputError: The model has no such point.
        """
        offered = self.points or {BALANCED: OperatingPoint(threshold=self.threshold)}
        if name not in offered:
            raise InputError(
                f"--operating-point: expected one of {list(offered)}, which the model offers, but "
                f"got {name!r}."
            )
        return replace(self, threshold=offered[name].threshold, operating_point=name)

    def subtypes(self, probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
        """Predicted subtypes, (N,) indices, from probabilities (N, 8); their side is the call."""
        return self.decision.subtypes(probabilities, self.threshold)

    def to_header(self) -> dict[str, Any]:
        """Entries of :class:`atypia.classifiers.bundle.PostprocessingHeader`."""
        return {
            "calibration": self.calibration.to_json(),
            "conformal": None if self.conformal is None else self.conformal.to_json(),
            "decision": self.decision,
            "thresholds": Thresholds(
                atypical=self.with_operating_point(BALANCED).threshold, points=dict(self.points)
            ),
            "errors": None if self.errors is None else dict(self.errors),
        }

    @classmethod
    def from_header(cls, header: PostprocessingHeader | GraphHeader, file: str) -> Postprocessing:
        """Read it from the header, named `file`, of a bundle, or of an export, which has no errors.

        Raises:
            InputError: Calibration or prediction sets are not such.
        """
        try:
            calibration = Calibration.from_json(header.calibration)
            conformal = header.conformal and ConformalSets.from_json(header.conformal)
        except InputError as error:
            raise InputError([Problem(p.what, file) for p in error.problems]) from None
        return cls(
            decision=header.decision,
            threshold=header.thresholds.atypical,
            calibration=calibration,
            conformal=conformal or None,
            errors=header.errors if isinstance(header, PostprocessingHeader) else None,
            points=header.thresholds.points,
            guard=getattr(header, "guard", None),
        )


class Postprocessed(ABC):
    """What every kind of model derives from its postprocessing and from what its members see."""

    postprocessing: Postprocessing
    specs: Sequence[InputSpec]
    mitosis: MitosisNetwork | None = None
    """Networks that decide what is a mitotic figure, where the bundle has some."""

    @property
    def threshold(self) -> float:
        """A figure is called atypical from this p_atypical on."""
        return self.postprocessing.threshold

    @property
    def conformal(self) -> ConformalSets | None:
        """Sets of subtypes that a figure may have; None where the model makes none."""
        return self.postprocessing.conformal

    @property
    def field_of_view_um(self) -> float:
        """Side of the square that the members see together, in µm."""
        return max(spec.field_of_view_um for spec in self.specs)

    def predict_proba(
        self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64
    ) -> npt.NDArray[np.float32]:
        """As :meth:`atypia.classifiers.protocol.SubtypeModel.predict_proba`."""
        return self.answer(patches, mpp, batch_size).probabilities

    def guarded(
        self,
        patches: npt.NDArray[np.uint8],
        mpp: float,
        probabilities: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float32] | None = None,
        reasons: Sequence[Explanation] = (),
    ) -> Answers:
        """Give probabilities (N, 8) a status each, from pixels and the guard's scores (N, 2)."""
        status = field_status(patches, mpp, self.field_of_view_um)
        p_mitosis = np.full(len(patches), np.nan, np.float32)
        if (guard := self.postprocessing.guard) is not None and scores is not None:
            p_mitosis = guard.p_mitosis(scores)
            status = np.where(status == ANSWERED, guard.status(scores), status)
        answers = Answers(probabilities, status, p_mitosis, reasons)
        return answers if self.mitosis is None else self.mitosis.judge(answers, patches, mpp)

    @abstractmethod
    def answer(self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64) -> Answers:
        """As :meth:`atypia.classifiers.protocol.SubtypeModel.answer`."""

    def size_problem(self, side_px: int, mpp: float) -> str | None:
        """Why patches of this shorter side cannot be classified; None if they can."""
        return size_problem(side_px, mpp, self.specs)


def check_answers(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the probabilities (..., N, 8) of networks, which must be numbers.

    Raises:
        AtypiaError: Some are not: NaN compares false, and would make each figure a normal one.
    """
    if probabilities.shape[-1:] != (N_SUBTYPES,):
        what = f"(N, {N_SUBTYPES}) but got {probabilities.shape}"
        raise AtypiaError(f"The model answers no probabilities: expected {what}.")
    if not np.isfinite(probabilities).all():
        raise AtypiaError(
            "The model answers NaN: its weights are damaged or of another network. Copy it again."
        )
    return probabilities
