"""Refuse to judge predictions for patients that the model has learned from."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from atypia.config import LEAK
from atypia.data.cohort import Cohort
from atypia.data.overlap import find_overlap, refuse, shared_cases
from atypia.data.splits import Splits
from atypia.errors import InputError
from atypia.runs import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.evaluation.predictions import Predictions

log = logging.getLogger("atypia")


def require_new_patients(
    predictions: Predictions,
    trained_on: Path,
    cohort: Path | None = None,
    *,
    allow_overlap: bool = False,
) -> None:
    """Refuse predictions for patients that the model has learned from.

    Args:
        predictions: The table.
        trained_on: The run, whose training patients count, or the cohort, whose patients all do.
        cohort: Of the table: pictures are then compared as well as the names of cases.
        allow_overlap: Warn instead.

    Raises:
        LeakError: There are such patients; lists them.
        InputError: `trained_on` is neither, or the cohort lacks patches of the table.
    """
    learned = _learned(trained_on)
    if cohort is None:
        patients = sorted(set(predictions.patients.tolist()))
        known = sorted(set(learned.manifest["patient_id"]))
        shared = shared_cases(known, patients)
    else:
        shared = find_overlap(learned, _judged(cohort, predictions))
    remedy = (
        "What a model has learned by heart says nothing of its skill: leave these patients out, or "
        "say that it is meant: --allow-overlap."
    )
    if not allow_overlap:
        refuse("what was learned from", "the table", shared, remedy)
    elif shared:
        log.warning("%d patients of the table have been learned from", len(shared))


def _learned(path: Path) -> Cohort:
    """Figures that a model has learned from."""
    if (path / "cohort.json").is_file():
        return Cohort.open(path)
    if not (path / "splits.json").is_file():
        raise InputError(f"--trained-on: expected a run or a cohort but got {path}.")
    cohort = Cohort.open(path / read_json(path / "run.json")["cohort"]["path"])
    splits = Splits.read(path / "splits.json", cohort.manifest, cohort.sha256)
    learned = {name for outer in splits.outer for name in outer.training}
    unit = "patch_id" if splits.kind == LEAK else "patient_id"
    return replace(cohort, manifest=cohort.manifest[cohort.manifest[unit].isin(learned)])


def _judged(folder: Path, predictions: Predictions) -> Cohort:
    """Figures of a cohort that the table is about."""
    cohort = Cohort.open(folder)
    named = set(predictions.patch_ids.tolist())
    mine = cohort.manifest["patch_id"].isin(named)
    if missing := sorted(named - set(cohort.manifest["patch_id"])):
        raise InputError(
            f"--cohort: expected the patches of the table but {folder} lacks {len(missing)}, the "
            f"first {missing[0]!r}."
        )
    return replace(cohort, manifest=cohort.manifest[mine])
