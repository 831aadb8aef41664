"""Rebuild the report of a run."""

from atypia.reports.run_report import write_report as report

__all__ = ["report"]
