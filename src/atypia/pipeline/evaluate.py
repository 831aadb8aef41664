"""Evaluate and compare tables of predictions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atypia.evaluation.compare import compare as compare_tables
from atypia.evaluation.evaluate import evaluate as evaluate_predictions
from atypia.evaluation.predictions import Predictions, read_predictions
from atypia.evaluation.report import ReportInput, build_report
from atypia.pipeline.overlap import require_new_patients
from atypia.runs import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence


log = logging.getLogger("atypia")


def evaluate(
    table: Path,
    out: Path,
    label: str = "expert1",
    resamples: int = 2000,
    seed: int = 0,
    *,
    trained_on: Path | str | None = None,
    cohort: Path | None = None,
    allow_overlap: bool = False,
    distinct_ids: bool = False,
) -> dict[str, Any]:
    """Evaluate a table of predictions, ours or anyone's: ``metrics.json`` and ``report.html``.

    Args:
        table: The predictions.
        out: Folder to write to.
        label: What is scored against.
        resamples: Of patients, behind each interval.
        seed: Of the resampling.
        trained_on: The run or the cohort that the model has learned from, its bundle, or
            ``released``: its patients are refused.
        cohort: Of the table: pictures are then compared as well as names.
        allow_overlap: Do not refuse them.
        distinct_ids: Do not refuse those who have nothing but an equal id that is no public case.

    Raises:
        LeakError: The model has learned from patients of the table; lists them.
        InputError: Lists every problem of the table.
    """
    predictions = read_predictions(table)
    if trained_on is not None:
        require_new_patients(
            predictions,
            trained_on,
            cohort,
            allow_overlap=allow_overlap,
            distinct_ids=distinct_ids,
        )
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
    average_repeats: bool = False,
) -> dict[str, Any]:
    """Compare prediction tables or runs on the same patches, patient by patient."""
    names = _short_names(tables)
    named: dict[str, Predictions] = {
        name: read_predictions(table) for name, table in zip(names, tables, strict=True)
    }
    return compare_tables(
        named,
        label,
        resamples,
        seed,
        intersection=intersection,
        average_repeats=average_repeats,
    )


def _short_names(paths: Sequence[Path]) -> list[str]:
    names = [path.name if path.is_dir() else path.stem for path in map(Path.resolve, paths)]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
