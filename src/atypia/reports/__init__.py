"""``report.html``: one file that tells what was measured, on what, and how far to trust it.

It needs neither network nor script, reads on a phone and in print, and says "Not available" where
an input is missing, so that a reader never wonders whether a section was dropped.
"""

from atypia.reports.report_input import ReportInput
from atypia.reports.run_page import build_report, render_report

__all__ = ["ReportInput", "build_report", "render_report"]
