"""Classify images and write what was found."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atypia.classifiers.loading import find_model, load_ensemble
from atypia.core.choices import BEST, RELEASED
from atypia.core.errors import InputError, Problem, collected
from atypia.core.files import write_json
from atypia.core.progress import OnDone, silent
from atypia.evaluation.predictions import predictions_from_table, write_predictions
from atypia.inference.patch_predictions import (
    find_items,
    predict_items,
    prediction_records,
    with_abstained,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd


log = logging.getLogger("atypia")


def predict(
    inputs: Sequence[Path],
    out: Path | None = None,
    model: Path | str = RELEASED,
    *,
    quality: str = BEST,
    mpp: float | None = None,
    min_confidence: float | None = None,
    backend: str = "auto",
    device: str = "auto",
    skip_bad: bool = False,
    on_start: OnDone = silent,
    on_done: OnDone = silent,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Classify images, folders, stacks or cohorts and write ``predictions.csv``.

    Args:
        inputs: What to classify.
        out: The ``.csv`` or ``.json`` to write; None writes nothing.
        model: ``released`` or ``rules`` for those in the package, a bundle, a run folder, or an
            export.
        quality: ``best``, or ``fast`` where the model has it.
        mpp: µm per pixel of what is not in a cohort; None where each TIFF file carries its own.
        min_confidence: Adds the column ``abstained``: whether the probability of the predicted
            subtype is below this, 0 to 1.
        backend: ``auto``, ``torch``, ``onnx`` or ``onnx-int8``; see
            :func:`atypia.classifiers.loading.load_ensemble`.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        skip_bad: Leave out what cannot be read, and return it.
        on_start: Called with the number of files.
        on_done: Called with the number of files done since the last call.

    Returns:
        A table with one row per patch in the columns of ``predictions.csv``, and what was skipped.

    Raises:
        InputError: Lists every problem of the inputs; nothing is written.
    """
    problems: list[Problem] = []
    if out is not None and out.suffix.lower() not in (".csv", ".json"):
        problems.append(Problem(f"--out: expected a .csv or a .json file but got {out}."))
    with collected(problems):
        folder = find_model(model)
    with collected(problems):
        items = find_items(inputs, mpp)
    if problems:
        raise InputError(problems)
    on_start(len(items))
    # Only now, with torch: errors above need not wait for it.
    ensemble = load_ensemble(folder, quality, backend=backend, device=device)
    table, skipped = predict_items(ensemble, items, skip_bad=skip_bad, on_done=on_done)
    if min_confidence is not None:
        table = with_abstained(table, min_confidence)
    if out is not None:
        _write(out, table)
    return table, skipped


def _write(out: Path, table: pd.DataFrame) -> None:
    if out.suffix.lower() == ".csv":
        plain = table.drop(columns="measures", errors="ignore")  # for JSON: too many for a cell
        write_predictions(out, plain, patients_known=False)
        return
    predictions_from_table(table.assign(patient_id="unknown"), str(out))
    write_json(out, prediction_records(table))
