"""The published results, to stand beside those of a run that reproduces them.

They are Table 1 of the reference paper, "Classifying the AMi-Br mitotic figure dataset with
AUCMEDI": eight-class subtypes on AMi-Br, an ensemble of three ConvNeXts, on a test part of its own
that is not public. Split ``table1`` has the same number of test figures in every class, but not the
same patients.

The paper misprints two cells: 79 for the number of ana-/telophases and 0.375 % for the sensitivity
of ring shapes. Its other columns only fit 76 and 37.5 %, which stand here.
"""

from __future__ import annotations

from typing import Final

SPLIT: Final = "table1"
"""Name of the split whose test part has the class counts of :data:`TABLE_1`."""
MISPRINTS: Final = (
    "The paper prints 79 figures for ana-/telophase and a sensitivity of 0.375 % for ring shape; "
    "its other columns only fit 76 and 37.5 %, which are shown."
)
_COLUMNS: Final = ("auc", "specificity", "sensitivity", "n", "ppv", "npv")
TABLE_1: Final[dict[str, dict[str, float]]] = {
    subtype: dict(zip(_COLUMNS, row, strict=True))
    for subtype, row in {
        "amf_bipolar": (54.83, 97.50, 0.00, 21, 0.00, 98.39),
        "amf_multipolar": (94.36, 99.09, 13.80, 29, 25.00, 98.11),
        "amf_segregation": (82.40, 95.35, 15.68, 51, 11.76, 96.62),
        "amf_other": (89.22, 94.24, 43.01, 93, 35.71, 95.69),
        "nmf_anaphase_telophase": (89.85, 93.76, 60.53, 76, 36.80, 97.53),
        "nmf_metaphase": (93.82, 90.59, 82.02, 534, 85.21, 88.40),
        "nmf_prometaphase": (95.26, 94.76, 78.16, 522, 90.46, 87.20),
        "nmf_ring": (87.47, 98.71, 37.50, 16, 26.09, 99.24),
    }.items()
}
"""Subtype to the columns of the paper's Table 1: ``n``, all others in percent."""

# All as fractions, like the values of metrics.json.
MEAN_AUC: Final = 0.8590
BALANCED_ACCURACY: Final = 0.413
"""Mean sensitivity of the eight classes; follows from the paper's confusion matrix."""
BINARY_BALANCED_ACCURACY: Final = 0.79
BASELINE_BINARY_AUC: Final = (0.698, 0.026)
"""Mean and standard deviation, of an earlier classifier of atypical or normal alone."""
BASELINE_BINARY_BALANCED_ACCURACY: Final = (0.713, 0.016)
