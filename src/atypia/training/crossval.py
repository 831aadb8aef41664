"""The members of one outer split, each on its own patients, and their out-of-fold predictions."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atypia.classifiers.ensemble import load_network, predict_network
from atypia.core.errors import TrainingError
from atypia.core.files import damaged, read_json
from atypia.core.labels import N_SUBTYPES
from atypia.core.progress import OnEpoch, OnStep, silent
from atypia.data.splits import rows
from atypia.models.network import make_network
from atypia.training.checkpoint import read_history, remove_checkpoint
from atypia.training.combiner_fit import fit_aggregation
from atypia.training.fit import fit
from atypia.training.member_tasks import member_tasks, write_bag
from atypia.training.probe import fit_probe, open_probe
from atypia.training.targets import scored_labels

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from atypia.classifiers.aggregation import Aggregation
    from atypia.core.config import InputSpec, TrainConfig
    from atypia.data.cohort import Cohort
    from atypia.data.splits import Outer
    from atypia.models.network import Network
    from atypia.training.distributed import ComputePlace
    from atypia.training.patch_store import PatchStore

log = logging.getLogger("atypia")


@dataclass(frozen=True)
class Members:
    """What one outer split's training gives."""

    networks: list[Network]
    spec: InputSpec
    origin: str
    """Of the initial weights."""
    oof_rows: npt.NDArray[np.int64]
    """Rows of the cohort outside the test part that a member has not trained on."""
    oof_folds: npt.NDArray[np.int64]
    """(len(oof_rows),) the inner fold of the patient."""
    oof_probabilities: npt.NDArray[np.float32]
    """(len(oof_rows), 8) joined from the members that have not trained on the patient: of its own
    fold, and with bagging those that have not drawn it."""
    join: Aggregation
    """Of the members."""


def train_members(
    cohort: Cohort,
    outer: Outer,
    number: int,
    config: TrainConfig,
    store: PatchStore,
    place: ComputePlace,
    folder: Path,
    on_step: OnStep = silent,
    on_epoch: OnEpoch = silent,
) -> Members:
    """Train every member that is not finished, then predict the patients it was not trained on.

    The test part of `outer`, split `number`, is not touched; `folder` gets one ``fold-<i>`` per
    member. Other arguments as for :func:`atypia.training.fit.fit`; `on_epoch` is also called for
    a member that is already trained.
    """
    tasks = member_tasks(cohort, outer, number, config)
    networks: list[Network] = []
    origin = ""
    answers = np.full((len(tasks), len(cohort), N_SUBTYPES), np.nan, np.float32)
    labels = scored_labels(cohort.manifest, config.label)
    _, spec, _ = make_network(config.model, config.input, initial_weights=False)
    frozen = config.model.frozen
    probe = open_probe(cohort, config, store, place, folder, on_step) if frozen else None
    for i, task in enumerate(tasks):
        member_folder = folder / f"fold-{i}"
        weights, record = member_folder / "member.safetensors", member_folder / "done.json"
        if not record.is_file():
            sizes = len(task.train_rows), len(task.valid_rows)
            log.info("%s: %d figures to learn from, %d to validate on", task.name, *sizes)
            if config.ensemble.bagging is not None and place.world.is_main:
                write_bag(member_folder / "bag.csv", task.bag)
            if probe is not None:
                fit_probe(task, config, probe, place, member_folder)
            else:
                fit(task, config, store, place, member_folder, on_step, on_epoch)
        else:
            log.info("%s: already trained", task.name)
            on_epoch(task.name, read_history(member_folder / "history.csv"))
            if place.world.is_main:  # of a run that was killed between the last two writes
                remove_checkpoint(member_folder / "checkpoint.pt")
        done = read_json(record)
        again = f"Remove {member_folder} to train it again."
        if problems := damaged(weights, done["sha256"], record, again):
            raise TrainingError(str(problems[0]))
        origin = done["initial_weights"]
        network = load_network(config.model, spec, weights)
        network.to(place.device)
        networks.append(network)
        # Figures without a label, too: they can be predicted.
        unseen = rows(cohort.manifest, outer.training) & ~rows(cohort.manifest, task.bag)
        held_out = np.flatnonzero(unseen)
        if probe is not None:
            networks[i] = network.on(networks[0].backbone)  # one in memory for all
            head = copy.deepcopy(network.head).cpu()
            answers[i, held_out] = probe.answers(head, held_out, tta=config.ensemble.tta)
            continue
        answers[i, held_out] = predict_network(
            network,
            store.pixels,
            store.mpp,
            spec,
            device=place.device,
            tta=config.ensemble.tta,
            rows=held_out,
        )
    oof_rows = np.flatnonzero(~np.isnan(answers).all(axis=(0, 2)))
    folds = np.select(
        [rows(cohort.manifest, fold) for fold in outer.inner], range(len(outer.inner))
    )
    join = fit_aggregation(config.ensemble.join, answers, labels)
    return Members(
        networks,
        spec,
        origin,
        oof_rows,
        folds[oof_rows],
        join(answers[:, oof_rows]).astype(np.float32),
        join,
    )
