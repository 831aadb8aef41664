"""Prediction sets: the subtypes that a figure may have, with the named one always among them.

A subtype's score is its probability over the level that only a share alpha of its own figures,
out of fold, stay below. A set holds every subtype with a score of at least 1, and all that score
at least as high as the subtype that is named: it has no gap. Without the second rule these are
class-conditional least ambiguous sets, a conformal method; no other score gives smaller ones
(Sadinle, Lei and Wasserman, JASA 114, 2019; Mondrian: Vovk, Gammerman and Shafer, Algorithmic
Learning in a Random World, 2005).

The level is a quantile of log p, interpolated between figures so that on average just alpha are
below it (Weibull positions; Hutson, Statistics and Probability Letters 43, 1999), where split
conformal prediction takes the next lower figure and covers more: a fifth more where there are 20
figures. A rare subtype's quantile hangs on one or two of its figures. It is therefore drawn
towards the mean over the subtypes as if five more figures lay there, so that one figure
that the model is blind to does not bring its subtype into every set.

So a set holds the label of nine in ten figures of each subtype (alpha 0.1) on average, not by
proof. Figures of one patient resemble one another, and those of few patients scatter more. Scores
come from out-of-fold predictions of members while the model predicts with the members' mean, which
ranks better but is less sure. Measure coverage on a test part, with
:func:`atypia.evaluation.prediction_sets.set_measures`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.classifiers.calibration import check_labelled, probability_problems
from atypia.core.errors import InputError, Problem
from atypia.core.labels import N_SUBTYPES
from atypia.evaluation.prediction_sets import name_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import BoolArray, FloatArray

SHRINKAGE: Final = 5
"""Figures that the mean over the subtypes counts as beside a subtype's own."""
_LEAST: Final = 1e-6
"""Probabilities below are alike: how far below depends on rounding."""


@dataclass(frozen=True)
class ConformalSets:
    """How improbable each subtype may be and still be in the set."""

    alpha: float
    """Rate of sets without the label, 0 to 1, within each subtype."""
    quantiles: tuple[float, ...]
    """Of 1 - p: one for each subtype; in older bundles perhaps one for all, or infinite where a
    subtype had too few figures: it is then in every set."""
    n: tuple[int, ...]
    """Figures behind each quantile."""

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
    ) -> ConformalSets:
        """Find the quantiles on probabilities (N, 8) that the model was not trained on.

        They are as it gives them, calibrated. `alpha` is the rate of sets that miss the label (N,)
        within each subtype, above 0 and below 1.

        Raises:
            InputError: Lists all that is wrong with the arrays; or `alpha` is out of range.
        """
        problems = _problems(alpha)
        if problems:
            raise InputError(problems)
        check_labelled(probabilities, labels)
        log_p = np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
        own = [log_p[labels == c, c] for c in range(N_SUBTYPES)]
        n = np.array([len(values) for values in own])
        level = [np.quantile(v, alpha, method="weibull") if len(v) else 0.0 for v in own]
        drawn = (n * level + SHRINKAGE * np.mean(np.array(level)[n > 0])) / (n + SHRINKAGE)
        return cls(float(alpha), tuple((1 - np.exp(drawn)).tolist()), tuple(n.tolist()))

    def scores(self, probabilities: NDArray[np.floating[Any]]) -> FloatArray:
        """Score each subtype of each figure, (N, 8), from probabilities (N, 8).

        Infinite for a subtype that is in every set.

        Raises:
            InputError: Other shapes or values.
        """
        problems = probability_problems(probabilities)
        if problems:
            raise InputError(problems)
        level = np.broadcast_to(1 - np.array(self.quantiles), probabilities.shape)
        scores: FloatArray = np.full(probabilities.shape, np.inf)
        np.divide(probabilities.astype(np.float64), level, out=scores, where=level > 0)
        return scores

    def sets(
        self, probabilities: NDArray[np.floating[Any]], named: NDArray[np.integer[Any]]
    ) -> BoolArray:
        """Which subtypes are in the set of each figure, (N, 8), from probabilities (N, 8).

        The `named` subtype (N,) is, and every one that scores as high.

        Raises:
            InputError: As :meth:`scores`.
        """
        scores = self.scores(probabilities)
        of_named = scores[np.arange(len(scores)), named]
        return np.asarray(scores >= np.minimum(of_named, 1)[:, None])

    def names(
        self, probabilities: NDArray[np.floating[Any]], named: NDArray[np.integer[Any]]
    ) -> NDArray[np.str_]:
        """Write :meth:`sets` for a table, (N,): the named subtype first, then by falling score.

        Raises:
            InputError: As :meth:`scores`.
        """
        scores = self.scores(probabilities)
        sets = self.sets(probabilities, named)
        scores = np.minimum(scores, np.finfo(np.float64).max)
        scores[np.arange(len(scores)), named] = np.inf
        orders = np.argsort(-scores, axis=1, kind="stable")
        texts = [name_set(members, order) for members, order in zip(sets, orders, strict=True)]
        return np.array(texts, dtype=np.str_)

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
                f'prediction sets: expected kind "lac" with {sorted(keys - {"kind"})} but got '
                f"{dict(entry)!r}."
            )
        if not (isinstance(entry["quantiles"], list) and isinstance(entry["n"], list)):
            raise InputError(
                f"prediction sets: expected lists of quantiles and n but got {dict(entry)!r}."
            )
        quantiles = (math.inf if q is None else q for q in entry["quantiles"])
        return cls(entry["alpha"], tuple(quantiles), tuple(entry["n"]))


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
    return [Problem(f"prediction sets: {what}") for what in problems]
