"""Train: split, members, ensemble, predictions, measures, report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.classifiers.bundle import PATIENTS
from atypia.core.config import LEAK, TrainConfig
from atypia.core.files import sha256_file
from atypia.core.progress import OnStep, silent
from atypia.data.cohort import Cohort
from atypia.data.sources.patients import veiled_cases
from atypia.data.splits import leaking, rows, with_true_patients
from atypia.evaluation.predictions import write_predictions
from atypia.inference.patch_predictions import find_items, predict_items
from atypia.reports.run_report import write_report
from atypia.training.postprocessing_fit import fit_postprocessing, postprocessing_facts
from atypia.training.run_folder import (
    Clock,
    Run,
    require_shared_folder,
    run_config,
    run_record,
    run_splits,
    session,
    warn_of_another_scale,
    warn_of_missing_classes,
)
from atypia.training.run_scores import score_run
from atypia.training.targets import chosen_labels

if TYPE_CHECKING:
    from atypia.training.crossval import Members
    from atypia.training.distributed import ComputePlace

log = logging.getLogger("atypia")


def train(
    cohort_folder: Path,
    out: Path,
    config: TrainConfig | None,
    *,
    resume: bool = False,
    command: str = "",
    on_step: OnStep = silent,
) -> dict[str, Any] | None:
    """Split, train the members, build the ensemble, predict, evaluate, report.

    Started by ``torchrun`` it uses all processes for each member; only the first one writes.

    Args:
        cohort_folder: From :func:`atypia.pipeline.prepare`.
        out: The run folder.
        config: None only to resume: with the run's own configuration.
        resume: Go on with a run that was stopped; finished members are not trained again.
        command: The command line, for the record.
        on_step: Called with the member's name, batches done and batches in all.

    Returns:
        The content of ``metrics.json``; None in processes that do not write.

    Raises:
        InputError: Options, cohort, splits or run folder do not fit each other.
        TrainingError: The training cannot go on.
    """
    import torch

    from atypia.models.hardware import choose_device, choose_precision, make_deterministic
    from atypia.training.distributed import ComputePlace, world

    clock = Clock()
    config = run_config(out, config, resume, TrainConfig)
    cohort = Cohort.open(cohort_folder, verify=True)
    if config.split.kind == LEAK:
        cohort = leaking(cohort)
    device = choose_device(config.runtime.device)
    precision = choose_precision(config.runtime.precision, device)
    make_deterministic(device)
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    with world(device) as processes:
        layout = torch.channels_last if config.runtime.channels_last else torch.contiguous_format
        place = ComputePlace(processes.device(device), precision, processes, layout)
        run = Run(out, cohort, config, run_splits(out, cohort, config))
        record = run_record(run, cohort_folder, command)
        record["machine"] |= {
            "device": str(place.device),
            "precision": str(precision).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "processes": processes.size,
        }
        processes.barrier()  # all have looked at the folder before anything is written to it
        if not processes.is_main:
            log.setLevel(logging.WARNING)  # the first process tells the story
            processes.barrier()
            require_shared_folder(out, processes)
            _train_all(run, place, on_step)
            return None
        with session(run, record, clock) as note:
            processes.barrier()
            require_shared_folder(out, processes)
            facts = _train_all(run, place, on_step)
            # A fold that steered a training is no fair judge of it, nor one that a teacher saw.
            seen = bool(config.steered_by) or config.target.teacher is not None
            metrics = score_run(run, [f["threshold_atypical"] for f in facts], optimistic=seen)
            note("running", models=facts)  # the report tells of this session, too
            write_report(out, cohort)
        note("finished", models=facts)
        return metrics


def _train_all(run: Run[TrainConfig], place: ComputePlace, on_step: OnStep) -> list[dict[str, Any]]:
    """Train every outer split that is not finished; write bundles and predictions."""
    from atypia.models.network import make_network
    from atypia.training.crossval import member_tasks, train_members
    from atypia.training.patch_store import open_store

    n_outer = len(run.splits.outer)
    for number, outer in enumerate(run.splits.outer):  # every fault before the first hour of work
        member_tasks(run.cohort, outer, number, run.config)
    if place.world.is_main:
        warn_of_missing_classes(run)
        warn_of_another_scale(run.config)
    _, spec, _ = make_network(run.config.model, run.config.input, initial_weights=False)
    cache = run.folder / f".pixels-{place.world.rank}.npy"
    facts: list[dict[str, Any]] = []
    try:
        store = open_store(run.cohort, spec, run.config.augment, cache)
        for number, outer in enumerate(run.splits.outer):
            folder = run.outer_folder(number)

            def step(
                name: str, done: int, total: int, outer_name: str = f"split {number + 1}/{n_outer} "
            ) -> None:
                on_step(outer_name * (n_outer > 1) + name, done, total)

            members = train_members(
                run.cohort, outer, number, run.config, store, place, folder, step
            )
            if place.world.is_main:
                facts.append(_finish_outer(run, number, members, place))
    finally:
        cache.unlink(missing_ok=True)
    return facts


def _finish_outer(
    run: Run[TrainConfig], number: int, members: Members, place: ComputePlace
) -> dict[str, Any]:
    """Join the members of one outer split, calibrate and fix the threshold out of fold, predict."""
    from atypia.classifiers.ensemble import Ensemble

    manifest, config = with_true_patients(run.cohort.manifest), run.config
    folder = run.outer_folder(number)
    labels = chosen_labels(manifest, config.label)[members.oof_rows]
    answers, out_of_fold = fit_postprocessing(
        config,
        manifest.iloc[members.oof_rows],
        labels,
        members.oof_probabilities,
        members.oof_folds,
    )
    write_predictions(folder / "predictions-oof.csv", out_of_fold)
    facts = {
        "initial_weights": members.origin,
        "parameters": sum(p.numel() for p in members.networks[0].parameters()),
        "join": members.join.model_dump(mode="json", exclude_none=True),
        **postprocessing_facts(answers),
    }
    if config.target.teacher is not None:
        facts["teacher_sha256"] = sha256_file(Path(config.target.teacher))
    training = rows(run.cohort.manifest, run.splits.outer[number].training)
    ensemble = Ensemble(
        members.networks,
        members.spec,
        config.model,
        config.ensemble.tta,
        answers,
        {
            "cohort": run.cohort.name,
            "cohort_sha256": run.cohort.sha256,
            "label": config.label,
            "target": config.target.model_dump(mode="json", exclude={"teacher"}),
            "seed": config.seed,
            "split": run.splits.kind,
            "outer": number,
            PATIENTS: veiled_cases(manifest["patient_id"][training]),
            **facts,
        },
        join=members.join,
    )
    ensemble.save(folder / "model")
    ensemble.to(place.device)
    if not run.splits.outer[number].test:
        return facts
    test = np.flatnonzero(rows(run.cohort.manifest, run.splits.outer[number].test))
    items = find_items([run.cohort.path], mpp=None)
    table, _ = predict_items(ensemble, [items[row] for row in test])
    write_predictions(folder / "predictions-test.csv", table.assign(fold=number))
    return facts
