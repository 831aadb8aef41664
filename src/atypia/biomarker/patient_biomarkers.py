"""Measures of a patient: those of all slides together, and the fullest hot-spot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from atypia.biomarker.hotspot_chance import Chance
from atypia.biomarker.slide_biomarkers import biomarkers_of
from atypia.evaluation.intervals import LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atypia.biomarker.correction import Correction
    from atypia.biomarker.slide_biomarkers import Biomarkers, Scope, SlideBiomarkers


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
