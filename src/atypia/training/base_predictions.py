"""Predictions of a finished run's model, which a hybrid or a stack is fitted on, split by split."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atypia.classifiers.bundle import find_bundle
from atypia.core.errors import InputError, Problem
from atypia.core.files import read_json
from atypia.data.splits import Outer, Splits
from atypia.evaluation.predictions import Predictions, read_predictions
from atypia.training.outer_split import OuterRows

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.data.cohort import Cohort

LEAST_FOLDS = 3
"""A combination of models is chosen by folds within folds."""


@dataclass(frozen=True)
class BasePredictions:
    """A model's predictions for the patches of one outer split."""

    folder: Path
    """Of the split in the model's run."""
    bundle: Path
    part: OuterRows
    training: npt.NDArray[np.float64]
    """(N, 8), out of fold."""
    test: npt.NDArray[np.float64]
    """(M, 8)."""
    optimistic: bool
    """Whether the out-of-fold predictions are."""

    @classmethod
    def of_run(cls, source: Path, cohort: Cohort, splits: Splits) -> list[BasePredictions]:
        """Read those of every outer split of a run.

        Raises:
            InputError: A file is missing or of other patches, or there are too few folds.
        """
        folders = [source / f"outer-{number}" for number in range(len(splits.outer))]
        return [
            cls._of_outer(folder, cohort, outer)
            for folder, outer in zip(
                folders if len(folders) > 1 else [source], splits.outer, strict=True
            )
        ]

    @classmethod
    def _of_outer(cls, folder: Path, cohort: Cohort, outer: Outer) -> BasePredictions:
        bundle = find_bundle(folder.absolute())  # a relative `rules` would be the package's
        whole = OuterRows.of(cohort.manifest, outer)
        row_of = {name: row for row, name in enumerate(cohort.manifest["patch_id"])}
        out_of_fold = read_predictions(folder / "predictions-oof.csv")
        training = _rows(out_of_fold, row_of, whole.training, folder)
        folds = np.array([int(fold) for fold in out_of_fold.folds])
        if len(np.unique(folds)) < LEAST_FOLDS:
            what = (
                f"expected out-of-fold predictions of at least {LEAST_FOLDS} folds but got "
                f"{len(np.unique(folds))}: what to make of them is chosen by folds within folds."
            )
            raise InputError(Problem(what, str(folder)))
        test = np.empty((0, 8))
        if len(whole.test):
            tested = read_predictions(folder / "predictions-test.csv")
            order = _rows(tested, row_of, whole.test, folder)
            test = tested.probabilities[np.argsort(order)]
            whole = OuterRows(whole.training, whole.folds, np.sort(order))
        optimistic = bool(read_json(folder / "metrics-oof.json").get("optimistic", False))
        part = OuterRows(training, folds, whole.test)
        return cls(folder, bundle, part, out_of_fold.probabilities, test, optimistic)


def _rows(
    table: Predictions, row_of: dict[str, int], allowed: npt.NDArray[np.int64], folder: Path
) -> npt.NDArray[np.int64]:
    """Rows of the manifest that a table is of."""
    rows = np.array([row_of.get(str(name), -1) for name in table.patch_ids])
    strange = ~np.isin(rows, allowed)
    if strange.any():
        what = (
            f"expected predictions of this part of the cohort but got {int(strange.sum())} others, "
            f"the first {table.patch_ids[strange][0]!r}."
        )
        raise InputError(Problem(what, str(folder)))
    return rows


def splits_of(key: str, source: Path, cohort: Cohort) -> Splits:
    """Read the splits of a finished run, which the setting `key` names.

    Raises:
        InputError: No run, one that is not finished, or one of another cohort.
    """
    needed = ["run.json", "splits.json"]
    missing = [name for name in needed if not (source / name).is_file()]
    if missing:
        raise InputError(f"{key}: expected a run but {source} has no {', '.join(missing)}.")
    status = read_json(source / "run.json")["status"]
    if status != "finished":
        raise InputError(
            f"{key}: expected a finished run but the status of {source} is {status!r}."
        )
    return Splits.read(source / "splits.json", cohort.manifest, cohort.sha256)


def cohort_of_teacher(teacher: Path) -> Path:
    """Check that a run is finished and has one outer split; find its cohort.

    Raises:
        InputError: Lists all that is wrong.
    """
    needed = ["run.json", "config.yaml", "splits.json"]
    missing = [name for name in needed if not (teacher / name).is_file()]
    if missing:
        raise InputError(f"{teacher}: expected a run but it has no {', '.join(missing)}.")
    problems = []
    run = read_json(teacher / "run.json")
    if run["status"] != "finished":
        problems.append(
            f"expected a finished run but its status is {run['status']!r}. Finish it with: "
            f"atypia train COHORT --out {teacher} --resume"
        )
    n_outer = len(read_json(teacher / "splits.json")["outer"])
    if n_outer != 1:
        problems.append(
            f"expected a run with one outer split but it has {n_outer}. A student is one network "
            "for one split."
        )
    elif not problems and not (teacher / "predictions-oof.csv").is_file():
        problems.append("expected predictions-oof.csv but it is missing.")
    cohort = Path(os.path.normpath(teacher / run["cohort"]["path"]))
    if not cohort.is_dir():
        problems.append(f"expected its cohort at {cohort}, where it was, but there is none.")
    if problems:
        raise InputError([Problem(what, str(teacher)) for what in problems])
    return cohort
