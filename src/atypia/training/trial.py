"""What a configuration is worth: a trial of a search, on the inner folds of one outer split.

The test patients are taken out before anything else is done: their labels are not looked at and
their patches not opened.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import torch

from atypia.core.errors import InputError, Problem, TrainingError
from atypia.core.labels import N_SUBTYPES
from atypia.core.progress import OnStep, silent
from atypia.data.splits import Outer, rows
from atypia.models.network import make_network
from atypia.training.crossval import train_members
from atypia.training.distributed import ComputePlace
from atypia.training.fit import measures
from atypia.training.member_tasks import member_tasks
from atypia.training.patch_store import open_store
from atypia.training.run_folder import warn_of_another_scale, warn_of_missing_classes
from atypia.training.study import Pruned
from atypia.training.study_folder import STEPS_PER_FOLD, StudyFolder
from atypia.training.targets import atypical_calls, atypical_share, chosen_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from atypia.core.config import TrainConfig
    from atypia.data.cohort import Cohort
    from atypia.training.crossval import Members
    from atypia.training.patch_store import PatchStore
    from atypia.training.search_space import Measure, SearchSpace
    from atypia.training.study import ProposedTrial

log = logging.getLogger("atypia")


def check_before_trials(folder: StudyFolder) -> None:
    """Find what is wrong with the data or with a network before the first trial.

    Raises:
        InputError: Lists every network of the space that cannot be made.
    """
    run = folder.run
    tried = [("", run.config), *folder.space.edges(run.config)]
    member_tasks(run.cohort, run.splits.outer[0], 0, run.config)
    _warn_of_measure(folder.measure, [config for _, config in tried])
    warn_of_missing_classes(run)
    warn_of_another_scale(run.config)
    problems = []
    for key, config in tried:
        if not key or key.startswith(("model.", "input.")):
            try:
                make_network(config.model, config.input, initial_weights=False)
            except InputError as error:
                problems += [Problem(str(p), column=key or p.column) for p in error.problems]
    if problems:
        raise InputError(problems)


def _warn_of_measure(measure: Measure, tried: Sequence[TrainConfig]) -> None:
    """Warn where the values of the trials do not mean what they seem to."""
    steering = sorted({setting for config in tried for setting in config.steered_by})
    if steering:
        log.warning(
            "%s: the inner folds that measure a trial also steer its training, and flatter it. "
            "optim.select=last optim.early_stopping=null optim.schedule=one_cycle leave them out.",
            ", ".join(steering),
        )
    if tried[0].loss.of == "sides" and measure != "binary_auc":
        log.warning(
            "--measure %s is of the eight subtypes, which loss.of=sides does not learn; "
            "binary_auc is of what it learns.",
            measure,
        )


def training_part(cohort: Cohort, outer: Outer) -> tuple[Cohort, Outer]:
    """Leave out the test patients of an outer split, as if they had never been there."""
    kept = cohort.manifest[~rows(cohort.manifest, outer.test)].reset_index(drop=True)
    return replace(cohort, manifest=kept), Outer((), outer.inner)


@dataclass
class FoldTrainings:
    """Trains candidates on the first inner folds of a split, always the same ones.

    All candidates start from the same seed, so that they differ neither by folds nor, as far as
    possible, by initial weights and the order of the patches. The value of a candidate is the mean
    over the folds of the measure of its out-of-fold probabilities, as the networks give them;
    ``calibrated_log_loss`` is that after a temperature fitted on the same fold.
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
    """Sets this worker apart from others in the same folder."""

    @classmethod
    def of(cls, folder: StudyFolder, on_step: OnStep) -> FoldTrainings:
        """Prepare the trainings of a study on this machine."""
        run = folder.run
        place = ComputePlace.of(run.config.runtime)
        cohort, outer = training_part(run.cohort, run.splits.outer[0])
        return cls(
            cohort,
            outer,
            run.config,
            folder.space,
            folder.measure,
            folder.folds,
            place,
            run.folder / "trials",
            on_step,
        )

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
        prior, power = counts / counts.sum(), config.ensemble.prior_power
        values = []
        for fold in range(self.folds):
            own = members.oof_folds == fold
            scored = measures(members.oof_probabilities[own], labels[own], calls[own], prior, power)
            values.append(scored[self.measure])
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
    """Reports to a study after each tenth of each fold how good a trial is so far.

    That is the mean over the folds, of which the last one is still learning.
    """

    candidate: ProposedTrial
    measure: Measure
    config: TrainConfig
    _of_member: dict[str, float] = field(default_factory=dict)
    _reported: int = 0

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
            if step > self._reported:
                self._reported = step
                self.candidate.report(step, float(np.mean(list(self._of_member.values()))))


def _remove_weights(folder: Path) -> None:
    for pattern in ("*.safetensors", "*.pt", "done.json"):
        for file in folder.glob(f"fold-*/{pattern}"):
            file.unlink()
