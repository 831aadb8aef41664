"""From the answers of several members to one.

A row of a member that has no say (one that has learned from the patient) is NaN: the others decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from atypia.core.config import JoinKind  # noqa: TC001 - pydantic reads the annotations
from atypia.core.labels import N_SUBTYPES

if TYPE_CHECKING:
    import numpy.typing as npt


class Aggregation(BaseModel):
    """How the probabilities of members become one answer.

    ``mean``: their mean. ``weighted``: their mean, a weight for each member. ``median``: of each
    subtype, made to sum to 1. ``majority``: each member votes for its most probable subtype, and
    their mean counts as one more vote, divided among the subtypes: it breaks ties, orders figures
    of equal votes, and can never outweigh a vote. A row then holds (votes + mean) / (members + 1).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: JoinKind = "mean"
    weights: tuple[Annotated[float, Field(gt=0, lt=np.inf)], ...] | None = None
    """One for each member; with ``weighted`` alone. Only their ratios count."""

    @model_validator(mode="after")
    def _weights_where_they_are_used(self) -> Aggregation:
        if (self.kind == "weighted") != (self.weights is not None):
            raise ValueError("expected weights with the kind weighted, and with no other")
        return self

    def __call__(self, answers: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Join the answers of K members.

        Args:
            answers: (K, N, 8) rows summing to 1, or NaN where a member has no say; in each place
                at least one member has one.

        Returns:
            (N, 8) rows summing to 1.

        Raises:
            ValueError: Other shapes, or a row on which nobody has a say.
        """
        shape = (len(self.weights or answers), N_SUBTYPES)
        if answers.ndim != 3 or (answers.shape[0], answers.shape[2]) != shape:
            raise ValueError(f"expected answers ({shape[0]}, N, 8) but got {answers.shape}")
        says = ~np.isnan(answers).any(axis=2)  # (K, N)
        if not says.any(axis=0).all():
            raise ValueError("expected a member with a say on every row")
        if self.kind == "median":
            joined = np.nanmedian(answers.astype(np.float64), axis=0)
            # Four members of two minds may leave nothing in the middle: then their mean.
            joined = np.where(joined.any(axis=1, keepdims=True), joined, _mean(answers, says))
        elif self.kind == "majority":
            votes = np.eye(N_SUBTYPES)[np.where(says, answers.argmax(axis=2), 0)]  # (K, N, 8)
            joined = (votes * says[:, :, None]).sum(axis=0) + _mean(answers, says)
        else:
            weights = np.ones(len(answers)) if self.weights is None else np.array(self.weights)
            joined = _mean(answers, says * weights[:, None])
        return np.asarray(joined / joined.sum(axis=1, keepdims=True))


def _mean(
    answers: npt.NDArray[np.floating[Any]], weights: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.float64]:
    """Mean (N, 8) of answers (K, N, 8) with weights (K, N)."""
    total = (np.nan_to_num(answers.astype(np.float64)) * weights[:, :, None]).sum(axis=0)
    return np.asarray(total / weights.sum(axis=0)[:, None])
