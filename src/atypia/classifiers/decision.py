"""From probabilities to an answer: which subtype, and whether the figure is atypical."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from atypia.core.labels import N_ATYPICAL, N_SUBTYPES


class Decision(BaseModel):
    """From probabilities to one subtype; fixed on the training part."""

    prior: Annotated[list[float], Field(min_length=N_SUBTYPES, max_length=N_SUBTYPES)]
    """Frequency of each subtype among the training labels."""
    power: float

    def subtypes(self, probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
        """Predicted subtype indices, (N,), from probabilities (N, 8); see :func:`decide`."""
        return decide(probabilities, np.array(self.prior), self.power)


def decide(
    probabilities: npt.NDArray[np.floating[Any]], prior: npt.NDArray[np.floating[Any]], power: float
) -> npt.NDArray[np.int64]:
    """Choose the subtype (N,) with the largest p / prior**power, from probabilities (N, 8).

    The most probable subtype (power 0) is right most often; it is hardly ever a rare one. With
    power 1 every subtype counts alike, which maximises the expected balanced accuracy if the
    probabilities are right (post-hoc logit adjustment: Menon et al., ICLR 2021). Priors are above
    0.
    """
    return np.asarray((probabilities / prior**power).argmax(axis=1), dtype=np.int64)


def p_atypical(probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Probability of an atypical figure, (N,), from subtype probabilities (N, 8)."""
    return np.asarray(probabilities[:, :N_ATYPICAL].sum(axis=1))
