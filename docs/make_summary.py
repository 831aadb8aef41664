"""Set the results of one recipe beside each other: seeds, splits and domains left out.

    python docs/make_summary.py docs/results/students-table1* docs/results/flat-table1* \
        docs/results/*-benchmark --domains docs/results/flat-domains --out docs/results/released.md

Every figure comes from a ``metrics.json`` that ``make_results.py`` copied. Folders whose names
differ in ``-s<seed>`` at the end alone are seeds of one recipe.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from kept_results import interval, path, read_metrics
from make_model_card import threshold

from atypia.core.files import write_text
from atypia.core.labels import DISPLAY_NAMES

_EXPERT = "binary.against.expert1"
_MAJORITY = "binary.against.majority_atypical"
ROWS = {
    "mean AUC": "overall.mean_auc",
    "balanced accuracy": "overall.balanced_accuracy",
    "macro-F1": "overall.macro_f1",
    "Cohen's κ": "overall.kappa",
    "calibration error (ECE, 15 bins)": "overall.ece",
    "log-loss": "overall.log_loss",
    "atypical or normal, expert 1: AUC": f"{_EXPERT}.auc",
    "— balanced accuracy at the fixed threshold": (
        f"{_EXPERT}.at_operating_point.balanced_accuracy"
    ),
    "— sensitivity": f"{_EXPERT}.at_operating_point.sensitivity",
    "— specificity": f"{_EXPERT}.at_operating_point.specificity",
    "atypical or normal, majority of the votes: AUC": f"{_MAJORITY}.auc",
    "— its balanced accuracy at the same threshold": (
        f"{_MAJORITY}.at_operating_point.balanced_accuracy"
    ),
}


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of make_results.py")
    parser.add_argument("--domains", type=Path, help="one of a run over the split domains")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    columns = {folder.name: read_metrics(folder) for folder in options.runs}
    text = ["# One recipe, its seeds and splits", "", *table(columns), *spread(columns)]
    text += ["", "## AUC of each subtype", "", *per_class(columns)]
    if options.domains is not None:
        parts = {
            folder.name: read_metrics(folder)
            for folder in sorted(options.domains.glob("tested-on-*"))
        }
        text += ["", "## Each domain left out of the training and tested on", "", *table(parts)]
    write_text(options.out, "\n".join(text) + "\n")


def table(columns: dict[str, dict[str, Any]]) -> list[str]:
    """Write one row per measure, one column per run."""
    lines = ["| measure | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    lines.append(
        "| figures, patients | "
        + " | ".join(f"{m['n']:,}, {m['n_patients']}" for m in columns.values())
        + " |"
    )
    for words, name in ROWS.items():
        cells = " | ".join(interval(path(metrics, name)) for metrics in columns.values())
        lines.append(f"| {words} | {cells} |")
    cells = " | ".join(f"{threshold(metrics):.3f}" for metrics in columns.values())
    return [*lines, f"| threshold | {cells} |"]


def spread(columns: dict[str, dict[str, Any]]) -> list[str]:
    """Write mean and standard deviation over the runs that differ in their seed alone."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, metrics in columns.items():
        groups.setdefault(re.sub(r"-s\d+$", "", name), []).append(metrics)
    several = {name: of for name, of in groups.items() if len(of) > 1}
    if not several:
        return []
    lines = ["", "## Over the seeds", "", "Mean ± standard deviation.", ""]
    lines += ["| measure | " + " | ".join(f"{n}, {len(of)}" for n, of in several.items()) + " |"]
    lines += ["|---|" + "---|" * len(several)]
    for words, name in ROWS.items():
        cells = []
        for runs in several.values():
            values = [float((path(metrics, name) or {})["value"]) for metrics in runs]
            cells.append(f"{fmean(values):.3f} ± {stdev(values):.3f}")
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return lines


def per_class(columns: dict[str, dict[str, Any]]) -> list[str]:
    """Write one row per subtype."""
    lines = ["| subtype | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for subtype in next(iter(columns.values()))["per_class"]:
        cells = " | ".join(interval(m["per_class"][subtype]["auc"]) for m in columns.values())
        lines.append(f"| {DISPLAY_NAMES[subtype]} | {cells} |")
    return lines


if __name__ == "__main__":
    main()
