"""The sections of a report that show figures and images."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.labels import ATYPICAL, DISPLAY_NAMES, N_ATYPICAL, NORMAL, SUBTYPES
from atypia.evaluation.curves import observed_frequency, pr_points, reliability_curve, roc_points
from atypia.evaluation.metrics import ECE_BINS
from atypia.evaluation.predictions import AGREED, UNKNOWN
from atypia.reports import gallery, plots
from atypia.reports.html import Html, figure, join, svg_figure, tag
from atypia.reports.words import capital, estimate, level, missing, no_subtypes, number, rater_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atypia.evaluation.metrics import FloatArray, IntArray
    from atypia.evaluation.predictions import Predictions
    from atypia.reports.report_input import Patches, ReportInput

EXAMPLES_PER_CLASS: Final = 8
MISTAKES_SHOWN: Final = 24
HINTS_PER_CURVE: Final = 25


def class_size(report: ReportInput) -> Html:
    """Tell whether the model serves common classes better than rare ones."""
    metrics = report.metrics
    correlation = metrics["class_size_vs_sensitivity"]
    if not correlation:
        return missing("there are no subtypes to correlate")
    measures = {
        subtype: ours["sensitivity"]
        for subtype, ours in metrics["per_class"].items()
        if None not in (ours["sensitivity"][key] for key in ("value", "low", "high"))
    }
    svg = plots.size_against_sensitivity(
        {subtype: metrics["per_class"][subtype]["n"] for subtype in measures},
        {subtype: (m["value"], m["low"], m["high"]) for subtype, m in measures.items()},
    )
    return join(
        tag(
            "p",
            "Over the eight classes, the number of figures and the sensitivity correlate with "
            f"r = {estimate(correlation['pearson'])} (Pearson) and ρ = "
            f"{estimate(correlation['spearman'])} (Spearman). A strong correlation means that the "
            "model serves the common classes at the cost of the rare ones.",
        ),
        svg_figure(
            svg,
            "Sensitivity of each class against its number of figures",
            f"Squares are atypical, dots normal classes; bars are {level(metrics)} intervals.",
        ),
    )


def confusion(report: ReportInput) -> Html:
    """Show confusion matrices of the model and the other raters, each raw and in percent."""
    metrics = report.metrics
    if not metrics["confusion"]:
        return no_subtypes(metrics)
    pairs = [("model", metrics["label"], metrics["confusion"])]
    pairs += [(rater_name(n), r["against"], r["confusion"]) for n, r in metrics["raters"].items()]
    leading = gallery.links(report)
    figures = [
        svg_figure(
            plots.confusion_matrix(
                np.array(counts),
                normalised=normalised,
                row_title=f"Label of {rater_name(rows)}",
                column_title=capital(columns),
                links=leading if columns == "model" else None,
            ),
            f"Confusion matrix of {columns} against {rater_name(rows)}",
            f"{capital(columns)} against {rater_name(rows)}: "
            + ("percent of each row." if normalised else "number of figures."),
        )
        for columns, rows, counts in pairs
        for normalised in (False, True)
    ]
    return join(
        tag(
            "p",
            "The colour is the share of the row in all of them. The two framed blocks are the "
            "atypical (AMF) and the normal (NMF) subtypes: what lies outside them is mistaken "
            "across the line that matters for the atypical count. "
            + ("A click on a cell of the model’s leads to its figures." if leading else ""),
        ),
        tag("div", *figures, class_="figures"),
        None if metrics["raters"] else missing("no second expert's labels to compare with"),
    )


def curves(report: ReportInput) -> Html:
    """Show ROC and precision-recall curves, with the second rater as a point."""
    scored = report.scored
    if scored is None:
        return missing("no table of predictions with subtypes")
    predictions, truth = scored
    name, rater = report.second_rater or ("", None)
    drawn = []
    for group, subtypes in (("atypical", ATYPICAL), ("normal", NORMAL)):
        for title, measure, points, draw, x, y in (
            ("ROC", "auc", roc_points, plots.roc_curves, "specificity", "sensitivity"),
            (
                "Precision-recall",
                "average_precision",
                pr_points,
                plots.pr_curves,
                "sensitivity",
                "ppv",
            ),
        ):
            lines = []
            for subtype in subtypes:
                c = SUBTYPES.index(subtype)
                xs, ys = points(truth == c, predictions.probabilities[:, c])
                value = report.metrics["per_class"][subtype][measure]["value"]
                if len(xs) == 0:
                    continue
                theirs = rater["per_class"][subtype] if rater else None
                lines.append(
                    plots.Curve(
                        f"{plots.SHORT_NAMES[subtype]} {number(value)}",
                        xs,
                        ys,
                        _point(theirs, x, y) if theirs else None,
                        _hints(subtype, predictions.probabilities[:, c], xs, ys, (x, y)),
                    )
                )
            drawn.append(
                svg_figure(
                    draw(lines),
                    f"{title} curves of the {group} subtypes",
                    f"{title}, {group} subtypes, each against all others; in the key the "
                    f"{'AUC' if measure == 'auc' else 'average precision'}.",
                )
            )
    return join(
        tag("p", f"Diamonds show {rater_name(name)} against {rater_name(rater['against'])}.")
        if rater
        else missing("no second expert’s labels to compare with"),
        tag("div", *drawn, class_="figures"),
    )  # fmt: skip


def _hints(
    subtype: str, scores: FloatArray, xs: FloatArray, ys: FloatArray, axes: tuple[str, str]
) -> list[plots.Hint]:
    """Tell the threshold and both measures at places evenly along a curve."""
    thresholds = np.unique(scores)[::-1]  # the curve's points, but for the first one
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(xs), np.diff(ys)))])
    wanted = np.linspace(0, length[-1], HINTS_PER_CURVE)
    x, y = (name.replace("ppv", "PPV") for name in axes)
    hints = []
    for i in np.unique(np.searchsorted(length, wanted).clip(1, len(xs) - 1)):
        across = 1 - xs[i] if x == "specificity" else xs[i]
        text = (
            f"{plots.SHORT_NAMES[subtype]}, called from {thresholds[i - 1]:.3f} on: "
            f"{x} {across:.3f}, {y} {ys[i]:.3f}"
        )
        hints.append(plots.Hint(float(xs[i]), float(ys[i]), text))
    return hints


def _point(rater: Mapping[str, Any], x: str, y: str) -> tuple[float, float] | None:
    """Find where a rater stands in a figure of curves."""
    across, up = rater[x]["value"], rater[y]["value"]
    if across is None or up is None:
        return None
    return (1 - across if x == "specificity" else across), up


def reliability(report: ReportInput) -> Html:
    """Show how often the model is right against how sure it is."""
    scored = report.scored
    if scored is None:
        return missing("no table of predictions with subtypes")
    predictions, truth = scored
    label = rater_name(report.metrics["label"])
    subtype = reliability_curve(truth, predictions.probabilities)
    atypical = observed_frequency(truth < N_ATYPICAL, predictions.p_atypical)
    return join(
        tag(
            "p",
            "On the diagonal, probabilities mean what they say: of the figures given 0.8, eight "
            "in ten are right. Below it the model is too sure of itself, above it too modest.",
        ),
        tag(
            "div",
            svg_figure(
                plots.reliability_diagram(subtype, "Largest probability", "Share that is right"),
                "Reliability diagram of the predicted subtype",
                f"Reliability of the predicted subtype, against {label}; {ECE_BINS} bins, and "
                "below the number of figures in each.",
            ),
            svg_figure(
                plots.reliability_diagram(
                    atypical, "Probability of atypical", "Share that is atypical"
                ),
                "Reliability diagram of the probability of atypical",
                f"Reliability of the probability of atypical, against {label}; {ECE_BINS} bins, "
                f"and below the number of figures in each.{_binary_ece(report)}",
            ),
            class_="figures",
        ),
    )


def _binary_ece(report: ReportInput) -> str:
    calibration = report.metrics.get("calibration")  # measures of an earlier version have none
    return f" ECE {estimate(calibration['binary']['ece'])}." if calibration else ""


def training(report: ReportInput) -> Html:
    """Show loss and validation measures over the epochs."""
    histories = [history for history in report.histories if len(history)]
    if not histories:
        return missing("no history.csv (these predictions came without a training run)")
    losses = plots.training_curves(
        histories,
        {"valid_loss": "validation", "train_loss": "training"},
        lowest="valid_loss",
    )
    scores = plots.training_curves(
        histories,
        {"valid_mean_auc": "mean AUC", "valid_balanced_accuracy": "balanced accuracy"},
    )
    return join(
        tag(
            "p",
            "Validation is by patients of the training part that the member did not train on; the "
            "test part has no say in it.",
        ),
        tag(
            "div",
            svg_figure(
                losses,
                "Loss over the epochs, per member",
                "Loss. Dots mark each member's lowest validation loss.",
            ),
            svg_figure(
                scores,
                "Validation measures over the epochs, per member",
                "Mean AUC and balanced accuracy of the validation part.",
            ),
            class_="figures",
        ),
    )


def examples(report: ReportInput) -> Html:
    """Show a row of patches for every class."""
    chosen = _choose_examples(report.tables)
    if report.patches is None or not chosen:
        return missing("no images beside the predictions")
    images = data_uris(report.patches, [patch for patches in chosen.values() for patch in patches])
    strips = [
        join(
            tag("h3", DISPLAY_NAMES[subtype], " (", "AMF" if subtype in ATYPICAL else "NMF", ")"),
            tag(
                "div",
                *(
                    tag("img", src=images[patch], alt=f"{DISPLAY_NAMES[subtype]}, {patch}",
                        title=patch, loading="lazy")
                    for patch in chosen[subtype]
                ),
                class_="strip",
            )
            if chosen[subtype]
            else missing("no example that every rater calls so"),
        )
        for subtype in SUBTYPES
    ]  # fmt: skip
    caption = (
        "Examples on which all raters agree, of as many patients as possible, drawn without regard "
        "to what the model says. Compressed for this page."
    )
    return figure(join(*strips), caption)


def _choose_examples(tables: Sequence[Predictions]) -> dict[str, list[str]]:
    """Up to eight patches per class that all raters agree on, one patient after the other."""
    found: dict[str, dict[str, str]] = {subtype: {} for subtype in SUBTYPES}
    for predictions in tables:
        if AGREED not in predictions.label_choices:
            continue
        agreed = predictions.subtypes_of(AGREED)
        for i in np.flatnonzero(agreed != UNKNOWN):
            patch, patient = str(predictions.patch_ids[i]), str(predictions.patients[i])
            found[SUBTYPES[agreed[i]]][patch] = patient
    if not any(found.values()):
        return {}
    return {
        subtype: one_patient_each(patients)[:EXAMPLES_PER_CLASS]
        for subtype, patients in found.items()
    }


def one_patient_each(patient_of: Mapping[str, str]) -> list[str]:
    """Patches in a fixed arbitrary order, the first of every patient before anyone's second."""
    seen: Counter[str] = Counter()
    order = []
    for patch in sorted(patient_of, key=lambda name: hashlib.sha256(name.encode()).digest()):
        order.append((seen[patient_of[patch]], patch))
        seen[patient_of[patch]] += 1
    return [patch for _, patch in sorted(order, key=lambda entry: entry[0])]


def mistakes(report: ReportInput) -> Html:
    """Show the patches on which the model was surest and yet wrong."""
    scored = report.scored
    if scored is None:
        return missing("no table of predictions with subtypes")
    predictions, truth = scored
    wrong = np.flatnonzero(predictions.predicted != truth)
    if not len(wrong):
        return tag("p", "The model made no mistake.")
    confidence = predictions.probabilities[wrong, predictions.predicted[wrong]]
    worst = wrong[np.argsort(-confidence, kind="stable")][:MISTAKES_SHOWN]
    patches = [str(predictions.patch_ids[i]) for i in worst]
    images = data_uris(report.patches, patches) if report.patches is not None else {}
    figures = [
        figure(
            tag("img", src=images[patch], alt=f"Patch {patch}") if images else join(),
            _told(predictions, i),
        )
        for i, patch in zip(worst, patches, strict=True)
    ]
    return join(
        tag(
            "p",
            f"{len(wrong):,} of {len(truth):,} figures are called otherwise than by "
            f"{rater_name(report.metrics['label'])}. {_shared_mistakes(predictions, truth, wrong)}"
            f"Here are the {len(worst)} of which the model was surest.",
        ),
        None if images else missing("no images beside the predictions"),
        tag("div", *figures, class_="mistakes"),
    )


def _told(predictions: Predictions, i: int) -> Html:
    """Tell what the model and every rater say of patch `i`."""
    subtype = SUBTYPES[predictions.predicted[i]]
    probability = predictions.probabilities[i, predictions.predicted[i]]
    answers = [
        ("Model", f"{plots.SHORT_NAMES[subtype]} {100 * probability:.0f}\N{NO-BREAK SPACE}%")
    ]
    for name, labels in predictions.labels.items():
        given = "no label" if labels[i] == UNKNOWN else plots.SHORT_NAMES[SUBTYPES[labels[i]]]
        answers.append((capital(rater_name(name)), given))
    return join(
        tag("dl", *(join(tag("dt", who), tag("dd", what)) for who, what in answers)),
        tag("code", predictions.patch_ids[i]),
    )


def _shared_mistakes(predictions: Predictions, truth: IntArray, wrong: IntArray) -> str:
    """Say how many mistakes another rater makes as well."""
    told = []
    for name, labels in predictions.labels.items():
        if np.array_equal(labels, truth):
            continue
        shared = int((labels[wrong] == predictions.predicted[wrong]).sum())
        told.append(f"In {shared:,} of them {rater_name(name)} gives the model's answer. ")
    return "".join(told)


def data_uris(patches: Patches, names: Sequence[str]) -> dict[str, str]:
    """Read patches and encode them for a page: patch id to data URI."""
    return {
        name: "data:image/jpeg;base64," + base64.b64encode(plots.patch_jpeg(patch)).decode()
        for name, patch in zip(names, patches(names), strict=True)
    }
