"""Operating points: from what probability on a figure is called atypical."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from atypia.evaluation.metrics import BoolArray, FloatArray

_NEAREST: Final = 1e-4
"""Probabilities count as no nearer to 0 and 1 than this: one figure must not tilt the curve."""
_FLATTEST: Final = 0.1
"""Least slope of the evidence; where p_atypical is worth nothing the curve would be flat."""


def cost_threshold(
    p_atypical: FloatArray,
    is_atypical: BoolArray,
    miss_cost: float,
    domains: NDArray[np.generic] | None = None,
) -> float:
    """Find the threshold from which on a call of atypical saves more than it costs.

    If a missed atypical figure costs as much as `miss_cost` false calls, a call is worth making
    where the share of atypical figures is 1 / (1 + miss_cost) or more (Elkan, IJCAI 2001). That
    share is a logistic curve over the logit of `p_atypical` (N,), fitted to the calls (N,), each
    smoothed a little so that separated kinds have a curve, too (Platt, Advances in Large Margin
    Classifiers, 1999). Its two numbers rest on all figures. The maximum of an accuracy rests on
    the few beside it, and jumps.

    With `domains` (N,) each domain with both kinds counts alike.

    Raises:
        InputError: Only atypical or only normal figures, in every domain, or all of the same
            probability.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    names = np.zeros(len(p_atypical)) if domains is None else domains
    _, domain = np.unique(names, return_inverse=True)
    n_atypical, n = np.bincount(domain, is_atypical), np.bincount(domain)
    counts = ((n_atypical > 0) & (n_atypical < n))[domain]
    if not counts.any() or np.ptp(p_atypical[counts]) == 0:
        raise InputError(
            "expected atypical and normal figures with different probabilities to fix an "
            f"operating point on but got {int(is_atypical.sum())} atypical of {len(is_atypical)}."
        )
    called, weights = is_atypical[counts], (1 / n[domain])[counts]
    p = np.clip(p_atypical[counts], _NEAREST, 1 - _NEAREST)
    evidence = np.log(p / (1 - p))
    target = np.where(called, 1 - 1 / (called.sum() + 2), 1 / ((~called).sum() + 2))

    def loss(curve: FloatArray) -> tuple[float, FloatArray]:
        logit = curve[0] * evidence + curve[1]
        slope = weights * (expit(logit) - target)
        value = weights @ (np.logaddexp(0, logit) - target * logit)
        return float(value), np.array([slope @ evidence, slope.sum()])

    bounds = [(_FLATTEST, None), (None, None)]
    slope, offset = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(expit((-math.log(miss_cost) - offset) / slope))


def threshold_of_sensitivity(
    p_atypical: FloatArray, is_atypical: BoolArray, sensitivity: float
) -> float:
    """Threshold from which on this share of the atypical figures lies, give or take one figure."""
    return float(np.quantile(p_atypical[is_atypical], 1 - sensitivity, method="lower"))


def threshold_of_specificity(
    p_atypical: FloatArray, is_atypical: BoolArray, specificity: float
) -> float:
    """Threshold below which this share of the normal figures lies, give or take one figure."""
    return float(np.quantile(p_atypical[~is_atypical], specificity, method="higher"))
