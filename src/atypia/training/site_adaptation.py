"""Adapt what follows a model's networks to a new site, from labelled figures; no network changes.

Each part is drawn towards what was shipped, as :mod:`atypia.evaluation.site_shift` has it, and
stays as it was shipped where there are too few figures or they do not speak against it.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.biomarker.error_model import ErrorModel
from atypia.classifiers.bundle import (
    BundleHeader,
    parts_of,
    read_any_header,
    read_card,
    write_card,
    write_header,
)
from atypia.classifiers.calibration import Calibration, apply_temperature, fit_temperature
from atypia.classifiers.decision import OperatingPoint, p_atypical
from atypia.core.choices import BEST, FAST
from atypia.core.errors import InputError
from atypia.core.files import building_folder
from atypia.core.labels import N_ATYPICAL
from atypia.evaluation.predictions import UNKNOWN, predictions_from_table
from atypia.evaluation.site_shift import (
    LEAST_FIGURES,
    LEAST_OF_A_SIDE,
    SPREAD_OF_EVIDENCE,
    SiteShift,
    clustered_variance,
    evidence_shift,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Self

    import pandas as pd
    from numpy.typing import NDArray

    from atypia.classifiers.conformal import ConformalSets
    from atypia.classifiers.postprocessing import Postprocessing
    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray
    from atypia.evaluation.predictions import Predictions

SPREAD_OF_TEMPERATURE: Final = 0.1
"""SD of the logarithm of the best temperature over scanners and laboratories of AMi-Br."""
SHIPPED_IN_SETS: Final = 20
"""Figures of a subtype that its shipped level in the prediction sets counts as; set by hand."""


@dataclass(frozen=True)
class LocalFigures:
    """N labelled figures of a site, as a model answers on them."""

    predictions: Predictions
    label: str
    weights: FloatArray
    """(N,) how many figures of the site each stands for."""
    left_out: Mapping[str, int]
    """Labelled figures that the model does not answer, by status; the N are without them."""

    @classmethod
    def of(cls, table: pd.DataFrame, label: str, weights: FloatArray) -> Self:
        """Take the rows with a label of a table of predictions; `weights` (rows,).

        Raises:
            InputError: The table has no such label, or labelled figures without a weight (NaN).
        """
        predictions = predictions_from_table(table)
        labelled = predictions.rows_with(predictions.atypical_of(label), label)
        known = labelled & predictions.answered
        if lost := int(np.isnan(weights[known]).sum()):
            raise InputError(
                f"--sampled: expected the weight of every labelled figure but {lost:,} of "
                f"{int(known.sum()):,} are not in the table. Give the one that they were chosen by."
            )
        left_out = predictions.take(labelled).left_out
        return cls(predictions.take(known), label, weights[known], left_out)

    @property
    def is_atypical(self) -> BoolArray:
        """Which figures the label has as atypical, (N,)."""
        return np.asarray(self.predictions.atypical_of(self.label) == 1)

    @property
    def subtypes(self) -> IntArray:
        """Subtypes by the label, (N,); :data:`UNKNOWN` throughout where it is of votes."""
        if self.predictions.vote_column(self.label) is not None:
            return np.full(len(self.predictions), UNKNOWN)
        return self.predictions.subtypes_of(self.label)

    @property
    def too_few(self) -> str:
        """Explain why nothing can be refitted on them; empty where it can."""
        n = len(self.predictions)
        return "" if n >= LEAST_FIGURES else f"{n} labelled figures, fewer than {LEAST_FIGURES}"

    @property
    def too_few_of_a_side(self) -> str:
        """Explain why no threshold can be refitted on them; empty where it can."""
        n, of = int(self.is_atypical.sum()), len(self.predictions)
        if self.too_few or min(n, of - n) >= LEAST_OF_A_SIDE:
            return self.too_few
        return f"{n} atypical and {of - n} normal figures, fewer than {LEAST_OF_A_SIDE}"


@dataclass(frozen=True)
class AdaptedPart:
    """One number of a model, as it was shipped and as it is for the site."""

    name: str
    shipped: float
    adapted: float
    low: float | None = None
    """95 % interval of what the site needs; None where none is known."""
    high: float | None = None
    kept: str = ""
    """Why the shipped number stays; empty where it does not."""

    @classmethod
    def drawn(
        cls, name: str, shipped: float, found: SiteShift, move: Callable[[float], float]
    ) -> Self:
        """Move what was `shipped` by what was `found`, where the figures speak against it.

        `move` gives the number that a shift makes of the shipped one.
        """
        low, high = sorted((move(found.low), move(found.high)))
        if found.speaks:
            return cls(name, shipped, move(found.value), low, high)
        return cls(name, shipped, move(0), low, high, "the figures do not speak against it")


def adapt_postprocessing(
    shipped: Postprocessing, local: LocalFigures
) -> tuple[Postprocessing, list[AdaptedPart]]:
    """Refit temperature, operating points, prediction sets and error model to the site."""
    temperature = adapted_temperature(shipped.calibration.temperature, local)
    factor = temperature.adapted / temperature.shipped
    before = local.predictions.probabilities
    after = before
    if factor != 1:
        after = apply_temperature(before, factor).astype(np.float64)
    local = replace(local, predictions=replace(local.predictions, probabilities=after))
    thresholds = adapted_thresholds(shipped, local, _Ranks(p_atypical(before), p_atypical(after)))
    threshold = thresholds[shipped.operating_point].adapted
    p = p_atypical(after).astype(np.float64)
    called = replace(local.predictions, p_atypical=p, predicted_atypical=p >= threshold)

    def point(name: str) -> OperatingPoint:
        """As measured at the site, if there are enough figures to."""
        moved = thresholds[name].adapted
        if local.too_few_of_a_side:
            return shipped.points[name].model_copy(update={"threshold": moved})
        patients = local.predictions.patients
        return OperatingPoint.measured(moved, p, local.is_atypical, patients, local.weights)

    adapted = replace(
        shipped,
        calibration=Calibration(temperature.adapted),
        threshold=threshold,
        points={name: point(name) for name in shipped.points},
        conformal=shipped.conformal and adapted_sets(shipped.conformal, local, before),
        errors=shipped.errors
        and adapted_errors(shipped.errors, replace(local, predictions=called), factor),
    )
    return adapted, [temperature, *thresholds.values()]


def adapted_temperature(shipped: float, local: LocalFigures) -> AdaptedPart:
    """Find the temperature of least log loss at the site, drawn towards the shipped one."""
    known = local.subtypes != UNKNOWN
    if local.too_few or not known.any():
        why = local.too_few or "the label has no subtypes"
        return AdaptedPart("temperature", shipped, shipped, kept=why)
    given, labels = local.predictions.probabilities[known], local.subtypes[known]
    weights = local.weights[known] / local.weights[known].mean()
    factor = fit_temperature(given, labels, weights)
    logits = np.log(np.maximum(given, 1e-9)) / factor
    p = apply_temperature(given, factor)
    mean = (p * logits).sum(axis=1)
    slopes = logits[np.arange(len(labels)), labels] - mean  # of the log loss in log T
    curvatures = (p * (logits - mean[:, None]) ** 2).sum(axis=1)
    influences = weights * slopes / (weights @ curvatures)
    variance = clustered_variance(influences, local.predictions.patients[known])
    found = SiteShift.drawn(math.log(factor), variance, SPREAD_OF_TEMPERATURE)
    return AdaptedPart.drawn("temperature", shipped, found, lambda by: shipped * math.exp(by))


@dataclass(frozen=True)
class _Ranks:
    """Where a number goes when another temperature moves the figures' probabilities."""

    before: NDArray[np.floating[Any]]
    after: NDArray[np.floating[Any]]

    def same(self, number: float) -> float:
        """Give the number, 0 to 1, that has the same rank afterwards."""
        if np.array_equal(self.before, self.after):
            return number
        before, after = (
            np.concatenate([[0.0], np.sort(p), [1.0]]) for p in (self.before, self.after)
        )
        return float(np.interp(number, before, after))


def adapted_thresholds(
    shipped: Postprocessing, local: LocalFigures, ranks: _Ranks
) -> dict[str, AdaptedPart]:
    """Find thresholds, by operating point, at which calls have as much evidence as it was shipped.

    All move together in the odds of p_atypical, from where the site's temperature has them.
    """
    offered = {shipped.operating_point: shipped.threshold}
    offered |= {name: point.threshold for name, point in shipped.points.items()}
    kept = local.too_few_of_a_side
    if not kept:
        prevalence = sum(shipped.decision.prior[:N_ATYPICAL])
        patients = local.predictions.patients
        p = ranks.after.astype(np.float64)
        found = evidence_shift(p, local.is_atypical, patients, local.weights, prevalence)
        shift = SiteShift.drawn(*found, SPREAD_OF_EVIDENCE)

    def adapted(name: str, threshold: float) -> AdaptedPart:
        same = ranks.same(threshold)
        if kept or not 0 < same < 1:
            return AdaptedPart(name, threshold, same, kept=kept or "all figures are called alike")
        odds = same / (1 - same)
        return AdaptedPart.drawn(name, threshold, shift, lambda by: odds / (odds + math.exp(by)))

    return {name: adapted(f"threshold {name}", threshold) for name, threshold in offered.items()}


def adapted_sets(shipped: ConformalSets, local: LocalFigures, before: FloatArray) -> ConformalSets:
    """Draw each subtype's level in the prediction sets from the shipped one to the site's.

    The level is a quantile of log p of the figures of a subtype; the shipped one counts as
    :data:`SHIPPED_IN_SETS` figures. `before` (N, 8) are the probabilities as shipped.
    """
    after, labels = local.predictions.probabilities, local.subtypes
    quantiles, n = [], np.bincount(labels[labels != UNKNOWN], minlength=len(after.T))
    for c, quantile in enumerate(np.broadcast_to(shipped.quantiles, len(after.T))):
        own, level = labels == c, _Ranks(before[:, c], after[:, c]).same(1 - quantile)
        if n[c] and level > 0 and not local.too_few:
            order = np.argsort(after[own, c])
            reached = np.cumsum(local.weights[own][order])
            reached /= reached[-1] * (1 + 1 / n[c])  # Weibull positions, weighted
            logs = np.log(np.maximum(after[own, c][order], 1e-6))
            found = float(np.interp(shipped.alpha, reached, logs))
            share = n[c] / (n[c] + SHIPPED_IN_SETS)
            level = math.exp(share * found + (1 - share) * math.log(level))
        quantiles.append(1 - level)
    shipped_n = np.broadcast_to(shipped.n, len(after.T))
    return replace(shipped, quantiles=tuple(quantiles), n=tuple((shipped_n + n).tolist()))


def adapted_errors(
    shipped: Mapping[str, Any], local: LocalFigures, factor: float
) -> Mapping[str, Any]:
    """Refit the error model, drawn towards the shipped one; that one where figures are too few."""
    prior = ErrorModel.from_json(shipped)
    # Of probabilities to the power 1 / factor the logarithm is that much smaller.
    scaled = {name: replace(of, slope=of.slope * factor) for name, of in prior.of.items()}
    prior = replace(prior, of=scaled)
    if local.too_few:
        return prior.to_json()
    return ErrorModel.fit(local.predictions, local.label, local.weights, prior).to_json()


def save_adapted(
    bundle: Path, out: Path, fitted: Mapping[str, Postprocessing], record: Mapping[str, Any]
) -> None:
    """Write a bundle with the same weights, by quality other postprocessing, and its record.

    An export inside the bundle is left out: its graph has the shipped temperature.

    Raises:
        InputError: `out` exists, or `bundle` is damaged.
    """
    header, card = read_any_header(bundle), read_card(bundle)
    parts_of(bundle)  # checks them
    update = {
        **fitted[BEST].to_header(),
        "provenance": header.provenance | {"adapted": dict(record)},
    }
    if isinstance(header, BundleHeader) and header.fast is not None:
        update["fast"] = header.fast.model_copy(update=fitted[FAST].to_header())
    with building_folder(out) as folder:
        shutil.copytree(bundle, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("onnx"))
        write_header(folder, header.model_copy(update=update))
        write_card(folder, f"{card or ''}\n{adapted_markdown(record)}".lstrip())


def adapted_markdown(record: Mapping[str, Any]) -> str:
    """Write in Markdown what was refitted, for the model card and the command line."""
    lines = [
        f"## Adapted to {record['cohort']}",
        "",
        f"By {record['figures']:,} figures of {record['patients']:,} patients, "
        f"{record['atypical']:,} of them atypical by {record['label']}, besides "
        f"{sum(record['left_out'].values()):,} labelled ones that the model does not answer. The "
        "networks are those of the model as shipped; other figures on this page were measured "
        "with what was shipped.",
        "",
        "| | shipped | here | 95 % | |",
        "|---|---|---|---|---|",
    ]
    for quality, parts in record["parts"].items():
        for part in parts:
            interval = "" if part["low"] is None else f"{part['low']:.3f} to {part['high']:.3f}"
            kept = f"kept: {part['kept']}" if part["kept"] else ""
            lines.append(
                f"| {quality}, {part['name']} | {part['shipped']:.3f} | {part['adapted']:.3f} | "
                f"{interval} | {kept} |"
            )
    return "\n".join(lines) + "\n"
