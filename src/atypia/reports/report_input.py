"""What a report is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from atypia.evaluation.predictions import MAJORITY, UNKNOWN

if TYPE_CHECKING:
    import pandas as pd

    from atypia.evaluation.predictions import Predictions

Patches: TypeAlias = Callable[[Sequence[str]], Sequence[NDArray[np.uint8]]]
"""Patch ids to RGB images, each ``(H, W, 3)``."""


@dataclass(frozen=True)
class ReportInput:
    """All that a report may tell of. Only the title and the measures are needed."""

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

    @property
    def scored(self) -> tuple[Predictions, NDArray[np.int64]] | None:
        """Predictions of rows with a subtype label, and these labels (N,); None without any."""
        predictions, label = self.predictions, self.metrics["label"]
        if predictions is None or label == MAJORITY or label not in predictions.label_choices:
            return None
        truth = predictions.subtypes_of(label)
        known = truth != UNKNOWN
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
