"""What describes the figures of patients: features of a backbone, or a model's predictions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from atypia.core.config import AugmentConfig
from atypia.core.errors import InputError
from atypia.core.files import write_text
from atypia.core.tables import csv_text
from atypia.evaluation.predictions import read_predictions
from atypia.training.run_folder import warn_of_another_scale

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from atypia.core.config import MilConfig
    from atypia.core.progress import OnStep
    from atypia.data.cohort import Cohort

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
            neither by a model that was trained on the patient.

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


def describe_figures(cohort: Cohort, config: MilConfig, out: Path, on_step: OnStep) -> BagFeatures:
    """Describe the figures of a cohort by a table of predictions, or by features of a backbone."""
    import torch

    from atypia.models.hardware import choose_device
    from atypia.models.network import make_network
    from atypia.training.distributed import ComputePlace
    from atypia.training.features import cohort_features
    from atypia.training.patch_store import open_store

    if config.answers is not None:
        return figures_from_answers(cohort.manifest, Path(config.answers))
    warn_of_another_scale(config)
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    place = ComputePlace(choose_device(config.runtime.device), torch.float32)
    torch.manual_seed(config.seed)
    network, spec, origin = make_network(config.model, config.input)
    cache = out / ".pixels.npy"
    try:
        # The window that a linear probe decodes, so that both find the same features.
        store = open_store(cohort, spec, AugmentConfig(), cache)
        features = cohort_features(cohort, store, network, spec, place, out, on_step=on_step)
    finally:
        cache.unlink(missing_ok=True)
    return figures_from_features(
        cohort.manifest, features.values, f"features of {config.model.backbone}, {origin}"
    )


def describe_alike(
    config: MilConfig,
    origin: str,
    cohort: Cohort,
    answers: str | None,
    out: Path,
    on_step: OnStep,
) -> BagFeatures:
    """Describe the figures of another cohort as those of a run, by its `config` and `origin`.

    Raises:
        InputError: `answers` are missing or not wanted, or the backbone has other weights.
    """
    if (config.answers is None) != (answers is None):
        raise InputError(
            f"--answers: expected {'a table' if config.answers else 'none'}, since the run's "
            f"figures are described by {origin}."
        )
    figures = describe_figures(cohort, config.model_copy(update={"answers": answers}), out, on_step)
    if answers is None and figures.origin != origin:
        raise InputError(
            f"expected figures described as the run's were, by {origin}, but the backbone here "
            f"gives {figures.origin}. Give it the same weights."
        )
    return figures


def write_attention(
    file: Path, figures: BagFeatures, weights: Mapping[str, npt.NDArray[np.float64]]
) -> None:
    """Write the weight of each figure, and how many times the mean's it is; heaviest first.

    `weights` are (N,) by pooling, NaN where there is none. Without ``attention`` nothing is done.
    """
    attention = weights.get("attention")
    if attention is None:
        return
    table = pd.DataFrame(
        {"patient_id": figures.patients, "patch_id": figures.patch_ids, "attention": attention}
    ).dropna()
    n = table.groupby("patient_id")["patch_id"].transform("size")
    table["times_mean"] = table["attention"] * n
    table = table.sort_values(
        ["patient_id", "attention", "patch_id"], ascending=[True, False, True], kind="stable"
    )
    write_text(file, csv_text(table, float_format="%.6g"))
