"""How the summary page puts measures into words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atypia.biomarker.slide_biomarkers import SCOPES
from atypia.reports.html import Html, join, tag
from atypia.reports.words import capital

if TYPE_CHECKING:
    from atypia.biomarker.biomarker_intervals import Measure
    from atypia.biomarker.slide_biomarkers import SlideBiomarkers

NONE = "–"
_PERCENT = "\N{NO-BREAK SPACE}%"


def per_mm2(value: float) -> str:
    """Tell a density: one decimal, two below 1."""
    return f"{value:.2f}" if 0 < value < 1 else f"{value:.1f}"


def percent(value: float) -> str:
    """Tell a share: a whole number of percent, one decimal below 10 %."""
    hundredths = 100 * value
    text = f"{hundredths:.1f}" if 0 < hundredths < 9.95 else f"{hundredths:.0f}"
    return text + _PERCENT


def spoken(measure: Measure | None, *, share: bool = False) -> str:
    """Tell a value with its interval within a sentence."""
    if measure is None or measure.value is None:
        return "not known"
    return f"{_one(measure.value, share)} ({_range(measure, share)})"


def measures_in_words(slide: SlideBiomarkers) -> list[str]:
    """Tell the measures of each area of a slide, a line each."""
    lines = []
    for scope, name in SCOPES.items():
        found = slide.measures[scope]
        if found is None or not found.counts.figures:
            continue
        counts = found.counts
        corrected = found.atypical_fraction is not None
        density = found.atypical_per_mm2 if corrected else found.atypical_called_per_mm2
        share = found.atypical_fraction if corrected else found.atypical_called_fraction
        area = "" if counts.area_mm2 is None else f", {counts.area_mm2:.3g} mm²"
        told = [f"{counts.figures:,} figures"]
        if counts.area_mm2 is not None:
            told += [
                f"{spoken(found.figures_per_mm2)} per mm²",
                f"atypical {spoken(density)} per mm²",
            ]
        told.append(f"atypical fraction {spoken(share, share=True)}")
        kind = "corrected for the model's errors" if corrected else "as called"
        lines.append(f"{capital(name.removeprefix('the '))}{area}: {', '.join(told)} ({kind})")
    return lines


def cell(measure: Measure | None, *, share: bool = False) -> Html:
    """Show a value and, smaller, its interval; a dash where it is not known."""
    if measure is None or measure.value is None:
        return join(NONE)
    return join(
        _one(measure.value, share),
        " ",
        tag("span", f"({_range(measure, share)})", class_="interval"),
    )


def _range(measure: Measure, share: bool) -> str:
    if measure.low is None or measure.high is None:
        return "no interval"
    low, high = _one(measure.low, share), _one(measure.high, share)
    return f"{low.removesuffix(_PERCENT)}–{high}"


def _one(value: float, share: bool) -> str:
    return percent(value) if share else per_mm2(value)
