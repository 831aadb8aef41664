"""Pages from numbers: Jinja2 templates, plots and one module of words.

A page is one file that needs no network, reads on a phone and in print, and writes "Not available"
where an input is missing, so that no section seems to be dropped.
"""

from atypia.reports.report_input import ReportInput
from atypia.reports.run_report import build_report, render_report

__all__ = ["ReportInput", "build_report", "render_report"]
