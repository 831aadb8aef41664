"""What describes the figures of patients: features of a backbone, or the answers of a model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atypia.core.errors import InputError
from atypia.evaluation.predictions import read_predictions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

log = logging.getLogger("atypia")

_LEAST = 1e-6
"""Of a probability before its logarithm is taken."""


@dataclass(frozen=True)
class BagFeatures:
    """N figures and what describes them."""

    patch_ids: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]
    """(N,)."""
    values: npt.NDArray[np.float32]
    """(N, V, F): F numbers in each of V views."""
    origin: str
    """Where the numbers come from, for the record."""

    def rows_of(self, patients: Iterable[str]) -> list[npt.NDArray[np.int64]]:
        """Rows of the figures of each patient, in the order of the patients."""
        order = np.argsort(self.patients, kind="stable")
        names, starts = np.unique(self.patients[order], return_index=True)
        rows = dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))
        return [rows[patient] for patient in patients]


def figures_from_features(
    manifest: pd.DataFrame, values: npt.NDArray[np.float32], origin: str
) -> BagFeatures:
    """Describe each figure of a cohort by the features (N, V, F) of a backbone."""
    ids, patients = (manifest[c].to_numpy(dtype=str) for c in ("patch_id", "patient_id"))
    return BagFeatures(ids, patients, values, origin)


def figures_from_answers(manifest: pd.DataFrame, table: Path) -> BagFeatures:
    """Describe figures by the logarithms of a model's eight probabilities.

    Args:
        manifest: Of the cohort. Figures that the table does not have are left out.
        table: Of predictions, or a run folder: its answers out of fold and to its test part,
            neither by a model that has learned from the patient.

    Raises:
        InputError: No figure of the cohort is in the table, or one is in it several times.
    """
    own = [table / name for name in ("predictions-oof.csv", "predictions-test.csv")]
    files = [file for file in own if file.is_file()] or [table]
    parts = [read_predictions(file) for file in files]
    patch_ids = np.concatenate([part.patch_ids for part in parts])
    probabilities = np.concatenate([part.probabilities for part in parts])
    ids, times = np.unique(patch_ids, return_counts=True)
    if (times > 1).any():
        raise InputError(
            f"answers: expected every patch once in {table} but got "
            f"{int((times > 1).sum())} of them several times. Give the table of one repeat."
        )
    known = manifest["patch_id"].isin(ids).to_numpy(dtype=bool)
    if not known.any():
        raise InputError(f"answers: expected patches of the cohort in {table} but found none.")
    if not known.all():
        left = int((~known).sum())
        log.warning("answers: %d of %d figures are not in %s and left out", left, len(known), table)
    row_of = {patch: row for row, patch in enumerate(patch_ids.tolist())}
    kept = manifest[known]
    rows = [row_of[patch] for patch in kept["patch_id"]]
    values = np.log(np.maximum(probabilities[rows], _LEAST)).astype(np.float32)
    return figures_from_features(kept, values[:, None], f"answers of {table.name}")
