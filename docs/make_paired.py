"""Set results beside each other, patient by patient: docs/results/paired.md.

    python docs/make_paired.py docs/results --out docs/results/paired.md

Each difference is taken on the same patches, patient by patient. ``expert2`` is the
second expert's labels on the patches of the other table: it has no probabilities, and so no AUC.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kept_results import difference, rounded

from atypia.core.files import write_json, write_text
from atypia.core.labels import N_ATYPICAL, N_SUBTYPES
from atypia.evaluation.comparison import compare
from atypia.evaluation.predictions import read_predictions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atypia.evaluation.predictions import Predictions

EXPERT = "expert2"
# What is asked, the one, and what it is compared with.
PAIRS = (
    ("Is it as good as a second expert?", "released-all", EXPERT),
    ("", "students-table1", EXPERT),
    ("", "students-benchmark", EXPERT),
    ("Are the students as good as their teachers?", "students-table1", "flat-table1"),
    ("", "students-benchmark", "flat-benchmark"),
    ("Is `fast` as good as `best`?", "fast-table1", "students-table1"),
    ("", "fast-benchmark", "students-benchmark"),
    ("Is it better than the preset `quick`?", "students-table1", "quick-table1"),
    ("Do the rules add to the networks?", "hybrid-table1", "flat-table1"),
)
MEASURES = {
    "mean_auc": "mean AUC",
    "balanced_accuracy": "balanced accuracy, eight classes",
    "macro_f1": "macro-F1",
    "kappa": "Cohen's κ",
    "binary.auc": "binary AUC",
    "binary.at_operating_point.balanced_accuracy": "binary balanced accuracy",
}
OF_CALLS = [name for name in MEASURES if not name.endswith("auc")]


def main() -> None:
    """Write the page, and its figures as JSON beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    figures = list(differences(options.results, options.resamples))
    lines = [
        "# Side by side, patient by patient",
        "",
        "Made by `docs/make_paired.py`. The first minus the second, on the same figures, against "
        "expert 1; 95 % intervals over patients; bold "
        "where the interval does not hold zero. All measures are in [paired.json](paired.json).",
    ]
    for figure in figures:
        if figure["question"]:
            lines += ["", f"## {figure['question']}", "", *head()]
        lines.append(row(figure))
    write_text(options.out, "\n".join(lines) + "\n")
    write_json(options.out.with_suffix(".json"), rounded(figures, 6), compact=True)


def differences(results: Path, resamples: int) -> Iterator[dict[str, Any]]:
    """Compare every pair."""
    for question, first, second in PAIRS:
        table = read_predictions(results / first)
        other = as_expert(table) if second == EXPERT else read_predictions(results / second)
        told = compare({second: other, first: table}, resamples=resamples, seed=0)
        measures = told["differences"][0]["measures"]
        names = OF_CALLS if second == EXPERT else list(measures)
        yield {
            "question": question,
            "first": first,
            "second": second,
            "n": told["n"],
            "n_patients": told["n_patients"],
            "differences": {name: measures[name] for name in names},
        }


def as_expert(table: Predictions) -> Predictions:
    """Make a table of the second expert's labels."""
    labels = table.labels[EXPERT]
    sure = np.eye(N_SUBTYPES)[labels]
    atypical = labels < N_ATYPICAL
    return replace(
        table,
        probabilities=sure,
        p_atypical=atypical.astype(float),
        predicted=labels,
        predicted_atypical=atypical,
    )


def head() -> list[str]:
    """Write the head of a table."""
    names = ["", "figures, patients", *MEASURES.values()]
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def row(figure: dict[str, Any]) -> str:
    """Write one pair."""
    cells = []
    for name in MEASURES:
        d = figure["differences"].get(name)
        beyond = d is not None and (d["low"] > 0 or d["high"] < 0)
        cells.append(difference(d, bold=beyond))
    about = f"`{figure['first']}` minus `{figure['second']}`"
    return f"| {about} | {figure['n']:,}, {figure['n_patients']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
