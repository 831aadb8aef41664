"""A leak made on purpose: figures are split as if each were a patient of its own.

Figures of one patient are alike: same stain, same scanner, same tumour. A network that has seen
some of them knows others for reasons that do not hold for the next patient. Published figures of
the field rest on such splits; the kind ``leak_by_figure`` is there to show how much that is worth
in a given case, beside ``monte_carlo`` with the same settings, and for nothing else. Only the
training of a network makes it; everything that reads its run is told by the kind.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.config import LEAK
from atypia.core.errors import LeakError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from atypia.data.cohort import Cohort

log = logging.getLogger("atypia")

_OWNER: Final = "figure_of_patient"


def leaking(cohort: Cohort) -> Cohort:
    """Say that each figure is a patient; only for a split of kind ``leak_by_figure``."""
    log.warning(
        "split %s: figures of one patient will stand on both sides. The measures of this run are "
        "WRONG; they show what the leak does, nothing else.",
        LEAK,
    )
    owners = cohort.manifest["patient_id"]
    figures = cohort.manifest["patch_id"]
    return replace(cohort, manifest=cohort.manifest.assign(patient_id=figures, **{_OWNER: owners}))


def with_true_patients(manifest: pd.DataFrame) -> pd.DataFrame:
    """Give the figures of a leaking cohort back to their patients; others stay as they are."""
    if _OWNER not in manifest.columns:
        return manifest
    return manifest.assign(patient_id=manifest[_OWNER]).drop(columns=_OWNER)


def require_figures(manifest: pd.DataFrame) -> None:
    """Refuse a manifest of patients.

    Raises:
        LeakError: It is not from :func:`leaking`.
    """
    if _OWNER not in manifest.columns:
        raise LeakError(
            f"split {LEAK!r}: expected the training of a network, the only one for which this leak "
            "is made, to show what it does. Use monte_carlo, whose patients never cross a boundary."
        )


def deal_figures(
    counts: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal figures into folds at random, each class by the folds' shares.

    Args:
        counts: (N, C) at most one label for each figure.
        shares: (F,) positive, sum 1.
        rng: Decides who goes where.

    Returns:
        (N,) fold of each figure.
    """
    fold_of = np.zeros(len(counts), dtype=np.int64)
    classes = np.where(counts.any(axis=1), counts.argmax(axis=1), -1)
    for c in np.unique(classes):
        mine = rng.permutation(np.flatnonzero(classes == c))
        ends = np.round(np.cumsum(shares) * len(mine)).astype(np.int64)
        fold_of[mine] = np.searchsorted(ends, np.arange(len(mine)), side="right")
    return fold_of
