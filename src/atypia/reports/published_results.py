"""The published figures that a report puts beside its own.

They are Table 1 of the reference paper, "Classifying the AMi-Br mitotic figure dataset with
AUCMEDI": eight-class subtypes on AMi-Br, an ensemble of three ConvNeXts, on a test part of its own
that is not public. Split ``table1`` has the same number of
test figures in every class, but not the same patients.

The paper misprints two cells: 79 for the number of ana-/telophases and 0.375 % for the sensitivity
of ring shapes. Its other columns only fit 76 and 37.5 %, which stand here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class PublishedRow:
    """One class of the reference paper's Table 1. All but `n` in percent."""

    auc: float
    specificity: float
    sensitivity: float
    n: int
    ppv: float
    npv: float


TABLE_1: Final = {
    "amf_bipolar": PublishedRow(54.83, 97.50, 0.00, 21, 0.00, 98.39),
    "amf_multipolar": PublishedRow(94.36, 99.09, 13.80, 29, 25.00, 98.11),
    "amf_segregation": PublishedRow(82.40, 95.35, 15.68, 51, 11.76, 96.62),
    "amf_other": PublishedRow(89.22, 94.24, 43.01, 93, 35.71, 95.69),
    "nmf_anaphase_telophase": PublishedRow(89.85, 93.76, 60.53, 76, 36.80, 97.53),
    "nmf_metaphase": PublishedRow(93.82, 90.59, 82.02, 534, 85.21, 88.40),
    "nmf_prometaphase": PublishedRow(95.26, 94.76, 78.16, 522, 90.46, 87.20),
    "nmf_ring": PublishedRow(87.47, 98.71, 37.50, 16, 26.09, 99.24),
}
SPLIT: Final = "table1"
"""Name of the split whose test part has the class counts of :data:`TABLE_1`."""

MISPRINTS: Final = (
    "The paper prints 79 figures for ana-/telophase and a sensitivity of 0.375 % for ring shape; "
    "its other columns only fit 76 and 37.5 %, which are shown."
)

# All as fractions, like the values of metrics.json.
MEAN_AUC: Final = 0.8590
BALANCED_ACCURACY: Final = 0.413
"""Mean sensitivity of the eight classes; follows from the paper's confusion matrix."""
BINARY_BALANCED_ACCURACY: Final = 0.79


@dataclass(frozen=True)
class MeanAndSpread:
    """A published mean ± standard deviation, as fractions."""

    mean: float
    spread: float


# The earlier classifier that told only atypical from normal.
BASELINE_BINARY_AUC: Final = MeanAndSpread(0.698, 0.026)
BASELINE_BINARY_BALANCED_ACCURACY: Final = MeanAndSpread(0.713, 0.016)
