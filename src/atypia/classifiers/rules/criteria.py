"""What each subtype looks like, as fuzzy criteria of measures.

They follow, in our words, the definitions that pathologists share (Donovan et al., "Mitotic
figures - normal, atypical, and mimics: a guide to identification", Veterinary Pathology 58(2),
2021):

- prometaphase: a clumped, knobbly aggregate without a nuclear membrane;
- metaphase: a band or plate across the cell, with short projections; ring: the plate seen from a
  pole, clear in the middle;
- ana-/telophase: two parallel bands of equal size apart from each other, nothing between them;
- bipolar asymmetric: two such sets, one of them clearly smaller;
- multipolar: three or more plates, or one plate with three or more arms;
- segregation abnormality: chromosomes left behind, as a bridge or as laggards between two sets, or
  away from the plate, towards a pole;
- other atypical: irregular clumps, bent or broken plates and scattered fragments that fit no phase.

Each criterion turns one measure into a degree of truth (Zadeh, "Fuzzy sets", Information and
Control 8, 1965). Its two constants are round numbers in the measure's own unit: the value at which
it hardly holds (0.1) and the one at which it mostly does (0.9). Chromosome plates are 2 to 4 µm
thick and 6 to 10 µm long; where neither that nor geometry sets a constant, it was set by eye on the
training patients of the split ``table1`` of AMi-Br. Nothing is fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.labels import SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

_FLOOR: Final = 0.05
"""Least truth of a criterion: the segmentation may err, so none rules a subtype out alone."""
_LOGIT_90: Final = math.log(9)
"""The logistic curve is at 0.1 and 0.9 this far left and right of its middle."""
STRENGTH: Final = 5
"""A rule weighs like so many criteria, however many it has."""

_COUNTS: Final = {
    "amf_bipolar": 38,
    "amf_multipolar": 42,
    "amf_segregation": 103,
    "amf_other": 162,
    "nmf_anaphase_telophase": 177,
    "nmf_metaphase": 815,
    "nmf_prometaphase": 1005,
    "nmf_ring": 36,
}
"""Figures of each subtype by expert 1 among the 162 training patients of ``table1``."""


def prior() -> npt.NDArray[np.float64]:
    """Class prior (8,): how frequent the subtypes are."""
    counts = np.array([_COUNTS[subtype] for subtype in SUBTYPES], dtype=np.float64)
    return np.asarray(counts / counts.sum())


@dataclass(frozen=True)
class Criterion:
    """A degree of truth, read from one measure."""

    measure: str
    """Name of a field of :class:`atypia.classifiers.rules.shape_measures.Measures`."""
    hardly: float
    """Value at which it is hardly true: 0.1."""
    mostly: float
    """Value at which it is mostly true: 0.9."""
    words: str
    """What is so if it is true."""
    otherwise: str
    """What is so if it is not."""

    def truth(self, value: float) -> float:
        """Degree of truth, from :data:`_FLOOR` to 1, along a logistic curve."""
        z = 2 * (value - self.hardly) / (self.mostly - self.hardly) - 1
        fuzzy = 1 / (1 + math.exp(-max(-50.0, min(50.0, _LOGIT_90 * z))))
        return _FLOOR + (1 - _FLOOR) * fuzzy


@dataclass(frozen=True)
class Rule:
    """One way for a figure to be of a subtype: all of the criteria hold."""

    subtype: str
    name: str
    criteria: tuple[Criterion, ...]

    def truth(self, measures: Mapping[str, float]) -> float:
        """Geometric mean of the criteria's truths."""
        logs = [math.log(c.truth(measures[c.measure])) for c in self.criteria]
        return math.exp(sum(logs) / len(logs))


_TWO_SETS: Final = (
    Criterion("cleft", 0.6, 0.95, "a clear cleft", "no clear cleft"),
    Criterion("halves_apart_um", 3.5, 5.0, "two sets apart", "chromatin close together"),
    Criterion("halves_across_deg", 40, 65, "lying across their axis", "lying along their axis"),
    Criterion("lagging", 1.0, 0.6, "nothing left between", "chromatin left between"),
)
"""Of every figure past metaphase."""

RULES: Final = (
    Rule(
        "nmf_metaphase",
        "one plate seen from the side",
        (
            Criterion("main_elongation", 1.6, 2.3, "elongated", "not elongated"),
            Criterion("main_width_um", 5.5, 4.0, "narrow", "broad"),
            Criterion("solidity", 0.62, 0.75, "compact", "not compact"),
            Criterion("cleft", 0.6, 0.3, "undivided", "divided"),
            Criterion("ring_contrast", 0.3, 0.1, "dark in the middle", "paler in the middle"),
            Criterion("off_centre_um", 2.2, 1.2, "alone in its cell", "to one side of its cell"),
            Criterion("halves_across_deg", 60, 30, "halves end to end", "halves side by side"),
        ),
    ),
    Rule(
        "nmf_prometaphase",
        "one clump of chromosomes",
        (
            Criterion("main_elongation", 2.2, 1.5, "roundish", "elongated"),
            Criterion("main_width_um", 4.0, 5.2, "broad", "narrow"),
            Criterion("main_thickness_um", 2.4, 3.2, "thick", "thin"),
            Criterion("solidity", 0.6, 0.75, "compact", "not compact"),
            Criterion("main_solidity", 0.7, 0.82, "no deep bays", "deep bays"),
            Criterion("cleft", 0.65, 0.4, "undivided", "divided"),
            Criterion("off_centre_um", 2.2, 1.2, "alone in its cell", "to one side of its cell"),
        ),
    ),
    Rule(
        "nmf_ring",
        "a plate seen from a pole",
        (
            Criterion("ring_contrast", 0.3, 0.5, "clear in the middle", "not clear in the middle"),
            Criterion("ring_closure", 0.55, 0.75, "closed all around", "open on a side"),
            Criterion("hole_um2", 0.0, 1.0, "with a hole", "without a hole"),
            Criterion("main_roughness", 1.1, 1.4, "an inner rim", "no inner rim"),
            Criterion("elongation", 2.0, 1.5, "roundish", "elongated"),
            Criterion("main_width_um", 3.5, 5.0, "broad", "narrow"),
        ),
    ),
    Rule(
        "nmf_anaphase_telophase",
        "two equal plates apart",
        (
            *_TWO_SETS,
            Criterion("halves_balance", 0.35, 0.6, "alike in mass", "unlike in mass"),
            Criterion("halves_length_balance", 0.55, 0.75, "alike in length", "unlike in length"),
            Criterion("halves_tilt_deg", 50, 20, "parallel", "not parallel"),
        ),
    ),
    Rule(
        "amf_bipolar",
        "two sets of unequal size",
        (
            *_TWO_SETS,
            Criterion("halves_balance", 0.7, 0.4, "unlike in mass", "alike in mass"),
            Criterion("halves_length_balance", 0.9, 0.65, "unlike in length", "alike in length"),
            Criterion("off_centre_um", 1.5, 3.0, "the larger one far out", "one set in the middle"),
            Criterion("third_share", 0.15, 0.05, "no third set", "a third set"),
        ),
    ),
    Rule(
        "amf_segregation",
        "two sets still joined",
        (
            Criterion("cleft", 0.25, 0.5, "a beginning cleft", "undivided"),
            Criterion("halves_apart_um", 3.5, 5.0, "two sets apart", "chromatin close together"),
            Criterion("halves_across_deg", 40, 65, "lying across their axis", "along their axis"),
            Criterion("strand", 0.1, 0.3, "a strand between", "no strand between"),
        ),
    ),
    Rule(
        "amf_segregation",
        "a plate with chromosomes away from it",
        (
            Criterion("second_share", 0.0, 0.02, "a part apart", "no part apart"),
            Criterion("second_share", 0.6, 0.3, "a small one", "as large as the plate"),
            Criterion("main_elongation", 1.5, 2.1, "an elongated plate", "no elongated plate"),
            Criterion("main_width_um", 6.0, 4.0, "narrow", "broad"),
            Criterion("halves_apart_um", 3.0, 4.0, "spread out", "close together"),
        ),
    ),
    Rule(
        "amf_multipolar",
        "a plate with three arms or more",
        (
            Criterion("arms", 1.5, 3.0, "three arms", "fewer than three arms"),
            Criterion("main_solidity", 0.78, 0.66, "deep bays between", "no deep bays"),
            Criterion("three_fold", 0.15, 0.35, "three-fold", "not three-fold"),
            Criterion("length_um", 8.0, 10.5, "long", "short"),
            Criterion("area_um2", 18, 28, "much chromatin", "little chromatin"),
        ),
    ),
    Rule(
        "amf_multipolar",
        "three sets or more",
        (
            Criterion("third_share", 0.0, 0.05, "a third part", "no third part"),
            Criterion("solidity", 0.65, 0.5, "parts apart", "parts together"),
            Criterion("off_centre_um", 1.0, 2.0, "sets around the middle", "one in the middle"),
            Criterion("length_um", 8.0, 10.5, "spread wide", "not spread wide"),
            Criterion("area_um2", 18, 28, "much chromatin", "little chromatin"),
        ),
    ),
    Rule(
        "amf_other",
        "a bent or broken figure",
        (
            Criterion("main_solidity", 0.8, 0.7, "deep bays", "no deep bays"),
            Criterion("main_bend", 0.05, 0.15, "bent", "straight"),
            Criterion("ring_closure", 0.95, 0.8, "open on a side", "chromatin on every side"),
            Criterion("cleft", 0.3, 0.5, "divided", "undivided"),
            Criterion("area_um2", 35, 22, "little chromatin", "much chromatin"),
        ),
    ),
    Rule(
        "amf_other",
        "irregular clumps and fragments",
        (
            Criterion("solidity", 0.7, 0.55, "ragged", "compact"),
            Criterion("grains_um2", 1.0, 3.0, "grains around", "no grains around"),
            Criterion("halves_tilt_deg", 15, 40, "no common direction", "halves parallel"),
            Criterion("main_thickness_um", 3.3, 2.4, "thin", "thick"),
            Criterion("cleft", 0.2, 0.4, "divided", "undivided"),
        ),
    ),
)
"""A subtype with several rules is as true as the truest of them."""


def best_rules(measures: Mapping[str, float]) -> dict[str, tuple[Rule, float]]:
    """Find the truest rule of each subtype, in their order, and its truth."""
    best: dict[str, tuple[Rule, float]] = {}
    for rule in RULES:
        truth = rule.truth(measures)
        if rule.subtype not in best or truth > best[rule.subtype][1]:
            best[rule.subtype] = rule, truth
    return {subtype: best[subtype] for subtype in SUBTYPES}


def probabilities(truths: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weigh the truths of the subtypes, (..., 8), with the class prior; rows sum to 1."""
    weight = prior() * truths**STRENGTH
    return np.asarray(weight / weight.sum(axis=-1, keepdims=True))
