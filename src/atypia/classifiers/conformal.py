"""Prediction sets: the subtypes that a figure may have, right at a guaranteed rate.

Split conformal prediction. The score of a calibration figure is 1 - p of its label, and a set
holds every subtype whose score is at most the ceil((n+1)(1-alpha))-th smallest of n. No score
gives smaller sets on average (least ambiguous sets, LAC: Sadinle, Lei and Wasserman, JASA 114,
2019). A new figure's label is then in its set with a probability of at least 1 - alpha, however
good or bad the probabilities, if it is exchangeable with the calibration figures (Vovk, Gammerman
and Shafer, Algorithmic Learning in a Random World, 2005).

Class-conditional sets (Mondrian) guarantee it within every subtype: each has a quantile of its
own. The sets are larger for it, and the guarantee is over calibration sets. Given one of them, the
coverage of a class with n calibration figures is a draw from Beta(k, n+1-k), where k is
ceil((n+1)(1-alpha)): with 20 figures and an alpha of 0.1 it lies between 0.78 and 0.98 in nine of
ten cases. Fewer than 1/alpha - 1 figures (9 for 0.1) guarantee nothing: that class is in every set.

Two limits. Figures of one patient resemble one another, so that patients are exchangeable but the
figures of a new patient and those of the calibration patients are not; the guarantee is exact for
one figure per patient, and the coverage of all figures of few patients scatters more than the Beta
distribution has it. And where scores come from out-of-fold predictions of members while the model
predicts with the members' mean, as in cross-conformal prediction (Vovk, Annals of Mathematics and
Artificial Intelligence 74, 2015), the coverage holds in practice, not by proof: a mean ranks better
than its members but is less sure. Measure it on a test part, with
:func:`atypia.evaluation.prediction_sets.set_measures`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.classifiers.calibration import check_labelled, probability_problems
from atypia.core.errors import InputError, Problem
from atypia.core.labels import N_SUBTYPES, SUBTYPES
from atypia.evaluation.prediction_sets import name_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import BoolArray, FloatArray


@dataclass(frozen=True)
class ConformalSets:
    """How large a score each subtype may have and still be in the set."""

    alpha: float
    """Guaranteed rate of sets without the label, 0 to 1."""
    quantiles: tuple[float, ...]
    """One of 1 - p for all subtypes, or one for each; infinite where `n` is too small."""
    n: tuple[int, ...]
    """Calibration figures behind each quantile."""

    def __post_init__(self) -> None:
        problems = _problems(self.alpha, self.quantiles, self.n)
        if problems:
            raise InputError(problems)

    @classmethod
    def fit(
        cls,
        probabilities: NDArray[np.floating[Any]],
        labels: NDArray[np.integer[Any]],
        alpha: float = 0.1,
        *,
        class_conditional: bool = False,
    ) -> ConformalSets:
        """Find the quantiles on probabilities (N, 8) that the model was not trained on.

        They are as it gives them, calibrated. `alpha` is the rate of sets that may miss the label
        (N,), above 0 and below 1: within each subtype where `class_conditional`, else over all.

        Raises:
            InputError: Lists all that is wrong with the arrays; or `alpha` is out of range.
        """
        problems = _problems(alpha)
        if problems:
            raise InputError(problems)
        check_labelled(probabilities, labels)
        scores = 1 - probabilities[np.arange(len(labels)), labels].astype(np.float64)
        groups = [scores[labels == c] for c in range(N_SUBTYPES)] if class_conditional else [scores]
        return cls(
            float(alpha),
            tuple(_quantile(group, alpha) for group in groups),
            tuple(len(group) for group in groups),
        )

    @property
    def class_conditional(self) -> bool:
        """Whether each subtype has a quantile of its own."""
        return len(self.quantiles) > 1

    @property
    def always_in(self) -> tuple[str, ...]:
        """Subtypes with too few calibration figures for a guarantee: they are in every set."""
        quantiles = np.broadcast_to(self.quantiles, N_SUBTYPES)
        return tuple(s for s, q in zip(SUBTYPES, quantiles, strict=True) if math.isinf(q))

    def sets(self, probabilities: NDArray[np.floating[Any]]) -> BoolArray:
        """Which subtypes are in the set of each figure, (N, 8), from probabilities (N, 8).

        A set may be empty: then no subtype is as probable as the label of a calibration figure
        nearly always is.

        Raises:
            InputError: Other shapes or values.
        """
        problems = probability_problems(probabilities)
        if problems:
            raise InputError(problems)
        return np.asarray(1 - probabilities.astype(np.float64) <= np.array(self.quantiles))

    def names(self, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.str_]:
        """Write :meth:`sets` in the form of the column ``conformal_set``, (N,).

        Raises:
            InputError: As :meth:`sets`.
        """
        return np.array([name_set(members) for members in self.sets(probabilities)], dtype=np.str_)

    def to_json(self) -> dict[str, Any]:
        """Make an entry of a bundle; an infinite quantile is null, as JSON has no infinity."""
        return {
            "kind": "lac",
            "alpha": self.alpha,
            "quantiles": [None if math.isinf(q) else q for q in self.quantiles],
            "n": list(self.n),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> ConformalSets:
        """Read an entry of a bundle.

        Raises:
            InputError: Lists all that is wrong.
        """
        keys = {"kind", "alpha", "quantiles", "n"}
        if entry.keys() != keys or entry["kind"] != "lac":
            raise InputError(
                f'conformal sets: expected kind "lac" with {sorted(keys - {"kind"})} but got '
                f"{dict(entry)!r}."
            )
        if not (isinstance(entry["quantiles"], list) and isinstance(entry["n"], list)):
            raise InputError(
                f"conformal sets: expected lists of quantiles and n but got {dict(entry)!r}."
            )
        quantiles = (math.inf if q is None else q for q in entry["quantiles"])
        return cls(entry["alpha"], tuple(quantiles), tuple(entry["n"]))


def _quantile(scores: FloatArray, alpha: float) -> float:
    """Take the ceil((n+1)(1-alpha))-th smallest score; infinite where there are not as many."""
    # Decimals are not exact in binary: an alpha of 0.29 must not take the 72nd of 99 for the 71st.
    rank = len(scores) + 1 - math.floor((len(scores) + 1) * alpha * (1 + 1e-12))
    return math.inf if rank > len(scores) else float(np.sort(scores)[rank - 1])


def _problems(
    alpha: object, quantiles: Sequence[object] = (0.0,), n: Sequence[object] = (0,)
) -> list[Problem]:
    problems = []
    if not (isinstance(alpha, float) and 0 < alpha < 1):
        problems.append(f"expected an alpha between 0 and 1 but got {alpha!r}.")
    scores = [q for q in quantiles if isinstance(q, float | int) and (0 <= q <= 1 or q == math.inf)]
    if len(quantiles) not in (1, N_SUBTYPES) or len(scores) != len(quantiles):
        problems.append(
            f"expected 1 or {N_SUBTYPES} quantiles from 0 to 1, or infinite, but got {quantiles}."
        )
    counts = [count for count in n if isinstance(count, int) and count >= 0]
    if len(counts) != len(quantiles) or len(counts) != len(n):
        problems.append(f"expected one number of figures per quantile but got {n}.")
    return [Problem(f"conformal sets: {what}") for what in problems]
