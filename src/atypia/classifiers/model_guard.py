"""The guard of a model: whether a candidate is a mitotic figure, and like those it was trained on.

What the networks compute on the way to the subtypes is looked at once more, by a small head beside
each (:class:`atypia.models.guard_head.GuardHead`): a score for "mitotic figure, not something else"
and a distance from the figures of the training. Both are means over members, rotations and flips.
Here they become a probability and a status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, Field

from atypia.core.labels import ANSWERED, STATUSES

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.floating[Any]]

N_SCORES: Final = 2
"""Score and distance, in this order, are the last axis of what heads give."""
_NOT_A_MITOSIS, _UNLIKE_TRAINING = STATUSES[3:]

_Number = Annotated[float, Field(allow_inf_nan=False)]


class ModelGuard(BaseModel, frozen=True):
    """How scores and distances are read; fitted on patients that no head was trained on."""

    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    intercept: _Number = 0.0
    """Of the logistic that makes a probability of a score (Platt 1999): as likely as not is what
    is as frequent among figures as among what lies around them."""
    least_p_mitosis: Annotated[float, Field(ge=0, le=1)]
    """Below, the candidate is something else than a mitotic figure."""
    farthest: _Number
    """Beyond this distance, it is unlike the figures of the training."""
    seen: str = ""
    """What the heads were trained on, in words."""

    def p_mitosis(self, scores: Array) -> npt.NDArray[np.float32]:
        """Probability (N,) that a candidate is a mitotic figure, from scores (N, 2)."""
        log_odds = self.slope * scores[:, 0] + self.intercept
        return np.asarray(np.exp(-np.logaddexp(0, -log_odds)), np.float32)

    def status(self, scores: Array) -> npt.NDArray[np.str_]:
        """Judge candidates by their scores (N, 2): (N,) out of ``STATUSES``."""
        # What is no number is not answered either.
        another = ~(self.p_mitosis(scores) >= self.least_p_mitosis)
        unlike = ~(scores[:, 1] <= self.farthest)
        return np.where(another, _NOT_A_MITOSIS, np.where(unlike, _UNLIKE_TRAINING, ANSWERED))

    def with_limits(self, scores: Array, rejected: tuple[float, float]) -> ModelGuard:
        """Move the limits so that shares of mitotic figures with scores (N, 2) fall beyond each.

        `rejected` are the shares of false rejections by score and by distance. The probabilities
        stay.
        """
        least = float(np.quantile(self.p_mitosis(scores), rejected[0], method="lower"))
        farthest = float(np.quantile(scores[:, 1], 1 - rejected[1], method="higher"))
        return self.model_copy(update={"least_p_mitosis": least, "farthest": farthest})
