"""What one decision costs against two, and what prediction sets hold, out of fold.

    python benchmarks/decision.py --out docs/results/decision.md

From committed tables alone. Threshold, weights and prediction sets are fitted on all folds but one
(or on one domain) and judged on the rest. *Two rules* is what there was before: the subtype by the
largest p / frequency^0.25 of all eight, the call at the threshold in the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import numpy as np

from atypia.classifiers.conformal import ConformalSets
from atypia.classifiers.decision import Decision, decide, p_atypical
from atypia.core.files import write_text
from atypia.core.labels import DISPLAY_NAMES, N_ATYPICAL, SUBTYPES
from atypia.evaluation import metrics
from atypia.evaluation.intervals import Estimate, estimate
from atypia.evaluation.prediction_sets import set_measures
from atypia.evaluation.predictions import Predictions, read_predictions
from atypia.evaluation.thresholds import cost_threshold

RUNS: Final = ("released-all", "released-fast", "lora-all")
DECIDED: Final = ("released-all", "lora-all")
"""Those whose tables hold the calls of the two rules."""
COSTS: Final = (2, 2.5, 3, 4, 6)
POWER: Final = 0.25


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lines = ["# One decision", "", "Made by `benchmarks/decision.py` from committed tables."]
    for run in RUNS:
        read = read_predictions(options.results / run / "predictions-oof.csv.bz2")
        lines += page_of(run, read.take(read.labels["expert1"] >= 0))
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
    found = estimate(lambda weights: set_measures(labels, sets, weights), table.patients)
    named = sets[np.arange(len(sets)), chosen].mean()
    cells = [interval(found[name]) for name in ("mean_size", "single", "coverage")]
    cells.append(f"{named:.1%}")
    of_class = found["class_coverage"]
    cells += [
        f"{of_class.value[c]:.2f} ({of_class.low[c]:.2f}–{of_class.high[c]:.2f})"
        for c in range(len(SUBTYPES))
    ]
    return [f"| {left_out} | {' | '.join(cells)} |"]


def interval(of: Estimate) -> str:
    """Write a measure with its interval."""
    return f"{of.value:.3f} ({of.low:.3f}–{of.high:.3f})"


if __name__ == "__main__":
    main()
