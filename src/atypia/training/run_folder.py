"""A run folder: its configuration, its splits, and what is written at its start."""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import yaml

from atypia.core.config import (
    AnyConfig,
    HybridConfig,
    MilConfig,
    RulesConfig,
    StackConfig,
    TrainConfig,
    any_config_from_tree,
)
from atypia.core.errors import AtypiaError, InputError
from atypia.core.files import (
    describe_machine,
    read_json,
    source_commit,
    versions,
    write_json,
    write_text,
)
from atypia.core.labels import SUBTYPES
from atypia.data.splits import Splits, make_splits, missing_classes
from atypia.models.encoders import find_encoder
from atypia.models.hardware import peak_memory_bytes
from atypia.training.targets import chosen_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pandas as pd

    from atypia.data.cohort import Cohort
    from atypia.training.distributed import World

log = logging.getLogger("atypia")

CHOSEN = "chosen_label"

Config = TypeVar("Config", TrainConfig, RulesConfig, HybridConfig, StackConfig)
Config_co = TypeVar("Config_co", bound=AnyConfig | MilConfig, covariant=True)


@dataclass(frozen=True)
class Run(Generic[Config_co]):
    """A run folder and what it was started with."""

    folder: Path
    cohort: Cohort
    config: Config_co
    splits: Splits

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


def run_config(out: Path, config: Config | None, resume: bool, kind: type[Config]) -> Config:
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
    own = any_config_from_tree(yaml.safe_load(file.read_text("utf-8")), str(file))
    if not isinstance(own, kind) or (config is not None and config != own):
        raise InputError(
            f"--resume: {out} was started with another configuration. Give no preset and no "
            "key=value to go on with its own, or choose another --out."
        )
    return own


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
    labels = chosen_labels(cohort.manifest, label)
    return cohort.manifest.assign(**{CHOSEN: np.where(labels >= 0, np.array(SUBTYPES)[labels], "")})


def require_shared_folder(out: Path, processes: World) -> None:
    """Make sure that all processes write to and read from one folder."""
    if not processes.all_true((out / "splits.json").is_file()):
        raise InputError(
            f"--out: expected {out} on a file system that all hosts share, but some process does "
            "not see it."
        )


def run_record(
    run: Run[AnyConfig | MilConfig], cohort_folder: Path, command: str
) -> dict[str, Any]:
    """Say what ``run.json`` tells of a run from its start."""
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
    run: Run[AnyConfig | MilConfig], record: dict[str, Any], clock: Clock
) -> Iterator[Callable[..., None]]:
    """Write what is fixed from the start, and how the work ends if it fails.

    Args:
        run: The run.
        record: From :func:`run_record`.
        clock: When this session began.

    Yields:
        A function that notes a status, and entries by name, in ``run.json``.
    """
    handler = open_run(run, record)
    sessions = read_json(run.folder / "run.json")["sessions"]

    def note(status: str, **more: Any) -> None:
        told = {"status": status, "sessions": [*sessions, clock.session()], **more}
        write_json(run.folder / "run.json", record | told)

    try:
        yield note
    except BaseException as error:
        try:
            note("failed", error=f"{type(error).__name__}: {error}")
        except AtypiaError as second:  # a full disk; the first error is the one to tell
            log.warning("%s", second)
        raise
    finally:
        log.removeHandler(handler)
        handler.close()


def open_run(run: Run[AnyConfig | MilConfig], record: dict[str, Any]) -> logging.Handler:
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


def warn_of_missing_classes(run: Run[AnyConfig]) -> None:
    """Tell which validation and test parts lack a subtype: their mean AUC is over the others."""
    manifest = with_chosen_label(run.cohort, run.config.label)
    for missing in missing_classes(run.splits, manifest, CHOSEN, SUBTYPES):
        log.warning("%s; its measures are over the other subtypes", missing)


def warn_of_another_scale(config: TrainConfig | MilConfig) -> None:
    """Tell where an encoder is given images far from those that it was trained on."""
    encoder = find_encoder(config.model.backbone)
    problem = None if encoder is None else encoder.scale_problem(**config.input.model_dump())
    if problem is not None:
        log.warning("%s", problem)
