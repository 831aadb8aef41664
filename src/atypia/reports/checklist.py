"""What reporting guidelines ask for, filled with what a run holds.

CLAIM 2024: Tejani et al., Radiology: Artificial Intelligence 2024, for studies of imaging with AI.
TRIPOD+AI: Collins et al., BMJ 2024, for studies of prediction models. The items, and what a run
reports on each, are the table ``checklist.yaml``. A run holds its data, its split, its model and
its measures, nothing of patients, ethics or funding.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import yaml
from markupsafe import Markup

from atypia.core.config import LEAK
from atypia.reports.page_templates import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.reports.report_input import ReportInput

_OTHER_KINDS: Final = {
    "rules": "Hand-written rules on the shape of the chromatin",
    "hybrid": "A small classifier on a network’s probabilities and on rules",
}
_TRAINING: Final = (
    "optimizer",
    "epochs",
    "batch_size",
    "learning_rate",
    "schedule",
    "weight_decay",
)


@cache
def checklist_table() -> dict[str, Any]:
    """Read ``checklist.yaml``: ``guidelines`` with their items, and ``facts`` by name."""
    text = (resources.files("atypia.reports") / "checklist.yaml").read_text("utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


def checklists(report: ReportInput) -> list[dict[str, Any]]:
    """Both checklists: each item with what the run reports on it, and how many items it reports.

    ``rows`` are number, what the item asks for, and ``{"text", "part", "see"}`` or None.
    """
    table, known = checklist_table(), _context(report)
    facts = {name: _first(cases, known) for name, cases in table["facts"].items()}
    filled = []
    for guideline in table["guidelines"]:
        rows = [
            (str(number), asks, facts[fact[0]] if fact else None)
            for number, asks, *fact in guideline["items"]
        ]
        parts = [found["part"] for _, _, found in rows if found]
        filled.append(
            {
                "name": guideline["name"],
                "source": guideline["source"],
                "whole": parts.count(False),
                "part": parts.count(True),
                "rows": rows,
            }
        )
    return filled


def _first(cases: Any, known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the first case whose condition holds, its text filled in."""
    for case in cases if isinstance(cases, list) else [cases]:
        if environment().compile_expression(case.get("when", "true"))(**known):
            text = Markup(environment().from_string(case["text"]).render(known))
            return {"text": text, "part": case.get("part", False), "see": case.get("see")}
    return None


def _context(report: ReportInput) -> dict[str, Any]:
    """Names that ``checklist.yaml`` may use."""

    def setting(path: str) -> Any:
        """One setting of the configuration; None where it is not there."""
        value: Any = report.config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    run = report.run or {}
    models = run.get("models") or []
    # Fewer than inner folds where only some were trained.
    networks = setting("ensemble.trained") or setting("ensemble.members")
    technique = _OTHER_KINDS.get(setting("kind"))
    backbone, optim = setting("model.backbone"), setting("optim") or {}
    if technique is None and backbone is not None:
        what = "one network" if networks == 1 else f"an ensemble of {networks} networks"
        technique = f"Deep learning: {what} ({backbone})"
    return {
        "report": report,
        "metrics": report.metrics,
        "run": run,
        "setting": setting,
        "leaks": report.split_kind == LEAK,
        "networks": networks,
        "technique": technique,
        "sizes": sorted({f"{m['parameters']:,}" for m in models if "parameters" in m}),
        "origins": sorted({str(m["initial_weights"]) for m in models if "initial_weights" in m}),
        "training": ", ".join(
            f"{name.replace('_', ' ')} {optim[name]}" for name in _TRAINING if name in optim
        ),
    }
