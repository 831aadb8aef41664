"""The biomarker: densities, atypical fraction and subtype profile of slides and patients.

Everything starts from tables of classified figures with their places; see
:mod:`atypia.evaluation.biomarker.slide_table`.
"""

from atypia.evaluation.biomarker.cohort_table import cohort_table, column_meanings, slides_table
from atypia.evaluation.biomarker.density import Biomarkers, Counts, biomarkers_of
from atypia.evaluation.biomarker.error_model import ErrorModel
from atypia.evaluation.biomarker.hotspot import Hotspot, find_hotspot
from atypia.evaluation.biomarker.regions import Region, read_regions, region_of
from atypia.evaluation.biomarker.slide import (
    HotspotChoice,
    PatientBiomarkers,
    SlideBiomarkers,
    biomarkers,
    by_patient,
)
from atypia.evaluation.biomarker.slide_table import (
    SlideFigures,
    read_areas,
    read_patients,
    read_slides,
    slide_figures,
)

__all__ = [
    "Biomarkers",
    "Counts",
    "ErrorModel",
    "Hotspot",
    "HotspotChoice",
    "PatientBiomarkers",
    "Region",
    "SlideBiomarkers",
    "SlideFigures",
    "biomarkers",
    "biomarkers_of",
    "by_patient",
    "cohort_table",
    "column_meanings",
    "find_hotspot",
    "read_areas",
    "read_patients",
    "read_regions",
    "read_slides",
    "region_of",
    "slide_figures",
    "slides_table",
]
