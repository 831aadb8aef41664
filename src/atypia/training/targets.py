"""What a network learns from: one distribution over the subtypes per patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atypia.errors import InputError
from atypia.labels import N_SUBTYPES, SUBTYPES, subtype_index

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from atypia.config import TargetConfig


def chosen_labels(manifest: pd.DataFrame, label: str) -> npt.NDArray[np.int64]:
    """Subtype index of every patch, (N,), by the chosen label; -1 where there is none.

    Args:
        manifest: Of a cohort.
        label: Name of a rater, or ``agreed``: where all raters who gave a subtype gave the same.

    Raises:
        InputError: The cohort has no such rater.
    """
    raters = [c.removeprefix("label_") for c in manifest.columns if c.startswith("label_")]
    if label == "agreed" and raters:
        table = manifest[[f"label_{r}" for r in raters]]
        first = table.replace("", None).bfill(axis=1).iloc[:, 0].fillna("")
        same = ((table == "") | table.eq(first, axis=0)).all(axis=1)
        names = first.where(same & (table != "").sum(axis=1).gt(1), "")
    elif label in raters:
        names = manifest[f"label_{label}"]
    else:
        raise InputError(
            f"label: expected a rater of the cohort {raters} or 'agreed' but got {label!r}."
        )
    return np.array([subtype_index(n) if n else -1 for n in names], dtype=np.int64)


def soft_targets(
    manifest: pd.DataFrame, labels: npt.NDArray[np.int64], config: TargetConfig
) -> npt.NDArray[np.float32]:
    """Target distributions, (N, 8), rows summing to 1; rows without a label are zero.

    A second rater's opinion takes its share of the mass where that rater gave one. A cohort
    without that rater is learned from the chosen label alone.
    """
    one_hot = np.eye(N_SUBTYPES, dtype=np.float32)
    targets = np.where(labels[:, None] >= 0, one_hot[labels], 0)
    column = f"label_{config.second_rater}"
    if config.second_rater is not None and column in manifest.columns:
        second = chosen_labels(manifest, config.second_rater)
        both = ((second >= 0) & (labels >= 0))[:, None]
        mass = config.second_rater_mass
        targets = np.where(both, (1 - mass) * targets + mass * one_hot[second], targets)
    smoothed = (1 - config.smoothing) * targets + config.smoothing / N_SUBTYPES
    return np.where(labels[:, None] >= 0, smoothed, 0).astype(np.float32)


def require_every_class(labels: npt.NDArray[np.int64], part: str) -> None:
    """Refuse a part of the data in which a subtype is missing.

    Raises:
        InputError: Names the missing subtypes.
    """
    missing = [SUBTYPES[i] for i in range(N_SUBTYPES) if not (labels == i).any()]
    if missing:
        raise InputError(
            f"{part}: expected at least one figure of each subtype but found none of "
            f"{', '.join(missing)}. Use fewer folds (ensemble.members), another seed, or a cohort "
            "in which more patients have these subtypes."
        )
