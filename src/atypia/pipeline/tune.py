"""Tune: search for a better configuration, inside the training part of one outer split."""

from __future__ import annotations

import logging
import math
import os
import time
from contextlib import nullcontext
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, get_args

from atypia.core.config import TrainConfig
from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.core.files import describe_machine, read_json, versions, write_json
from atypia.core.progress import OnStep, silent
from atypia.data.cohort import Cohort
from atypia.training.measure import Measure, default_measure
from atypia.training.run_folder import (
    Clock,
    Run,
    run_config,
    run_splits,
    warn_of_another_scale,
    warn_of_missing_classes,
)
from atypia.training.search_space import read_space
from atypia.training.study import HEARTBEAT_SECONDS, Study
from atypia.training.study_folder import StudyFolder, only_worker
from atypia.training.with_optuna import load_optuna, local_storage, shared_storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from atypia.data.splits import Splits
    from atypia.training.trial import FoldTrainings

log = logging.getLogger("atypia")

TRIALS: Final = 50


def tune(
    cohort_folder: Path,
    out: Path,
    config: TrainConfig | None,
    search: Path,
    *,
    measure: Measure | None = None,
    folds: int | None = None,
    outer: int | None = None,
    trials: int = TRIALS,
    hours: float = math.inf,
    storage: str | None = None,
    resume: bool = False,
    command: str = "",
    on_step: OnStep = silent,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> dict[str, Any]:
    """Try configurations on the inner folds of a training part, and write down the best one.

    Args:
        cohort_folder: From :func:`atypia.pipeline.prepare`.
        out: The study's folder. Its name is the study's.
        config: Where the search begins; None only to resume: the study's own.
        search: The space, a YAML file; see :mod:`atypia.training.search_space`.
        measure: Of the out-of-fold answers; None: the study's own, or log-loss,
            after a temperature where the configuration calibrates by one.
        folds: On how many of the inner folds a trial is trained; None: the study's own, or all.
        outer: Which outer split, where there are several.
        trials: How many there are to be in the end, those of other workers and of earlier calls
            included.
        hours: No trial begins later than that after the call.
        storage: URL of a PostgreSQL data base, for several workers; None: SQLite in `out`, for one.
        resume: Go on with a study, or join it.
        command: The command line, for the record.
        on_step: Called with trial and member, batches done and batches in all.
        heartbeat_seconds: See :data:`atypia.training.study.HEARTBEAT_SECONDS`.

    Returns:
        The content of ``tune.json``.

    Raises:
        InputError: Options, space, cohort, splits or folder do not fit each other; all that is
            wrong with the space is told at once, before the first trial.
        AtypiaError: The data base does not answer; or not one trial could be completed.
    """
    clock, deadline = Clock(), time.monotonic() + 3600 * hours
    load_optuna()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "atypia tune trains in one process. To use several, start several workers on one "
            "--storage instead of torchrun."
        )
    url = local_storage(out) if storage is None else shared_storage(storage)
    config = run_config(out, config, resume, TrainConfig)
    cohort = Cohort.open(cohort_folder, verify=True)
    splits = _one_outer(run_splits(out, cohort, config), outer)
    known = read_json(out / "tune.json") if resume and (out / "tune.json").is_file() else {}
    measure, folds = _options(
        measure or known.get("measure") or default_measure(config),
        folds if folds is not None else known.get("folds", config.ensemble.members),
        config,
        trials,
    )
    space = read_space(search, config, measure)
    folder = StudyFolder(Run(out, cohort, config, splits), space, measure, folds)
    _check(folder)
    with only_worker(out) if storage is None else nullcontext():
        study = Study.open(
            folder.name,
            url,
            space,
            minimised=folder.minimised,
            seed=config.seed,
            identity=folder.identity(),
            first=space.point_of(config),
            resume=resume,
            heartbeat_seconds=heartbeat_seconds,
        )
        folder.write_start()
        record = {
            "status": "running",
            "command": command,
            "study": folder.name,
            "storage": "study.db" if storage is None else url,  # which holds no password
            "measure": measure,
            "folds": folds,
            "trials": trials,
            "seed": config.seed,
            "cohort": {"name": cohort.name, "n": len(cohort), "sha256": cohort.sha256},
            "split": splits.kind,
            "identity": folder.identity(),
            "versions": versions() | {n: metadata.version(n) for n in ("optuna", "SQLAlchemy")},
            "machine": describe_machine(),
        }

        def note(status: str, **more: Any) -> dict[str, Any]:
            results = folder.write_results(study)
            told = record | {"status": status, "session": clock.session()} | results | more
            write_json(out / "tune.json", told)
            return told

        with folder.logged():
            return _work(folder, study, trials, deadline, on_step, note)


def _work(
    folder: StudyFolder,
    study: Study,
    trials: int,
    deadline: float,
    on_step: OnStep,
    note: Callable[..., dict[str, Any]],
) -> dict[str, Any]:
    """Run the trials; keep the folder's tables as results come in."""
    config = folder.run.config
    if folder.space.point_of(config) is None:
        log.warning("The configuration itself lies outside the space: no trial measures it.")
    trainings = _trainings(folder, on_step)

    def after_trial() -> None:
        note("running")

    try:
        note("running")
        study.work(trainings, trials, deadline, after_trial)
        importances = study.importances(config.seed)
        folder.write_page(study, importances)
    except BaseException as error:
        try:
            note("stopped", error=f"{type(error).__name__}: {error}")
        except AtypiaError as second:  # a full disk, a data base that is away
            log.warning("%s", second)
        raise
    finally:
        trainings.close()
    ended = [t for t in study.trials() if t.state in ("complete", "pruned", "failed")]
    if len(ended) < trials:
        log.info("Time is up after %d of %d trials. --resume goes on.", len(ended), trials)
        return note("stopped", importances=importances)
    told = note("finished", importances=importances)
    if told["best"] is None:
        reason = next((t.note for t in ended if t.note), "it was pruned")
        raise AtypiaError(
            f"{folder.path}: none of {len(ended)} trials could be completed. The first one: "
            f"{reason}"
        )
    return told


def _options(measure: Measure, folds: int, config: TrainConfig, trials: int) -> tuple[Measure, int]:
    """Check what a person has chosen."""
    problems = []
    if measure not in get_args(Measure):
        what = f"--measure: expected one of {list(get_args(Measure))} but got {measure!r}."
        problems.append(Problem(what))
    if not 1 <= folds <= config.ensemble.members:
        what = (
            f"--folds: expected 1 to {config.ensemble.members}, the inner folds, but got {folds}."
        )
        problems.append(Problem(what))
    if trials < 1:
        problems.append(Problem(f"--trials: expected at least 1 but got {trials}."))
    if problems:
        raise InputError(problems)
    return measure, folds


def _one_outer(splits: Splits, number: int | None) -> Splits:
    """Keep the one outer split that the search is nested in."""
    n = len(splits.outer)
    if n > 1 and number is None:
        raise InputError(
            f"--outer: expected 0 to {n - 1}, since the split {splits.kind!r} has {n} test parts "
            "and a search may learn from the training part of only one. For nested "
            "cross-validation make a study for each."
        )
    if n > 1 and number is not None and not 0 <= number < n:
        raise InputError(f"--outer: expected 0 to {n - 1} but got {number}.")
    return replace(splits, outer=(splits.outer[number or 0 if n > 1 else 0],))


def _check(folder: StudyFolder) -> None:
    """Find what is wrong with the data or with a network before the first trial."""
    from atypia.models.network import make_network
    from atypia.training.crossval import member_tasks

    run = folder.run
    member_tasks(run.cohort, run.splits.outer[0], 0, run.config)
    _warn_of_measure(folder)
    warn_of_missing_classes(run)
    warn_of_another_scale(run.config)
    make_network(run.config.model, run.config.input, initial_weights=False)
    problems = []
    for key, config in folder.space.edges(run.config):
        if key.startswith(("model.", "input.")):
            try:
                make_network(config.model, config.input, initial_weights=False)
            except InputError as error:
                problems += [Problem(str(problem), column=key) for problem in error.problems]
    if problems:
        raise InputError(problems)


def _warn_of_measure(folder: StudyFolder) -> None:
    """Tell where the values of the trials do not mean what they seem to."""
    config = folder.run.config
    tried = [config, *(edge for _, edge in folder.space.edges(config))]
    steering = sorted({setting for one in tried for setting in one.steered_by})
    if steering:
        log.warning(
            "%s: the inner folds that measure a trial also steer its training, and flatter it. "
            "optim.select=last optim.early_stopping=null optim.schedule=one_cycle leave them out.",
            ", ".join(steering),
        )
    if config.loss.of == "sides" and folder.measure != "binary_auc":
        log.warning(
            "--measure %s is of the eight subtypes, which loss.of=sides does not learn; "
            "binary_auc is of what it learns.",
            folder.measure,
        )


def _trainings(folder: StudyFolder, on_step: OnStep) -> FoldTrainings:
    """Make what tells a candidate's worth on this machine."""
    import torch

    from atypia.models.hardware import choose_device, choose_precision, make_deterministic
    from atypia.training.distributed import ComputePlace, World
    from atypia.training.trial import FoldTrainings, training_part

    run = folder.run
    runtime = run.config.runtime
    device = choose_device(runtime.device)
    make_deterministic(device)
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    cohort, outer = training_part(run.cohort, run.splits.outer[0])
    return FoldTrainings(
        cohort,
        outer,
        run.config,
        folder.space,
        folder.measure,
        folder.folds,
        ComputePlace(device, choose_precision(runtime.precision, device), World(), layout),
        run.folder / "trials",
        on_step,
    )
