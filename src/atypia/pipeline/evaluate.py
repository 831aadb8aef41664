"""Evaluate a table of predictions, ours or anyone's: ``metrics.json`` and ``report.html``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from atypia.classifiers.training_patients import require_new_patients
from atypia.core.errors import InputError
from atypia.core.files import overwriting, write_json
from atypia.evaluation.predictions import read_predictions
from atypia.evaluation.scores import evaluate as evaluate_predictions
from atypia.reports import ReportInput, build_report

if TYPE_CHECKING:
    from pathlib import Path

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
        resamples: Random draws behind each interval of a calibration error.
        seed: Of these draws.
        trained_on: With `cohort`, `allow_overlap` and `distinct_ids` as for
            :func:`atypia.classifiers.training_patients.require_new_patients`; None checks nothing.

    Raises:
        LeakError: The model was trained on patients of the table; lists them.
        InputError: Lists every problem of the table.
    """
    files = [out / "metrics.json", out / "report.html"]
    if problems := overwriting(files, [table], "--out"):
        raise InputError(problems)
    predictions = read_predictions(table)
    if trained_on is not None:
        require_new_patients(
            predictions, trained_on, cohort, allow_overlap=allow_overlap, distinct_ids=distinct_ids
        )
    metrics = evaluate_predictions(predictions, label, resamples, seed)
    write_json(files[0], metrics)
    build_report(ReportInput(title=table.name, metrics=metrics, predictions=predictions), files[1])
    return metrics
