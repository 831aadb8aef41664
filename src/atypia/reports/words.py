"""How a report puts figures and names into words and into cells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

from atypia.evaluation.predictions import AGREED, MAJORITY
from atypia.reports.html import Html, join, tag

if TYPE_CHECKING:
    from collections.abc import Mapping

    Measure: TypeAlias = Mapping[str, float | None]
    """`value`, `low` and `high`; None where it is not defined."""


def disclaimer() -> Html:
    """Say what a page is not for."""
    return tag("p", "For research use. Not a medical device.", class_="disclaimer")


def missing(why: str) -> Html:
    """Say that a part of the report is not there, and why."""
    return tag("p", f"Not available: {why}.", class_="missing")


def no_subtypes(metrics: Mapping[str, Any]) -> Html:
    """Say that the label is atypical or normal only."""
    return missing(f"{rater_name(metrics['label'])} tells atypical from normal, not subtypes")


def rater_name(name: str) -> str:
    """Name a rater as one says it: ``expert1`` is "expert 1"."""
    spoken = {MAJORITY: "the majority vote", AGREED: "all experts where they agree"}
    return spoken.get(name) or re.sub(r"^expert_?(\d+)$", r"expert \1", name)


def capital(text: str) -> str:
    """Begin a text with a capital letter; the rest stays as it is."""
    return text[:1].upper() + text[1:]


def level(metrics: Mapping[str, Any]) -> str:
    """Tell the level of the intervals: "95 %"."""
    return f"{100 * metrics['interval']['level']:.0f} %"


def number(value: float | None, *, percent: bool = False) -> str:
    """Three decimals, or one in percent, with a true minus sign; a dash for None."""
    if value is None:
        return "–"
    text = f"{100 * value:.1f}" if percent else f"{value:.3f}"
    return text.replace("-", "−")


def interval(measure: Measure, *, percent: bool = False) -> str:
    """Tell the interval of a measure in brackets."""
    low, high = measure["low"], measure["high"]
    if low is None or high is None:
        return "(no interval)"
    to = " to " if low < 0 else "–"
    return f"({number(low, percent=percent)}{to}{number(high, percent=percent)})"


def estimate(measure: Measure) -> str:
    """Tell a value and its interval within a sentence."""
    if measure["value"] is None:
        return "an undefined value"
    return f"{number(measure['value'])} {interval(measure)}"


def estimate_cell(measure: Measure | None, *, percent: bool = False) -> Html:
    """Show a value and, smaller, its interval; a dash where it is not defined."""
    if measure is None or measure["value"] is None:
        return join("–")
    return join(
        number(measure["value"], percent=percent),
        " ",
        tag("span", interval(measure, percent=percent), class_="interval"),
    )


def published_cell(text: str = "–") -> Html:
    """Show a figure of another paper, set apart from ours."""
    return tag("span", text, class_="published")
