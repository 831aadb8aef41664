"""The operating point: from what probability on a figure is called atypical."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atypia.core.errors import InputError
from atypia.evaluation.intervals import patient_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from atypia.evaluation.metrics import BoolArray, FloatArray


def operating_point(
    p_atypical: FloatArray,
    is_atypical: BoolArray,
    patients: NDArray[np.generic] | None = None,
    resamples: int = 500,
    seed: int = 0,
    *,
    domains: NDArray[np.generic] | None = None,
) -> float:
    """Find the threshold of best balanced accuracy; ``p_atypical >= threshold`` is atypical.

    Fix it on out-of-fold predictions, never on the part that is reported. The maximum of the
    sample (Youden, Cancer 3, 1950) jumps with single figures; with `patients` (N,) the median of
    the maxima of resampled patients is returned, which holds up better on new data (bootstrapped
    cutpoints: Thiele and Hirschfeld, Journal of Statistical Software 98(11), 2021).

    With `domains` (N,) each domain with both kinds counts alike, so that the threshold does not
    belong to the largest one and is a better guess for the next. Where several thresholds are
    equally good, the middle of the widest such interval is taken.

    Raises:
        InputError: Only atypical or only normal figures, in every domain, or all of the same
            probability.
    """
    if domains is not None:
        counts = _has_both(is_atypical, domains)
        p_atypical, is_atypical, domains = p_atypical[counts], is_atypical[counts], domains[counts]
        patients = None if patients is None else patients[counts]
    if not len(p_atypical) or _one_kind(is_atypical) or np.ptp(p_atypical) == 0:
        raise InputError(
            "expected atypical and normal figures with different probabilities to fix an "
            f"operating point on but got {int(is_atypical.sum())} atypical of {len(is_atypical)}."
        )
    if patients is None:
        return _best(p_atypical, is_atypical, domains)
    best = []
    for chunk in patient_weights(patients, resamples, seed):
        for weights in chunk:
            drawn = np.repeat(np.arange(len(weights)), weights.astype(np.int64))
            if domains is not None:
                drawn = drawn[_has_both(is_atypical[drawn], domains[drawn])]
            if len(drawn) and not _one_kind(is_atypical[drawn]) and np.ptp(p_atypical[drawn]) > 0:
                of_drawn = None if domains is None else domains[drawn]
                best.append(_best(p_atypical[drawn], is_atypical[drawn], of_drawn))
    return float(np.median(best)) if best else _best(p_atypical, is_atypical, domains)


def _one_kind(is_atypical: BoolArray) -> bool:
    return bool(is_atypical.all() or not is_atypical.any())


def _has_both(is_atypical: BoolArray, domains: NDArray[np.generic]) -> BoolArray:
    """(N,) whether the domain of a figure has atypical and normal ones."""
    _, domain = np.unique(domains, return_inverse=True)
    both = (np.bincount(domain, is_atypical) > 0) & (np.bincount(domain, ~is_atypical) > 0)
    return np.asarray(both[domain], dtype=bool)


def _best(
    p_atypical: FloatArray, is_atypical: BoolArray, domains: NDArray[np.generic] | None = None
) -> float:
    """Middle of the widest interval of thresholds with the best (mean) balanced accuracy."""
    scores, group = np.unique(p_atypical, return_inverse=True)
    names = np.zeros(len(group)) if domains is None else domains
    youden = np.zeros(len(scores) - 1)
    for name in np.unique(names):
        own = names == name
        atypical = np.bincount(group[own], is_atypical[own], len(scores))  # per score, ascending
        normal = np.bincount(group[own], ~is_atypical[own], len(scores))
        # Youden's index times (atypical x normal), a whole number, at a threshold in each gap
        # between neighbouring scores: whole numbers, so that equally good gaps compare as equal.
        missed, cleared = np.cumsum(atypical)[:-1], np.cumsum(normal)[:-1]
        index = cleared * atypical.sum() - missed * normal.sum()
        youden += index if domains is None else index / (atypical.sum() * normal.sum())
    if domains is not None:
        youden = youden.round(9)
    is_best = np.concatenate([[False], youden == youden.max(), [False]])
    first, after_last = np.flatnonzero(is_best[1:] != is_best[:-1]).reshape(-1, 2).T
    low, high = scores[first], scores[after_last]
    widest = np.argmax(high - low)
    return float((low[widest] + high[widest]) / 2)
