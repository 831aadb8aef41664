"""Tables for statistics: one row per patient or per slide, units in the names of the columns.

An empty cell is a value that is not known or not defined. It is never a zero.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from atypia.biomarker.hotspot_chance import chance_of
from atypia.biomarker.slide_biomarkers import SCOPES
from atypia.core.labels import DISPLAY_NAMES, SUBTYPES, left_out
from atypia.evaluation.intervals import LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from atypia.biomarker.biomarker_intervals import Measure
    from atypia.biomarker.correction import Correction
    from atypia.biomarker.detector_audit import DetectorAudit
    from atypia.biomarker.error_model import ModelErrors
    from atypia.biomarker.hotspot_chance import Chance
    from atypia.biomarker.hotspot_search import HotspotChoice
    from atypia.biomarker.patient_biomarkers import PatientBiomarkers
    from atypia.biomarker.slide_biomarkers import (
        Biomarkers,
        Scope,
        SlideBiomarkers,
    )

log = logging.getLogger("atypia")

_BOTH: Final = "interval of counting error and the model's errors"
_COUNTING: Final = "interval of counting error"
_MEASURES: Final = {
    "figures_per_mm2": ("1/mm2", f"mitotic figures per mm2; {_COUNTING}"),
    "figures_per_mm2_corrected": (
        "1/mm2",
        "mitoses per mm2 by an audit of the detector: times its precision, over its recall where "
        "fields were searched; interval of counting and of the audit",
    ),
    "atypical_per_mm2": (
        "1/mm2",
        f"atypical figures per mm2, corrected for the model's errors; {_BOTH}",
    ),
    "atypical_called_per_mm2": (
        "1/mm2",
        f"figures called atypical per mm2, not corrected; {_COUNTING}",
    ),
    "atypical_fraction": (
        "0 to 1",
        f"atypical share of the figures, corrected for the model's errors; {_BOTH}",
    ),
    "atypical_called_fraction": (
        "0 to 1",
        f"share of the figures called atypical, not corrected; {_COUNTING}",
    ),
}

_NUMBERS: Final = {
    "atypical_fraction_se": (
        "0 to 1",
        "standard error of the corrected atypical fraction, on the scale of the fraction",
    ),
    "mean_p_atypical": ("0 to 1", "mean p_atypical of the figures, as the model gave it"),
}


def cohort_table(patients: Sequence[PatientBiomarkers]) -> pd.DataFrame:
    """One row per patient; columns as in :func:`column_meanings`."""
    return _table(
        {
            "patient_id": patient.patient,
            "n_slides": len(patient.slides),
            "slides": ";".join(patient.slides),
            "hotspot_slide": patient.hotspot_slide,
            **_chance(patient.measures["hotspot"], patient.chance),
            **_cells(patient.measures),
        }
        for patient in patients
    )


def slides_table(slides: Sequence[SlideBiomarkers]) -> pd.DataFrame:
    """One row per slide; columns as in :func:`column_meanings`."""
    return _table(
        {
            "slide": slide.source.slide,
            "patient_id": slide.source.patient,
            "hotspot_x_um": slide.hotspot.centre_um[0] if slide.hotspot else None,
            "hotspot_y_um": slide.hotspot.centre_um[1] if slide.hotspot else None,
            "hotspot_share_in_region": slide.hotspot_in_region,
            "hotspot_tissue_mm2": slide.hotspot_tissue_mm2,
            "tissue_mm2": slide.tissue_mm2,
            **_chance(slide.measures["hotspot"], slide.chance),
            **_cells(slide.measures),
        }
        for slide in slides
    )


def column_meanings() -> pd.DataFrame:
    """Name, unit and meaning of every column of both tables."""
    rows = [
        ("patient_id", "", "the patient"),
        ("slide", "", "the slide"),
        ("n_slides", "count", "slides of the patient"),
        ("slides", "", "their names, separated by semicolons"),
        ("hotspot_slide", "", "the slide whose hot-spot holds most figures; it is the patient's"),
        ("hotspot_x_um", "um", "centre of the hot-spot on the slide"),
        ("hotspot_y_um", "um", "centre of the hot-spot on the slide, downwards"),
        ("hotspot_share_in_region", "0 to 1", "share of the hot-spot in the annotated region"),
        ("hotspot_tissue_mm2", "mm2", "area of tissue in the hot-spot"),
        ("tissue_mm2", "mm2", "area of tissue on the slide, by its colour at low resolution"),
        (
            "hotspot_chance_per_mm2",
            "1/mm2",
            "density to be expected in the densest place by chance alone. Of a hot-spot of most "
            "atypical figures: that of atypical figures, their calls shuffled over the figures; of "
            "most figures: that of all, scattered evenly over the tissue or the region",
        ),
        ("hotspot_chance_p", "0 to 1", "p-value of the hot-spot: at least as dense by that chance"),
    ]
    for scope, place in SCOPES.items():
        rows.append((f"{scope}_area_mm2", "mm2", f"area of {place}"))
        rows.append((f"{scope}_figures_n", "count", f"mitotic figures in {place}"))
        rows.append((f"{scope}_atypical_called_n", "count", f"called atypical in {place}"))
        without = f"candidates in {place} without a call, not among its figures"
        rows.append((f"{scope}_left_out_n", "count", without))
        for name, (unit, meaning) in _MEASURES.items():
            rows.append((f"{scope}_{name}", unit, f"{place}: {meaning}"))
            for bound in ("low", "high"):
                rows.append((f"{scope}_{name}_{bound}", unit, f"{bound} end of that interval"))
        for name, (unit, meaning) in _NUMBERS.items():
            rows.append((f"{scope}_{name}", unit, f"{place}: {meaning}"))
        for subtype in SUBTYPES:
            meaning = f"predicted {DISPLAY_NAMES[subtype].lower()} in {place}, not corrected"
            rows.append((f"{scope}_{subtype}_n", "count", meaning))
    return pd.DataFrame(rows, columns=["column", "unit", "meaning"])


def log_unknown_areas(slides: Sequence[SlideBiomarkers]) -> None:
    """Warn of slides whose region has no area, as their resolution is unknown."""
    unknown = [s.source.slide for s in slides if s.region is not None and s.mpp is None]
    if unknown:
        log.warning(
            "%d slides have a region but no figure that gives their µm per pixel: no area, and "
            "so no density, though nothing was found there. Give --slides. They are: %s",
            len(unknown),
            ", ".join(unknown),
        )


def as_json(
    slides: Sequence[SlideBiomarkers],
    patients: Sequence[PatientBiomarkers],
    choice: HotspotChoice,
    model: ModelErrors,
    correction: Correction | None = None,
    audit: DetectorAudit | None = None,
) -> dict[str, Any]:
    """Everything that was measured, and by which choices, for strict JSON."""

    def measures(found: Mapping[Scope, Biomarkers | None]) -> dict[str, Any]:
        return {scope: None if m is None else asdict(m) for scope, m in found.items()}

    errors = None
    if correction is not None:
        own = correction.errors
        errors = {
            "label": correction.label,
            "other_labels": [*correction.others],
            "n_figures": own.n_figures,
            "n_patients": own.n_patients,
            "atypical": own.calls.tolist(),
            "site": {"log_odds_shift": correction.shift, "calibrated_at": own.prevalence},
        }
    return {
        "hotspot": asdict(choice),
        "interval": {"level": LEVEL},
        "model": model.facts,
        "errors": errors,
        "detector_audit": audit and audit.facts(),
        "slides": [
            {
                "slide": slide.source.slide,
                "patient_id": slide.source.patient,
                "mpp": slide.mpp,
                "left_out": left_out(slide.source.left_out.status),
                "hotspot_centre_um": slide.hotspot.centre_um if slide.hotspot else None,
                "hotspot_outline_um": np.round(slide.hotspot.outline_um, 2).tolist()
                if slide.hotspot
                else None,
                "hotspot_share_in_region": slide.hotspot_in_region,
                "hotspot_tissue_mm2": slide.hotspot_tissue_mm2,
                "tissue_mm2": slide.tissue_mm2,
                **_chance(slide.measures["hotspot"], slide.chance),
                "measures": measures(slide.measures),
            }
            for slide in slides
        ],
        "patients": [
            {
                "patient": patient.patient,
                "slides": patient.slides,
                "hotspot_slide": patient.hotspot_slide,
                **_chance(patient.measures["hotspot"], patient.chance),
                "measures": measures(patient.measures),
            }
            for patient in patients
        ],
    }


def _chance(hotspot: Biomarkers | None, chance: Chance | None) -> dict[str, float | None]:
    per_mm2, p = chance_of(hotspot, chance) or (None, None)
    return {"hotspot_chance_per_mm2": per_mm2, "hotspot_chance_p": p}


def _cells(measures: Mapping[Scope, Biomarkers | None]) -> dict[str, float | int | None]:
    cells: dict[str, float | int | None] = {}
    for scope in SCOPES:
        found = measures[scope]
        counts = None if found is None else found.counts
        cells[f"{scope}_area_mm2"] = None if counts is None else counts.area_mm2
        cells[f"{scope}_figures_n"] = None if counts is None else counts.figures
        cells[f"{scope}_atypical_called_n"] = None if counts is None else counts.atypical
        cells[f"{scope}_left_out_n"] = None if counts is None else counts.left_out
        for name in _MEASURES:
            measure: Measure | None = None if found is None else getattr(found, name)
            cells[f"{scope}_{name}"] = None if measure is None else measure.value
            cells[f"{scope}_{name}_low"] = None if measure is None else measure.low
            cells[f"{scope}_{name}_high"] = None if measure is None else measure.high
        for name in _NUMBERS:
            cells[f"{scope}_{name}"] = None if found is None else getattr(found, name)
        for i, subtype in enumerate(SUBTYPES):
            cells[f"{scope}_{subtype}_n"] = None if counts is None else counts.subtypes[i]
    return cells


def _table(rows: Iterator[dict[str, object]]) -> pd.DataFrame:
    table = pd.DataFrame(list(rows))
    counts = [column for column in table.columns if column.endswith("_n")]
    return table.astype(dict.fromkeys(counts, "Int64"))  # whole numbers that may be missing
