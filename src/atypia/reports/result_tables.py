"""The sections of a report that are tables or text."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia._version import __version__
from atypia.core.config import LEAK
from atypia.core.labels import ATYPICAL, DISPLAY_NAMES, SUBTYPES
from atypia.evaluation.metrics import ECE_BINS
from atypia.evaluation.predictions import MAJORITY, UNKNOWN
from atypia.reports import plots
from atypia.reports import published_results as reference
from atypia.reports.html import Html, join, table, tag
from atypia.reports.words import (
    capital,
    estimate_cell,
    level,
    missing,
    no_subtypes,
    published_cell,
    rater_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atypia.evaluation.predictions import Predictions
    from atypia.reports.report_input import ReportInput

_OVERALL: Final = {
    "mean_auc": "Mean AUC, one class against the rest",
    "balanced_accuracy": "Balanced accuracy (mean sensitivity)",
    "macro_f1": "Macro-F1",
    "accuracy": "Accuracy",
    "mcc": "Matthews correlation (MCC)",
    "kappa": "Cohen's κ",
    "log_loss": "Log-loss (lower is better)",
    "brier": "Brier score, 0 to 2 (lower is better)",
    "ece": f"Calibration error (ECE, {ECE_BINS} bins; lower is better)",
}
_TABLE_1: Final = {
    "auc": "AUC",
    "specificity": "Specificity",
    "sensitivity": "Sensitivity",
    "n": "n",
    "ppv": "PPV",
    "npv": "NPV",
}
_BINARY: Final = {
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
}


def table_1(report: ReportInput) -> Html:
    """Show our figures beside the published ones."""
    metrics = report.metrics
    if not metrics["per_class"]:
        return no_subtypes(metrics)
    head = join(
        tag("tr", tag("th", "Subtype", scope="col", rowspan=2),
            *(tag("th", name, scope="colgroup", colspan=2) for name in _TABLE_1.values())),
        tag("tr", *(tag("th", whose, scope="col", class_="published" if whose == "paper" else None)
                    for _ in _TABLE_1 for whose in ("ours", "paper"))),
    )  # fmt: skip
    rows = []
    for subtype, ours in metrics["per_class"].items():
        published = reference.TABLE_1[subtype]
        row: list[object] = [DISPLAY_NAMES[subtype]]
        for name in _TABLE_1:
            if name == "n":
                row += [f"{ours['n']:,}", published_cell(f"{published.n:,}")]
            else:
                row += [
                    estimate_cell(ours[name], percent=True),
                    published_cell(f"{getattr(published, name):.2f}"),
                ]
        rows.append(row)
    return join(
        table(
            f"All but n in percent, with {level(metrics)} intervals from resampling patients",
            head, rows, class_="subtypes", sortable=True,
        ),
        tag("p", _published_note(report), class_="note"),
        _guessing(report),
        tag("p", _undefined_note(metrics), class_="note"),
    )  # fmt: skip


def _published_note(report: ReportInput) -> str:
    split = report.split_kind
    here = (
        "This run uses that split."
        if split == reference.SPLIT
        else f"This run uses the split “{split}”, so that the two columns differ in their figures."
        if split
        else "It is not known whether these predictions are of that split."
    )
    return (
        "The columns “paper” are the published figures. Their test part is the paper's own and is "
        f"not public; the split “{reference.SPLIT}” only has the same number of figures in each "
        f"class, of other patients. {here} {reference.MISPRINTS}"
    )


def _guessing(report: ReportInput) -> Html:
    """Put each class beside what guessing by its frequency would give."""
    metrics = report.metrics
    name, rater = report.second_rater or ("", None)
    header = ["Subtype", "Patients", "Average precision", "by guessing", "F1",
              "Specificity by guessing, %"]  # fmt: skip
    header += [f"{capital(rater_name(name))}: {m}" for m in ("sensitivity", "PPV")] if rater else []
    rows = []
    for subtype, ours in metrics["per_class"].items():
        share = ours["n"] / metrics["n"]
        row = [
            DISPLAY_NAMES[subtype],
            f"{ours['n_patients']:,}",
            estimate_cell(ours["average_precision"]),
            f"{share:.3f}",
            estimate_cell(ours["f1"]),
            f"{100 * (1 - share):.1f}",
        ]
        if rater:
            theirs = rater["per_class"][subtype]
            row += [estimate_cell(theirs["sensitivity"]), estimate_cell(theirs["ppv"])]
        rows.append(row)
    return table(
        "Further measures, beside what guessing by class frequency gives",
        header, rows, class_="subtypes", sortable=True,
    )  # fmt: skip


def _undefined_note(metrics: Mapping[str, Any]) -> str | None:
    """Name the classes in which an interval had to leave resamples out."""
    left_out = {
        DISPLAY_NAMES[subtype]: max(
            measure["undefined"] for measure in ours.values() if isinstance(measure, dict)
        )
        for subtype, ours in metrics["per_class"].items()
    }
    told = [f"{name} {count:,}" for name, count in left_out.items() if count]
    if not told:
        return None
    return (
        "Resamples in which a measure has no value, because the class was not drawn or not "
        f"predicted, are left out of its interval: {', '.join(told)} of "
        f"{metrics['interval']['resamples']:,}."
    )


def overall(report: ReportInput) -> Html:
    """Show every measure over all subtypes, beside the other raters."""
    metrics = report.metrics
    if not metrics["overall"]:
        return no_subtypes(metrics)
    published = {
        "mean_auc": published_cell(f"{reference.MEAN_AUC:.3f}"),
        "balanced_accuracy": published_cell(f"{reference.BALANCED_ACCURACY:.3f}"),
    }
    raters = metrics["raters"]
    rows = [
        [
            title,
            estimate_cell(metrics["overall"].get(measure)),
            *(estimate_cell(rater["overall"].get(measure)) for rater in raters.values()),
            published.get(measure, published_cell()),
        ]
        for measure, title in _OVERALL.items()
    ]
    header = ["Measure", "Model", *(_heading(name, r) for name, r in raters.items()), "Paper"]
    return join(
        table(f"With {level(metrics)} intervals from resampling patients", header, rows),
        tag(
            "p",
            "An expert gives a subtype but no probabilities, hence no AUC, log-loss, Brier score "
            "or calibration error. The paper's balanced accuracy follows from its confusion "
            "matrix."
            if raters
            else "Not available: the labels of a second expert to compare with.",
            class_="note",
        ),
    )


def binary(report: ReportInput) -> Html:
    """Tell atypical from normal, by every label that says so."""
    metrics = report.metrics
    rows: list[list[object]] = []
    for name, scored in metrics["binary"]["against"].items():
        for point in ("at_0.5", "at_operating_point"):
            rows.append(
                [
                    f"Model, against {rater_name(name)}",
                    _threshold(point, scored[point]["threshold"]),
                    f"{scored['n_atypical']:,} of {scored['n']:,}",
                    estimate_cell(scored["auc"]),
                    *(estimate_cell(scored[point][measure]) for measure in _BINARY),
                ]
            )
    for name, rater in metrics["raters"].items():
        atypical = sum(rater["per_class"][subtype]["n"] for subtype in ATYPICAL)
        rows.append(
            [
                _heading(name, rater),
                "–",
                f"{atypical:,} of {rater['n']:,}",
                "–",
                *(estimate_cell(rater["binary"][measure]) for measure in _BINARY),
            ]
        )
    nothing = ["–"] * (len(_BINARY) - 1)
    auc, accuracy = reference.BASELINE_BINARY_AUC, reference.BASELINE_BINARY_BALANCED_ACCURACY
    rows += [
        ["Reference paper, own test part", "–", "–", "–",
         published_cell(f"{reference.BINARY_BALANCED_ACCURACY:.2f}"), *nothing],
        ["Earlier binary classifier, own test part", "–", "–",
         published_cell(f"{auc.mean:.3f} ± {auc.spread:.3f}"),
         published_cell(f"{accuracy.mean:.3f} ± {accuracy.spread:.3f}"), *nothing],
    ]  # fmt: skip
    return join(
        table(
            f"Atypical is the positive class; {level(metrics)} intervals from resampling patients",
            ["", "Threshold", "Atypical", "AUC", *_BINARY.values()],
            rows,
        ),
        tag(
            "p",
            "The operating point is the threshold behind the column predicted_atypical, which "
            "Atypia fixes on out-of-fold predictions of the training part. The majority vote "
            "includes the experts' own votes, so that an expert is not scored against it.",
            class_="note",
        ),
    )


def groups(report: ReportInput) -> Html:
    """Show the main measures within each domain and scanner."""
    groups = report.metrics["groups"]
    tables = [
        table(
            f"By {kind}; patients are resampled within each",
            [capital(kind), "Figures", "Patients", "Classes", "Mean AUC", "Balanced accuracy",
             "Binary AUC", "Binary balanced accuracy, 0.5", "at the operating point"],
            [
                [
                    name,
                    f"{group['n']:,}",
                    f"{group['n_patients']:,}",
                    "–" if group["n_classes"] is None else group["n_classes"],
                    estimate_cell(group["overall"].get("mean_auc")),
                    estimate_cell(group["overall"].get("balanced_accuracy")),
                    *_binary_cells(group["binary"]),
                ]
                for name, group in by_name.items()
            ],
            sortable=True,
        )
        for kind, by_name in groups.items()
    ]  # fmt: skip
    absent = [kind for kind in ("domain", "scanner") if kind not in groups]
    return join(
        *tables,
        *(missing(f"the predictions name no {kind}") for kind in absent),
        tag(
            "p",
            "Groups differ in which classes they hold, so that their means over classes are not "
            "means of the same classes; intervals of few patients are wide and often too short.",
            class_="note",
        )
        if tables
        else None,
    )


def _heading(name: str, rater: Mapping[str, Any]) -> str:
    return f"{capital(rater_name(name))}, against {rater_name(rater['against'])}"


def _threshold(point: str, value: float | None) -> str:
    if point == "at_0.5":
        return "0.5"
    return "operating point" if value is None else f"operating point, {value:.3g}"


def _binary_cells(binary: Mapping[str, Any] | None) -> list[Html]:
    if binary is None:
        return [estimate_cell(None)] * 3
    points = (binary["at_0.5"], binary["at_operating_point"])
    return [
        estimate_cell(binary["auc"]),
        *(estimate_cell(point["balanced_accuracy"]) for point in points),
    ]


def splits(report: ReportInput) -> Html:
    """Count patients and figures in each part of the split."""
    if report.splits is None:
        return missing("no splits.json (these predictions came without a training run)")
    label = report.metrics["label"]
    known = _subtypes_by_patient(report.tables, label)
    rows = []
    outer = report.splits["outer"]
    for i, split in enumerate(outer):
        prefix = f"Split {i + 1}, " if len(outer) > 1 else ""
        parts = [("test", split["test"])] if split["test"] else []
        parts += [(f"validation of member {j + 1}", p) for j, p in enumerate(split["inner"])]
        for name, patients in parts:
            counts = sum((known.get(str(p), Counter()) for p in patients), Counter())
            figures = [f"{counts[c]:,}" for c in (None, *range(len(SUBTYPES)))]
            rows.append(
                [
                    capital(prefix + name),
                    f"{len(patients):,}",
                    *(figures if counts else ["–"] * len(figures)),
                ]
            )
    whole = (
        "THIS SPLIT LEAKS ON PURPOSE: figures, not patients, are dealt into its parts, and figures "
        "of one patient stand on both sides. Every measure on this page is too good. What is "
        "counted as a patient here is a figure."
        if report.split_kind == LEAK
        else "A patient is in one part only."
    )
    return join(
        tag(
            "p",
            f"Split “{report.split_kind}”, seed {report.splits.get('seed')}. {whole} Each member "
            "trains on the patients of the other members' validation parts.",
        ),
        table(
            f"Patients, figures and figures of each class (label of {rater_name(label)}) per part",
            ["Part", "Patients", "Figures", *(plots.SHORT_NAMES[s] for s in SUBTYPES)],
            rows,
        ),
        None
        if report.out_of_fold is not None
        else missing("the figures of the training part (no out-of-fold predictions)"),
    )


def _subtypes_by_patient(
    tables: Iterable[Predictions], label: str
) -> dict[str, Counter[int | None]]:
    """Patient to the number of patches per subtype index, and under None of all patches."""
    subtype_of: dict[tuple[str, str], int] = {}
    for predictions in tables:
        subtypes = (
            predictions.subtypes_of(label)
            if label != MAJORITY and label in predictions.label_choices
            else np.full(len(predictions), UNKNOWN)
        )
        for key in zip(predictions.patients, predictions.patch_ids, subtypes, strict=True):
            subtype_of[str(key[0]), str(key[1])] = int(key[2])
    counts: defaultdict[str, Counter[int | None]] = defaultdict(Counter)
    for (patient, _), subtype in subtype_of.items():
        counts[patient].update([None, subtype])
    return counts


def configuration(report: ReportInput) -> Html:
    """Show the resolved configuration."""
    if report.config_yaml is None:
        return missing("no config.yaml (these predictions came without a training run)")
    return tag("pre", tag("code", report.config_yaml), tabindex=0)


def provenance(report: ReportInput) -> Html:
    """List what a reader needs to make the same figures again."""
    interval = report.metrics["interval"]
    intervals = [
        "Intervals",
        f"{level(report.metrics)}, {interval['resamples']:,} resamples of "
        f"{interval['unit']}s, seed {interval['seed']}",
    ]
    facts = list(_flat(report.run or {}))
    return join(
        table(
            "What this report was made from",
            ["Fact", "Value"],
            [intervals, ["Report made with", f"atypia {__version__}"], *facts],
            class_="text",
        ),
        None if facts else missing("no run.json (these predictions came without a training run)"),
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, object]]:
    """Nested mappings as pairs: ``("versions.torch", "2.8")``."""
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            text = " ".join(map(str, inner)) if isinstance(inner, list) else inner
            yield prefix + str(key), text


def reading(report: ReportInput) -> Html:
    """Explain the measures to a reader who does not compute such measures every day."""
    resamples = report.metrics["interval"]["resamples"]
    return tag(
        "ul",
        *(
            tag("li", tag("strong", name, ". "), text)
            for name, text in (
                (
                    "Intervals",
                    f"Patients, not figures, are drawn again {resamples:,} times, because figures "
                    "of one patient resemble each other. Intervals of figures would be too short.",
                ),
                (
                    "Specificity",
                    "A specificity above 90 % is no skill where guessing by class frequency gives "
                    "93–99 %, as it does in six of the eight classes. Read it beside PPV.",
                ),
                (
                    "Balanced accuracy",
                    "The mean of the classes' sensitivities: every class weighs the same, however "
                    "rare. Guessing gives 0.125 with eight classes and 0.5 with two.",
                ),
                (
                    "AUC",
                    "How often a figure of the class gets a higher probability than one of "
                    "another class; 0.5 is guessing. A mean over eight classes cannot be compared "
                    "with the AUC of atypical against normal: they answer different questions.",
                ),
                (
                    "Average precision",
                    "The area under the precision-recall curve; guessing gives the share of the "
                    "class. For rare classes it tells more than the AUC.",
                ),
                (
                    "PPV and NPV",
                    "They depend on how common a class is, and hold only where it is as common "
                    "as here.",
                ),
                (
                    "The second expert",
                    "Two experts often disagree on the subtype. A model scored against one of "
                    "them is to be read beside the other one, not beside 100 %.",
                ),
                (
                    "Rare classes",
                    "With a few dozen figures a sensitivity moves by several points with each "
                    "figure. Look at the interval and at the number of patients first.",
                ),
                (
                    "Calibration error",
                    f"Mean gap between confidence and share of right answers over {ECE_BINS} bins "
                    "of equal width. Log-loss and Brier score judge probabilities without bins.",
                ),
                (
                    "Coverage",
                    "Of answers: the share of figures that the model answers at all. Of prediction "
                    "sets: the share of sets that hold the label; sets of a rare class were fitted "
                    "on few figures, so that its coverage may well be some points off the promise.",
                ),
            )
        ),
    )
