"""The section on the two stages of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from atypia.reports.html import Html, join, table, tag
from atypia.reports.words import estimate_cell, level, missing, no_subtypes

if TYPE_CHECKING:
    from atypia.reports.report_input import ReportInput

_STAGES: Final = {
    "side": "Atypical or normal",
    "atypical_subtypes": "Which subtype, of the atypical figures",
    "normal_subtypes": "Which subtype, of the normal figures",
}


def two_stages(report: ReportInput) -> Html:
    """Score the side, and the subtype given the side that is right."""
    metrics = report.metrics
    if not metrics["overall"]:
        return no_subtypes(metrics)
    if "stages" not in metrics:
        return missing("these measures were made by an earlier version; evaluate again")
    rows = [
        [
            title,
            f"{stage['n']:,}",
            f"{stage['n_patients']:,}",
            estimate_cell(stage.get("auc", stage.get("mean_auc"))),
            estimate_cell(stage["balanced_accuracy"]),
            estimate_cell(stage["log_loss"]),
        ]
        for key, title in _STAGES.items()
        if (stage := metrics["stages"].get(key)) is not None
    ]
    return join(
        table(
            f"With {level(metrics)} intervals from resampling patients",
            ["Question", "Figures", "Patients", "AUC (mean of four)", "Balanced accuracy",
             "Log-loss (lower is better)"],
            rows,
        ),
        tag(
            "p",
            "Every model of eight subtypes answers both questions, whether it was built in two "
            "stages or not: p(side) is the sum of its four subtypes, and p(subtype | side) the "
            "subtype's share of it. The second question is asked of the figures of one side only, "
            "and the model is told the side. The side is called at the operating point; of four "
            "subtypes the most probable one is the answer. Guessing reaches a balanced accuracy "
            "of 0.5 on the first question and of 0.25 on the others.",
            class_="note",
        ),
    )  # fmt: skip
