"""From probabilities to an answer: whether the figure is atypical, then which subtype it is.

One rule gives both, so that they cannot contradict each other. The call comes first: a figure is
atypical where p_atypical, the sum over the four atypical subtypes, reaches the threshold of the
operating point. The subtype is then chosen among those of that side alone.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from atypia.core.labels import N_ATYPICAL, N_SUBTYPES


class Decision(BaseModel):
    """How the subtype is chosen within a side; fixed on the training part."""

    prior: Annotated[list[float], Field(min_length=N_SUBTYPES, max_length=N_SUBTYPES)]
    """Frequency of each subtype among the training labels."""
    power: float


class Rate(BaseModel):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


class OperatingPoint(BaseModel):
    """A threshold, and what calls are worth at it, measured out of fold."""

    threshold: Annotated[float, Field(allow_inf_nan=False)]
    """A figure is called atypical from this p_atypical on."""
    sensitivity: Rate | None = None
    """Share of the atypical figures that are called atypical; None in bundles that hold none."""
    specificity: Rate | None = None
    ppv: dict[str, float] = {}
    """Share of the calls of atypical that are right, by the prevalence of atypical figures."""


def decide(
    probabilities: npt.NDArray[np.floating[Any]],
    prior: npt.NDArray[np.floating[Any]],
    power: float,
    threshold: float | None = None,
) -> npt.NDArray[np.int64]:
    """Choose the subtype (N,) with the largest p / prior**power, from probabilities (N, 8).

    With a `threshold` it is the largest of one side: of the atypical subtypes where p_atypical is
    at least the threshold, else of the normal ones; without, the largest of all.

    The most probable subtype (power 0) is right most often; it is hardly ever a rare one. With
    power 1 every subtype counts alike, which maximises the expected balanced accuracy if the
    probabilities are right (post-hoc logit adjustment: Menon et al., ICLR 2021). Priors are above
    0.
    """
    ratios = probabilities / prior**power
    if threshold is not None:
        called = p_atypical(probabilities) >= threshold
        own_side = (np.arange(N_SUBTYPES) < N_ATYPICAL) == called[:, None]
        ratios = np.where(own_side, ratios, -1)
    return np.asarray(ratios.argmax(axis=1), dtype=np.int64)


def p_atypical(probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Probability of an atypical figure, (N,), from subtype probabilities (N, 8)."""
    # Rounded, four float32 may sum to more than 1.
    return np.asarray(np.minimum(probabilities[:, :N_ATYPICAL].sum(axis=1), 1))
