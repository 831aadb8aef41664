"""``report.html`` of a run that finds look-alikes of mitotic figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from atypia.core.files import read_json
from atypia.evaluation.curves import roc_points
from atypia.reports import plots
from atypia.reports.page_templates import render
from atypia.reports.words import number

if TYPE_CHECKING:
    from pathlib import Path

MITOSIS: Final = "mitosis"
"""Entry ``kind`` of the measures of such a run."""


def render_mitosis_page(folder: Path) -> str:
    """Render the page of a finished run. Equal inputs give equal bytes."""
    metrics, run = read_json(folder / "metrics.json"), read_json(folder / "run.json")
    name = "predictions-oof.csv" if metrics["part"] == "out of fold" else "predictions-test.csv"
    table = pd.read_csv(folder / name)
    mitosis, p = table["mitosis"].to_numpy(dtype=bool), table["p_mitosis"].to_numpy(dtype=float)
    curve = plots.Curve(f"AUC {number(metrics['auc']['value'])}", *roc_points(mitosis, p))
    histories = [pd.read_csv(file) for file in sorted(folder.rglob("fold-*/history.csv"))]
    losses = {"valid_loss": "validation", "train_loss": "training"}
    return render(
        "mitosis.html",
        title=folder.resolve().name,
        cohort=run["cohort"]["name"],
        metrics=metrics,
        figures=metrics["n"] - metrics["n_look_alikes"],
        roc=plots.roc_curves([curve]),
        losses=plots.training_curves(histories, losses, lowest="valid_loss"),
    )
