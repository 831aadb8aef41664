"""The detector's errors: what people found in a sample of its figures, and what that corrects.

Densities count what a detector gave, some of it no mitosis, and others missed. A person looks at
some of the figures and searches some fields; of the figures a share is right (precision), of the
mitoses in the fields a share was found (recall). The density is the count times precision over
recall, its interval that of draws from all three: a Poisson mean given the count (Jeffreys' prior),
and each share given the audit, as the beta-binomial model has it: a share varies over patients with
a mean (uniform prior) and a concentration (log-uniform from 1 to 1000), both integrated over a
grid (Gelman et al., Bayesian Data Analysis, 3rd ed., section 5.3), so that patients are clusters,
and one who was audited is closer to what was found than one who was not.

A hot-spot is where the detector found most, and there are more mistakes among those: its figures
are sampled, and corrected, by themselves. What the model calls atypical is not corrected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import pandas as pd
from scipy.special import betaln

from atypia.biomarker.biomarker_intervals import Measure
from atypia.core.errors import InputError, Problem
from atypia.evaluation.intervals import LEVEL
from atypia.evaluation.predictions import read_cells

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from atypia.biomarker.figure_table import SlideFigures
    from atypia.biomarker.patient_biomarkers import PatientBiomarkers
    from atypia.biomarker.slide_biomarkers import (
        Counts,
        Scope,
        SlideBiomarkers,
    )
    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray

    Measured = TypeVar("Measured", SlideBiomarkers, PatientBiomarkers)

RANDOM: Final = "random"
HOTSPOT: Final = "hotspot"
FIELD: Final = "field"
COLUMNS: Final = (
    *("slide", "sample", "patch_id", "x_px", "y_px"),
    *("is_mitosis", "field_mm2", "n_mitoses", "n_missed"),
)
FIELD_MM2: Final = 0.237
"""A field of the microscope at ×400."""
_SAME_PX: Final = 1.0
_ANSWERS: Final = {"true": 1, "yes": 1, "1": 1, "false": 0, "no": 0, "0": 0}
_DRAWS: Final = 4000


@dataclass(frozen=True)
class AuditedShare:
    """Of how many mitoses or figures of each of P patients how many were found right."""

    patients: tuple[str, ...]
    right: IntArray
    """(P,)"""
    total: IntArray
    """(P,)"""

    @classmethod
    def of(cls, rows: Sequence[tuple[str, int, int]]) -> AuditedShare:
        """Add up rows of a patient, how many are right, and of how many."""
        table = pd.DataFrame(rows, columns=["patient", "right", "total"]).groupby("patient").sum()
        return cls(tuple(table.index), table["right"].to_numpy(), table["total"].to_numpy())

    @cached_property
    def _posterior(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Both parameters of beta distributions over patients, and the weight of each pair."""
        mean, concentration = np.meshgrid((np.arange(100) + 0.5) / 100, np.geomspace(1, 1000, 30))
        a, b = (mean * concentration).ravel(), ((1 - mean) * concentration).ravel()
        each = betaln(a[:, None] + self.right, b[:, None] + self.total - self.right)
        likelihood = (each - betaln(a, b)[:, None]).sum(axis=1)
        weight = np.exp(likelihood - likelihood.max())
        return a, b, weight / weight.sum()

    def draws(self, patient: str, rng: np.random.Generator) -> FloatArray:
        """Draw the share of one patient, audited or not, (D,)."""
        a, b, weight = self._posterior
        drawn = rng.choice(len(a), _DRAWS, p=weight)
        own = np.array(self.patients) == patient
        right, total = self.right[own].sum(), self.total[own].sum()
        return np.asarray(rng.beta(a[drawn] + right, b[drawn] + total - right))


@dataclass(frozen=True)
class DetectorAudit:
    """What a person found among the figures of a detector, and beside them."""

    precision: AuditedShare | None
    """Of figures at random; None where none was looked at."""
    hotspot_precision: AuditedShare | None
    """Of figures in hot-spots."""
    recall: AuditedShare | None
    """Of the mitoses in fields that were searched; None without: then nothing counts as missed."""
    hotspot_rows: Sequence[tuple[int, str, int]]
    """Line of the file, slide, and row among its figures, of each figure sampled in a hot-spot."""
    file: str

    def density(self, counts: Counts, scope: Scope, patient: str) -> Measure | None:
        """Correct the density of an area; None without an area, or where it was not audited."""
        precision = self.hotspot_precision if scope == "hotspot" else self.precision
        if precision is None or counts.area_mm2 is None:
            return None
        rng = np.random.default_rng(0)
        right = precision.draws(patient, rng)
        found = np.ones(_DRAWS) if self.recall is None else self.recall.draws(patient, rng)
        drawn = rng.gamma(counts.figures + 0.5, size=_DRAWS) * right / found
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        low = low if counts.figures else 0.0
        value = np.clip(counts.figures * right.mean() / found.mean(), low, high)
        return Measure(float(value), float(low), float(high)).scaled(1 / counts.area_mm2)

    def corrected(self, found: Measured, patient: str) -> Measured:
        """Give the measures of a slide or a patient with corrected densities."""
        measures = {
            scope: m
            and replace(m, figures_per_mm2_corrected=self.density(m.counts, scope, patient))
            for scope, m in found.measures.items()
        }
        return replace(found, measures=measures)

    def check_hotspots(self, slides: Sequence[SlideBiomarkers]) -> None:
        """Check that figures of the sample of hot-spots lie in them.

        Raises:
            InputError: Lists those that do not.
        """
        of_name = {slide.source.slide: slide for slide in slides}
        problems = []
        for line, name, row in self.hotspot_rows:
            slide = of_name[name]
            place = slide.source.centres_um[[row]]
            if slide.hotspot is None or not slide.hotspot.contains(place)[0]:
                what = (
                    f"expected a figure in the hot-spot of {name!r} but it lies outside. Give the "
                    "options of the hot-spot that the sample was drawn with."
                )
                problems.append(Problem(what, self.file, line))
        if problems:
            raise InputError(problems)

    def facts(self) -> dict[str, Any]:
        """Count what was looked at and was right, for JSON and the page."""
        shares = {
            "figures": self.precision,
            "hotspot_figures": self.hotspot_precision,
            "mitoses_in_fields": self.recall,
        }
        return {
            name: share and {"right": int(share.right.sum()), "total": int(share.total.sum())}
            for name, share in shares.items()
        }


def read_audit(path: Path, sources: Sequence[SlideFigures]) -> DetectorAudit:
    """Read what was found in the audit of the figures of `sources`.

    A CSV with ``slide`` and, of a figure, ``patch_id`` or ``x_px`` and ``y_px``, ``is_mitosis``
    and ``sample`` (``random``, also where the column is missing, or ``hotspot``). A row with the
    sample ``field`` is a field that was searched: ``n_mitoses`` in all, ``n_missed`` of them not
    among the figures, be they no candidates or left out.

    Raises:
        InputError: Lists every problem of the file.
    """
    table, problems = read_cells(path, ("slide",))
    cells = table.reindex(columns=list(COLUMNS), fill_value="").map(str.strip)
    cells.loc[cells["sample"] == "", "sample"] = RANDOM
    source_of = {source.slide: source for source in sources}
    rows: dict[str, list[tuple[str, int, int]]] = {RANDOM: [], HOTSPOT: [], FIELD: []}
    figures: dict[tuple[str, str, int], int] = {}
    for line, row in zip(cells.index.tolist(), cells.to_dict("records"), strict=True):
        try:
            source = source_of.get(row["slide"])
            if source is None:
                raise ValueError(f"expected a slide with results but got {row['slide']!r}.")
            if row["sample"] not in rows:
                raise ValueError(f"expected a sample out of {[*rows]} but got {row['sample']!r}.")
            if row["sample"] == FIELD:
                mitoses, missed = _number_of_field(row)
                rows[FIELD].append((source.patient, mitoses - missed, mitoses))
                continue
            figure = (row["sample"], source.slide, _figure_of(row, source))
            if figure in figures:
                raise ValueError(f"is the figure of line {figures[figure]} again.")
            figures[figure] = line
            right = _ANSWERS.get(row["is_mitosis"].lower())
            if right is None:
                what = "Remove the rows of figures that nobody looked at."
                raise ValueError(f"expected true or false but got {row['is_mitosis']!r}. {what}")
            rows[row["sample"]].append((source.patient, right, 1))
        except ValueError as error:
            problems.append(Problem(str(error), str(path), line))
    if not problems and not (rows[RANDOM] or rows[HOTSPOT]):
        problems.append(Problem("expected at least one audited figure but got none.", str(path)))
    if problems:
        raise InputError(problems)
    random, hotspot, fields = (AuditedShare.of(r) if r else None for r in rows.values())
    in_hotspots = [(line, s, i) for (sample, s, i), line in figures.items() if sample == HOTSPOT]
    return DetectorAudit(random, hotspot, fields, in_hotspots, str(path))


def audit_plan(slides: Sequence[SlideBiomarkers], n: int, seed: int = 0) -> pd.DataFrame:
    """Draw what to audit, in the columns that :func:`read_audit` reads, answers left empty.

    `n` figures at random of those that count (in regions, where there are any), `n` of those in
    hot-spots, and n / 3 fields of 0.237 mm² evenly over tissue or regions, where one is known.
    Figures stand in random order: those who answer see no sample as a block.
    """
    rng = np.random.default_rng(seed)
    plan: list[tuple[object, ...]] = []
    for sample in (RANDOM, HOTSPOT):
        figures = [(s.source, row) for s in slides for row in np.flatnonzero(_counted(s, sample))]
        for i in rng.permutation(len(figures))[:n]:
            source, row = figures[i]
            place = source.centres_px[row].round(2)
            plan.append((source.slide, sample, source.figures.patch_ids[row], *place))
    plan = [plan[i] for i in rng.permutation(len(plan))]
    places = [(s.source, place) for s in slides for place in s.random_places_um]
    weights = np.array([s.ground_mm2 for s in slides for _ in s.random_places_um], float)
    fields = min(-(-n // 3), len(places))
    for i in rng.choice(len(places), fields, False, weights / weights.sum()) if fields else ():
        source, place = places[i]
        x, y = (place / source.um_per_px).round(1)
        plan.append((source.slide, FIELD, "", x, y, "", FIELD_MM2))
    return pd.DataFrame([dict(zip(COLUMNS, row, strict=False)) for row in plan], columns=COLUMNS)


def _counted(slide: SlideBiomarkers, sample: str) -> BoolArray:
    """Which figures of a slide a sample is drawn from, (N,)."""
    scope: Scope = "hotspot" if sample == HOTSPOT else "all" if slide.region is None else "region"
    return slide.inside.get(scope, np.zeros(len(slide.source), np.bool_))


def _figure_of(row: Mapping[Any, str], source: SlideFigures) -> int:
    """Row of a figure among those of its slide, by its name or its place."""
    if row["patch_id"]:
        same = np.flatnonzero(np.asarray(source.figures.patch_ids).astype(str) == row["patch_id"])
        what = f"patch_id {row['patch_id']!r}"
    else:
        place = np.array([float(row["x_px"]), float(row["y_px"])])
        apart = np.abs(source.centres_px - place).max(axis=1, initial=0)
        same = np.flatnonzero(apart <= _SAME_PX)
        what = f"x_px, y_px {row['x_px']}, {row['y_px']}"
    if len(same) != 1:
        raise ValueError(f"expected one figure with {what} on {source.slide!r}, got {len(same)}.")
    return int(same[0])


def _number_of_field(row: Mapping[Any, str]) -> tuple[int, int]:
    mitoses, missed = row["n_mitoses"], row["n_missed"]
    if not (mitoses.isdecimal() and missed.isdecimal() and int(missed) <= int(mitoses)):
        raise ValueError(
            f"expected n_mitoses and, up to it, n_missed but got {mitoses!r} and {missed!r}."
        )
    return int(mitoses), int(missed)
