"""A run folder: its configuration, its splits, and what is written at its start."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from atypia.config import TrainConfig, config_from_tree
from atypia.data.splits import Splits, make_splits, missing_classes
from atypia.errors import InputError
from atypia.labels import SUBTYPES
from atypia.runs import read_json, write_json, write_text
from atypia.training.targets import chosen_labels

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from atypia.data.cohort import Cohort
    from atypia.training.distributed import World

log = logging.getLogger("atypia")

CHOSEN = "chosen_label"


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


def run_config(out: Path, config: TrainConfig | None, resume: bool) -> TrainConfig:
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


def run_splits(out: Path, cohort: Cohort, config: TrainConfig) -> Splits:
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
        inner_folds=config.ensemble.members,
    )
    folds = {len(outer.inner) for outer in splits.outer}
    if folds != {config.ensemble.members}:
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


def open_run(run: Run, record: dict[str, Any]) -> logging.Handler:
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


def warn_of_missing_classes(run: Run) -> None:
    """Tell which validation and test parts lack a subtype: their mean AUC is over the others."""
    manifest = with_chosen_label(run.cohort, run.config.label)
    for missing in missing_classes(run.splits, manifest, CHOSEN, SUBTYPES):
        log.warning("%s; its measures are over the other subtypes", missing)
