"""Which figures of a new site to label, and what can then be concluded.

Of figures at random most are clearly normal. Here a figure is drawn with a chance proportional to
sqrt(p (1 - p)), p being its p_atypical, the optimal allocation of Neyman (JRSS 97, 1934) for labels
that are 1 with probability p; one that the model is sure of keeps a tenth of the largest chance,
lest its errors be missed. The inverse of the chance is the weight by which the label counts
(Horvitz and Thompson, JASA 47, 1952). Drawing is systematic in the order of p_atypical, so that
each range of it has its share.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from atypia.core.errors import InputError, Problem
from atypia.core.tables import read_table
from atypia.evaluation.site_shift import SPREAD_OF_EVIDENCE, SiteShift

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from atypia.evaluation.metrics import FloatArray
    from atypia.evaluation.predictions import Predictions

    Interval: TypeAlias = tuple[float, float]

USUAL_AUC: Final = 0.93
"""AUC of atypical against normal figures of the model in the package, out of fold."""
LIKENESS: Final = 0.07
"""Intra-patient correlation of a model's errors on AMi-Br; set by hand, by no committed command."""
_LEAST = 0.1


@dataclass(frozen=True)
class Conclusion:
    """What labels of a sample are expected to show of a model; intervals are of 95 %."""

    figures: int
    patients: int
    """How many the figures are of, at most."""
    atypical: float
    """Expected among them."""
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    threshold: Interval


def chances(p_atypical: FloatArray, figures: int) -> FloatArray:
    """Chance (N,) of each of N figures to be drawn, summing to `figures`, at most N."""
    size = np.maximum(np.sqrt(p_atypical * (1 - p_atypical)), _LEAST / 2)
    low, high = 0.0, figures / float(size.min())
    for _ in range(60):  # those that are certain to be drawn leave more chance to the others
        middle = (low + high) / 2
        enough = np.minimum(1, middle * size).sum() >= figures
        low, high = (low, middle) if enough else (middle, high)
    return np.minimum(1, high * size)


def draw_figures(p_atypical: FloatArray, figures: int, seed: int = 0) -> NDArray[np.int64]:
    """Draw rows by :func:`chances`, systematically in the order of p_atypical."""
    order = np.lexsort((np.random.default_rng(seed).random(len(p_atypical)), p_atypical))
    steps = np.cumsum(chances(p_atypical, figures)[order]) + np.random.default_rng(seed).random()
    return order[np.flatnonzero(np.diff(np.floor(np.concatenate([[steps[0] % 1], steps]))) > 0)]


def conclusion(
    p_atypical: FloatArray, chance: FloatArray, threshold: float, patients: int
) -> Conclusion:
    """Foresee what labels can show, if p_atypical (N,) is as right at the site as it was elsewhere.

    Labels are 1 with probability p_atypical. Where chances are equal, figures are drawn at random;
    else in the order of p_atypical, and only the labels are left to chance. Variances have a design
    effect for figures of one patient; intervals are exact ones for as many independent figures
    (Korn and Graubard, Survey Methodology 24, 1998).

    Args:
        p_atypical: Of all figures that can be drawn.
        chance: (N,) of each to be drawn.
        threshold: A figure is called atypical from this p_atypical on.
        patients: How many the drawn figures are of.
    """
    p, called = p_atypical, (p_atypical >= threshold).astype(np.float64)
    figures, at_random = float(chance.sum()), bool(np.ptp(chance) == 0)
    design = 1 + max(figures / patients - 1, 0) * LIKENESS

    def variance(
        if_atypical: FloatArray, if_normal: FloatArray, at_random: bool = at_random
    ) -> float:
        """Variance of a sum to which a figure adds the one or the other (N,), by its label."""
        of_label = p * (1 - p) * (if_atypical - if_normal) ** 2
        mean = p * if_atypical + (1 - p) * if_normal
        return float(((of_label + at_random * mean**2) / chance).sum()) * design

    def interval(
        atypical: FloatArray, hit: FloatArray, normal: FloatArray, cleared: FloatArray
    ) -> Interval:
        """Interval of a share: of the atypical and normal figures that count, those that are so."""
        n = float((p * atypical + (1 - p) * normal).sum())
        share = float((p * hit + (1 - p) * cleared).sum()) / n
        of_mean = variance((hit - share * atypical) / n, (cleared - share * normal) / n)
        return exact_interval(share, share * (1 - share) / of_mean)

    every, none = np.ones(len(p)), np.zeros(len(p))
    mean, information = float(p.mean()), float((p * (1 - p)).sum())
    spread = len(p) * mean * (1 - mean)
    if_atypical = (1 - p) / information - (1 - mean) / spread
    if_normal = mean / spread - p / information
    # As adapted thresholds have it, which do not rely on p_atypical being right at the site.
    moved = variance(if_atypical, if_normal, at_random=True)
    shift = SiteShift.drawn(0, moved, SPREAD_OF_EVIDENCE)
    odds = threshold / (1 - threshold)
    return Conclusion(
        round(figures),
        patients,
        float((chance * p).sum()),
        sensitivity=interval(every, called, none, none),
        specificity=interval(none, none, every, 1 - called),
        ppv=interval(called, called, called, none),
        threshold=(odds / (odds + math.exp(shift.high)), odds / (odds + math.exp(shift.low))),
    )


def exact_interval(share: float, n: float) -> Interval:
    """95 % interval of Clopper and Pearson of a share of `n` figures, which need not be whole."""
    from scipy.stats import beta

    x = share * n
    return float(beta.ppf(0.025, x, n - x + 1)), float(beta.ppf(0.975, x + 1, n - x))


def usual_answers(prevalence: float) -> FloatArray:
    """p_atypical of 2,000 figures of a site that is as a model is used to.

    The logarithms of the likelihood ratios are Gaussian (binormal model), as far apart as
    :data:`USUAL_AUC` has it.
    """
    from scipy.special import expit, logit, ndtri

    apart = math.sqrt(2) * float(ndtri(USUAL_AUC))
    n = round(2000 * prevalence)
    sides = (n, apart**2 / 2), (2000 - n, -(apart**2) / 2)
    ratios = [mean + apart * ndtri((np.arange(m) + 0.5) / m) for m, mean in sides]
    return np.asarray(expit(np.concatenate(ratios) + logit(prevalence)))


def foresee(
    p_atypical: FloatArray, patients: NDArray[np.str_] | None, threshold: float, figures: int
) -> dict[int, tuple[Conclusion, Conclusion]]:
    """Foresee what 50, 100, 200, 400 and `figures` figures show: at random, and as planned.

    Without `patients` (N,) there is one for each ten figures; arguments else as for
    :func:`conclusion`.

    Raises:
        InputError: There are not so many figures.
    """
    total = len(p_atypical)
    if not 0 < figures <= total:
        raise InputError(f"--figures: expected 1 to {total:,}, which there are, but got {figures}.")
    found = {}
    for n in sorted({n for n in (50, 100, 200, 400, figures) if n <= total}):
        of = max(1, min(n, n // 10 if patients is None else len(np.unique(patients))))
        ways = np.full(total, n / total), chances(p_atypical, n)
        random, planned = (conclusion(p_atypical, chance, threshold, of) for chance in ways)
        found[n] = (random, planned)
    return found


def plan_table(
    predictions: Predictions, threshold: float, figures: int, seed: int = 0
) -> pd.DataFrame:
    """Choose figures to label: their ids, why each was chosen, and its weight."""
    import pandas as pd

    p = predictions.p_atypical
    rows = draw_figures(p, figures, seed)
    why = np.where(p >= threshold, "called atypical", "called normal, but may not be")
    why[p < threshold / 4] = "clearly normal to the model"
    return pd.DataFrame(
        {
            "patch_id": predictions.patch_ids[rows],
            "patient_id": predictions.patients[rows],
            "p_atypical": p[rows].round(6),
            "why": why[rows],
            "weight": (1 / chances(p, figures)[rows]).round(6),
        }
    ).sort_values(["patient_id", "patch_id"])


def read_weights(plan: Path | None, patch_ids: Sequence[str]) -> FloatArray:
    """How many figures of the site each patch stands for, (N,): 1 without a plan, NaN if not in it.

    Raises:
        InputError: Lists what is wrong with the plan: no such columns, or weights not above 0.
    """
    if plan is None:
        return np.ones(len(patch_ids))
    table = read_table(plan)
    table.require("patch_id", "weight")
    weights, problems = {}, [row.problem for row in table.rows if row.problem]
    for row in table.rows:
        weight = row.cells["weight"]
        if not re.fullmatch(r"\d+(\.\d+)?", weight) or not float(weight):
            what = f"expected a weight above 0 but got {weight!r}."
            problems.append(Problem(what, str(plan), row.line, "weight"))
        weights[row.cells["patch_id"]] = weight
    if problems:
        raise InputError(problems)
    return np.array([float(weights.get(name, "nan")) for name in patch_ids])
