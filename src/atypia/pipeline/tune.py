"""Tune: search for a better configuration, inside the training part of one outer split."""

from __future__ import annotations

import logging
import math
import os
import time
from contextlib import nullcontext
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from atypia.core.errors import AtypiaError, InputError
from atypia.core.files import describe_machine, read_json, versions, write_json
from atypia.core.progress import OnStep, silent
from atypia.data.cohort import Cohort
from atypia.training.run_folder import Clock, Run, logged_to, network_config, run_splits
from atypia.training.search_space import Measure, read_space
from atypia.training.study import HEARTBEAT_SECONDS, load_optuna, local_storage, shared_storage
from atypia.training.study_folder import StudyFolder, checked_options, one_outer, only_worker

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.core.config import TrainConfig

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
        measure: Of the out-of-fold probabilities; None: the study's own, or log-loss, after a
            temperature where the configuration calibrates by one.
        folds: On how many of the inner folds a trial is trained; None: the study's own, or all.
        outer: Which outer split, where there are several.
        trials: How many there are to be in the end, those of other workers and of earlier calls
            included.
        hours: No trial begins later than that after the call.
        storage: URL of a PostgreSQL data base, for several workers; None: SQLite in `out`, for one.
        resume: Go on with a study, or join it.
        command: With `on_step` as for :func:`atypia.pipeline.train`.
        heartbeat_seconds: See :data:`atypia.training.study.HEARTBEAT_SECONDS`.

    Returns:
        The content of ``tune.json``.

    Raises:
        InputError: Options, space, cohort, splits or folder do not fit each other; all problems of
            the space are reported at once, before the first trial.
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
    config = network_config(out, config, resume=resume)
    cohort = Cohort.open(cohort_folder, verify=True)
    splits = one_outer(run_splits(out, cohort, config), outer)
    recorded = read_json(out / "tune.json") if resume and (out / "tune.json").is_file() else {}
    measure, folds = checked_options(measure, folds, trials, config, recorded)
    space = read_space(search, config, measure)
    folder = StudyFolder(Run(out, cohort, config, splits), space, measure, folds)

    from atypia.training.trial import FoldTrainings, check_before_trials

    check_before_trials(folder)
    with only_worker(out) if storage is None else nullcontext():
        study = folder.open_study(url, resume, heartbeat_seconds)
        folder.write_start()
        record = folder.describe() | {
            "command": command,
            "storage": "study.db" if storage is None else url,  # which holds no password
            "trials": trials,
            "versions": versions() | {n: metadata.version(n) for n in ("optuna", "SQLAlchemy")},
            "machine": describe_machine(),
        }

        def note(status: str, **more: Any) -> dict[str, Any]:
            results = folder.write_results(study)
            content = record | {"status": status, "session": clock.session()} | results | more
            write_json(out / "tune.json", content)
            return content

        with logged_to(out / "tune.log"):
            trainings = FoldTrainings.of(folder, on_step)
            try:
                note("running")
                study.work(trainings, trials, deadline, after_trial=lambda: note("running"))
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
            content = note("finished", importances=importances)
    if content["best"] is None:
        reason = next((t.note for t in ended if t.note), "it was pruned")
        raise AtypiaError(
            f"{out}: none of {len(ended)} trials could be completed. The first one: {reason}"
        )
    return content
