"""Copy what is small of a run into docs/results, with one page of figures and a table.

    python docs/make_results.py runs/quick docs/results/quick-table1

No weights and no patches: the page of figures is the run's report without its images.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from atypia.core.files import read_json, write_json, write_text
from atypia.core.labels import DISPLAY_NAMES
from atypia.pipeline import write_report
from atypia.reports import published_results as reference

SMALL = ("config.yaml", "splits.json", "metrics.json")


def percent(measure: dict[str, Any] | None, *, interval: bool = True) -> str:
    """Give a measure in per cent, with its interval."""
    if measure is None or measure["value"] is None:
        return "–"
    text = f"{100 * measure['value']:.1f}"
    if interval and measure.get("low") is not None:
        text += f" ({100 * measure['low']:.1f}–{100 * measure['high']:.1f})"
    return text


def figure(measure: dict[str, Any] | None) -> str:
    """Give a measure with its interval."""
    if measure is None or measure["value"] is None:
        return "–"
    return f"{measure['value']:.3f} ({measure['low']:.3f}–{measure['high']:.3f})"


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
            f"| {name} | {figure(measure)} | {figure(other)} | {published.get(name, '–')} |"
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
            f"| *paper* | {paper.n} | {paper.auc} | {paper.sensitivity} | {paper.specificity} "
            f"| {paper.ppv} | {paper.npv} | – |"
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
                f"| {against} | {part['n']} | {figure(part['auc'])} | {threshold} | "
                f"{figure(scores['balanced_accuracy'])} | {figure(scores['sensitivity'])} | "
                f"{figure(scores['specificity'])} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fill the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in SMALL:
        shutil.copy(options.run / name, options.out / name)
    if (options.run / "metrics-oof.json").is_file():  # a run of several outer splits has one each
        shutil.copy(options.run / "metrics-oof.json", options.out)
    if (options.run / "trade.md").is_file():  # of a hybrid
        shutil.copy(options.run / "trade.md", options.out)
    test = options.run / "predictions-test.csv"  # a run of the split "all" has none
    predictions = test if test.is_file() else options.run / "predictions-oof.csv"
    if test.is_file():
        shutil.copy(test, options.out / test.name)
    else:  # of all figures: without the rules' reasons, which are half of the table
        text = pd.read_csv(predictions, dtype=str, keep_default_na=False)
        kept = text.drop(columns="reason", errors="ignore")
        write_text(options.out / predictions.name, kept.to_csv(index=False))
    for history in sorted(options.run.glob("fold-*/history.csv")):
        shutil.copy(history, options.out / f"history-{history.parent.name}.csv")
    for part in sorted(options.run.glob("outer-*/predictions-test.csv")):
        tested = pd.read_csv(part, usecols=["domain"])["domain"].unique()
        if len(tested) == 1:  # of the split "domains": by itself, at its own threshold
            own = options.out / f"tested-on-{tested[0]}"
            own.mkdir(exist_ok=True)
            for name in ("metrics.json", "metrics-oof.json"):
                shutil.copy(part.parent / name, own / name)
    run = read_json(options.run / "run.json")
    run["cohort"].pop("path", None)
    write_json(options.out / "run.json", run)
    write_report(options.run, images=False, out=options.out / "report.html")
    metrics = read_json(options.run / "metrics.json")
    write_text(options.out / "tables.md", tables(metrics))


if __name__ == "__main__":
    main()
