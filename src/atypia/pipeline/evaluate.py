"""Evaluate and compare tables of predictions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atypia.evaluation.compare import compare as compare_tables
from atypia.evaluation.evaluate import evaluate as evaluate_predictions
from atypia.evaluation.predictions import Predictions, read_predictions
from atypia.evaluation.report import ReportInput, build_report
from atypia.runs import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence


log = logging.getLogger("atypia")


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
