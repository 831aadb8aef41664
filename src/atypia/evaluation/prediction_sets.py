"""Prediction sets: how a table writes them, and how they are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.labels import N_SUBTYPES, SUBTYPES
from atypia.evaluation.intervals import OF

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray, Measures

EMPTY: Final = "empty"
"""How a table writes a set without subtypes; an empty cell means that there is none."""
SET_OVERALL: Final = ("coverage", "named_inside", "mean_size", "single", "empty")
SET_PER_CLASS: Final = ("class_coverage", "class_mean_size")


def name_set(members: BoolArray, order: Iterable[int] = range(N_SUBTYPES)) -> str:
    """Write one set, (8,), in an order, as ``amf_other|nmf_metaphase``, or :data:`EMPTY`."""
    return "|".join(SUBTYPES[i] for i in order if members[i]) or EMPTY


def parse_set(text: str) -> BoolArray | None:
    """Read one set, (8,), as :func:`name_set` writes it; None where it is no such text."""
    names = [] if text == EMPTY else text.split("|")
    members = np.isin(SUBTYPES, names)
    return members if members.sum() == len(names) else None


def set_measures(
    truth: IntArray, named: IntArray, sets: BoolArray, weights: FloatArray | None = None
) -> Measures:
    """Measures of sets (N, 8) of subtypes: :data:`SET_OVERALL` (R,), :data:`SET_PER_CLASS` (R, 8).

    ``coverage`` is the share of sets with the label `truth` (N,) in them, ``named_inside`` of those
    with the `named` subtype (N,), ``mean_size`` the mean number of subtypes in a set, ``single``
    and ``empty`` the shares of sets of one and of none.
    """
    if weights is None:
        weights = np.ones((1, len(truth)))
    rows = np.arange(len(truth))
    covered = sets[rows, truth].astype(np.float64)
    size = sets.sum(axis=1).astype(np.float64)
    of_class = np.eye(N_SUBTYPES)[truth]

    def mean(values: FloatArray, of: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore"):  # 0/0 is NaN: a class that was not drawn
            return np.asarray((weights @ (of * values[:, None])) / (weights @ of))

    everything = np.ones((len(truth), 1))
    shares = {
        "coverage": covered,
        "named_inside": sets[rows, named],
        "single": size == 1,
        "empty": size == 0,
    }
    return {
        **{k: mean(v.astype(np.float64), everything)[:, 0] for k, v in shares.items()},
        **{f"{k}{OF}": weights.sum(axis=1) for k in shares},
        "mean_size": mean(size, everything)[:, 0],
        "class_coverage": mean(covered, of_class),
        f"class_coverage{OF}": weights @ of_class,
        "class_mean_size": mean(size, of_class),
    }
