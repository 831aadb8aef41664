"""Counts, densities, fractions and profile of figures within one area."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atypia.biomarker.biomarker_intervals import (
    Measure,
    binomial_interval,
    joint_density,
    poisson_interval,
    true_fraction,
)
from atypia.core.labels import N_SUBTYPES, SUBTYPES
from atypia.evaluation.intervals import LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.biomarker.error_model import ErrorRates
    from atypia.evaluation.metrics import BoolArray, IntArray


@dataclass(frozen=True)
class Counts:
    """What was counted within an area; counts of several slides add up."""

    figures: int
    atypical: int
    """Called atypical at the model's threshold."""
    subtypes: tuple[int, ...]
    """Predicted subtypes, in the order of :data:`atypia.core.labels.SUBTYPES`."""
    area_mm2: float | None
    """None where it is not known."""

    @classmethod
    def of(cls, predicted: IntArray, atypical: BoolArray, area_mm2: float | None) -> Counts:
        """Count figures.

        Args:
            predicted: (N,) subtype indices.
            atypical: (N,) calls.
            area_mm2: Where they lie.
        """
        subtypes = np.bincount(predicted, minlength=N_SUBTYPES)
        return cls(len(predicted), int(atypical.sum()), tuple(map(int, subtypes)), area_mm2)

    def __add__(self, other: Counts) -> Counts:
        """Add counts and areas; the area is unknown where either is."""
        areas = (self.area_mm2, other.area_mm2)
        return Counts(
            self.figures + other.figures,
            self.atypical + other.atypical,
            tuple(a + b for a, b in zip(self.subtypes, other.subtypes, strict=True)),
            None if None in areas else sum(a for a in areas if a is not None),
        )


@dataclass(frozen=True)
class Biomarkers:
    """The measures of one area.

    A density is None without an area, a corrected value without errors to correct for. A fraction
    of no figures is undefined.
    """

    counts: Counts
    figures_per_mm2: Measure | None
    """Density of mitotic figures; its interval is that of counting."""
    atypical_called_per_mm2: Measure | None
    """Density of the figures called atypical; its interval is that of counting."""
    atypical_per_mm2: Measure | None
    """Density of atypical figures, corrected for the model's errors, with both errors."""
    atypical_called_fraction: Measure
    """Share of the figures called atypical; its interval is that of counting."""
    atypical_fraction: Measure | None
    """Atypical fraction, corrected for the model's errors, with both errors."""
    called_profile: Mapping[str, Measure]
    """Subtype to its share of the predictions; intervals of counting."""
    profile: Mapping[str, Measure]
    """Subtype to its corrected share, each on its own: they need not add up to 1. Empty without
    errors of subtypes."""


def biomarkers_of(counts: Counts, errors: ErrorRates | None, level: float = LEVEL) -> Biomarkers:
    """Estimate every measure of one area.

    Args:
        counts: What was counted.
        errors: What errors the model makes; None leaves corrected values out.
        level: Coverage of the intervals.
    """
    n, called, area = counts.figures, counts.atypical, counts.area_mm2

    def density(count: int) -> Measure | None:
        return None if area is None else poisson_interval(count, level).scaled(1 / area)

    fraction = None if errors is None or n == 0 else true_fraction(called, n, errors.atypical)
    per_mm2 = None
    if errors is not None and area is not None:
        per_mm2 = joint_density(n, area, fraction, level)
    undefined = Measure(None, None, None)
    profile = {}
    for subtype, count, rates in zip(
        SUBTYPES, counts.subtypes, errors.subtypes if errors is not None else (), strict=False
    ):
        profile[subtype] = true_fraction(count, n, rates).interval(level) if n else undefined
    return Biomarkers(
        counts=counts,
        figures_per_mm2=density(n),
        atypical_called_per_mm2=density(called),
        atypical_per_mm2=per_mm2,
        atypical_called_fraction=binomial_interval(called, n, level),
        atypical_fraction=undefined
        if errors is not None and fraction is None
        else (None if fraction is None else fraction.interval(level)),
        called_profile={
            subtype: binomial_interval(count, n, level)
            for subtype, count in zip(SUBTYPES, counts.subtypes, strict=True)
        },
        profile=profile,
    )
