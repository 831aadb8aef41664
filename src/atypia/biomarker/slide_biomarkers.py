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
from atypia.biomarker.hotspot_chance import Chance, chance_of
from atypia.biomarker.hotspot_search import HotspotChoice, search_hotspot
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
    from atypia.biomarker.hotspot import Hotspot
    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray
    from atypia.slides import SlideInfo
    from atypia.slides.tissue import Tissue

log = logging.getLogger("atypia")

Scope: TypeAlias = Literal["region", "all", "hotspot"]

_RANDOM_PLACES: Final = 64

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
    figures_per_mm2_corrected: Measure | None = None
    """Density of mitotic figures, corrected for the detector's errors where they were audited."""

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
    ground_mm2: float | None = None
    """Area of the tissue within the region, or of that which is known of the two."""
    random_places_um: FloatArray = field(default_factory=lambda: np.empty((0, 2)))
    """(R, 2) some points evenly at random on that area; none where it is not known."""

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
        return {name: float(f"{value:.6g}") for name, value in measurements.items()}


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
    size = choice.area_mm2
    pixel = np.full(2, mpp) if source.um_per_px is None and mpp is not None else source.um_per_px
    ground = tissue if region is None or pixel is None else region.tissue(pixel, tissue)
    limits = [area_mm2 if region is None else region_mm2, extent_mm2]
    hotspot = chance = in_tissue = in_region = None
    called = figures.predicted_atypical[inside]
    fits = all(limit is None or limit >= size for limit in limits)
    if fits and (
        found := search_hotspot(source.centres_um[inside], called, choice, tissue, ground)
    ):
        hotspot, chance, in_tissue = found
        there = inside & (hotspot is not None and hotspot.contains(source.centres_um))
        counted = measure("hotspot", there, size)
        measures["hotspot"] = counted if choice.of == "all" else counted.without_shares()
        if hotspot is not None and region is not None and pixel is not None:
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
        *(() if ground is None else (ground.area_mm2, ground.scattered(_RANDOM_PLACES))),
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
