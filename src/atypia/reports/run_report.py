"""Rebuild the report of a run from the files in it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from atypia.core.errors import InputError
from atypia.core.files import read_json
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.evaluation.predictions import read_predictions
from atypia.reports import ReportInput, build_report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt


log = logging.getLogger("atypia")


def write_report(
    folder: Path, cohort: Cohort | None = None, *, images: bool = True, out: Path | None = None
) -> Path:
    """Rebuild ``report.html`` of a run folder from the files in it.

    Args:
        folder: The run.
        cohort: For the images of patches; None looks for it where it was when the run began.
        images: False leaves the patches out.
        out: The file; ``report.html`` in `folder` by default.

    Raises:
        InputError: The folder holds no finished run.
    """
    metrics = read_json(folder / "metrics.json")
    if "target" in metrics:
        raise InputError(
            f"{folder} answers for patients (atypia mil), not for figures, and has no such page: "
            "see metrics.json, predictions-patients.csv and attention.csv in it."
        )
    run = read_json(folder / "run.json")
    if images:
        cohort = cohort or cohort_of(folder, run)
    out = out or folder / "report.html"
    outer = sorted(folder.glob("outer-*")) or [folder]
    histories = [h for o in outer for h in sorted(o.glob("fold-*/history.csv"))]
    oof = folder / "predictions-oof.csv"
    build_report(
        ReportInput(
            title=folder.resolve().name,
            metrics=metrics,
            cohort=run["cohort"]["name"],
            date=run["sessions"][-1]["started"][:10] if run["sessions"] else None,
            predictions=read_predictions(folder),
            out_of_fold=read_predictions(oof) if oof.is_file() else None,
            histories=[pd.read_csv(h) for h in histories],
            splits=read_json(folder / "splits.json"),
            config_yaml=(folder / "config.yaml").read_text("utf-8"),
            run=run,
            patches=patch_reader(cohort) if images and cohort is not None else None,
        ),
        out,
    )
    return out


def cohort_of(folder: Path, run: dict[str, Any]) -> Cohort | None:
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


def patch_reader(cohort: Cohort) -> Callable[[Sequence[str]], list[npt.NDArray[np.uint8]]]:
    """Make a function from patch ids to their pixels, for pages that show patches."""
    paths = dict(zip(cohort.manifest["patch_id"], cohort.image_paths(), strict=True))
    return lambda patch_ids: [read_patch(paths[patch_id]) for patch_id in patch_ids]
