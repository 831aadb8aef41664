"""How pages write measures, counts, shares and names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from atypia.biomarker.error_model import LATENT
from atypia.biomarker.hotspot_chance import chance_of
from atypia.biomarker.slide_biomarkers import SCOPES
from atypia.core.labels import DISPLAY_NAMES
from atypia.evaluation.predictions import AGREED, MAJORITY
from atypia.evaluation.raters import OTHERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.biomarker.biomarker_intervals import Measure
    from atypia.biomarker.slide_biomarkers import Biomarkers, SlideBiomarkers

SHORT_NAMES: Final = DISPLAY_NAMES | {
    "amf_bipolar": "Bipolar",
    "amf_segregation": "Segregation",
    "amf_other": "Other",
    "nmf_ring": "Ring",
}
_PERCENT: Final = "\N{NO-BREAK SPACE}%"


def rater_name(name: str) -> str:
    """Name a rater in a sentence: ``expert1`` is "expert 1"."""
    named = {
        MAJORITY: "the majority vote",
        AGREED: "all experts where they agree",
        LATENT: "the truth behind the raters",
        OTHERS: "the majority of the others",
    }
    return named.get(name) or re.sub(r"^expert_?(\d+)$", r"expert \1", name)


def capital(text: str) -> str:
    """Begin a text with a capital letter; the rest stays as it is."""
    return text[:1].upper() + text[1:]


def level(metrics: Mapping[str, Any]) -> str:
    """Write the level of the intervals: "95 %"."""
    return f"{100 * metrics['interval']['level']:.0f} %"


def number(value: float | None, *, percent: bool = False) -> str:
    """Three decimals, or one in percent, with a true minus sign; a dash for None."""
    if value is None:
        return "–"
    text = f"{100 * value:.1f}" if percent else f"{value:.3f}"
    return text.replace("-", "−")


def interval(measure: Mapping[str, Any], *, percent: bool = False) -> str:
    """Write the interval of a measure in brackets."""
    low, high = measure["low"], measure["high"]
    if low is None or high is None:
        return "(no interval)"
    to = " to " if low < 0 else "–"
    return f"({number(low, percent=percent)}{to}{number(high, percent=percent)})"


def estimate(measure: Mapping[str, Any]) -> str:
    """Write a value and its interval within a sentence."""
    if measure["value"] is None:
        return "an undefined value"
    return f"{number(measure['value'])} {interval(measure)}"


def per_mm2(value: float) -> str:
    """Write a density: one decimal, two below 1."""
    return f"{value:.2f}" if 0 < value < 1 else f"{value:.1f}"


def share(value: float) -> str:
    """Write a share: a whole number of percent, one decimal below 10 %."""
    hundredths = 100 * value
    text = f"{hundredths:.1f}" if 0 < hundredths < 9.95 else f"{hundredths:.0f}"
    return text + _PERCENT


def biomarker_parts(measure: Measure | None, *, percent: bool = False) -> tuple[str, str] | None:
    """Write a value and its interval in brackets; None where there is no value."""
    if measure is None or measure.value is None:
        return None
    write = share if percent else per_mm2
    if measure.low is None or measure.high is None:
        return write(measure.value), "(no interval)"
    low, high = write(measure.low).removesuffix(_PERCENT), write(measure.high)
    return write(measure.value), f"({low}–{high})"


def biomarker_estimate(measure: Measure | None, *, percent: bool = False) -> str:
    """Write a value with its interval within a sentence."""
    return " ".join(biomarker_parts(measure, percent=percent) or ("not known",))


def atypical_measures(found: Biomarkers) -> tuple[Measure | None, Measure, bool]:
    """Density and fraction of atypical figures, and whether they are corrected for errors."""
    if found.atypical_fraction is None:
        return found.atypical_called_per_mm2, found.atypical_called_fraction, False
    return found.atypical_per_mm2, found.atypical_fraction, True


def hotspot_chance(slide: SlideBiomarkers) -> str:
    """Write what chance alone would give for the hot-spot; nothing where that is not known."""
    chance = chance_of(slide.measures["hotspot"], slide.chance)
    if chance is None or slide.chance is None:
        return ""
    density, p = chance
    which = "atypical ones" if slide.chance.random == "calls" else "figures"
    return f"by chance alone {per_mm2(density)} {which} per mm² (p = {p:.2g})"


def measures_in_words(slide: SlideBiomarkers) -> list[str]:
    """Write the measures of each area of a slide, a line each."""
    lines = []
    for scope, name in SCOPES.items():
        found = slide.measures[scope]
        if found is None or not found.counts.figures + found.counts.left_out:
            continue
        counts = found.counts
        density, fraction, corrected = atypical_measures(found)
        area = "" if counts.area_mm2 is None else f", {counts.area_mm2:.3g} mm²"
        parts = [f"{counts.figures:,} figures"]
        if counts.left_out:
            parts[0] += f" ({counts.left_out:,} candidates left out)"
        if counts.area_mm2 is not None:
            parts += [
                f"{biomarker_estimate(found.figures_per_mm2)} per mm²",
                f"atypical {biomarker_estimate(density)} per mm²",
            ]
        if fraction.value is not None:
            parts.append(f"atypical fraction {biomarker_estimate(fraction, percent=True)}")
        if scope == "hotspot" and (chance := hotspot_chance(slide)):
            parts.append(chance)
        kind = "corrected for the model's errors" if corrected else "as called"
        lines.append(f"{capital(name.removeprefix('the '))}{area}: {', '.join(parts)} ({kind})")
    return lines
