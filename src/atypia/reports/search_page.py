"""``study.html``: what a search has tried, the results, and which settings matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from atypia.reports import plots
from atypia.reports.page_templates import render
from atypia.reports.words import capital

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

_MEASURES: Final = {
    "log_loss": "log loss",
    "calibrated_log_loss": "log loss after a temperature",
    "mean_auc": "mean AUC",
    "balanced_accuracy": "balanced accuracy",
    "binary_auc": "AUC of atypical or normal",
}


@dataclass(frozen=True)
class StudyInput:
    """Everything that the page shows."""

    title: str
    cohort: str
    split: str
    measure: str
    """One of :data:`atypia.training.search_space.Measure`."""
    minimised: bool
    folds: int
    trials: pd.DataFrame
    """One row per trial: ``trial``, ``state``, ``value``, the settings, ``share_done``,
    ``seconds``, ``note``."""
    preset: Mapping[str, Any]
    """Each setting that was searched, as it is in the configuration that the search began with."""
    best: Mapping[str, Any] | None
    """The same of the best trial."""
    values: tuple[float | None, float | None]
    """Of the configuration that the search began with, where a trial measured it, and the best."""
    importances: Mapping[str, float]

    @property
    def measure_name(self) -> str:
        """Name of the measure in a sentence."""
        return _MEASURES[self.measure]

    def count(self, state: str) -> int:
        """Count the trials in a state."""
        return int((self.trials["state"] == state).sum())


def history_svg(study: StudyInput) -> str | None:
    """Plot the values of the trials; None where none is complete."""
    if not study.count("complete"):
        return None
    name = f"{capital(study.measure_name)}, out of fold"
    return plots.search_history(study.trials, name, minimised=study.minimised)


def importance_svg(study: StudyInput) -> str | None:
    """Plot which settings the values depend on; None where there are no importances."""
    if not study.importances:
        return None
    return plots.shares(study.importances, "Share of the variance of the values")


def render_study(study: StudyInput) -> str:
    """Render the page. Equal inputs give equal bytes."""
    return render(
        "search.html",
        study=study,
        history=history_svg(study),
        importance=importance_svg(study),
        value=_text,
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.5g}"
    return "–" if value is None else str(value)
