"""The whole story on one page: prepare, train, evaluate, report, predict.

Each function is one verb of the command line. The stages do the work; this page says in which
order, and what each leaves on disk.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from atypia.config import TrainConfig, config_from_tree
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.data.splits import Splits, make_splits, missing_classes, rows
from atypia.errors import AtypiaError, InputError
from atypia.evaluation.compare import compare as compare_tables
from atypia.evaluation.evaluate import evaluate as evaluate_predictions
from atypia.evaluation.predictions import Predictions, read_predictions, write_predictions
from atypia.evaluation.report import ReportInput, build_report
from atypia.evaluation.thresholds import operating_point
from atypia.inference.predict import find_items, predict_items, prediction_table
from atypia.labels import N_ATYPICAL, N_SUBTYPES, SUBTYPES
from atypia.progress import OnDone, OnStep, silent
from atypia.runs import describe_machine, read_json, versions, write_json, write_text
from atypia.training.targets import chosen_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from atypia.errors import Problem
    from atypia.training.crossval import Members
    from atypia.training.distributed import World
    from atypia.training.fit import Place

log = logging.getLogger("atypia")

CHOSEN = "chosen_label"


# --- Train ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run folder and what it was started with."""

    folder: Path
    cohort: Cohort
    config: TrainConfig
    splits: Splits

    def outer_folder(self, number: int) -> Path:
        """Folder of one outer split: the run itself where there is only one."""
        return self.folder if len(self.splits.outer) == 1 else self.folder / f"outer-{number}"


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
    from atypia.training.fit import Place

    started, clock = datetime.now(UTC), time.perf_counter()
    config = _run_config(out, config, resume)
    cohort = Cohort.open(cohort_folder, verify=True)
    device = choose_device(config.runtime.device)
    precision = choose_precision(config.runtime.precision, device)
    make_deterministic(device)
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    with world(device) as processes:
        layout = torch.channels_last if config.runtime.channels_last else torch.contiguous_format
        place = Place(processes.device(device), precision, processes, layout)
        run = Run(out, cohort, config, _run_splits(out, cohort, config))
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
            _require_shared_folder(out, processes)
            _train_all(run, place, on_step)
            return None
        handler = _open_run(run, record)
        processes.barrier()
        _require_shared_folder(out, processes)
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


def _run_config(out: Path, config: TrainConfig | None, resume: bool) -> TrainConfig:
    """Decide on the configuration: given for a new run, the folder's own for a resumed one."""
    file = out / "config.yaml"
    if not resume:
        if out.exists() and any(out.iterdir()):
            raise InputError(
                f"{out} already holds something. Choose another --out, or go on with a stopped "
                "run: --resume"
            )
        if config is None:
            raise InputError("expected a configuration for a new run but got none.")
        return config
    if not file.is_file():
        if config is None:
            raise InputError(f"{out} is not a run that could be resumed: it has no config.yaml.")
        return config  # killed before the first file was written
    own = config_from_tree(yaml.safe_load(file.read_text("utf-8")), str(file))
    if config is not None and config != own:
        raise InputError(
            f"--resume: {out} was started with another configuration. Give no preset and no "
            "key=value to go on with its own, or choose another --out."
        )
    return own


def _run_splits(out: Path, cohort: Cohort, config: TrainConfig) -> Splits:
    """Read the run's splits, or make them by the configuration."""
    if (out / "splits.json").is_file():
        return Splits.read(out / "splits.json", cohort.manifest, cohort.sha256)
    splits = make_splits(
        _with_chosen_label(cohort, config.label),
        cohort.sha256,
        kind=config.split.kind,
        label=CHOSEN,
        seed=config.seed,
        folds=config.split.folds,
        repeats=config.split.repeats,
        test_fraction=config.split.test_fraction,
        inner_folds=config.ensemble.members,
    )
    folds = {len(outer.inner) for outer in splits.outer}
    if folds != {config.ensemble.members}:
        raise InputError(
            f"ensemble.members: expected {sorted(folds)}, the inner folds of {config.split.kind}, "
            f"but got {config.ensemble.members}."
        )
    return splits


def _with_chosen_label(cohort: Cohort, label: str) -> pd.DataFrame:
    """Add the column :data:`CHOSEN` to a copy of the manifest: the label that a run uses."""
    labels = chosen_labels(cohort.manifest, label)
    return cohort.manifest.assign(**{CHOSEN: np.where(labels >= 0, np.array(SUBTYPES)[labels], "")})


def _require_shared_folder(out: Path, processes: World) -> None:
    if not processes.all_true((out / "splits.json").is_file()):
        raise InputError(
            f"--out: expected {out} on a file system that all hosts share, but some process does "
            "not see it."
        )


def _open_run(run: Run, record: dict[str, Any]) -> logging.Handler:
    """Write what is fixed from the start; open ``train.log``."""
    file = run.folder / "run.json"
    earlier = read_json(file)["sessions"] if file.is_file() else []
    for leftover in run.folder.rglob(".*"):  # of writes that a kill cut off
        if leftover.is_file():
            leftover.unlink()
    write_text(run.folder / "config.yaml", run.config.to_yaml())
    run.splits.write(run.folder / "splits.json")
    write_json(file, {**record, "sessions": earlier})
    handler = logging.FileHandler(run.folder / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    return handler


def _train_all(run: Run, place: Place, on_step: OnStep) -> list[dict[str, Any]]:
    """Train every outer split that is not finished; write bundles and predictions."""
    from atypia.data.loader import open_store
    from atypia.models.network import make_network
    from atypia.training.crossval import member_tasks, train_members

    n_outer = len(run.splits.outer)
    for number, outer in enumerate(run.splits.outer):  # every fault before the first hour of work
        member_tasks(run.cohort, outer, number, run.config)
    if place.world.is_main:
        _warn_of_missing_classes(run)
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


def _warn_of_missing_classes(run: Run) -> None:
    """Tell which validation and test parts lack a subtype: their mean AUC is over the others."""
    manifest = _with_chosen_label(run.cohort, run.config.label)
    for missing in missing_classes(run.splits, manifest, CHOSEN, SUBTYPES):
        log.warning("%s; its measures are over the other subtypes", missing)


def _finish_outer(run: Run, number: int, members: Members, place: Place) -> dict[str, Any]:
    """Join the members of one outer split, fix the threshold out of fold, predict the test part."""
    from atypia.ensemble import Decision, Ensemble, p_atypical

    manifest, config = run.cohort.manifest, run.config
    folder = run.outer_folder(number)
    labels = chosen_labels(manifest, config.label)[members.oof_rows]
    known = labels >= 0
    threshold = operating_point(
        p_atypical(members.oof_probabilities)[known].astype(float),
        labels[known] < N_ATYPICAL,
        manifest["patient_id"].to_numpy()[members.oof_rows][known],
        seed=config.seed,
    )
    counts = np.bincount(labels[known], minlength=N_SUBTYPES)
    decision = Decision(prior=(counts / counts.sum()).tolist(), power=config.ensemble.prior_power)
    out_of_fold = prediction_table(
        manifest.iloc[members.oof_rows],
        members.oof_probabilities,
        decision,
        threshold,
        members.oof_folds,
    )
    write_predictions(folder / "predictions-oof.csv", out_of_fold)
    facts = {
        "initial_weights": members.origin,
        "parameters": sum(p.numel() for p in members.networks[0].parameters()),
        "threshold_atypical": threshold,
    }
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
            "target": config.target.model_dump(mode="json"),
            "seed": config.seed,
            "split": run.splits.kind,
            "outer": number,
            **facts,
        },
    )
    ensemble.save(folder / "model")
    ensemble.to(place.device, place.precision)
    test = np.flatnonzero(rows(manifest, run.splits.outer[number].test))
    items = find_items([run.cohort.path], mpp=None)
    table, _ = predict_items(ensemble, [items[row] for row in test])
    write_predictions(folder / "predictions-test.csv", table.assign(fold=number))
    return facts


# --- Evaluate, report, compare --------------------------------------------------------------------


def _evaluate_run(run: Run, facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Score the test predictions, and for model choice the out-of-fold ones."""
    n_outer = len(run.splits.outer)
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
    }
    threshold = facts[0]["threshold_atypical"] if n_outer == 1 else None
    for number in range(n_outer):
        folder = run.outer_folder(number)
        out_of_fold = read_predictions(folder / "predictions-oof.csv")
        scores = evaluate_predictions(out_of_fold, **options)
        # The fold that chose a checkpoint is no fair judge of it.
        scores["optimistic"] = run.config.optim.select == "best"
        write_json(folder / "metrics-oof.json", scores)
    metrics = evaluate_predictions(read_predictions(run.folder), threshold=threshold, **options)
    write_json(run.folder / "metrics.json", metrics)
    return metrics


def write_report(
    folder: Path, cohort: Cohort | None = None, *, images: bool = True, out: Path | None = None
) -> Path:
    """Rebuild ``report.html`` of a run folder from the files in it.

    Args:
        folder: The run.
        cohort: For the images of patches; None looks for it where it was when the run began.
        images: False leaves the patches out.
        out: The file; ``report.html`` in `folder` by default.

    Raises:
        InputError: The folder holds no finished run.
    """
    metrics = read_json(folder / "metrics.json")
    run = read_json(folder / "run.json")
    if images:
        cohort = cohort or _cohort_of(folder, run)
    out = out or folder / "report.html"
    outer = sorted(folder.glob("outer-*")) or [folder]
    histories = [h for o in outer for h in sorted(o.glob("fold-*/history.csv"))]
    oof = folder / "predictions-oof.csv"
    build_report(
        ReportInput(
            title=folder.resolve().name,
            metrics=metrics,
            cohort=run["cohort"]["name"],
            date=run["sessions"][-1]["started"][:10] if run["sessions"] else None,
            predictions=read_predictions(folder),
            out_of_fold=read_predictions(oof) if oof.is_file() else None,
            histories=[pd.read_csv(h) for h in histories],
            splits=read_json(folder / "splits.json"),
            config_yaml=(folder / "config.yaml").read_text("utf-8"),
            run=run,
            patches=_patch_reader(cohort) if images and cohort is not None else None,
        ),
        out,
    )
    return out


def _cohort_of(folder: Path, run: dict[str, Any]) -> Cohort | None:
    """Open the cohort of a run where it was; None, with a warning, if it is not there now."""
    path = Path(os.path.normpath(folder / run["cohort"].get("path", "")))
    try:
        cohort = Cohort.open(path)
    except InputError:
        log.warning("No cohort at %s: the report has no images. Give --cohort.", path)
        return None
    if cohort.sha256 != run["cohort"]["sha256"]:
        log.warning("%s is not the cohort of this run: the report has no images.", path)
        return None
    return cohort


def _patch_reader(cohort: Cohort) -> Callable[[Sequence[str]], list[npt.NDArray[np.uint8]]]:
    paths = dict(zip(cohort.manifest["patch_id"], cohort.image_paths(), strict=True))
    return lambda patch_ids: [read_patch(paths[patch_id]) for patch_id in patch_ids]


def evaluate(
    table: Path, out: Path, label: str = "expert1", resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Evaluate a table of predictions, ours or anyone's: ``metrics.json`` and ``report.html``.

    Raises:
        InputError: Lists every problem of the table.
    """
    predictions = read_predictions(table)
    metrics = evaluate_predictions(predictions, label, resamples, seed)
    write_json(out / "metrics.json", metrics)
    build_report(
        ReportInput(title=table.name, metrics=metrics, predictions=predictions),
        out / "report.html",
    )
    return metrics


def compare(
    tables: Sequence[Path],
    label: str = "expert1",
    resamples: int = 2000,
    seed: int = 0,
    *,
    intersection: bool = False,
) -> dict[str, Any]:
    """Compare prediction tables or runs on the same patches, patient by patient."""
    names = _short_names(tables)
    named: dict[str, Predictions] = {
        name: read_predictions(table) for name, table in zip(names, tables, strict=True)
    }
    return compare_tables(named, label, resamples, seed, intersection=intersection)


def _short_names(paths: Sequence[Path]) -> list[str]:
    names = [path.name if path.is_dir() else path.stem for path in map(Path.resolve, paths)]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


# --- Predict --------------------------------------------------------------------------------------


def predict(
    inputs: Sequence[Path],
    out: Path,
    model: Path,
    *,
    mpp: float | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    on_start: OnDone = silent,
    on_done: OnDone = silent,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Classify images, folders, stacks or cohorts and write ``predictions.csv``.

    Args:
        inputs: What to classify.
        out: The CSV to write.
        model: Bundle or run folder.
        mpp: µm per pixel of what is not in a cohort.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        skip_bad: Leave out what cannot be read, and return it.
        on_start: Called with the number of files.
        on_done: Called with the number of files done since the last call.

    Raises:
        InputError: Lists every problem of the inputs; nothing is written.
    """
    from atypia.ensemble import Ensemble
    from atypia.models.hardware import choose_device, choose_precision

    items = find_items(inputs, mpp)
    chosen = choose_device(device)
    ensemble = Ensemble.load(model).to(chosen, choose_precision("auto", chosen))
    on_start(len(items))
    table, skipped = predict_items(ensemble, items, skip_bad=skip_bad, on_done=on_done)
    write_predictions(out, table, patients_known=False)
    return table, skipped
