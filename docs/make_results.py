"""Keep what is small of a run in docs/results, and write its measures as a table.

    python docs/make_results.py runs/quick docs/results/quick-table1

=============================  =====================================================================
``predictions-*.csv.bz2``      of the test part, or out of fold where there is none; probabilities
                               with six decimals, which keep every measure to the digits shown;
                               reasons and what follows from other columns are left out
``metrics.json.bz2``           the measures of that table; bins and curves are left out, and but for
                               the runs of the model card (``--card``) groups, abstention and sets
``metrics-oof.json.bz2``       likewise out of fold, without groups and raters, where the table is
                               another one
``history.csv.bz2``            every epoch of every member
``splits.json``                their kind, and the file in ``docs/results/splits`` with the patients
``tables.md``                  the measures to be read; committed where a page links to it
``config.yaml``, ``run.json``  as in the run
=============================  =====================================================================

Nothing that a command makes of these is kept: ``atypia evaluate FOLDER`` writes the page of plots.
"""

from __future__ import annotations

import argparse
import bz2
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from kept_results import interval, read_metrics, rounded

from atypia.core.files import read_json, write_json, write_text
from atypia.core.labels import DISPLAY_NAMES, PROBABILITY_COLUMNS
from atypia.reports import published_results as reference

DECIMALS = 6
"""Of a probability."""
DERIVED = ("reason", "p_atypical", "atypical_expert1", "atypical_expert2")
LEFT_OUT = {"definitions", "subtypes", "calibration", "class_size_vs_sensitivity"}
IN_CARD = {"groups", "selective", "conformal"}
"""Measures that ``make_model_card.py`` alone reads; kept of its runs, with ``--card``."""
LEFT_OUT_OUT_OF_FOLD = LEFT_OUT | IN_CARD | {"raters", "among_raters"}


def write_compressed(path: Path, text: str) -> None:
    """Write text as bzip2, the same bytes whenever it is written."""
    path.write_bytes(bz2.compress(text.encode()))


def keep_predictions(table: Path, out: Path) -> None:
    """Write a table of predictions with the digits that matter."""
    cells = pd.read_csv(table, dtype=str, keep_default_na=False)
    cells = cells.drop(columns=list(DERIVED), errors="ignore")
    for column in PROBABILITY_COLUMNS:
        p = cells[column].astype(float)
        cells[column] = [f"{x:.{DECIMALS}f}".rstrip("0").rstrip(".") for x in p]
    write_compressed(out / f"{table.name}.bz2", cells.to_csv(index=False, lineterminator="\n"))


def keep_metrics(folder: Path, out: Path, *, card: bool = False) -> None:
    """Write the measures of a run, or of one of its outer splits."""
    metrics = read_metrics(folder)
    kept = {"metrics": (metrics, LEFT_OUT if card else LEFT_OUT | IN_CARD)}
    out_of_fold = folder / "metrics-oof.json"
    if out_of_fold.is_file() and metrics.get("part") != "out of fold":
        kept["metrics-oof"] = (read_json(out_of_fold), LEFT_OUT_OUT_OF_FOLD)
    for name, (tree, left_out) in kept.items():
        parts = rounded({k: v for k, v in tree.items() if k not in left_out})
        text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
        write_compressed(out / f"{name}.json.bz2", text)


def keep_history(histories: list[Path], out: Path) -> None:
    """Write the epochs of all members, (fold-<n>/history.csv), as one table."""
    if not histories:
        return
    parts = [pd.read_csv(file).assign(member=file.parent.name) for file in histories]
    text = pd.concat(parts).to_csv(index=False, float_format="%.5g", lineterminator="\n")
    write_compressed(out / "history.csv.bz2", text)


def keep_splits(splits: Path, out: Path) -> None:
    """Refer to the one file of these splits, which is written where there is none yet."""
    shared = out.parent / "splits"
    shared.mkdir(exist_ok=True)
    content = read_json(splits)
    same = [file for file in shared.glob("*.json") if read_json(file) == content]
    folds = len(content["outer"][0]["inner"])
    name = f"{content['kind']}-{folds}-folds-seed-{content['seed']}.json"
    file = same[0] if same else shared / name
    if not same:
        if file.exists():
            raise SystemExit(f"{file} has other splits than {splits}.")
        write_text(file, json.dumps(content, separators=(",", ":")) + "\n")
    write_json(out / "splits.json", {"kind": content["kind"], "file": f"../splits/{file.name}"})


def percent(measure: dict[str, Any] | None, *, interval: bool = True) -> str:
    """Give a measure in per cent, with its interval."""
    if measure is None or measure["value"] is None:
        return "–"
    text = f"{100 * measure['value']:.1f}"
    if interval and measure.get("low") is not None:
        text += f" ({100 * measure['low']:.1f}–{100 * measure['high']:.1f})"
    return text


def tables(metrics: dict[str, Any]) -> str:
    """Write the measures as Markdown, the paper's and the second expert's beside ours."""
    rater, expert = next(iter(metrics["raters"].items()))
    published = {
        "mean_auc": f"{reference.MEAN_AUC:.3f}",
        "balanced_accuracy": f"{reference.BALANCED_ACCURACY:.3f}",
    }
    lines = [f"| measure | Atypia | {rater} against {metrics['label']} | reference paper |"]
    lines += ["|---|---|---|---|"]
    for name, measure in metrics["overall"].items():
        other = expert["overall"].get(name)
        lines.append(
            f"| {name} | {interval(measure)} | {interval(other)} | {published.get(name, '–')} |"
        )
    lines += [
        "",
        "| subtype | n | AUC | sensitivity | specificity | PPV | NPV | average precision |",
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for subtype, row in metrics["per_class"].items():
        names = ("auc", "sensitivity", "specificity", "ppv", "npv", "average_precision")
        cells = " | ".join(percent(row[name]) for name in names)
        lines.append(f"| {DISPLAY_NAMES[subtype]} | {row['n']} | {cells} |")
        paper = reference.TABLE_1[subtype]
        lines.append(
            f"| *paper* | {paper['n']} | {paper['auc']} | {paper['sensitivity']} "
            f"| {paper['specificity']} | {paper['ppv']} | {paper['npv']} | – |"
        )
    lines += [
        "",
        "| atypical or normal, against | n | AUC | at | balanced accuracy | sensitivity | ",
    ]
    lines[-1] += "specificity |"
    lines += ["|---|---|---|---|---|---|---|"]
    for against, part in metrics["binary"]["against"].items():
        for point in ("at_0.5", "at_operating_point"):
            scores = part[point]
            fixed = scores["threshold"]
            threshold = "each part's own" if fixed is None else f"{fixed:.3g}"
            lines.append(
                f"| {against} | {part['n']} | {interval(part['auc'])} | {threshold} | "
                f"{interval(scores['balanced_accuracy'])} | {interval(scores['sensitivity'])} | "
                f"{interval(scores['specificity'])} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fill the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--card", action="store_true", help="of a run of the model card")
    options = parser.parse_args()
    run, out = options.run, options.out
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "config.yaml", out)
    if (run / "trade.md").is_file():  # of a hybrid
        shutil.copy(run / "trade.md", out)
    test = run / "predictions-test.csv"  # a run of the split "all" has none
    keep_predictions(test if test.is_file() else run / "predictions-oof.csv", out)
    keep_metrics(run, out, card=options.card)
    keep_history(sorted(run.glob("fold-*/history.csv")), out)
    keep_splits(run / "splits.json", out)
    for part in sorted(run.glob("outer-*/predictions-test.csv")):
        tested = pd.read_csv(part, usecols=["domain"])["domain"].unique()
        if len(tested) == 1:  # of the split "domains": by itself, at its own threshold
            own = out / f"tested-on-{tested[0]}"
            own.mkdir(exist_ok=True)
            keep_metrics(part.parent, own, card=options.card)
    record = read_json(run / "run.json")
    record["cohort"].pop("path", None)
    write_json(out / "run.json", record)
    write_text(out / "tables.md", tables(read_metrics(out)))


if __name__ == "__main__":
    main()
