"""The plots of a run's report: from predictions and measures to SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.labels import ATYPICAL, N_ATYPICAL, NORMAL, SUBTYPES
from atypia.evaluation.curves import observed_frequency, pr_points, reliability_curve, roc_points
from atypia.evaluation.predictions import UNKNOWN
from atypia.evaluation.raters import OTHERS
from atypia.evaluation.uncertainty_scores import (
    binary_confidence,
    selective_curve,
    subtype_confidence,
)
from atypia.reports import image_panels, plots
from atypia.reports.words import SHORT_NAMES, capital, number, rater_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.evaluation.metrics import FloatArray
    from atypia.reports.report_input import ReportInput

HINTS_PER_CURVE: Final = 25
_KINDS: Final = (
    ("ROC", "auc", roc_points, plots.roc_curves, "specificity", "sensitivity"),
    ("Precision-recall", "average_precision", pr_points, plots.pr_curves, "sensitivity", "ppv"),
)
"""Title, area, points, plot and the measures on the axes."""


def class_size(report: ReportInput) -> dict[str, Any]:
    """Plot the sensitivity of each class against its number of figures."""
    per_class = report.metrics["per_class"]
    bounds = {
        subtype: tuple(ours["sensitivity"][key] for key in ("value", "low", "high"))
        for subtype, ours in per_class.items()
    }
    defined = {subtype: bound for subtype, bound in bounds.items() if None not in bound}
    counts = {subtype: per_class[subtype]["n"] for subtype in defined}
    return {"svg": plots.size_against_sensitivity(counts, defined) if per_class else None}


def confusion(report: ReportInput) -> dict[str, Any]:
    """Plot the confusion matrices of the model and of the other raters: counts and shares."""
    metrics = report.metrics
    if not metrics["confusion"]:
        return {}
    pairs = [("model", metrics["label"], metrics["confusion"])]
    pairs += [(rater_name(n), r["against"], r["confusion"]) for n, r in metrics["raters"].items()]
    links = image_panels.links(report)
    matrices = [
        (
            columns,
            rows,
            *(
                plots.confusion_matrix(
                    np.array(counts),
                    normalised=normalised,
                    row_title=f"Label of {rater_name(rows)}",
                    column_title=capital(columns),
                    links=links if columns == "model" else None,
                )
                for normalised in (False, True)
            ),
        )
        for columns, rows, counts in pairs
    ]
    return {"matrices": matrices, "linked": bool(links)}


def curves(report: ReportInput) -> dict[str, Any]:
    """Plot ROC and precision-recall curves of each side, with the second rater as a point."""
    if report.scored is None:
        return {}
    predictions, truth = report.scored
    _, rater = report.second_rater or ("", None)
    panels = []
    for group, subtypes in (("atypical", ATYPICAL), ("normal", NORMAL)):
        for title, measure, points, plot, x, y in _KINDS:
            lines = []
            for subtype in subtypes:
                c = SUBTYPES.index(subtype)
                scores = predictions.probabilities[:, c]
                xs, ys = points(truth == c, scores)
                if len(xs) == 0:
                    continue
                value = report.metrics["per_class"][subtype][measure]["value"]
                lines.append(
                    plots.Curve(
                        f"{SHORT_NAMES[subtype]} {number(value)}",
                        xs,
                        ys,
                        _point(rater["per_class"][subtype], x, y) if rater else None,
                        _hints(subtype, scores, xs, ys, (x, y)),
                    )
                )
            area = "AUC" if measure == "auc" else "average precision"
            panels.append((title, group, area, plot(lines)))
    return {"curves": panels}


def raters(report: ReportInput) -> dict[str, Any]:
    """Plot, for each rater as the reference, the model's ROC curve and where the others stand."""
    predictions, panels = report.predictions, {}
    entries = report.metrics.get("among_raters", [])
    references = {e["against"] for e in entries} - {OTHERS} if predictions else set()
    for reference in sorted(references):
        assert predictions is not None
        truth = predictions.atypical_of(reference)
        rows = (truth != UNKNOWN) & predictions.answered
        known, atypical = predictions.take(rows), truth[rows] == 1
        xs, ys = roc_points(atypical, known.p_atypical)
        if not len(xs):
            continue
        called = known.predicted_atypical
        points = {"its call": (called[~atypical].mean(), called[atypical].mean())}
        for entry in entries:
            place = _point(entry["of_rater"], "specificity", "sensitivity")
            if entry["against"] == reference and place:
                points[rater_name(entry["rater"])] = place
        panels[reference] = plots.roc_curves([plots.Curve("model", xs, ys)], points)
    return {"panels": panels}


def _hints(
    subtype: str, scores: FloatArray, xs: FloatArray, ys: FloatArray, axes: tuple[str, str]
) -> list[plots.Hint]:
    """Write the threshold and both measures at places evenly along a curve."""
    thresholds = np.unique(scores)[::-1]  # the curve's points, but for the first one
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(xs), np.diff(ys)))])
    wanted = np.linspace(0, length[-1], HINTS_PER_CURVE)
    x, y = (name.replace("ppv", "PPV") for name in axes)
    hints = []
    for i in np.unique(np.searchsorted(length, wanted).clip(1, len(xs) - 1)):
        across = 1 - xs[i] if x == "specificity" else xs[i]
        text = (
            f"{SHORT_NAMES[subtype]}, called from {thresholds[i - 1]:.3f} on: "
            f"{x} {across:.3f}, {y} {ys[i]:.3f}"
        )
        hints.append(plots.Hint(float(xs[i]), float(ys[i]), text))
    return hints


def _point(rater: Mapping[str, Any], x: str, y: str) -> tuple[float, float] | None:
    """Place of a rater among the curves."""
    across, up = rater[x]["value"], rater[y]["value"]
    if across is None or up is None:
        return None
    return (1 - across if x == "specificity" else across), up


def reliability(report: ReportInput) -> dict[str, Any]:
    """Plot the reliability of the predicted subtype and of the probability of atypical."""
    if report.scored is None:
        return {}
    predictions, truth = report.scored
    subtype = reliability_curve(truth, predictions.probabilities)
    atypical = observed_frequency(truth < N_ATYPICAL, predictions.p_atypical)
    return {
        "subtype": plots.reliability_diagram(subtype, "Largest probability", "Share that is right"),
        "atypical": plots.reliability_diagram(
            atypical, "Probability of atypical", "Share that is atypical"
        ),
    }


def selective(report: ReportInput) -> dict[str, Any]:
    """Plot the accuracy of the surest figures against their share."""
    measured = report.metrics.get("selective")
    if not measured or report.scored is None:
        return {}
    predictions, truth = report.scored
    threshold = measured["binary"]["threshold"]
    called = predictions.p_atypical >= threshold
    tasks = (
        (
            "Subtype",
            measured["subtypes"]["aurc"],
            subtype_confidence(predictions.probabilities, predictions.predicted),
            predictions.predicted == truth,
        ),
        (
            "Atypical or normal",
            measured["binary"]["aurc"],
            binary_confidence(predictions.p_atypical, threshold),
            called == (truth < N_ATYPICAL),
        ),
    )
    lines = []
    for name, area, confidence, correct in tasks:
        xs, ys = selective_curve(confidence, correct)
        places = np.unique(np.linspace(0, len(xs) - 1, HINTS_PER_CURVE).astype(int))
        hints = [
            plots.Hint(xs[i], ys[i], f"{name}: {xs[i]:.0%} answered, accuracy {ys[i]:.3f}")
            for i in places
        ]
        lines.append(plots.Curve(f"{name} {number(area['value'])}", xs, ys, hints=hints))
    return {"svg": plots.accuracy_against_coverage(lines)}


def training(report: ReportInput) -> dict[str, Any]:
    """Plot loss and validation measures over the epochs."""
    histories = [history for history in report.histories if len(history)]
    if not histories:
        return {"losses": None}
    losses = {"valid_loss": "validation", "train_loss": "training"}
    scores = {"valid_mean_auc": "mean AUC", "valid_balanced_accuracy": "balanced accuracy"}
    return {
        "losses": plots.training_curves(histories, losses, lowest="valid_loss"),
        "scores": plots.training_curves(histories, scores),
    }
