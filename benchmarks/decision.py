r"""What one decision costs against two, and what prediction sets hold, out of fold.

    python benchmarks/decision.py --out docs/results/decision.md
    atypia prepare ../shared/atnorm-md --out cohorts/atnorm --mpp 0.25 \
        --patients ../shared/atnorm-md/groups.csv
    python benchmarks/decision.py --atnorm cohorts/atnorm --out docs/results/decision.md

From committed tables; with --atnorm the model in the package answers another hospital, too.
Threshold, weights and prediction sets are fitted on all folds but one (or on one domain) and judged
on the rest. *Two rules* is what there was before: the subtype by the largest p / frequency^0.25 of
all eight, the call at the threshold in the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import numpy as np

from atypia.classifiers.conformal import ConformalSets
from atypia.classifiers.decision import Decision, OperatingPoint, decide, p_atypical
from atypia.classifiers.loading import load_ensemble
from atypia.core.choices import BALANCED, BEST, FAST
from atypia.core.files import write_text
from atypia.core.labels import DISPLAY_NAMES, N_ATYPICAL, SUBTYPES, in_words
from atypia.evaluation import metrics
from atypia.evaluation.intervals import Estimate, estimate
from atypia.evaluation.prediction_sets import set_measures
from atypia.evaluation.predictions import (
    MAJORITY,
    Predictions,
    predictions_from_table,
    read_predictions,
)
from atypia.evaluation.thresholds import cost_threshold
from atypia.inference.patch_predictions import find_items, predict_items

RUNS: Final = ("released-all", "released-fast", "lora-all")
DECIDED: Final = ("released-all", "lora-all")
"""Those whose tables hold the calls of the two rules."""
COSTS: Final = (2, 2.5, 3, 4, 6)
POWER: Final = 0.25
QUALITIES: Final = (BEST, FAST)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--atnorm", type=Path, help="cohort of AtNorM-MD")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lines = ["# One decision", "", "Made by `benchmarks/decision.py` from committed tables."]
    for run in RUNS:
        read = read_predictions(options.results / run / "predictions-oof.csv.bz2")
        lines += page_of(run, read.take(read.labels["expert1"] >= 0))
    if options.atnorm is not None:
        lines += elsewhere(options.atnorm)
    write_text(options.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


def page_of(run: str, table: Predictions) -> list[str]:
    """Measure one run: rules, then sets."""
    labels = table.labels["expert1"]
    frequency = np.bincount(labels, minlength=len(SUBTYPES)) / len(labels)
    two = decide(table.probabilities, frequency, POWER)
    before = table.predicted_atypical
    lines = [
        "",
        f"## {run}",
        "",
        f"{len(table):,} figures of {len(np.unique(table.patients))} patients, against expert 1; "
        "95 % intervals over patients. *Majority*: binary balanced accuracy against the majority "
        "of the votes.",
        "",
        "| rule | left out | thresholds | BA8 | κ | binary BA | majority | called | PPV "
        "| contradictions |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    if run in DECIDED:
        lines.append(row("two rules", "–", [], table, two, before))
    kept: list[str] = []
    for groups, name in ((table.folds, "fold"), (table.domains, "domain")):
        for cost in COSTS:
            thresholds, chosen, called, sets = fitted(table, groups, cost)
            rule = f"one, a miss costs {cost:g}"
            lines.append(row(rule, name, thresholds, table, chosen, called))
            if cost == 3:
                kept += sets_of(table, sets, chosen, name)
    lines += [
        "",
        "| sets, left out | mean size | one subtype | label inside | named inside "
        "| " + " | ".join(DISPLAY_NAMES[s] for s in SUBTYPES) + " |",
        "|---" * (5 + len(SUBTYPES)) + "|",
        *kept,
    ]
    return lines


def fitted(
    table: Predictions, groups: Any, cost: float
) -> tuple[list[float], metrics.IntArray, metrics.BoolArray, metrics.BoolArray]:
    """Fit on all groups but one, answer that one; of each in turn."""
    p, labels = table.probabilities, table.labels["expert1"]
    majority, scores = table.votes["majority_atypical"], p_atypical(p)
    chosen = np.zeros(len(table), np.int64)
    sets, thresholds = np.zeros(p.shape, bool), []
    for group in np.unique(groups):
        own, rest = groups == group, groups != group
        voted = rest & (majority >= 0)
        both = np.concatenate([labels[rest] < N_ATYPICAL, majority[voted] == 1])
        threshold = cost_threshold(np.concatenate([scores[rest], scores[voted]]), both, cost)
        chosen[own] = Decision.fit(p[rest], labels[rest], POWER).subtypes(p[own], threshold)
        sets[own] = ConformalSets.fit(p[rest], labels[rest], 0.1).sets(p[own], chosen[own])
        thresholds.append(threshold)
    return thresholds, chosen, chosen < N_ATYPICAL, sets


def row(
    rule: str, left_out: str, thresholds: list[float], table: Predictions, chosen: Any, called: Any
) -> str:
    """Measure one rule."""
    labels, majority = table.labels["expert1"], table.votes["majority_atypical"]
    known = majority >= 0

    def statistic(weights: metrics.FloatArray) -> metrics.Measures:
        confusion = metrics.confusion_matrix(labels, chosen, weights)
        binary = metrics.binary_measures(labels < N_ATYPICAL, called, weights)
        votes = metrics.binary_measures(majority[known] == 1, called[known], weights[:, known])
        return {
            "ba8": metrics.balanced_accuracy(confusion),
            "kappa": metrics.kappa(confusion),
            "binary": binary["balanced_accuracy"],
            "majority": votes["balanced_accuracy"],
            "ppv": binary["ppv"],
        }

    found = estimate(statistic, table.patients)
    span = f"{min(thresholds):.3f}–{max(thresholds):.3f}" if thresholds else "as it was"
    cells = [span, *(interval(found[name]) for name in ("ba8", "kappa", "binary", "majority"))]
    contradictions = ((chosen < N_ATYPICAL) != called).mean()
    cells += [f"{called.mean():.1%}", interval(found["ppv"]), f"{contradictions:.1%}"]
    return f"| {rule} | {left_out} | {' | '.join(cells)} |"


def sets_of(table: Predictions, sets: Any, chosen: Any, left_out: str) -> list[str]:
    """Measure prediction sets."""
    labels = table.labels["expert1"]
    found = estimate(lambda weights: set_measures(labels, chosen, sets, weights), table.patients)
    cells = [interval(found[name]) for name in ("mean_size", "single", "coverage")]
    cells.append(f"{found['named_inside'].value:.1%}")
    of_class = found["class_coverage"]
    cells += [
        f"{of_class.value[c]:.2f} ({of_class.low[c]:.2f}–{of_class.high[c]:.2f})"
        for c in range(len(SUBTYPES))
    ]
    return [f"| {left_out} | {' | '.join(cells)} |"]


def elsewhere(cohort: Path) -> list[str]:
    """Measure operating points and sets of the model in the package at another hospital."""
    points, sizes, of_group = [], [], {}
    for quality in QUALITIES:
        model = load_ensemble(quality=quality)
        answers, _ = predict_items(model, find_items([cohort], None))
        table = predictions_from_table(answers)
        table = table.take(table.votes[MAJORITY] >= 0)
        atypical = table.votes[MAJORITY] == 1
        groups = np.unique(table.patients)
        for name, point in model.postprocessing.points.items():
            called = table.p_atypical >= point.threshold
            points.append(
                f"| {quality} | {name} | {calls(table.patients, atypical, called, point)} |"
            )
            if name == BALANCED:
                of_group[quality] = [
                    metrics.binary_measures(atypical[own], called[own])["balanced_accuracy"][0]
                    for own in (table.patients == group for group in groups)
                ]
        named = model.postprocessing.subtypes(table.probabilities)
        assert model.conformal is not None
        size = model.conformal.sets(table.probabilities, named).sum(axis=1)
        without = in_words(table.left_out) or "none"
        sizes.append(f"| {quality} | {size.mean():.2f} | {(size == 1).mean():.1%} | {without} |")
    of_groups = [
        f"| {group} | {own.sum()} | {atypical[own].sum()} "
        + "".join(f"| {of_group[quality][i]:.3f} " for quality in QUALITIES)
        + "|"
        for i, group in enumerate(groups)
        if 0 < atypical[own := table.patients == group].sum() < own.sum()
    ]
    return [
        "",
        "## AtNorM-MD: other tumours and species",
        "",
        f"{len(table):,} figures of {len(groups)} groups of slides, {atypical.sum()} atypical by "
        "the majority of five experts, answered by the model in the package; 95 % intervals over "
        "groups. All figures are called here, those that the guard does not answer among them.",
        "",
        "| quality | point | threshold | binary BA | sensitivity | specificity | PPV | called |",
        "|---|---|---|---|---|---|---|---|",
        *points,
        "",
        "| quality | mean size of sets | one subtype | not answered |",
        "|---|---|---|---|",
        *sizes,
        "",
        f"Binary BA at `{BALANCED}` of the groups with figures of both kinds:",
        "",
        f"| group | figures | atypical | {' | '.join(QUALITIES)} |",
        "|---" * (3 + len(QUALITIES)) + "|",
        *of_groups,
    ]


def calls(groups: Any, atypical: Any, called: Any, point: OperatingPoint) -> str:
    """Measure the calls at an operating point."""
    found = estimate(lambda w: metrics.binary_measures(atypical, called, w), groups)
    names = ("balanced_accuracy", "sensitivity", "specificity", "ppv")
    cells = [f"{point.threshold:.3f}", *(interval(found[name]) for name in names)]
    return " | ".join([*cells, f"{called.mean():.1%}"])


def interval(of: Estimate) -> str:
    """Write a measure with its interval."""
    return f"{of.value:.3f} ({of.low:.3f}–{of.high:.3f})"


if __name__ == "__main__":
    main()
