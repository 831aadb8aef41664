"""The biomarker: densities, atypical fraction and subtype profile of slides and patients.

Everything starts from tables of classified figures with their places; see
:mod:`atypia.biomarker.figure_table`.
"""

from atypia.biomarker.cohort_table import (
    as_json,
    cohort_table,
    column_meanings,
    log_unknown_areas,
    slides_table,
)
from atypia.biomarker.detector_audit import DetectorAudit, audit_plan, read_audit
from atypia.biomarker.error_model import ErrorModel, ModelErrors, NoErrorsError, model_errors
from atypia.biomarker.figure_table import (
    SlideFigures,
    areas_of,
    images_of,
    open_image,
    read_patients,
    read_slides,
    slide_figures,
)
from atypia.biomarker.hotspot import find_hotspot
from atypia.biomarker.hotspot_search import HotspotChoice
from atypia.biomarker.patient_biomarkers import PatientBiomarkers, by_patient
from atypia.biomarker.regions import Region, read_regions, region_of
from atypia.biomarker.slide_biomarkers import (
    SlideBiomarkers,
    biomarkers,
    measure_table,
)

__all__ = [
    "DetectorAudit",
    "ErrorModel",
    "HotspotChoice",
    "ModelErrors",
    "NoErrorsError",
    "PatientBiomarkers",
    "Region",
    "SlideBiomarkers",
    "SlideFigures",
    "areas_of",
    "as_json",
    "audit_plan",
    "biomarkers",
    "by_patient",
    "cohort_table",
    "column_meanings",
    "find_hotspot",
    "images_of",
    "log_unknown_areas",
    "measure_table",
    "model_errors",
    "open_image",
    "read_audit",
    "read_patients",
    "read_regions",
    "read_slides",
    "region_of",
    "slide_figures",
    "slides_table",
]
