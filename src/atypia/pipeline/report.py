"""Rebuild the report of a run from the files in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atypia.reports.run_report import write_report

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.data.cohort import Cohort


def report(folder: Path, cohort: Cohort | None = None) -> Path:
    """Rebuild ``report.html`` of a run as its training wrote it, with its predictions and measures.

    Arguments as for :func:`write_report`; returns the path of the page.
    """
    write_report(folder, cohort)
    return folder / "report.html"
