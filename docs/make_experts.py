"""Set the model among all three experts of AMi-Br: docs/results/experts.md.

    python docs/make_experts.py docs/results --out docs/results/experts.md

Atypical against normal; each line is of the figures that both have, with differences on the same
figures and patients. Expert 3 gave no subtypes, and is measured here alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kept_results import difference, interval

from atypia.core.files import write_text
from atypia.evaluation.predictions import read_predictions
from atypia.evaluation.raters import among_raters
from atypia.reports.words import capital, rater_name

RUNS = {
    "released-all": "Out of fold, all 202 patients: teachers of the model in the package",
    "students-table1": "40 test patients of `table1`: the recipe of `best`",
    "fast-table1": "The same patients: the recipe of `fast`",
    "students-benchmark": "56 test patients of `benchmark`: the recipe of `best`",
}
SHOWN = ("balanced_accuracy", "sensitivity", "specificity", "ppv", "kappa")
HEAD = (
    "rater", "against", "figures, atypical", "balanced accuracy", "sensitivity", "specificity",
    "PPV", "κ", "sensitivity at the rater's specificity",
)  # fmt: skip


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lines = [
        "# The model among the experts",
        "",
        "Made by `docs/make_experts.py`. Atypical against normal, at the threshold that was fixed "
        "out of fold in each run; 95 % intervals over patients. *The others* are the majority of "
        "the two experts who are not judged, where they agree. The last column is the model's "
        "sensitivity on its ROC curve at the specificity that the expert has. Differences are in "
        "bold where the interval does not hold zero.",
    ]
    for run, title in RUNS.items():
        lines += ["", f"## {title} (`{run}`)", "", f"| {' | '.join(HEAD)} |", "|---" * 9 + "|"]
        for entry in among_raters(read_predictions(options.results / run)):
            lines += three_lines(entry)
    write_text(options.out, "\n".join(lines) + "\n")


def three_lines(entry: dict[str, Any]) -> list[str]:
    """Write an expert, the model on the same figures, and how they differ."""
    name, at = rater_name(entry["rater"]), entry["at_rater_specificity"]
    about = f"{rater_name(entry['against'])} | {entry['n']:,}, {entry['n_atypical']:,}"
    rater, model = ([interval(entry[p][m]) for m in SHOWN] for p in ("of_rater", "of_model"))
    ahead = [entry["model_minus_rater"][m] for m in SHOWN] + [at["model_minus_rater"]]
    beyond = [difference(d, bold=d["low"] > 0 or d["high"] < 0) for d in ahead]
    return [
        f"| {capital(name)} | {about} | {' | '.join(rater)} | – |",
        f"| model | | | {' | '.join(model)} | {interval(at['sensitivity'])} |",
        f"| model minus {name} | | | {' | '.join(beyond)} |",
    ]


if __name__ == "__main__":
    main()
