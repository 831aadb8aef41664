"""Temperature scaling: probabilities that mean how often the model is right.

Every probability is raised to the power 1/T and the row is made to sum to 1 again, which divides
the logits by T (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017). T above 1 makes
the model more modest. The order of the subtypes within a figure stays; p_atypical, the sum of four,
may change its order over figures.

Fit on out-of-fold predictions. Those come from single members, while a model predicts with the
members' mean, which is by itself more modest (Rahaman and Thiery, NeurIPS 2021): the fitted T then
errs towards modesty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.errors import InputError, Problem
from atypia.core.labels import N_SUBTYPES
from atypia.evaluation.metrics import log_loss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import FloatArray

TEMPERATURES: Final = (0.2, 50.0)
"""Lowest and highest temperature of a fit. Where a model makes no mistake at all, every lower
temperature fits better still; it gets the lowest."""

_SUM_TOLERANCE = 1e-3
# Below what float32 holds, a softmax has given 0; at least this much is meant.
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Calibration:
    """What a model does to its mean probabilities."""

    temperature: float = 1.0
    """1 leaves the probabilities as they are."""

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)

    def apply(self, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Calibrated probabilities, (N, 8) float32; see :func:`apply_temperature`."""
        return apply_temperature(probabilities, self.temperature)

    def to_json(self) -> dict[str, Any]:
        """Make the entry ``calibration`` of a bundle; kind ``none`` where it changes nothing."""
        if self.temperature == 1:
            return {"kind": "none"}
        return {"kind": "temperature", "temperature": self.temperature}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Calibration:
        """Read the entry ``calibration`` of a bundle.

        Raises:
            InputError: Another kind, or no temperature above 0.
        """
        if entry == {"kind": "none"}:
            return cls()
        if entry.keys() != {"kind", "temperature"} or entry["kind"] != "temperature":
            raise InputError(
                'calibration: expected {"kind": "none"} or {"kind": "temperature", '
                f'"temperature": a number above 0}} but got {dict(entry)!r}.'
            )
        return cls(entry["temperature"])


def fit_calibration(
    probabilities: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    groups: NDArray[np.generic] | None = None,
) -> Calibration:
    """Find the temperature of least log loss of probabilities (N, 8), out of fold.

    Each of `groups`, (N,) the domain of each figure, counts alike; without them every figure does,
    so that the fit belongs to the largest domain.

    Raises:
        InputError: See :func:`fit_temperature`; or `groups` has another length.
    """
    if groups is None:
        return Calibration(fit_temperature(probabilities, labels))
    if groups.shape != labels.shape:
        raise InputError(
            f"expected one group per label but got shapes {groups.shape} and {labels.shape}."
        )
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return Calibration(fit_temperature(probabilities, labels, 1 / sizes[group_of]))


def fit_temperature(
    probabilities: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    weights: FloatArray | None = None,
) -> float:
    """Find the temperature of least log loss, within :data:`TEMPERATURES`.

    The loss is convex in 1/T, hence has one minimum, which a bounded search over log T finds.
    Weights (N,) are not negative; None weighs every figure alike.

    Raises:
        InputError: Lists all that is wrong with the arrays.
    """
    # Slow to import, and not needed by a graph, which applies its own temperature.
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    check_labelled(probabilities, labels)
    if weights is None:
        weights = np.ones(len(labels))
    if weights.shape != labels.shape or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise InputError(
            f"expected {len(labels)} weights of at least 0, not all of them 0, but got shape "
            f"{weights.shape}, values {weights}."
        )
    logits = _log(probabilities)
    of_label = logits[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        per_logit = math.exp(-log_temperature)
        loss_of = logsumexp(logits * per_logit, axis=1) - of_label * per_logit
        return float(np.average(loss_of, weights=weights))

    lowest, highest = TEMPERATURES
    found = minimize_scalar(
        loss,
        bounds=(math.log(lowest), math.log(highest)),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return math.exp(found.x)


def calibrated_log_loss(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> float:
    """Log loss after the temperature that makes it least: what a temperature cannot mend.

    In nats; NaN where the probabilities (N, 8) are not finite.

    Raises:
        InputError: See :func:`fit_temperature`.
    """
    if not np.isfinite(probabilities).all():
        return math.nan
    fitted = apply_temperature(probabilities, fit_temperature(probabilities, labels))
    return float(log_loss(labels.astype(np.int64), fitted.astype(np.float64))[0])


def apply_temperature(
    probabilities: NDArray[np.floating[Any]], temperature: float
) -> NDArray[np.float32]:
    """Raise probabilities (N, 8) to the power 1/T and make each row sum to 1; (N, 8) float32.

    A probability of 0 is taken as the smallest that float32 holds, 1.2e-38. With a temperature of 1
    probabilities stay as they are.

    Raises:
        InputError: Other shapes or values.
    """
    _check_temperature(temperature)
    problems = probability_problems(probabilities)
    if problems:
        raise InputError(problems)
    if temperature == 1:
        return np.asarray(probabilities, dtype=np.float32)
    from scipy.special import softmax

    return np.asarray(softmax(_log(probabilities) / temperature, axis=1), dtype=np.float32)


def check_labelled(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> None:
    """Check subtype probabilities (N, 8) with their labels (N,), at least one of them.

    Raises:
        InputError: Lists all that is wrong.
    """
    problems = probability_problems(probabilities)
    if labels.ndim != 1 or len(labels) != len(probabilities) or not len(labels):
        problems.append(
            Problem(
                "expected at least one row and one label per row of probabilities but got shapes "
                f"{labels.shape} and {probabilities.shape}."
            )
        )
    wrong = ~np.isin(labels, np.arange(N_SUBTYPES))
    if wrong.any():
        problems.append(
            Problem(
                f"expected labels from 0 to {N_SUBTYPES - 1} but got {int(wrong.sum())} others, "
                f"the first {labels[wrong][0]!r}. Leave out the rows without a label."
            )
        )
    if problems:
        raise InputError(problems)


def probability_problems(probabilities: NDArray[np.floating[Any]]) -> list[Problem]:
    """List what keeps an array from being subtype probabilities: (N, 8), rows summing to 1."""
    if probabilities.ndim != 2 or probabilities.shape[1] != N_SUBTYPES:
        return [
            Problem(
                f"expected probabilities of shape (N, {N_SUBTYPES}) but got {probabilities.shape}."
            )
        ]
    total = probabilities.sum(axis=1, dtype=np.float64)
    wrong = ~((probabilities >= 0).all(axis=1) & (np.abs(total - 1) <= _SUM_TOLERANCE))
    if not wrong.any():
        return []
    first = int(np.flatnonzero(wrong)[0])
    return [
        Problem(
            "expected rows of probabilities, each at least 0 and summing to 1, but got "
            f"{int(wrong.sum())} other rows, the first at {first}: {probabilities[first]}."
        )
    ]


def _check_temperature(temperature: float) -> None:
    is_number = isinstance(temperature, float | int) and not isinstance(temperature, bool)
    if not (is_number and 0 < temperature < math.inf):
        raise InputError(f"expected a temperature above 0 but got {temperature!r}.")


def _log(probabilities: NDArray[np.floating[Any]]) -> FloatArray:
    return np.log(np.maximum(probabilities.astype(np.float64), _TINY))
