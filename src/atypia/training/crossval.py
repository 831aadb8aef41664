"""The members of one outer split, each on its own patients, and what they say out of fold."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atypia.data.splits import rows
from atypia.ensemble import load_network, predict_network
from atypia.errors import InputError, TrainingError
from atypia.labels import N_SUBTYPES
from atypia.models.network import make_network
from atypia.progress import OnStep, silent
from atypia.runs import read_json, sha256_file
from atypia.training.distill import require_unseen_test_part
from atypia.training.fit import fit
from atypia.training.targets import chosen_labels, make_targets, require_every_class
from atypia.training.task import MemberTask

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.config import InputSpec, TrainConfig
    from atypia.data.cohort import Cohort
    from atypia.data.loader import PatchStore
    from atypia.data.splits import Outer
    from atypia.models.network import Network
    from atypia.training.task import Place

log = logging.getLogger("atypia")


@dataclass(frozen=True)
class Members:
    """What one outer split's training gives."""

    networks: list[Network]
    spec: InputSpec
    origin: str
    """Of the initial weights."""
    oof_rows: npt.NDArray[np.int64]
    """Rows of the cohort outside the test part, of the folds whose members are trained."""
    oof_folds: npt.NDArray[np.int64]
    """(len(oof_rows),) the member that answered."""
    oof_probabilities: npt.NDArray[np.float32]
    """(len(oof_rows), 8) each by the one member that has not trained on the patient."""


def member_tasks(
    cohort: Cohort, outer: Outer, number: int, config: TrainConfig
) -> list[MemberTask]:
    """Divide the training patients of outer split `number` among the members.

    Raises:
        InputError: A member's training part lacks a subtype, or its validation part any label.
        LeakError: A teacher has learned from the test part.
    """
    labels = chosen_labels(cohort.manifest, config.label)
    targets = make_targets(cohort.manifest, labels, config.target)
    if config.target.teacher is not None:
        require_unseen_test_part(Path(config.target.teacher), outer.test, number)
    teach = targets.subtypes.any(axis=(1, 2))  # with heads of their own, by either rater
    if config.loss.atypical:  # a vote alone teaches, too
        teach |= ~np.isnan(targets.atypical)
    tasks = []
    for i in range(config.ensemble.trained or len(outer.inner)):
        train_patients, valid_patients = outer.member(i)
        mine = rows(cohort.manifest, train_patients)
        train, mute = np.flatnonzero(mine & teach), np.flatnonzero(mine & ~teach)
        valid = np.flatnonzero(rows(cohort.manifest, valid_patients) & (labels >= 0))
        require_every_class(labels[train], f"training part of member {i}, outer split {number}")
        if not len(valid):
            raise InputError(
                f"validation part of member {i}, outer split {number}: expected labelled figures "
                "but found none. Use fewer members (ensemble.members) or another seed."
            )
        seed = int(np.random.SeedSequence([config.seed, number, i]).generate_state(1)[0]) >> 1
        tasks.append(MemberTask(f"member {i}", train, valid, targets, labels, seed, mute))
    return tasks


def train_members(
    cohort: Cohort,
    outer: Outer,
    number: int,
    config: TrainConfig,
    store: PatchStore,
    place: Place,
    folder: Path,
    on_step: OnStep = silent,
) -> Members:
    """Train every member that is not finished, then predict each one's validation patients.

    Args:
        cohort: The cohort.
        outer: Which patients; its test part is not touched.
        number: Of the outer split.
        config: The training.
        store: The cohort's pixels.
        place: Device, number format, processes.
        folder: Gets one ``fold-<i>`` per member.
        on_step: Called with the member's name, batches done and batches in all.
    """
    tasks = member_tasks(cohort, outer, number, config)
    networks: list[Network] = []
    origin = ""
    answers = np.zeros((len(cohort), N_SUBTYPES), np.float32)
    fold_of = np.full(len(cohort), -1)
    _, spec, _ = make_network(config.model, config.input, initial_weights=False)
    for i, task in enumerate(tasks):
        member_folder = folder / f"fold-{i}"
        weights, record = member_folder / "member.safetensors", member_folder / "done.json"
        if not record.is_file():
            log.info(
                "%s: %d figures to learn from, %d to validate on",
                task.name,
                len(task.train_rows),
                len(task.valid_rows),
            )
            fit(task, config, store, place, member_folder, on_step)
        else:
            log.info("%s: already trained", task.name)
            if place.world.is_main:  # of a run that was killed between the last two writes
                (member_folder / "checkpoint.pt").unlink(missing_ok=True)
        done = read_json(record)
        if sha256_file(weights) != done["sha256"]:
            raise TrainingError(
                f"{weights} is not what {record} says. Remove {member_folder} to train it again."
            )
        origin = done["initial_weights"]
        network = load_network(config.model, spec, weights)
        network.to(place.device)
        networks.append(network)
        # All patients of the fold, those without a label too: they can be predicted.
        held_out = np.flatnonzero(rows(cohort.manifest, outer.inner[i]))
        answers[held_out] = predict_network(
            network,
            store.pixels,
            store.mpp,
            spec,
            device=place.device,
            tta=config.ensemble.tta,
            rows=held_out,
        )
        fold_of[held_out] = i
    oof_rows = np.flatnonzero(fold_of >= 0)
    return Members(networks, spec, origin, oof_rows, fold_of[oof_rows], answers[oof_rows])
