"""Classify images and write what was found."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atypia.evaluation.predictions import write_predictions
from atypia.inference.predict import find_items, predict_items
from atypia.progress import OnDone, silent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from atypia.errors import Problem

log = logging.getLogger("atypia")


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
