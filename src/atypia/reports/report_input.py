"""What a report of a run is made from, and how it is read from a run folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atypia.core.errors import InputError
from atypia.core.files import read_json
from atypia.core.parsing import parse_yaml
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.evaluation.predictions import UNKNOWN, read_predictions

if TYPE_CHECKING:
    from atypia.evaluation.predictions import Predictions

log = logging.getLogger("atypia")

Patches: TypeAlias = Callable[[Sequence[str]], Sequence[NDArray[np.uint8]]]
"""Patch ids to RGB images, each ``(H, W, 3)``."""


@dataclass(frozen=True)
class ReportInput:
    """All that a report may show. Only the title and the measures are needed."""

    title: str
    metrics: Mapping[str, Any]
    """The content of ``metrics.json``."""
    cohort: str | None = None
    date: str | None = None
    predictions: Predictions | None = None
    """Those that `metrics` was made from."""
    out_of_fold: Predictions | None = None
    """Those of the training part, each by the member that did not train on it."""
    histories: Sequence[pd.DataFrame] = ()
    """``history.csv`` of each member."""
    splits: Mapping[str, Any] | None = None
    """The content of ``splits.json``."""
    config_yaml: str | None = None
    run: Mapping[str, Any] | None = None
    """The content of ``run.json``."""
    patches: Patches | None = None
    """Reads the images, where they are at hand."""

    @property
    def tables(self) -> tuple[Predictions, ...]:
        """Every table of predictions that is there."""
        return tuple(t for t in (self.predictions, self.out_of_fold) if t is not None)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The configuration; empty where there is none."""
        parsed = parse_yaml(self.config_yaml, "config.yaml") if self.config_yaml else None
        return parsed if isinstance(parsed, dict) else {}

    @cached_property
    def scored(self) -> tuple[Predictions, NDArray[np.int64]] | None:
        """Predictions of rows with a call and a label, and these labels (N,); None without any."""
        predictions, label = self.predictions, self.metrics["label"]
        if predictions is None or predictions.vote_column(label) is not None:
            return None
        if label not in predictions.label_choices:
            return None
        truth = predictions.subtypes_of(label)
        known = (truth != UNKNOWN) & predictions.answered
        return (predictions.take(known), truth[known]) if known.any() else None

    @property
    def second_rater(self) -> tuple[str, Mapping[str, Any]] | None:
        """Name and measures of the first other rater."""
        return next(iter(self.metrics["raters"].items()), None)

    @property
    def binary(self) -> Mapping[str, Any] | None:
        """Measures of atypical against normal by the label that the run is scored against."""
        against: Mapping[str, Mapping[str, Any]] = self.metrics["binary"]["against"]
        return against.get(self.metrics["label"])

    @property
    def split_kind(self) -> str | None:
        """Name of the split, where there was one."""
        return None if self.splits is None else str(self.splits.get("kind"))


def read_run(folder: Path) -> ReportInput:
    """Read what a run folder holds, without images.

    Raises:
        InputError: The folder holds no finished run, or one that predicts patients.
    """
    metrics = read_json(folder / "metrics.json")
    if "target" in metrics:
        raise InputError(
            f"{folder} answers for patients (atypia mil), not for figures, and has no such page: "
            "see metrics.json, predictions-patients.csv and attention.csv in it."
        )
    run = read_json(folder / "run.json")
    outer = sorted(folder.glob("outer-*")) or [folder]
    oof = folder / "predictions-oof.csv"
    return ReportInput(
        title=folder.resolve().name,
        metrics=metrics,
        cohort=run["cohort"]["name"],
        date=run["sessions"][-1]["started"][:10] if run["sessions"] else None,
        predictions=read_predictions(folder),
        out_of_fold=read_predictions(oof) if oof.is_file() else None,
        histories=[pd.read_csv(h) for o in outer for h in sorted(o.glob("fold-*/history.csv"))],
        splits=read_json(folder / "splits.json"),
        config_yaml=(folder / "config.yaml").read_text("utf-8"),
        run=run,
    )


def cohort_of(folder: Path, run: Mapping[str, Any]) -> Cohort | None:
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


def patch_reader(cohort: Cohort) -> Patches:
    """Make a function from patch ids to their pixels, for pages that show patches."""
    paths = dict(zip(cohort.manifest["patch_id"], cohort.image_paths(), strict=True))
    return lambda patch_ids: [read_patch(paths[patch_id]) for patch_id in patch_ids]
