"""``study.html``: what a search has tried, what came out, and which settings matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from atypia._version import __version__
from atypia.reports import plots
from atypia.reports.html import Html, document, join, svg_figure, table, tag
from atypia.reports.words import capital, disclaimer, missing

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
        """The measure as one says it."""
        return _MEASURES[self.measure]


def history_svg(study: StudyInput) -> str | None:
    """Draw the values of the trials; None where none is complete."""
    if not (study.trials["state"] == "complete").any():
        return None
    name = f"{capital(study.measure_name)}, out of fold"
    return plots.search_history(study.trials, name, minimised=study.minimised)


def importance_svg(study: StudyInput) -> str | None:
    """Draw which settings the values depend on; None where that cannot be told."""
    if not study.importances:
        return None
    return plots.shares(study.importances, "Share of the variance of the values")


def render_study(study: StudyInput) -> str:
    """Render the page. Equal inputs give equal bytes."""
    history, importance = history_svg(study), importance_svg(study)
    sections = {
        "Best configuration": _best(study),
        "History": missing("no trial is complete")
        if history is None
        else svg_figure(
            history,
            "Value of each trial",
            "Each complete trial, and the best value so far. Pruned trials stand at the last value "
            "that they reported, or at the edge.",
        ),
        "What matters": missing("too few complete trials, or all alike")
        if importance is None
        else svg_figure(
            importance,
            "Importance of each setting",
            "Functional ANOVA of a random forest on the complete trials: what each setting alone "
            f"explains. From {_count(study, 'complete')} trials; with few of them it is a hint.",
        ),
        "Trials": _trials(study),
    }
    shown = (tag("section", tag("h2", name), text) for name, text in sections.items())
    body = join(
        _header(study),
        tag("main", *shown),
        tag("footer", disclaimer(), tag("p", f"Made with Atypia {__version__}.", class_="note")),
    )
    return document(f"Search: {study.title}", body)


def _header(study: StudyInput) -> Html:
    direction = "smallest" if study.minimised else "largest"
    folds = "one inner fold" if study.folds == 1 else f"{study.folds} inner folds"
    told = (
        f"{len(study.trials)} trials: {_count(study, 'complete')} complete, "
        f"{_count(study, 'pruned')} stopped early, {_count(study, 'failed')} failed. A trial is "
        f"worth the mean {study.measure_name} of its out-of-fold answers over {folds}; the "
        f"{direction} is the best. No test patient had a part in it. The best of many values "
        "flatters the configuration behind it: only patients who took no part in the search tell "
        "how good that is."
    )
    return tag(
        "header",
        tag("h1", study.title),
        tag("p", f"Cohort: {study.cohort} · Split: {study.split}", class_="facts"),
        tag("p", told, class_="lead"),
        disclaimer(),
    )


def _best(study: StudyInput) -> Html:
    if study.best is None:
        return missing("no trial is complete")
    rows = [(key, _cell(study.preset[key]), _cell(value)) for key, value in study.best.items()]
    measured = (f"{capital(study.measure_name)}, out of fold", *map(_cell, study.values))
    header = ("Setting", "Began with", "Best trial")
    return table("Settings that were searched", header, [*rows, measured])


def _trials(study: StudyInput) -> Html:
    rows = [[_cell(cell) for cell in row] for row in study.trials.itertuples(index=False)]
    names = {"share_done": "share done"}
    header = [names.get(str(column), column) for column in study.trials.columns]
    return table("All trials, in their order", header, rows)


def _count(study: StudyInput, state: str) -> int:
    return int((study.trials["state"] == state).sum())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.5g}"
    return "–" if value is None else str(value)
