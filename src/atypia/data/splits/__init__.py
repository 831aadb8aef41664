"""Splits: which patients test, and which train and validate each member of the ensemble.

A patient never crosses a boundary. ``splits.json`` is written once and checked whenever it is
read::

    {"format": 1, "kind": "table1", "seed": 0, "cohort_sha256": "...",
     "outer": [{"test": ["P1", ...], "inner": [["P2", ...], ["P3", ...], ["P4", ...]]}]}
"""

from atypia.data.splits.kinds import KINDS, PUBLISHED, SEEDED, WHOLE
from atypia.data.splits.make import make_splits
from atypia.data.splits.missing import MissingClass, missing_classes
from atypia.data.splits.record import FORMAT_VERSION, Outer, Splits, rows
from atypia.data.splits.roles import ami_br_patients, patient_of_slide, published_roles
from atypia.data.splits.stratify import stratify

__all__ = [
    "FORMAT_VERSION",
    "KINDS",
    "PUBLISHED",
    "SEEDED",
    "WHOLE",
    "MissingClass",
    "Outer",
    "Splits",
    "ami_br_patients",
    "make_splits",
    "missing_classes",
    "patient_of_slide",
    "published_roles",
    "rows",
    "stratify",
]
