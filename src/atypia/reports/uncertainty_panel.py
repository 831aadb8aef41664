"""The sections of a report on what the model does when it is not sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.labels import DISPLAY_NAMES, N_ATYPICAL
from atypia.evaluation.uncertainty_scores import (
    binary_confidence,
    selective_curve,
    subtype_confidence,
)
from atypia.reports import plots
from atypia.reports.html import Html, join, svg_figure, table, tag
from atypia.reports.words import estimate_cell, level, missing, no_subtypes, number, rater_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.reports.report_input import ReportInput

_HINTS: Final = 25


def selective(report: ReportInput) -> Html:
    """Show how much better the model is where it answers only what it is sure of."""
    measured = report.metrics.get("selective")
    if not measured:
        return missing("these measures were made by an earlier version; evaluate again")
    tasks = {
        "Subtype": measured["subtypes"],
        f"Atypical or normal, threshold {measured['binary']['threshold']:.3g}": measured["binary"],
    }
    rows = [
        [
            name,
            f"{100 * at['coverage']:.0f} % ({at['n']:,})",
            estimate_cell(at["accuracy"]),
            estimate_cell(at["balanced_accuracy"]),
        ]
        for name, task in tasks.items()
        if task
        for at in task["at_coverage"]
    ]
    return join(
        tag(
            "p",
            "If only the figures of which the model is surest are answered and the others are "
            "left to a person, more of the answers are right. A confidence that is good for "
            "nothing would give a level line.",
        ),
        _curves(report, measured),
        table(
            f"Share of figures answered, surest first; {level(report.metrics)} intervals from "
            "resampling patients",
            ["", "Answered", "Accuracy", "Balanced accuracy"],
            rows,
        ),
        tag(
            "p",
            "Where rare classes are left unanswered more often than common ones, the balanced "
            "accuracy falls although the accuracy rises.",
            class_="note",
        ),
    )


def _curves(report: ReportInput, measured: Mapping[str, Any]) -> Html:
    if report.scored is None:
        return missing("no table of predictions with subtypes to draw the curves of")
    predictions, truth = report.scored
    threshold = measured["binary"]["threshold"]
    called = predictions.p_atypical >= threshold
    drawn = {
        "Subtype": (
            measured["subtypes"]["aurc"],
            selective_curve(
                subtype_confidence(predictions.probabilities, predictions.predicted),
                predictions.predicted == truth,
            ),
        ),
        "Atypical or normal": (
            measured["binary"]["aurc"],
            selective_curve(
                binary_confidence(predictions.p_atypical, threshold),
                called == (truth < N_ATYPICAL),
            ),
        ),
    }
    lines = [
        plots.Curve(
            f"{name} {number(area['value'])}",
            xs,
            ys,
            hints=[
                plots.Hint(xs[i], ys[i], f"{name}: {xs[i]:.0%} answered, accuracy {ys[i]:.3f}")
                for i in np.unique(np.linspace(0, len(xs) - 1, _HINTS).astype(int))
            ],
        )
        for name, (area, (xs, ys)) in drawn.items()
    ]
    return svg_figure(
        plots.accuracy_against_coverage(lines),
        "Accuracy against the share of figures that is answered",
        f"Accuracy of the surest figures, against {rater_name(report.metrics['label'])}; in the "
        "key the mean error rate over all shares (AURC, lower is better).",
    )


def prediction_sets(report: ReportInput) -> Html:
    """Show how often the prediction sets hold the label, and how large they are."""
    if not report.metrics["overall"]:
        return no_subtypes(report.metrics)
    measured = report.metrics.get("conformal")
    if not measured:
        return missing("the predictions have no prediction sets")
    promise = measured["alpha"]
    classes = {DISPLAY_NAMES[subtype]: m for subtype, m in measured["per_class"].items()}
    rows = [
        [
            name,
            f"{of_class['n']:,}",
            estimate_cell(of_class["coverage"], percent=True),
            estimate_cell(of_class["mean_size"]),
        ]
        for name, of_class in [*classes.items(), ("All", measured)]
    ]
    without = measured["n_without_set"]
    return join(
        tag(
            "p",
            "Instead of one answer, a prediction set names every subtype that the figure may well "
            "have. The sets were made so as to hold the label "
            + ("at a promised rate" if promise is None else f"of {100 * (1 - promise):g} %")
            + " of the figures of patients like those of the training part (conformal "
            f"prediction). One subtype alone is named for {_share(measured['single'])} % of the "
            f"figures, none for {_share(measured['empty'])} %."
            + (f" Figures without a set: {without:,}." if without else ""),
        ),
        table(
            f"By label of {rater_name(report.metrics['label'])}; {level(report.metrics)} "
            "intervals from resampling patients",
            ["Subtype", "Figures", "Sets with the label, %", "Subtypes in a set"],
            rows,
            class_="subtypes",
        ),
    )


def _share(measure: Mapping[str, float | None]) -> str:
    return number(measure["value"], percent=True)
