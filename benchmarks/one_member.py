"""What studies of one member share: its split, its place, and the table of its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atypia.classifiers.answers import Answers
from atypia.classifiers.calibration import fit_calibration
from atypia.classifiers.decision import Decision
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.labels import N_SUBTYPES
from atypia.data.splits import make_splits
from atypia.evaluation.predictions import write_predictions
from atypia.inference.patch_predictions import prediction_table
from atypia.training.distributed import ComputePlace, World
from atypia.training.run_folder import CHOSEN, with_chosen_label

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from atypia.core.config import TrainConfig
    from atypia.data.cohort import Cohort
    from atypia.data.splits import Outer
    from atypia.training.member_tasks import MemberTask

NAMES = {
    "mean_auc": "mean AUC",
    "stages.atypical_subtypes.mean_auc": "mean AUC among atypical",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "kappa": "κ",
    "log_loss": "log-loss",
    "binary.auc": "binary AUC",
}
MEASURES = tuple(NAMES)
PLACE = ComputePlace(torch.device("cpu"), torch.float32, World())


def outer_split(cohort: Cohort, config: TrainConfig, kind: str) -> Outer:
    """Make the first outer split as a training would; its test part stays untouched."""
    splits = make_splits(
        with_chosen_label(cohort, config.label),
        cohort.sha256,
        kind=kind,
        label=CHOSEN,
        seed=config.seed,
        inner_folds=config.ensemble.members,
    )
    return splits.outer[0]


def signed(value: float) -> str:
    """Write a difference with three decimals and a true minus."""
    return f"{value:+.3f}".replace("-", "−")


def write_answers(
    folder: Path,
    cohort: Cohort,
    config: TrainConfig,
    task: MemberTask,
    answers: npt.NDArray[np.floating],
    member: int,
) -> None:
    """Write ``predictions.csv`` of the fold that was left out, calibrated as the recipe says.

    The temperature is fitted on the same answers: a little optimistic, for every variant alike, so
    that what a variant does to the modesty of its networks does not hide what it does to them.

    Args:
        folder: Gets it.
        cohort: The cohort.
        config: Of the training.
        task: What was learned from: its subtypes are the prior of the decision.
        answers: (n, 8) for the rows of ``task.valid_rows``.
        member: Its number, as the fold.
    """
    about = cohort.manifest.iloc[task.valid_rows]
    if config.ensemble.calibration == "temperature":
        domains = about["domain"].to_numpy(dtype=str)
        answers = fit_calibration(answers, task.labels[task.valid_rows], domains).apply(answers)
    learned = task.labels[task.train_rows]
    counts = np.bincount(learned[learned >= 0], minlength=N_SUBTYPES)
    decision = Decision(prior=(counts / counts.sum()).tolist(), power=config.ensemble.prior_power)
    table = prediction_table(about, Answers(answers), Postprocessing(decision), member)
    write_predictions(folder / "predictions.csv", table)
