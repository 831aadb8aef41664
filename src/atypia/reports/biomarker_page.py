"""One page per slide: what was found, how sure it is, and the figures to check it by.

It fits on one sheet of A4, see :mod:`atypia.reports.pdf`. It needs neither network nor
script.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia._version import __version__
from atypia.biomarker.slide_biomarkers import SCOPES
from atypia.core.labels import DISPLAY_NAMES, SUBTYPES
from atypia.reports.biomarker_drawings import profile_bar, slide_map, swatch
from atypia.reports.biomarker_words import NONE, cell, percent, spoken
from atypia.reports.html import Html, document, figure, join, resource, table, tag
from atypia.reports.plot_panels import data_uris
from atypia.reports.plots import SHORT_NAMES
from atypia.reports.words import capital, disclaimer, missing, rater_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.biomarker.error_model import ErrorModel
    from atypia.biomarker.slide_biomarkers import Biomarkers, SlideBiomarkers
    from atypia.reports.report_input import Patches

GALLERY: Final = 16


@dataclass(frozen=True)
class BiomarkerPage:
    """What a summary page is made from."""

    slide: SlideBiomarkers
    patches: Patches | None = None
    """Reads the images of figures, where they are at hand."""
    errors: ErrorModel | None = None
    """Those that the corrected values were corrected for."""
    model: Mapping[str, str] | None = None
    """Facts on the model, name to text."""
    missing: int = 0
    """Candidates that could not be read, or were left out as bad."""


def render_summary(summary: BiomarkerPage) -> str:
    """Render the page. Equal inputs give equal bytes."""
    slide = summary.slide
    name, found = _headline(slide)
    body = join(
        tag(
            "header",
            tag("h1", slide.source.slide),
            tag("p", _facts(slide), class_="facts"),
            tag("p", _lead(name, found), class_="lead"),
        ),
        _tiles(name, found),
        tag("div", _map(slide), _profile(name, found), class_="two"),
        _table(slide),
        _gallery(summary),
        _limits(summary),
        tag("footer", disclaimer(), tag("p", f"Made with Atypia {__version__}.", class_="note")),
    )
    page = tag("div", body, class_="summary")
    return document(f"{slide.source.slide}: biomarkers", page, resource("biomarker.css"))


def _headline(slide: SlideBiomarkers) -> tuple[str, Biomarkers]:
    """Choose the area that the page speaks of first."""
    for scope in ("hotspot", "region", "all"):
        found = slide.measures[scope]
        if found is not None:
            return SCOPES[scope], found
    raise AssertionError("all candidates are always measured")


def _facts(slide: SlideBiomarkers) -> str:
    facts = [f"Patient: {slide.source.patient}", f"{len(slide.source):,} mitotic figures"]
    if slide.mpp is not None:
        facts.append(f"{slide.mpp:.4g} µm per pixel")
    return " · ".join(facts)


def _lead(name: str, found: Biomarkers) -> str:
    counts = found.counts
    area = "" if counts.area_mm2 is None else f" ({counts.area_mm2:.3g} mm²)"
    if counts.figures == 0:
        return f"There is no mitotic figure in {name}{area}."
    figures = "1 mitotic figure" if counts.figures == 1 else f"{counts.figures:,} mitotic figures"
    text = (
        f"The model calls {counts.atypical:,} of the {figures} in {name}{area} atypical, "
        f"{percent(counts.atypical / counts.figures)} of them. "
    )
    if found.atypical_fraction is None:
        return text + (
            "This is the plain count: the model's errors are not known here, so that it is not "
            "corrected for them, and the true share may lie far from it."
        )
    return text + (
        "Corrected for the model's errors, the atypical share is "
        f"{spoken(found.atypical_fraction, share=True)}. "
        "Brackets hold 95 % intervals; those of corrected values carry both the chance of what was "
        "counted and the errors of the model."
    )


def _tiles(name: str, found: Biomarkers) -> Html:
    corrected = found.atypical_fraction is not None
    area = found.counts.area_mm2
    where = f"in {name}" + ("" if area is None else f", {area:.3g} mm²")

    def tile(title: str, value: Html, note: str) -> Html:
        return tag(
            "div",
            tag("p", title, class_="name"),
            tag("p", value, class_="value"),
            tag("p", note, class_="note"),
            class_="tile",
        )

    kind = "corrected for the model's errors" if corrected else "as called, not corrected"
    atypical = found.atypical_per_mm2 if corrected else found.atypical_called_per_mm2
    share = found.atypical_fraction if corrected else found.atypical_called_fraction
    return tag(
        "div",
        tile("Mitotic figures per mm²", cell(found.figures_per_mm2), where),
        tile("Atypical figures per mm²", cell(atypical), f"{where}; {kind}"),
        tile("Atypical fraction", cell(share, share=True), f"{where}; {kind}"),
        class_="tiles",
    )


def _map(slide: SlideBiomarkers) -> Html:
    drawn = slide_map(slide)
    if drawn is None:
        return tag("section", tag("h2", "Where they are"), missing("no figure was found"))
    hotspot = slide.hotspot
    caption = "Small dots are figures called normal, large orange ones atypical."
    if hotspot is not None:
        caption += f" Blue: the hot-spot, a {hotspot.shape} of {hotspot.area_mm2:.3g} mm²"
        if slide.hotspot_in_region is not None and slide.hotspot_in_region < 0.995:
            caption += f", {percent(slide.hotspot_in_region)} of it in the region"
        caption += "."
    if slide.region is not None:
        caption += " Dashed: the annotated region."
    return tag("section", tag("h2", "Where they are"), figure(drawn, caption))


def _profile(name: str, found: Biomarkers) -> Html:
    rows = []
    for subtype, count in zip(SUBTYPES, found.counts.subtypes, strict=True):
        called = found.called_profile[subtype].value
        rows.append(
            (
                join(swatch(subtype), DISPLAY_NAMES[subtype]),
                count,
                NONE if called is None else percent(called),
                cell(found.profile.get(subtype), share=True),
            )
        )
    return tag(
        "section",
        tag("h2", "Subtypes"),
        profile_bar(found.counts),
        table(
            f"Predicted subtypes in {name}; orange ones are atypical. The last column is corrected "
            "for the model's errors, each subtype on its own; 0–100 %: the model cannot tell.",
            ("Subtype", "Figures", "Share", "Corrected share"),
            rows,
        ),
    )


def _table(slide: SlideBiomarkers) -> Html:
    shown = [(name, m) for scope, name in SCOPES.items() if (m := slide.measures[scope])]
    corrected = any(found.atypical_fraction is not None for _, found in shown)
    rows = []
    for name, found in shown:
        counts = found.counts
        density = found.atypical_per_mm2 if corrected else found.atypical_called_per_mm2
        share = found.atypical_fraction if corrected else found.atypical_called_fraction
        rows.append(
            (
                capital(name.removeprefix("the ")),
                NONE if counts.area_mm2 is None else f"{counts.area_mm2:.3g}",
                f"{counts.figures:,}",
                f"{counts.atypical:,}",
                cell(found.figures_per_mm2),
                cell(density),
                cell(share, share=True),
            )
        )
    kind = "corrected" if corrected else "as called"
    header = (
        "Area",
        "mm²",
        "Figures",
        "Called atypical",
        "Figures per mm²",
        f"Atypical per mm², {kind}",
        f"Atypical fraction, {kind}",
    )
    section = table("All measures, with 95 % intervals. A dash: not known.", header, rows)
    return tag("section", tag("h2", "All areas"), section)


def _gallery(summary: BiomarkerPage) -> Html:
    figures = summary.slide.source.figures
    called = np.flatnonzero(figures.predicted_atypical)
    title = tag("h2", "Figures called atypical")
    if not len(called):
        return tag("section", title, tag("p", "None.", class_="note"))
    if summary.patches is None:
        return tag("section", title, missing("no images of the figures were given"))
    surest = called[np.argsort(-figures.p_atypical[called], kind="stable")][:GALLERY]
    names = [str(figures.patch_ids[i]) for i in surest]
    images = data_uris(summary.patches, names)
    shown = [
        figure(
            tag("img", src=images[name], alt=f"Figure {name}", title=name),
            f"{SHORT_NAMES[SUBTYPES[figures.predicted[i]]]}, {percent(figures.p_atypical[i])}",
        )
        for i, name in zip(surest, names, strict=True)
    ]
    which = "All of them" if len(called) <= GALLERY else f"The {GALLERY} surest of {len(called):,}"
    return tag(
        "section",
        title,
        tag("p", f"{which}, with predicted subtype and probability of atypical.", class_="note"),
        tag("div", *shown, class_="gallery"),
    )


def _limits(summary: BiomarkerPage) -> Html:
    notes = [
        "What counts as a mitotic figure was decided before Atypia, by whoever made the list of "
        "candidates; figures missed there are missed here.",
        "The hot-spot is the largest of many counts: it lies above the density of its "
        "surroundings, and another section would likely show fewer.",
        "Intervals speak of the tissue that was counted. Figures that cluster vary more from "
        "section to section.",
    ]
    if summary.missing:
        notes.insert(
            0,
            f"{summary.missing:,} candidates could not be read or were left out as bad: densities "
            "are too low by what they hold.",
        )
    errors = summary.errors
    if errors is None:
        notes.append("The model's errors are not known here: nothing is corrected for them.")
    else:
        rates = errors.rates(draws=1).atypical
        notes.append(
            f"Errors were counted on {errors.n_figures:,} figures of {errors.n_patients:,} "
            f"patients that the model had not learned from, against {rater_name(errors.label)}: "
            f"it finds {percent(rates.sensitivity)} of the atypical figures and calls "
            f"{percent(rates.false_positive_rate)} of the normal ones atypical. That holds for "
            "tissue, stain and scanner like theirs."
        )
    facts = [join(tag("dt", name), tag("dd", text)) for name, text in (summary.model or {}).items()]
    return tag(
        "section",
        tag("h2", "The model and its limits"),
        tag("dl", *facts, class_="model") if facts else None,
        tag("ul", *(tag("li", note) for note in notes), class_="limits"),
    )
