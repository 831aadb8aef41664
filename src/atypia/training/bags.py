"""Which patients each member learns from: all outside its inner fold, or a draw of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.files import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

    from atypia.core.config import TrainConfig
    from atypia.data.splits import Outer

_DRAWS: Final = 100
"""How often a bag is drawn anew at most, where it lacks a subtype."""


def make_bags(
    manifest: pd.DataFrame,
    labels: npt.NDArray[np.int64],
    outer: Outer,
    number: int,
    config: TrainConfig,
) -> list[Counter[str]]:
    """Choose the patients of every member that is trained, and how often each one counts.

    Without ``ensemble.bagging`` a member has all patients outside its inner fold once. With it,
    patients are drawn from these with replacement, as bagging does with samples (Breiman, Machine
    Learning 24, 1996); figures of one patient are alike, so that the patient is what is drawn. The
    fold stays out, so that every patient is out of bag at least once. A bag that lacks a subtype
    which its patients have is drawn anew.

    Args:
        manifest: Of the cohort.
        labels: (N,) subtype index of every row; -1 where there is none.
        outer: The split.
        number: Of the outer split; with the seed it decides the draw.
        config: The training.
    """
    patients = manifest["patient_id"].to_numpy(dtype=str)
    bags = []
    for i in range(config.ensemble.trained or len(outer.inner)):
        own, _ = outer.member(i)
        bag = Counter(own)
        if config.ensemble.bagging is not None:
            size = max(1, round(config.ensemble.bagging * len(own)))
            rng = np.random.default_rng([config.seed, 2, number, i])
            wanted = _subtypes(labels, patients, own)
            for _ in range(_DRAWS):
                bag = Counter(rng.choice(own, size).tolist())
                if _subtypes(labels, patients, list(bag)) == wanted:
                    break
        bags.append(bag)
    return bags


def write_bag(file: Path, bag: Counter[str]) -> None:
    """Write the patients of a bag and how often each was drawn, as CSV."""
    lines = [f"{patient},{times}" for patient, times in sorted(bag.items())]
    write_text(file, "\n".join(["patient_id,times", *lines]) + "\n")


def _subtypes(
    labels: npt.NDArray[np.int64], patients: npt.NDArray[np.str_], chosen: Sequence[str]
) -> set[int]:
    """Subtypes of the figures of some patients."""
    return set(labels[np.isin(patients, chosen) & (labels >= 0)].tolist())
