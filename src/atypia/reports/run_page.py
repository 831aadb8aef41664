"""The page: its head, its summary and the order of its sections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from atypia._version import __version__
from atypia.core.files import write_text
from atypia.reports import (
    plot_panels as figures,
)
from atypia.reports import published_results as reference
from atypia.reports import (
    result_tables as tables,
)
from atypia.reports import (
    uncertainty_panel as uncertainty,
)
from atypia.reports.checklist import checklists
from atypia.reports.gallery import gallery
from atypia.reports.html import Html, document, join, resource, tag
from atypia.reports.two_stage_panel import two_stages
from atypia.reports.words import capital, disclaimer, estimate, estimate_cell, level, rater_name

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.reports.report_input import ReportInput
    from atypia.reports.words import Measure

SECTIONS = (
    ("table-1", "Eight subtypes, in the layout of the reference paper’s Table 1", tables.table_1),
    ("overall", "All subtypes together", tables.overall),
    ("binary", "Atypical or normal", tables.binary),
    ("stages", "In two stages: the side, then the subtype", two_stages),
    ("groups", "By domain and scanner", tables.groups),
    ("size", "Class size and sensitivity", figures.class_size),
    ("confusion", "Confusion matrices", figures.confusion),
    ("curves", "ROC and precision-recall curves", figures.curves),
    ("reliability", "Reliability of the probabilities", figures.reliability),
    ("selective", "Accuracy against coverage", uncertainty.selective),
    ("sets", "Prediction sets", uncertainty.prediction_sets),
    ("training", "Training", figures.training),
    ("classes", "The eight classes", figures.examples),
    ("mistakes", "Most confident mistakes", figures.mistakes),
    ("gallery", "Gallery: the figures behind each cell", gallery),
    ("splits", "Splits", tables.splits),
    ("configuration", "Configuration", tables.configuration),
    ("provenance", "Versions, seed and hashes", tables.provenance),
    ("checklist", "Reporting checklists: CLAIM 2024 and TRIPOD+AI", checklists),
    ("reading", "How to read the measures", tables.reading),
)


def build_report(report: ReportInput, out: Path) -> None:
    """Write `report` as one HTML file.

    Raises:
        AtypiaError: `out` cannot be written.

    """
    write_text(out, render_report(report))


def render_report(report: ReportInput) -> str:
    """Render the page. Equal inputs give equal bytes."""
    contents = (tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in SECTIONS)
    sections = (
        tag("section", tag("h2", title), section(report), id=key)
        for key, title, section in SECTIONS
    )
    body = join(
        _header(report),
        tag("nav", tag("ol", *contents), aria_label="Contents"),
        tag("main", *sections),
        tag("footer", disclaimer(), tag("p", f"Made with Atypia {__version__}.", class_="note")),
    )
    return document(report.title, body, script=resource("report.js"))


def _header(report: ReportInput) -> Html:
    facts = [
        f"Cohort: {report.cohort}" if report.cohort else None,
        f"Split: {report.split_kind}" if report.split_kind else None,
        f"Scored against: {rater_name(report.metrics['label'])}",
        _learned_from(report),
        report.date,
    ]
    return tag(
        "header",
        tag("h1", report.title),
        tag("p", " · ".join(fact for fact in facts if fact), class_="facts"),
        tag("p", _summary(report), class_="lead"),
        _tiles(report),
        disclaimer(),
    )


def _learned_from(report: ReportInput) -> str | None:
    """Name the raters behind the training targets, where the configuration is known."""
    config = yaml.safe_load(report.config_yaml) if report.config_yaml else None
    if not isinstance(config, dict) or "label" not in config:
        return None
    target = config.get("target", {})
    learned = f"Learned from: {rater_name(config['label'])}"
    if target.get("second_rater") and target.get("per_rater"):
        learned += f" and, with scores of its own, {rater_name(target['second_rater'])}"
    elif target.get("second_rater"):
        share = f"{target['second_rater_mass']:.0%}"
        learned += f" and, with {share} of the weight, {rater_name(target['second_rater'])}"
    return learned


def _summary(report: ReportInput) -> str:
    """Say in plain words what the figures say."""
    metrics, overall, binary = report.metrics, report.metrics["overall"], report.binary
    name, rater = report.second_rater or ("", None)
    name = rater_name(name)
    text = (
        f"{metrics['n']:,} mitotic figures of {metrics['n_patients']:,} patients were scored "
        f"against the label of {rater_name(metrics['label'])}. "
    )
    if metrics.get("part") == "out of fold":
        text += (
            "There is no test part: each figure is answered by the one member that has not learned "
            "from its patient, and what was fixed on these answers (threshold, calibration) is "
            "judged on them, too. "
        )
    if overall:
        text += (
            "Shown one figure of a subtype and one of another, the model gives the first the "
            f"higher probability at a rate of {estimate(overall['mean_auc'])}, averaged over the "
            "eight subtypes (mean AUC). Of each subtype it finds on average a share of "
            f"{estimate(overall['balanced_accuracy'])} (balanced accuracy)"
        )
        if rater:
            text += (
                f"; {name}, measured the same way against {rater_name(rater['against'])}, finds "
                f"{estimate(rater['overall']['balanced_accuracy'])}"
            )
        text += ". "
    if binary:
        text += (
            "Asked only whether a figure is atypical or normal, the model reaches a balanced "
            f"accuracy of {estimate(binary['at_operating_point']['balanced_accuracy'])} at the "
            "operating point that came with the predictions"
        )
        if rater:
            text += f", {name} {estimate(rater['binary']['balanced_accuracy'])}"
        text += ". "
    return text + f"Brackets hold {level(metrics)} intervals from resampling patients."


def _tiles(report: ReportInput) -> Html:
    overall, binary = report.metrics["overall"], report.binary
    name, rater = report.second_rater or ("second expert", None)

    def tile(title: str, ours: Measure | None, theirs: object, published: float) -> Html:
        return tag(
            "div",
            tag("p", title, class_="name"),
            tag("p", estimate_cell(ours), class_="value"),
            tag(
                "dl",
                tag("dt", capital(rater_name(name))),
                tag("dd", theirs if rater else "not available"),
                tag("dt", "Reference paper, own test part"),
                tag("dd", f"{published:.3f}"),
            ),
            class_="tile",
        )

    return tag(
        "div",
        tile(
            "Mean AUC, eight subtypes",
            overall.get("mean_auc"),
            "gives no probabilities",
            reference.MEAN_AUC,
        ),
        tile(
            "Balanced accuracy, eight subtypes",
            overall.get("balanced_accuracy"),
            estimate_cell(rater["overall"]["balanced_accuracy"] if rater else None),
            reference.BALANCED_ACCURACY,
        ),
        tile(
            "Balanced accuracy, atypical or normal",
            binary["at_operating_point"]["balanced_accuracy"] if binary else None,
            estimate_cell(rater["binary"]["balanced_accuracy"] if rater else None),
            reference.BINARY_BALANCED_ACCURACY,
        ),
        class_="tiles",
    )
