"""Training as if only some of the patients had been labelled, to see what labels give."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from atypia.core.labels import N_SUBTYPES

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from atypia.core.config import TrainConfig
    from atypia.data.splits import Outer

_JITTER = 0.5
"""How far chance, rather than the spread of the subtypes, decides who comes next."""


def hidden_rows(
    manifest: pd.DataFrame,
    labels: npt.NDArray[np.int64],
    outer: Outer,
    number: int,
    config: TrainConfig,
) -> npt.NDArray[np.bool_]:
    """Rows of training patients whose labels are not learned from, (N,).

    Of each inner fold the first patients of an order keep their labels, so that the members of an
    ensemble share them and none is left with a fold that has none. The order follows from seed and
    split alone; a smaller share is a part of a larger one. At any place of it the patients up to
    there hold about as large a part of each subtype as of the patients: a tenth of the labels holds
    a tenth of the ring shapes, not none or all by chance.

    Args:
        manifest: Of the cohort.
        labels: (N,) subtype index by the chosen label; -1 where there is none.
        outer: The split; patients of its test part are no training patients.
        number: Of the outer split.
        config: Its ``target.labelled_patients`` and ``seed``.
    """
    patients = manifest["patient_id"].to_numpy(dtype=str)
    hidden = np.zeros(len(manifest), bool)
    share = config.target.labelled_patients
    if share == 1:
        return hidden
    for i, fold in enumerate(outer.inner):
        order = order_patients(patients, labels, fold, [config.seed, 3, number, i])
        others = order[math.ceil(share * len(order) - 1e-9) :]
        hidden |= np.isin(patients, others)
    return hidden


def order_patients(
    patients: npt.NDArray[np.str_],
    labels: npt.NDArray[np.int64],
    chosen: tuple[str, ...],
    seed: list[int],
) -> list[str]:
    """Put patients into an order of which every beginning is like the whole.

    Each place goes to the patient after whom the parts that the patients up to there hold of each
    subtype differ least from their part of the patients, in squares; chance has a say, too.

    Args:
        patients: (N,) patient of each figure.
        labels: (N,) subtype index of each figure, -1 where there is none.
        chosen: The patients to put in order.
        seed: Decides what chance says.
    """
    names = sorted(chosen)
    random = np.random.default_rng(seed)
    counts = np.zeros((len(names), N_SUBTYPES))
    for i, name in enumerate(names):
        known = labels[(patients == name) & (labels >= 0)]
        counts[i] = np.bincount(known, minlength=N_SUBTYPES)
    parts = counts / np.maximum(counts.sum(axis=0), 1)  # (P, 8), columns sum to 1 (or 0)
    present = counts.any(axis=0)
    held, left = np.zeros(N_SUBTYPES), list(range(len(names)))
    order: list[str] = []
    while left:
        wanted = (len(order) + 1) / len(names)
        cost = ((held + parts[left] - wanted)[:, present] ** 2).sum(axis=1)
        cost = cost * random.uniform(1 - _JITTER, 1 + _JITTER, len(left))
        best = left[int(np.argmin(cost))]
        held += parts[best]
        order.append(names[best])
        left.remove(best)
    return order
