"""Rebuild the report of a run from the files in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from atypia.reports.report_input import cohort_of, patch_reader, read_run
from atypia.reports.run_report import build_report

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.data.cohort import Cohort


def report(folder: Path, cohort: Cohort | None = None) -> Path:
    """Rebuild ``report.html`` of a run folder; give its path.

    Args:
        folder: The run.
        cohort: For the images of patches; None looks for it where it was when the run began.

    Raises:
        InputError: The folder holds no finished run.
    """
    page = read_run(folder)
    cohort = cohort or cohort_of(folder, page.run or {})
    if cohort is not None:
        page = replace(page, patches=patch_reader(cohort))
    out = folder / "report.html"
    build_report(page, out)
    return out
