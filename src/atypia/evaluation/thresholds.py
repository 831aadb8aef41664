"""The operating point: from what probability on a figure is called atypical."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atypia.errors import InputError
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
) -> float:
    """Find the threshold of best balanced accuracy; ``p_atypical >= threshold`` is atypical.

    Fix it on out-of-fold predictions, never on the part that is reported. The maximum of the
    sample (Youden, Cancer 3, 1950) jumps with single figures; with `patients` the median of the
    maxima of resampled patients is returned, which holds up better on new data (bootstrapped
    cutpoints: Thiele and Hirschfeld, Journal of Statistical Software 98(11), 2021).

    Where several thresholds are equally good, the middle of the widest such interval is taken.

    Args:
        p_atypical: (N,) probability of an atypical figure, 0 to 1.
        is_atypical: (N,) truth.
        patients: (N,) the patient of each figure; None takes the maximum of the sample.
        resamples: Number of resamples of patients.
        seed: Seed of the resampling.

    Raises:
        InputError: Only atypical or only normal figures, or all of the same probability.
    """
    if is_atypical.all() or not is_atypical.any() or np.ptp(p_atypical) == 0:
        raise InputError(
            "expected atypical and normal figures with different probabilities to fix an "
            f"operating point on but got {int(is_atypical.sum())} atypical of {len(is_atypical)}."
        )
    if patients is None:
        return _best(p_atypical, is_atypical)
    best = []
    for chunk in patient_weights(patients, resamples, seed):
        for weights in chunk:
            drawn = np.repeat(np.arange(len(weights)), weights.astype(np.int64))
            if 0 < is_atypical[drawn].sum() < len(drawn) and np.ptp(p_atypical[drawn]) > 0:
                best.append(_best(p_atypical[drawn], is_atypical[drawn]))
    return float(np.median(best)) if best else _best(p_atypical, is_atypical)


def _best(p_atypical: FloatArray, is_atypical: BoolArray) -> float:
    """Middle of the widest interval of thresholds with the best balanced accuracy."""
    scores, group = np.unique(p_atypical, return_inverse=True)
    atypical = np.bincount(group, is_atypical)  # per distinct score, ascending
    normal = np.bincount(group, ~is_atypical)
    # Youden's index times (atypical x normal), a whole number, at a threshold in each gap between
    # neighbouring scores: whole numbers, so that equally good gaps compare as equal.
    missed, cleared = np.cumsum(atypical)[:-1], np.cumsum(normal)[:-1]
    youden = cleared * atypical.sum() - missed * normal.sum()
    is_best = np.concatenate([[False], youden == youden.max(), [False]])
    first, after_last = np.flatnonzero(is_best[1:] != is_best[:-1]).reshape(-1, 2).T
    low, high = scores[first], scores[after_last]
    widest = np.argmax(high - low)
    return float((low[widest] + high[widest]) / 2)
