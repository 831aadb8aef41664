"""From probabilities to an answer: whether the figure is atypical, then which subtype it is.

One rule gives both, so that they cannot contradict each other. The call comes first: a figure is
atypical where p_atypical, the sum over the four atypical subtypes, reaches the threshold of the
operating point. The subtype is then chosen among those of that side alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from atypia.core.labels import N_ATYPICAL, N_SUBTYPES

if TYPE_CHECKING:
    from atypia.evaluation.metrics import FloatArray, Measures

PREVALENCES: Final = (0.05, 0.1, 0.2, 0.3)
"""Shares of atypical figures that a PPV is given at."""
_ROUNDS: Final = 100


class Decision(BaseModel):
    """How the subtype is chosen within a side; fixed on the training part."""

    prior: Annotated[list[float], Field(min_length=N_SUBTYPES, max_length=N_SUBTYPES)]
    """Frequency of each subtype among the training labels."""
    power: float
    weights: Annotated[list[float], Field(min_length=N_SUBTYPES, max_length=N_SUBTYPES)] | None = (
        None
    )
    """What a probability is multiplied by before it is compared within its side; None: by 1."""

    @classmethod
    def fit(
        cls,
        probabilities: npt.NDArray[np.floating[Any]],
        labels: npt.NDArray[np.int64],
        power: float,
    ) -> Decision:
        """Fit weights to labels (N,) and probabilities (N, 8) out of fold.

        Within a side, each subtype's weighted probabilities add up to its labels: the biases of
        bias-corrected temperature scaling (Alexandari et al., ICML 2020), of most likelihood.
        """
        counts = np.bincount(labels, minlength=N_SUBTYPES)
        weights = np.ones(N_SUBTYPES)
        for side in (slice(0, N_ATYPICAL), slice(N_ATYPICAL, N_SUBTYPES)):
            own = (labels < N_ATYPICAL) == (side.start == 0)
            p = probabilities[own, side].astype(np.float64) + np.finfo(np.float32).tiny
            for _ in range(_ROUNDS):
                shares = p * weights[side]
                expected = (shares / shares.sum(axis=1, keepdims=True)).sum(axis=0)
                # One figure more of each draws the weights of rare subtypes towards 1.
                weights[side] *= (counts[side] + 1) / (expected + 1)
        prior = (counts / counts.sum()).tolist()
        return cls(prior=prior, power=power, weights=weights.tolist())

    def subtypes(
        self, probabilities: npt.NDArray[np.floating[Any]], threshold: float
    ) -> npt.NDArray[np.int64]:
        """Choose subtypes (N,) of the called side, from probabilities (N, 8)."""
        weighted = probabilities if self.weights is None else probabilities * self.weights
        ratios = weighted / np.array(self.prior) ** self.power
        called = p_atypical(probabilities) >= threshold
        own_side = (np.arange(N_SUBTYPES) < N_ATYPICAL) == called[:, None]
        return np.asarray(np.where(own_side, ratios, -1).argmax(axis=1), dtype=np.int64)


class Rate(BaseModel):
    """A share with its 95 % interval."""

    value: float
    low: float | None
    high: float | None
    """None where one patient alone gives no interval."""


class OperatingPoint(BaseModel):
    """A threshold, and what calls are worth at it, measured out of fold."""

    threshold: Annotated[float, Field(allow_inf_nan=False)]
    """A figure is called atypical from this p_atypical on."""
    sensitivity: Rate | None = None
    """Share of the atypical figures that are called atypical; None in bundles that hold none."""
    specificity: Rate | None = None
    ppv: dict[str, float] = {}
    """Share of the calls of atypical that are right, by the prevalence of atypical figures."""

    @classmethod
    def measured(
        cls,
        threshold: float,
        p_atypical: FloatArray,
        is_atypical: npt.NDArray[np.bool_],
        patients: npt.NDArray[np.generic],
        stand_for: FloatArray | float = 1.0,
    ) -> OperatingPoint:
        """Measure a threshold on N figures not learned from; intervals are over patients (N,).

        Each may `stand_for` (N,) several, where the figures are no random sample.
        """
        from atypia.evaluation.intervals import estimate, finite_or_none
        from atypia.evaluation.metrics import binary_measures

        def statistic(weights: FloatArray) -> Measures:
            return binary_measures(is_atypical, p_atypical >= threshold, weights * stand_for)

        found = estimate(statistic, patients)
        sensitivity, specificity = (
            Rate(value=float(of.value), low=finite_or_none(of.low), high=finite_or_none(of.high))
            for of in (found["sensitivity"], found["specificity"])
        )
        ppv = {}
        for prevalence in PREVALENCES:
            right = prevalence * sensitivity.value
            wrong = (1 - prevalence) * (1 - specificity.value)
            if right + wrong > 0:
                ppv[f"{prevalence:g}"] = right / (right + wrong)
        return cls(threshold=threshold, sensitivity=sensitivity, specificity=specificity, ppv=ppv)


def decide(
    probabilities: npt.NDArray[np.floating[Any]],
    prior: npt.NDArray[np.floating[Any]],
    power: float,
) -> npt.NDArray[np.int64]:
    """Choose the subtype (N,) with the largest p / prior**power of all, from probabilities (N, 8).

    For a training that has no threshold yet; a model's answers are of :meth:`Decision.subtypes`.
    The most probable subtype (power 0) is right most often; it is hardly ever a rare one. With
    power 1 every subtype counts alike, which maximises the expected balanced accuracy if the
    probabilities are right (post-hoc logit adjustment: Menon et al., ICLR 2021). Priors are above
    0.
    """
    return np.asarray((probabilities / prior**power).argmax(axis=1), dtype=np.int64)


def p_atypical(probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Probability of an atypical figure, (N,), from subtype probabilities (N, 8)."""
    # Rounded, four float32 may sum to more than 1.
    return np.asarray(np.minimum(probabilities[:, :N_ATYPICAL].sum(axis=1), 1))
