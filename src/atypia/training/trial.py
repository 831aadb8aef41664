"""What a configuration is worth: a trial of a search, on the inner folds of one outer split.

The test patients are taken out before anything else is done: their labels are not looked at and
their patches not opened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import numpy as np
import torch

from atypia.classifiers.calibration import calibrated_log_loss
from atypia.classifiers.ensemble import decide, p_atypical
from atypia.core.errors import InputError, TrainingError
from atypia.core.labels import N_SUBTYPES
from atypia.core.progress import OnStep, silent
from atypia.data.splits import Outer, rows
from atypia.evaluation.metrics import (
    balanced_accuracy,
    confusion_matrix,
    log_loss,
    one_vs_rest_auc,
    roc_auc,
)
from atypia.models.network import make_network
from atypia.training.crossval import train_members
from atypia.training.patch_store import open_store
from atypia.training.study import Pruned
from atypia.training.targets import atypical_calls, atypical_share, chosen_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from atypia.core.config import TrainConfig
    from atypia.data.cohort import Cohort
    from atypia.training.crossval import Members
    from atypia.training.distributed import ComputePlace
    from atypia.training.measure import Measure
    from atypia.training.patch_store import PatchStore
    from atypia.training.search_space import SearchSpace
    from atypia.training.study import ProposedTrial

STEPS_PER_FOLD: Final = 10
"""A step is a tenth of a training, so that those with more and with fewer epochs are compared at
the same point of their schedules."""


def training_part(cohort: Cohort, outer: Outer) -> tuple[Cohort, Outer]:
    """Leave out the test patients of an outer split, as if they had never been there."""
    kept = cohort.manifest[~rows(cohort.manifest, outer.test)].reset_index(drop=True)
    return replace(cohort, manifest=kept), Outer((), outer.inner)


@dataclass
class FoldTrainings:
    """Trains candidates on the first inner folds of a split, always the same ones.

    All candidates start from the same seed, so that folds, and as far as they can initial weights
    and the order of the figures, tell nothing apart. The value of a candidate is the mean over
    the folds of the measure of its out-of-fold answers, as the networks give them;
    ``calibrated_log_loss`` is that after a temperature fitted on the answers to the same fold.
    """

    cohort: Cohort
    """The training part alone: :func:`training_part`."""
    outer: Outer
    base: TrainConfig
    space: SearchSpace
    measure: Measure
    folds: int
    """How many of the inner folds."""
    place: ComputePlace
    folder: Path
    """Gets a folder for each trial."""
    on_step: OnStep = silent
    _store: tuple[tuple[float, ...], PatchStore] | None = field(default=None, repr=False)
    _own: str = field(default_factory=lambda: uuid4().hex[:8])
    """Tells this worker from others in the same folder."""

    def __call__(self, candidate: ProposedTrial) -> float:
        """Train the candidate, or go on where its training was stopped.

        Raises:
            InputError: Settings that do not fit each other.
            TrainingError: The loss is not finite, or the memory is too small.
            Pruned: The candidate is worse than most.
        """
        config = self.space.configure(self.base, candidate.point)
        single = {"trained": self.folds, "bagging": None, "join": "mean"}  # one answer a patient
        config = config.model_copy(update={"ensemble": config.ensemble.model_copy(update=single)})
        folder = self.folder / str(candidate.number)

        def on_step(name: str, done: int, total: int) -> None:
            self.on_step(f"trial {candidate.number}, {name}", done, total)

        reports = _Reports(candidate, self.measure, config)
        store = self._store_for(config)
        try:
            members = train_members(
                self.cohort, self.outer, 0, config, store, self.place, folder, on_step, reports
            )
        except (Pruned, InputError, TrainingError):  # after all else it goes on from its checkpoint
            _remove_weights(folder)
            raise
        except torch.OutOfMemoryError as error:
            _remove_weights(folder)
            raise TrainingError(f"The memory of the device is too small: {error}") from None
        value = self._value(members, config)
        _remove_weights(folder)  # all but the numbers can be made again
        return value

    def _value(self, members: Members, config: TrainConfig) -> float:
        labels = chosen_labels(self.cohort.manifest, config.label)
        counts = np.bincount(labels[labels >= 0], minlength=N_SUBTYPES)
        share = atypical_share(self.cohort.manifest, labels)[members.oof_rows]
        labels = labels[members.oof_rows]
        calls = atypical_calls(labels, share, config.loss.of)
        known = ~np.isnan(calls) if self.measure == "binary_auc" else labels >= 0
        values = []
        for fold in range(self.folds):
            mine = (members.oof_folds == fold) & known
            truth, probabilities = labels[mine], members.oof_probabilities[mine]
            if self.measure == "log_loss":
                value = log_loss(truth, probabilities)[0]
            elif self.measure == "calibrated_log_loss":
                value = calibrated_log_loss(probabilities, truth)
            elif self.measure == "mean_auc":
                value = np.nanmean(one_vs_rest_auc(truth, probabilities))
            elif self.measure == "binary_auc":
                scores = p_atypical(probabilities).astype(np.float64)
                value = roc_auc(calls[mine] == 1, scores)[0]
            else:
                power = config.ensemble.prior_power
                answers = decide(probabilities, counts / counts.sum(), power)
                value = balanced_accuracy(confusion_matrix(truth, answers))[0]
            values.append(float(value))
        return float(np.mean(values))

    def _store_for(self, config: TrainConfig) -> PatchStore:
        """Decode the patches, once for all trials that look at the same field."""
        _, spec, _ = make_network(config.model, config.input, initial_weights=False)
        augment = config.augment
        field_of_view = (spec.field_of_view_um, spec.size_px)
        key = (*field_of_view, augment.scale, augment.rotate, augment.shift_um)
        if self._store is None or self._store[0] != key:
            self.close()
            self._store = key, open_store(self.cohort, spec, augment, self._cache)
        return self._store[1]

    @property
    def _cache(self) -> Path:
        return self.folder / f".pixels-{self._own}.npy"

    def close(self) -> None:
        """Forget the decoded patches."""
        self._store = None
        self._cache.unlink(missing_ok=True)


@dataclass
class _Reports:
    """Tells a study after each tenth of each fold how good a trial is so far.

    That is the mean over the folds, of which the last one is still learning.
    """

    candidate: ProposedTrial
    measure: Measure
    config: TrainConfig
    _of_member: dict[str, float] = field(default_factory=dict)
    _told: int = 0

    def __call__(self, name: str, history: Sequence[Mapping[str, float | int | str]]) -> None:
        """Report what is new in the history of a member."""
        optim = self.config.optim
        n_epochs = optim.head_epochs + optim.epochs
        if history:
            self._of_member.setdefault(name, math.nan)
        first = STEPS_PER_FOLD * (len(self._of_member) - 1)
        for row in history:
            self._of_member[name] = float(row[f"valid_{self.measure}"])
            step = first + STEPS_PER_FOLD * int(row["epoch"]) // n_epochs
            if step > self._told:
                self._told = step
                self.candidate.report(step, float(np.mean(list(self._of_member.values()))))


def _remove_weights(folder: Path) -> None:
    for pattern in ("*.safetensors", "*.pt", "done.json"):
        for file in folder.glob(f"fold-*/{pattern}"):
            file.unlink()
