"""Aggregate the probabilities of several members.

A row of a member that does not count (one that was trained on the patient) is NaN.
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
    """How the probabilities of members are aggregated.

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

    def __call__(self, members: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Aggregate predictions (K, N, 8), NaN where a member does not count, to rows (N, 8).

        Raises:
            ValueError: Other shapes, or a row on which no member counts.
        """
        shape = (len(self.weights or members), N_SUBTYPES)
        if members.ndim != 3 or (members.shape[0], members.shape[2]) != shape:
            raise ValueError(
                f"expected members' probabilities ({shape[0]}, N, 8) but got {members.shape}"
            )
        counts = ~np.isnan(members).any(axis=2)  # (K, N)
        if not counts.any(axis=0).all():
            raise ValueError("expected a member that counts on every row")
        if self.kind == "median":
            total = np.nanmedian(members.astype(np.float64), axis=0)
            # Four members of two minds may leave nothing in the middle: then their mean.
            total = np.where(total.any(axis=1, keepdims=True), total, _mean(members, counts))
        elif self.kind == "majority":
            votes = np.eye(N_SUBTYPES)[np.where(counts, members.argmax(axis=2), 0)]  # (K, N, 8)
            total = (votes * counts[:, :, None]).sum(axis=0) + _mean(members, counts)
        else:
            weights = np.ones(len(members)) if self.weights is None else np.array(self.weights)
            total = _mean(members, counts * weights[:, None])
        return np.asarray(total / total.sum(axis=1, keepdims=True))


def _mean(
    members: npt.NDArray[np.floating[Any]], weights: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.float64]:
    """Mean (N, 8) of probabilities (K, N, 8) with weights (K, N)."""
    total = (np.nan_to_num(members.astype(np.float64)) * weights[:, :, None]).sum(axis=0)
    return np.asarray(total / weights.sum(axis=0)[:, None])
