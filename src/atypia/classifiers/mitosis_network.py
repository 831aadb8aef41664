"""Networks that were trained on mitotic figures and look-alikes: a guard of its own.

``atypia train --preset mitosis`` makes them; the bundle is of the kind
:data:`atypia.classifiers.bundle.MITOSIS`. They share all of the machinery with networks of
subtypes, and two sides stand for the question: the first four probabilities for a mitotic figure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.classifiers.decision import p_atypical
from atypia.core.labels import ANSWERED, N_SUBTYPES, STATUSES

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.classifiers.answers import Answers
    from atypia.classifiers.calibration import Calibration
    from atypia.classifiers.protocol import SubtypeModel

NOT_A_MITOSIS: Final = STATUSES[3]


@dataclass(frozen=True)
class MitosisNetwork:
    """The networks, and how their answers are read."""

    networks: SubtypeModel
    """Without a calibration of their own."""
    calibration: Calibration
    threshold: float
    """With a smaller p_mitosis it is no mitotic figure."""

    def judge(self, answers: Answers, patches: npt.NDArray[np.uint8], mpp: float) -> Answers:
        """Replace what a model's own guard has found of N patches: figures or look-alikes.

        What else has no answer (no tissue, a poor image, unlike the training) has none still.
        """
        assert answers.status is not None
        p = p_mitosis(self.networks.predict_proba(patches, mpp), self.calibration)
        asked = np.isin(answers.status, (ANSWERED, NOT_A_MITOSIS))
        found = np.where(p < self.threshold, NOT_A_MITOSIS, ANSWERED)
        return replace(answers, p_mitosis=p, status=np.where(asked, found, answers.status))


def two_sides(probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Spread both sides of (N, 8) evenly, so that a temperature acts on the sides alone."""
    p = p_atypical(probabilities).astype(np.float64)[:, None]
    half = N_SUBTYPES // 2
    return np.hstack([np.repeat(p, half, 1), np.repeat(1 - p, half, 1)]) / half


def p_mitosis(
    probabilities: npt.NDArray[np.floating[Any]], calibration: Calibration
) -> npt.NDArray[np.float32]:
    """Probability of a mitotic figure, (N,), from what the networks answer, (N, 8)."""
    return p_atypical(calibration.apply(two_sides(probabilities)))
