"""The biomarker: densities, atypical fraction and subtype profile of slides and patients.

Everything starts from tables of classified figures with their places; see
:mod:`atypia.biomarker.figure_table`.
"""

from atypia.biomarker.cohort_table import cohort_table, column_meanings, slides_table
from atypia.biomarker.density import Biomarkers, Counts, biomarkers_of
from atypia.biomarker.error_model import ErrorModel
from atypia.biomarker.figure_table import (
    SlideFigures,
    read_areas,
    read_patients,
    read_slides,
    slide_figures,
)
from atypia.biomarker.hotspot import Hotspot, find_hotspot
from atypia.biomarker.regions import Region, read_regions, region_of
from atypia.biomarker.slide_biomarkers import (
    HotspotChoice,
    PatientBiomarkers,
    SlideBiomarkers,
    biomarkers,
    by_patient,
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
