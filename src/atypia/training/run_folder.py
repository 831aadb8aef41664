"""A run folder: configuration, splits, the record of its sessions, and its measures."""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import pandas as pd

from atypia.core.config import AnyConfig, MilConfig, RulesConfig, TrainConfig, any_config_from_tree
from atypia.core.errors import AtypiaError, InputError
from atypia.core.files import (
    LOCK,
    describe_machine,
    only_process,
    read_json,
    read_yaml,
    source_commit,
    versions,
    write_json,
    write_text,
)
from atypia.core.labels import SUBTYPES
from atypia.data.splits import Splits, make_splits, missing_classes, rows
from atypia.evaluation.predictions import read_cells, read_predictions, write_predictions
from atypia.evaluation.scores import evaluate
from atypia.models.encoders import find_encoder
from atypia.models.hardware import peak_memory_bytes
from atypia.training.targets import chosen_labels, scored_calls, vote_column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from atypia.data.cohort import Cohort
    from atypia.training.distributed import World

log = logging.getLogger("atypia")

CHOSEN = "chosen_label"
SIDES = ("atypical", "normal")

Config = TypeVar("Config", bound=AnyConfig)
Config_co = TypeVar("Config_co", bound=AnyConfig | MilConfig, covariant=True)


@dataclass(frozen=True)
class Run(Generic[Config_co]):
    """A run folder and what it was started with."""

    folder: Path
    cohort: Cohort
    config: Config_co
    splits: Splits

    writes: bool = True
    """False in processes of ``torchrun`` that only help to train."""

    def outer_folder(self, number: int) -> Path:
        """Folder of one outer split: the run itself where there is only one."""
        return self.folder if len(self.splits.outer) == 1 else self.folder / f"outer-{number}"


@dataclass(frozen=True)
class Clock:
    """When the work of a session began."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    ticks: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def session(self) -> dict[str, Any]:
        """Entry of a session in ``run.json``, as of now."""
        return {
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self.ticks, 1),
            "cpu_seconds": round(time.process_time() - self.cpu, 1),
            "peak_memory_gb": round(peak_memory_bytes() / 1e9, 2),
        }


def run_config(out: Path, config: AnyConfig | None, *, resume: bool) -> AnyConfig:
    """Decide on the configuration: given for a new run, the folder's own for a resumed one."""
    file = out / "config.yaml"
    if not resume:
        if out.exists() and any(path.name != LOCK for path in out.iterdir()):
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
    own = any_config_from_tree(read_yaml(file), str(file))
    if config is not None and config != own:
        raise _started_otherwise(out)
    return own


def network_config(out: Path, config: TrainConfig | None, *, resume: bool) -> TrainConfig:
    """Decide as :func:`run_config`; a run of another kind is refused."""
    own = run_config(out, config, resume=resume)
    if not isinstance(own, TrainConfig):
        raise _started_otherwise(out)
    return own


def _started_otherwise(out: Path) -> InputError:
    return InputError(
        f"--resume: {out} was started with another configuration. Give no preset and no "
        "key=value to go on with its own, or choose another --out."
    )


def run_splits(out: Path, cohort: Cohort, config: TrainConfig | RulesConfig) -> Splits:
    """Read the run's splits, or make them by the configuration."""
    if (out / "splits.json").is_file():
        return Splits.read(out / "splits.json", cohort.manifest, cohort.sha256)
    splits = make_splits(
        with_chosen_label(cohort, config.label),
        cohort.sha256,
        kind=config.split.kind,
        label=CHOSEN,
        seed=config.seed,
        folds=config.split.folds,
        repeats=config.split.repeats,
        test_fraction=config.split.test_fraction,
        inner_folds=config.inner_folds,
    )
    folds = {len(outer.inner) for outer in splits.outer}
    if isinstance(config, TrainConfig) and folds != {config.ensemble.members}:
        raise InputError(
            f"ensemble.members: expected {sorted(folds)}, the inner folds of {config.split.kind}, "
            f"but got {config.ensemble.members}."
        )
    return splits


def with_chosen_label(cohort: Cohort, label: str) -> pd.DataFrame:
    """Add the column :data:`CHOSEN` to a copy of the manifest: the label that a run uses."""
    if vote_column(cohort.manifest, label) is not None:
        calls = scored_calls(cohort.manifest, label)
        return cohort.manifest.assign(**{CHOSEN: np.select([calls == 1, calls == 0], SIDES, "")})
    labels = chosen_labels(cohort.manifest, label)
    return cohort.manifest.assign(**{CHOSEN: np.where(labels >= 0, np.array(SUBTYPES)[labels], "")})


def run_record(
    run: Run[AnyConfig | MilConfig], cohort_folder: Path, command: str
) -> dict[str, Any]:
    """Entries of ``run.json`` from the start of a run."""
    commit = source_commit()
    return {
        "status": "running",
        "command": command,
        "seed": run.config.seed,
        "cohort": {
            "name": run.cohort.name,
            "n": len(run.cohort),
            "sha256": run.cohort.sha256,
            "path": os.path.relpath(cohort_folder, run.folder),
        },
        "versions": versions(),
        **({} if commit is None else {"commit": commit}),
        "machine": describe_machine(),
    }


@contextmanager
def session(
    run: Run[AnyConfig | MilConfig],
    record: dict[str, Any],
    clock: Clock,
    processes: World | None = None,
) -> Iterator[Callable[..., None]]:
    """Write what is fixed from the start, and in ``run.json`` how the work ended.

    Yields a function that adds entries, by name, to ``run.json``. `record` is that of
    :func:`run_record`. Of several `processes` of ``torchrun`` the first one writes.
    """
    if processes is not None:
        processes.barrier()  # all have looked at the folder before anything is written to it
    if not run.writes:
        log.setLevel(logging.WARNING)  # the first process logs for all
        _wait_for_folder(run.folder, processes)
        yield lambda **_: None
        return
    busy = f"{run.folder}: another process is working on this run. Wait for it, or stop it."
    with only_process(run.folder, busy):
        yield from _recorded(run, record, clock, processes)


def _recorded(
    run: Run[AnyConfig | MilConfig],
    record: dict[str, Any],
    clock: Clock,
    processes: World | None,
) -> Iterator[Callable[..., None]]:
    _open(run, record)
    sessions = read_json(run.folder / "run.json")["sessions"]

    def write(status: str, **more: Any) -> None:
        now = {"status": status, "sessions": [*sessions, clock.session()]}
        write_json(run.folder / "run.json", record | now | more)

    entries: dict[str, Any] = {}

    def note(**more: Any) -> None:
        entries.update(more)
        write("running", **entries)

    with logged_to(run.folder / "train.log"):
        try:
            _wait_for_folder(run.folder, processes)
            yield note
        except BaseException as error:
            try:
                stopped = isinstance(error, KeyboardInterrupt | SystemExit)
                status = "stopped" if stopped else "failed"
                write(status, error=f"{type(error).__name__}: {error}")
            except AtypiaError as second:  # a full disk; the first error is the one to report
                log.warning("%s", second)
            raise
    write("finished", **entries)


@contextmanager
def logged_to(file: Path) -> Iterator[None]:
    """Append what is logged to a file."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def _wait_for_folder(out: Path, processes: World | None) -> None:
    """Wait until the first process has made the run folder, which all must see."""
    if processes is None:
        return
    processes.barrier()
    if not processes.all_true((out / "splits.json").is_file()):
        raise InputError(
            f"--out: expected {out} on a file system that all hosts share, but some process does "
            "not see it."
        )


def _open(run: Run[AnyConfig | MilConfig], record: dict[str, Any]) -> None:
    """Write what is fixed from the start."""
    file = run.folder / "run.json"
    earlier = read_json(file)["sessions"] if file.is_file() else []
    for leftover in run.folder.rglob(".*"):  # of writes that a kill cut off
        if leftover.is_file() and leftover.name != LOCK:
            leftover.unlink()
    write_text(run.folder / "config.yaml", run.config.to_yaml())
    run.splits.write(run.folder / "splits.json")
    write_json(file, {**record, "sessions": earlier})


def warn_of_missing_classes(run: Run[AnyConfig]) -> None:
    """Warn of validation and test parts without a subtype: their mean AUC is over the others."""
    manifest = with_chosen_label(run.cohort, run.config.label)
    classes = SUBTYPES if vote_column(manifest, run.config.label) is None else SIDES
    for missing in missing_classes(run.splits, manifest, CHOSEN, classes):
        log.warning("%s; its measures are over the others", missing)


def warn_of_another_scale(config: TrainConfig | MilConfig) -> None:
    """Warn where an encoder is given images far from those that it was trained on."""
    encoder = find_encoder(config.model.backbone)
    problem = None if encoder is None else encoder.scale_problem(**config.input.model_dump())
    if problem is not None:
        log.warning("%s", problem)


def score_run(
    run: Run[AnyConfig], models: Sequence[dict[str, Any]], optimistic: tuple[bool, bool]
) -> dict[str, Any]:
    """Score the predictions of every outer split; write ``metrics.json`` and give its content.

    Args:
        run: With the predictions in it.
        models: What ``run.json`` has on the model of each outer split.
        optimistic: Whether the measures out of fold, and those of the test part, flatter the model.
    """
    n_outer, thresholds = len(run.splits.outer), [m["threshold_atypical"] for m in models]
    if n_outer > 1:
        files = [run.outer_folder(number) / "predictions-test.csv" for number in range(n_outer)]
        parts = [read_cells(file, ())[0] for file in files]
        write_predictions(run.folder / "predictions-test.csv", pd.concat(parts))
    options: dict[str, Any] = {
        "label": run.config.label,
        "resamples": run.config.resamples,
        "seed": run.config.seed,
        "alpha": run.config.answer.conformal_alpha,
    }
    calls = scored_calls(run.cohort.manifest, run.config.label)
    for number, threshold in enumerate(thresholds):
        folder = run.outer_folder(number)
        out_of_fold = read_predictions(folder / "predictions-oof.csv")
        scores = evaluate(out_of_fold, threshold=threshold, **options)
        scores["optimistic"] = optimistic[0]
        write_json(folder / "metrics-oof.json", scores)
        in_test = rows(run.cohort.manifest, run.splits.outer[number].test)
        if n_outer > 1 and not np.isnan(calls[in_test]).all():  # a whole domain may lack this label
            tested = read_predictions(folder / "predictions-test.csv")
            write_json(folder / "metrics.json", evaluate(tested, threshold=threshold, **options))
    if run.splits.kind == "all":  # the out-of-fold predictions are all there is
        metrics = scores | {"part": "out of fold"}
    else:
        one = thresholds[0] if n_outer == 1 else None
        metrics = evaluate(read_predictions(run.folder), threshold=one, **options)
        if optimistic[1]:
            metrics["optimistic"] = True
    write_json(run.folder / "metrics.json", metrics)
    return metrics
