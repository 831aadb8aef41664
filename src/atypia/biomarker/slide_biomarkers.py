"""Counts, densities, fractions and profile of an area, of a slide in three areas, of a patient."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from atypia.biomarker.biomarker_intervals import (
    Measure,
    binomial_interval,
    joint_density,
    poisson_interval,
)
from atypia.biomarker.figure_table import SlideFigures, slide_figures
from atypia.biomarker.hotspot import AREA_MM2, Hotspot, Shape, TissueWindows, find_hotspot
from atypia.biomarker.hotspot_chance import Chance, scattered_places, shuffled_calls
from atypia.biomarker.label_errors import SIDE
from atypia.biomarker.regions import Region, region_of
from atypia.core.errors import MissingExtraError
from atypia.core.labels import N_SUBTYPES, SUBTYPES
from atypia.evaluation.intervals import LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from atypia.biomarker.correction import Correction
    from atypia.biomarker.error_model import ModelErrors
    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray
    from atypia.slides import SlideInfo
    from atypia.slides.tissue import Tissue

log = logging.getLogger("atypia")

Scope: TypeAlias = Literal["region", "all", "hotspot"]

SCOPES: Final[dict[Scope, str]] = {
    "region": "the annotated region",
    "all": "all candidates of the slide",
    "hotspot": "the hot-spot",
}


@dataclass(frozen=True)
class Counts:
    """What was counted within an area; counts of several slides add up."""

    figures: int
    atypical: int
    """Called atypical at the model's threshold."""
    subtypes: tuple[int, ...]
    """Predicted subtypes, in the order of :data:`atypia.core.labels.SUBTYPES`."""
    area_mm2: float | None
    """None where it is not known."""
    left_out: int = 0
    """Candidates without a call, which are none of the figures."""

    @classmethod
    def of(cls, predicted: IntArray, atypical: BoolArray, area_mm2: float | None) -> Counts:
        """Count figures by their predicted subtypes (N,) and calls (N,)."""
        subtypes = np.bincount(predicted, minlength=N_SUBTYPES)
        return cls(len(predicted), int(atypical.sum()), tuple(map(int, subtypes)), area_mm2)

    def __add__(self, other: Counts) -> Counts:
        """Add counts and areas; the area is unknown where either is."""
        areas = (self.area_mm2, other.area_mm2)
        return Counts(
            self.figures + other.figures,
            self.atypical + other.atypical,
            tuple(a + b for a, b in zip(self.subtypes, other.subtypes, strict=True)),
            None if None in areas else sum(a for a in areas if a is not None),
            self.left_out + other.left_out,
        )


@dataclass(frozen=True)
class Biomarkers:
    """The measures of one area.

    A density is None without an area, a corrected value without errors to correct for. A fraction
    of no figures is undefined.
    """

    counts: Counts
    figures_per_mm2: Measure | None
    """Density of mitotic figures; its interval is that of counting."""
    atypical_called_per_mm2: Measure | None
    """Density of the figures called atypical; its interval is that of counting."""
    atypical_per_mm2: Measure | None
    """Density of atypical figures, corrected for the model's errors, with both errors."""
    atypical_called_fraction: Measure
    """Share of the figures called atypical; its interval is that of counting."""
    atypical_fraction: Measure | None
    """Atypical fraction, corrected for the model's errors, with both errors."""
    atypical_fraction_se: float | None
    """Its standard error, on the scale of the fraction itself."""
    mean_p_atypical: float | None
    """Mean probability of atypical, as the model gave it."""
    called_profile: Mapping[str, Measure]
    """Subtype to its share of the predictions; intervals of counting."""
    profile: Mapping[str, Measure]
    """Subtype to its corrected share, which add up to 1; empty without errors of subtypes."""
    by_label: Mapping[str, float] = field(default_factory=dict)
    """Corrected atypical fraction by the other labels that errors are known for."""

    def without_shares(self) -> Biomarkers:
        """Leave every share undefined: one of a place that its calls have chosen is too high."""
        undefined = Measure(None, None, None)
        return replace(
            self,
            atypical_called_fraction=undefined,
            atypical_fraction=None if self.atypical_fraction is None else undefined,
            atypical_fraction_se=None,
            mean_p_atypical=None,
            by_label={},
            called_profile=dict.fromkeys(self.called_profile, undefined),
            profile=dict.fromkeys(self.profile, undefined),
        )


def biomarkers_of(
    counts: Counts,
    probabilities: FloatArray,
    correction: Correction | None,
    level: float = LEVEL,
) -> Biomarkers:
    """Estimate every measure of one area from its figures' probabilities (N, 8).

    Without `correction` none is corrected.
    """
    n, called, area = counts.figures, counts.atypical, counts.area_mm2

    def density(count: int) -> Measure | None:
        return None if area is None else poisson_interval(count, level).scaled(1 / area)

    undefined = Measure(None, None, None)
    shares = correction.shares(probabilities) if correction is not None and n else None
    per_mm2, fraction, profile = None, None if correction is None else undefined, {}
    if correction is not None and area is not None:
        fractions = np.empty(0) if shares is None else shares.draws @ SIDE
        per_mm2 = joint_density(n, area, shares.fraction if shares else 0.0, fractions, level)
    if shares is not None:
        fraction = shares.atypical(level)
    if correction is not None and correction.errors.has_subtypes:
        profile = {
            subtype: shares.subtype(c, level) if shares else undefined
            for c, subtype in enumerate(SUBTYPES)
        }
    others = correction.others if correction is not None and n else {}
    return Biomarkers(
        counts=counts,
        figures_per_mm2=density(n),
        atypical_called_per_mm2=density(called),
        atypical_per_mm2=per_mm2,
        atypical_called_fraction=binomial_interval(called, n, level),
        atypical_fraction=fraction,
        atypical_fraction_se=None if shares is None else shares.standard_error,
        mean_p_atypical=float((probabilities @ SIDE).mean()) if n else None,
        called_profile={
            subtype: binomial_interval(count, n, level)
            for subtype, count in zip(SUBTYPES, counts.subtypes, strict=True)
        },
        profile=profile,
        by_label={name: float(by.mean(probabilities) @ SIDE) for name, by in others.items()},
    )


@dataclass(frozen=True)
class HotspotChoice:
    """Which hot-spot is looked for."""

    area_mm2: float = AREA_MM2
    shape: Shape = "circle"
    of: Literal["all", "atypical"] = "all"
    """Most mitotic figures of all kinds, or most that are called atypical.

    A hot-spot that atypical figures have chosen has a density but no share of them."""


@dataclass(frozen=True)
class SlideBiomarkers:
    """What was found on one slide."""

    source: SlideFigures
    measures: Mapping[Scope, Biomarkers | None]
    """None where an area does not apply: no annotated region, or too little tissue for a
    hot-spot."""
    hotspot: Hotspot | None
    """Where the hot-spot lies; None where there is none, or no figure to place it by."""
    hotspot_in_region: float | None
    """Share of the hot-spot's area that lies in the annotated region; None without a region."""
    region: Region | None
    mpp: float | None
    """µm per pixel."""
    inside: Mapping[Scope, BoolArray]
    """(N,) which figures lie in each area that has measures."""
    chance: Chance | None = None
    """How full the hot-spot would be by chance alone; None where that is not known."""
    tissue_mm2: float | None = None
    """Area of the tissue on the slide, where it is known."""
    hotspot_tissue_mm2: float | None = None
    """Area of the tissue in the hot-spot."""

    def hotspot_outline(self, origin: tuple[int, int]) -> dict[str, Any] | None:
        """GeoJSON of the hot-spot, px from `origin` on as QuPath counts; None without one."""
        if self.hotspot is None or self.source.um_per_px is None:
            return None
        ring = self.hotspot.outline_um / self.source.um_per_px - np.array(origin)
        feature = {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [np.round(ring, 2).tolist()]},
            "properties": {
                "objectType": "annotation",
                "name": f"Hot-spot, {self.hotspot.area_mm2:.3g} mm²",
                "slide": self.source.slide,
                "measurements": self._hotspot_measurements(),
            },
        }
        return {"type": "FeatureCollection", "features": [feature]}

    def _hotspot_measurements(self) -> dict[str, float]:
        found = self.measures["hotspot"]
        if found is None or found.counts.area_mm2 is None:
            return {}
        measurements = {
            "Mitotic figures per mm^2": found.counts.figures / found.counts.area_mm2,
            "Called atypical per mm^2": found.counts.atypical / found.counts.area_mm2,
        }
        if (chance := chance_of(found, self.chance)) is not None:
            measurements["By chance alone per mm^2"], measurements["p of chance alone"] = chance
        return measurements


@dataclass(frozen=True)
class PatientBiomarkers:
    """What was found on all slides of one patient."""

    patient: str
    slides: tuple[str, ...]
    hotspot_slide: str | None
    """The slide whose hot-spot counts for the patient."""
    measures: Mapping[Scope, Biomarkers | None]
    chance: Chance | None = None
    """How full the fullest hot-spot of these slides would be by chance alone."""


def chance_of(hotspot: Biomarkers | None, chance: Chance | None) -> tuple[float, float] | None:
    """Density of the fullest window by chance, per mm², and the p-value of the one found.

    None where there is no hot-spot, or nothing is known of chance. It is a density of the figures
    called atypical where their calls are random, and of all where their places are.
    """
    if hotspot is None or chance is None or hotspot.counts.area_mm2 is None:
        return None
    counts = hotspot.counts
    found = counts.atypical if chance.random == "calls" else counts.figures
    return chance.expected / hotspot.counts.area_mm2, chance.p_value(found)


def biomarkers(
    source: SlideFigures,
    area_mm2: float | None = None,
    region: Region | None = None,
    mpp: float | None = None,
    choice: HotspotChoice | None = None,
    correction: Correction | None = None,
    level: float = LEVEL,
    extent_mm2: float | None = None,
    tissue: Tissue | None = None,
) -> SlideBiomarkers:
    """Measure one slide. Candidates without a call are counted apart and are in no measure.

    With a region, the hot-spot is the window with most figures *of the region*; figures outside do
    not count even inside the window. The window may cross the border of the region, as fields of
    view at an invasive front do, and its density refers to its full area. Where the tissue is
    known, the window lies on it (:class:`TissueWindows`). A tissue that is smaller than the
    hot-spot has none.

    Args:
        source: The figures.
        area_mm2: Area in which candidates were searched; None where it is not known.
        region: The annotated region.
        mpp: µm per pixel, where there is no figure to derive it from.
        choice: Which hot-spot; by default most figures in a circle of 2.37 mm².
        correction: Of the model's errors; None leaves corrected values out.
        level: Coverage of the intervals.
        extent_mm2: Area of the whole image, where it is known.
        tissue: Where tissue lies on the slide, where that is known.
    """
    choice = choice or HotspotChoice()
    source = source.counted()
    mpp = source.mpp or mpp
    figures = source.figures

    within: dict[Scope, BoolArray] = {}

    def measure(scope: Scope, inside: BoolArray, area: float | None) -> Biomarkers:
        within[scope] = inside
        counts = Counts.of(figures.predicted[inside], figures.predicted_atypical[inside], area)
        return biomarkers_of(counts, figures.probabilities[inside], correction, level)

    everywhere = figures.p_atypical >= 0  # all of them
    inside = everywhere if region is None else region.contains(source.centres_px)
    region_mm2 = None if region is None or mpp is None else region.area_mm2(mpp)
    measures: dict[Scope, Biomarkers | None] = {
        "region": None if region is None else measure("region", inside, region_mm2),
        "all": measure("all", everywhere, area_mm2),
        "hotspot": None,
    }
    size, shape = choice.area_mm2, choice.shape
    pixel = np.full(2, mpp) if source.um_per_px is None and mpp is not None else source.um_per_px
    ground = tissue if region is None or pixel is None else region.tissue(pixel, tissue)
    windows = None if tissue is None else TissueWindows(tissue, size, shape)
    limits = [area_mm2 if region is None else region_mm2, extent_mm2]
    limits += [ground.area_mm2] if ground is not None and tissue is not None else []
    hotspot = in_region = in_tissue = chance = None
    if all(limit is None or limit >= size for limit in limits) and (windows is None or windows.any):
        wanted = inside & (figures.predicted_atypical | (choice.of == "all"))
        # Where nothing is atypical, the place of most figures stands in.
        sought = source.centres_um[wanted if wanted.any() else inside]
        hotspot = find_hotspot(sought, size, shape, windows)
        there = inside & (hotspot is not None and hotspot.contains(source.centres_um))
        found = measure("hotspot", there, size)
        measures["hotspot"] = found if choice.of == "all" else found.without_shares()
        if hotspot is not None:
            if choice.of == "atypical":
                places, called = source.centres_um[inside], figures.predicted_atypical[inside]
                chance = shuffled_calls(places, called, size, shape, windows)
            elif ground is not None:
                chance = scattered_places(int(inside.sum()), ground, size, shape, windows)
            if windows is not None:
                in_tissue = size * float(windows.share(np.array([hotspot.centre_um]))[0])
            if region is not None and pixel is not None:
                in_region = region.share_of(hotspot.outline_um / pixel)
    return SlideBiomarkers(
        source,
        _with_left_out(measures, source, region, hotspot),
        hotspot,
        in_region,
        region,
        mpp,
        within,
        chance,
        None if tissue is None else tissue.area_mm2,
        in_tissue,
    )


def _with_left_out(
    measures: Mapping[Scope, Biomarkers | None],
    source: SlideFigures,
    region: Region | None,
    hotspot: Hotspot | None,
) -> dict[Scope, Biomarkers | None]:
    """Note with the counts of each area how many of its candidates have no call."""
    apart = source.left_out
    everywhere = np.ones(len(apart.status), dtype=np.bool_)
    inside = everywhere if region is None else region.contains(apart.centres_px)
    there = {
        "region": inside,
        "all": everywhere,
        "hotspot": ~everywhere if hotspot is None else inside & hotspot.contains(apart.centres_um),
    }
    return {
        scope: found
        and replace(found, counts=replace(found.counts, left_out=int(there[scope].sum())))
        for scope, found in measures.items()
    }


def measure_table(
    table: pd.DataFrame,
    regions: Sequence[Mapping[str, Any]],
    slide: SlideInfo,
    errors: ModelErrors | None = None,
    tissue: Tissue | None = None,
    *,
    count_all: bool = False,
) -> SlideBiomarkers:
    """Measure the figures of a slide at hand; `regions` are GeoJSON geometries, px on level 0.

    The slide is corrected as a site of its own. `count_all` is that of
    :meth:`SlideFigures.counted`.
    """
    region = None
    try:
        region = region_of(regions)
    except MissingExtraError as error:
        log.warning("The annotated regions are not measured. %s", error)
    extent = None if slide.mpp is None else slide.width * slide.height * slide.mpp**2 / 1e6
    source = slide_figures(table, slide.path.name).counted(count_all=count_all)
    correction = errors.at_site([source]) if errors is not None else None
    return biomarkers(
        source, None, region, slide.mpp, None, correction, extent_mm2=extent, tissue=tissue
    )


def by_patient(
    slides: Sequence[SlideBiomarkers],
    correction: Correction | None = None,
    of: Literal["all", "atypical"] = "all",
    level: float = LEVEL,
) -> list[PatientBiomarkers]:
    """Aggregate the slides of each patient: counts and areas add up, the fullest hot-spot counts.

    A measure of an area that not every slide of the patient has is None.
    """
    of_patient: dict[str, list[SlideBiomarkers]] = {}
    for slide in slides:
        of_patient.setdefault(slide.source.patient, []).append(slide)
    patients = []
    for patient, own in sorted(of_patient.items()):
        hotspots = [(s.source.slide, m) for s in own if (m := s.measures["hotspot"]) is not None]
        fullest = max(
            hotspots,
            key=lambda h: h[1].counts.figures if of == "all" else h[1].counts.atypical,
            default=None,
        )
        patients.append(
            PatientBiomarkers(
                patient,
                tuple(slide.source.slide for slide in own),
                fullest[0] if fullest else None,
                {
                    "region": _sum(own, "region", correction, level),
                    "all": _sum(own, "all", correction, level),
                    "hotspot": fullest[1] if fullest else None,
                },
                Chance.of_slides([slide.chance for slide in own if slide.hotspot is not None]),
            )
        )
    return patients


def _sum(
    slides: Sequence[SlideBiomarkers], scope: Scope, correction: Correction | None, level: float
) -> Biomarkers | None:
    known = [part.counts for slide in slides if (part := slide.measures[scope]) is not None]
    if len(known) < len(slides):
        return None
    total = known[0]
    for counts in known[1:]:
        total += counts
    figures = [slide.source.figures.probabilities[slide.inside[scope]] for slide in slides]
    return biomarkers_of(total, np.concatenate(figures), correction, level)
