"""Train: split, members, ensemble, predictions, measures, report."""

from __future__ import annotations

import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from atypia.data.cohort import MAJORITY_COLUMN, Cohort
from atypia.data.splits import rows
from atypia.decision import Decision
from atypia.errors import AtypiaError
from atypia.evaluation.biomarker.error_model import ErrorModel
from atypia.evaluation.calibration import Calibration, fit_calibration
from atypia.evaluation.conformal import ConformalSets
from atypia.evaluation.evaluate import evaluate as evaluate_predictions
from atypia.evaluation.predictions import (
    predictions_from_table,
    read_predictions,
    write_predictions,
)
from atypia.evaluation.thresholds import operating_point
from atypia.inference.predict import find_items, predict_items, prediction_table
from atypia.labels import N_ATYPICAL, N_SUBTYPES, parse_atypical
from atypia.pipeline.report import write_report
from atypia.pipeline.run import (
    Run,
    open_run,
    require_shared_folder,
    run_config,
    run_splits,
    warn_of_missing_classes,
)
from atypia.progress import OnStep, silent
from atypia.runs import describe_machine, read_json, sha256_file, versions, write_json
from atypia.training.targets import chosen_labels

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.config import TrainConfig
    from atypia.training.crossval import Members
    from atypia.training.task import Place

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
        cohort_folder: From :func:`atypia.data.prepare.prepare`.
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

    from atypia.models.hardware import (
        choose_device,
        choose_precision,
        make_deterministic,
        peak_memory_bytes,
    )
    from atypia.training.distributed import world
    from atypia.training.task import Place

    started, clock = datetime.now(UTC), time.perf_counter()
    config = run_config(out, config, resume)
    cohort = Cohort.open(cohort_folder, verify=True)
    device = choose_device(config.runtime.device)
    precision = choose_precision(config.runtime.precision, device)
    make_deterministic(device)
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    with world(device) as processes:
        layout = torch.channels_last if config.runtime.channels_last else torch.contiguous_format
        place = Place(processes.device(device), precision, processes, layout)
        run = Run(out, cohort, config, run_splits(out, cohort, config))
        record = {
            "status": "running",
            "command": command,
            "seed": config.seed,
            "cohort": {
                "name": cohort.name,
                "n": len(cohort),
                "sha256": cohort.sha256,
                "path": os.path.relpath(cohort_folder, out),
            },
            "versions": versions(),
            "machine": {
                **describe_machine(),
                "device": str(place.device),
                "precision": str(precision).removeprefix("torch."),
                "threads": torch.get_num_threads(),
                "processes": processes.size,
            },
        }
        processes.barrier()  # all have looked at the folder before anything is written to it
        if not processes.is_main:
            log.setLevel(logging.WARNING)  # the first process tells the story
            processes.barrier()
            require_shared_folder(out, processes)
            _train_all(run, place, on_step)
            return None
        handler = open_run(run, record)
        processes.barrier()
        require_shared_folder(out, processes)
        sessions = read_json(out / "run.json")["sessions"]

        def note(status: str, **more: Any) -> None:
            session = {
                "started": started.isoformat(timespec="seconds"),
                "seconds": round(time.perf_counter() - clock, 1),
                "peak_memory_gb": round(peak_memory_bytes() / 1e9, 2),
            }
            told = {"status": status, "sessions": [*sessions, session], **more}
            write_json(out / "run.json", record | told)

        try:
            facts = _train_all(run, place, on_step)
            metrics = _evaluate_run(run, facts)
            note("running", models=facts)  # the report tells of this session, too
            write_report(out, cohort)
        except BaseException as error:
            try:
                note("failed", error=f"{type(error).__name__}: {error}")
            except AtypiaError as second:  # a full disk; the first error is the one to tell
                log.warning("%s", second)
            raise
        finally:
            log.removeHandler(handler)
            handler.close()
        note("finished", models=facts)
        return metrics


def _train_all(run: Run, place: Place, on_step: OnStep) -> list[dict[str, Any]]:
    """Train every outer split that is not finished; write bundles and predictions."""
    from atypia.data.loader import open_store
    from atypia.models.network import make_network
    from atypia.training.crossval import member_tasks, train_members

    n_outer = len(run.splits.outer)
    for number, outer in enumerate(run.splits.outer):  # every fault before the first hour of work
        member_tasks(run.cohort, outer, number, run.config)
    if place.world.is_main:
        warn_of_missing_classes(run)
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


def _finish_outer(run: Run, number: int, members: Members, place: Place) -> dict[str, Any]:
    """Join the members of one outer split, calibrate and fix the threshold out of fold, predict."""
    from atypia.ensemble import Ensemble, p_atypical

    manifest, config = run.cohort.manifest, run.config
    folder = run.outer_folder(number)
    labels = chosen_labels(manifest, config.label)[members.oof_rows]
    known = labels >= 0
    calibration, conformal = Calibration(), None
    domains = manifest["domain"].to_numpy(dtype=str)[members.oof_rows]
    if config.ensemble.calibration == "temperature":
        calibration = fit_calibration(
            members.oof_probabilities[known], labels[known], domains[known]
        )
    probabilities = calibration.apply(members.oof_probabilities)
    if config.ensemble.conformal_alpha is not None:
        conformal = ConformalSets.fit(
            probabilities[known],
            labels[known],
            config.ensemble.conformal_alpha,
            class_conditional=True,
        )
    threshold = _fix_threshold(
        config, manifest.iloc[members.oof_rows], p_atypical(probabilities), labels
    )
    counts = np.bincount(labels[known], minlength=N_SUBTYPES)
    decision = Decision(prior=(counts / counts.sum()).tolist(), power=config.ensemble.prior_power)
    out_of_fold = prediction_table(
        manifest.iloc[members.oof_rows], probabilities, decision, threshold, members.oof_folds
    )
    write_predictions(folder / "predictions-oof.csv", out_of_fold)
    facts = {
        "initial_weights": members.origin,
        "parameters": sum(p.numel() for p in members.networks[0].parameters()),
        "threshold_atypical": threshold,
        "calibration": calibration.to_json(),
        "always_in_set": [] if conformal is None else list(conformal.always_in),
    }
    if config.target.teacher is not None:
        facts["teacher_sha256"] = sha256_file(Path(config.target.teacher))
    ensemble = Ensemble(
        members.networks,
        members.spec,
        config.model,
        config.ensemble.tta,
        decision,
        threshold,
        {
            "cohort": run.cohort.name,
            "cohort_sha256": run.cohort.sha256,
            "label": config.label,
            "target": config.target.model_dump(mode="json", exclude={"teacher"}),
            "seed": config.seed,
            "split": run.splits.kind,
            "outer": number,
            **facts,
        },
        calibration=calibration,
        conformal=conformal,
        errors=ErrorModel.fit(predictions_from_table(out_of_fold), config.label).to_json(),
    )
    ensemble.save(folder / "model")
    ensemble.to(place.device)
    if not run.splits.outer[number].test:
        return facts
    test = np.flatnonzero(rows(manifest, run.splits.outer[number].test))
    items = find_items([run.cohort.path], mpp=None)
    table, _ = predict_items(ensemble, [items[row] for row in test])
    write_predictions(folder / "predictions-test.csv", table.assign(fold=number))
    return facts


def _fix_threshold(
    config: TrainConfig,
    manifest: pd.DataFrame,
    p_atypical: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.int64],
) -> float:
    """Fix the binary threshold on out-of-fold predictions; all arguments have their N rows."""
    calls = [np.where(labels >= 0, labels < N_ATYPICAL, np.nan)]
    if config.ensemble.threshold_by == "label_and_majority" and MAJORITY_COLUMN in manifest.columns:
        votes = [
            parse_atypical(str(vote)) if str(vote) else None for vote in manifest[MAJORITY_COLUMN]
        ]
        calls.append(np.array(votes, dtype=float))  # None becomes NaN
    call = np.concatenate(calls)
    known, rows_of = ~np.isnan(call), np.tile(np.arange(len(labels)), len(calls))
    domains = manifest["domain"].to_numpy(dtype=str)[rows_of]
    return operating_point(
        p_atypical[rows_of][known].astype(float),
        call[known] == 1,
        manifest["patient_id"].to_numpy()[rows_of][known],
        seed=config.seed,
        domains=domains[known] if config.ensemble.threshold == "domains" else None,
    )


def _evaluate_run(run: Run, facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Score the test predictions, and for model choice the out-of-fold ones."""
    n_outer = len(run.splits.outer)
    without_test = run.splits.kind == "all"  # the out-of-fold predictions are all there is
    if n_outer > 1:
        parts = [
            pd.read_csv(
                run.outer_folder(i) / "predictions-test.csv", dtype=str, keep_default_na=False
            )
            for i in range(n_outer)
        ]
        write_predictions(run.folder / "predictions-test.csv", pd.concat(parts))
    options: dict[str, Any] = {
        "label": run.config.label,
        "resamples": run.config.resamples,
        "seed": run.config.seed,
        "alpha": run.config.ensemble.conformal_alpha,
    }
    threshold = facts[0]["threshold_atypical"] if n_outer == 1 else None
    labels = chosen_labels(run.cohort.manifest, run.config.label)
    for number in range(n_outer):
        folder = run.outer_folder(number)
        out_of_fold = read_predictions(folder / "predictions-oof.csv")
        fixed = facts[number]["threshold_atypical"]
        scores = evaluate_predictions(out_of_fold, threshold=fixed, **options)
        # The fold that chose a checkpoint is no fair judge of it, nor one that a teacher has seen.
        scores["optimistic"] = (
            run.config.optim.select == "best" or run.config.target.teacher is not None
        )
        write_json(folder / "metrics-oof.json", scores)
        in_test = rows(run.cohort.manifest, run.splits.outer[number].test)
        if n_outer > 1 and (labels[in_test] >= 0).any():  # a whole domain may lack this label
            tested = read_predictions(folder / "predictions-test.csv")
            write_json(
                folder / "metrics.json", evaluate_predictions(tested, threshold=fixed, **options)
            )
    if without_test:
        metrics = scores | {"part": "out of fold"}
    else:
        metrics = evaluate_predictions(read_predictions(run.folder), threshold=threshold, **options)
    write_json(run.folder / "metrics.json", metrics)
    return metrics
