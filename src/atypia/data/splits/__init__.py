"""Splits: which patients test, and which train and validate each member of the ensemble.

A patient never crosses a boundary. ``splits.json`` is written once and checked whenever it is
read::

    {"format": 1, "kind": "table1", "seed": 0, "cohort_sha256": "...",
     "outer": [{"test": ["P1", ...], "inner": [["P2", ...], ["P3", ...], ["P4", ...]]}]}
"""

from atypia.data.splits.split_making import (
    KINDS,
    PUBLISHED,
    SEEDED,
    WHOLE,
    ami_br_patients,
    leaking,
    make_splits,
    patient_of_slide,
    published_roles,
    stratify,
    with_true_patients,
)
from atypia.data.splits.split_record import (
    FORMAT_VERSION,
    MissingClass,
    Outer,
    Splits,
    missing_classes,
    rows,
)

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
    "leaking",
    "make_splits",
    "missing_classes",
    "patient_of_slide",
    "published_roles",
    "rows",
    "stratify",
    "with_true_patients",
]
