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

from atypia.classifiers.bundle import (
    BundleHeader,
    parts_of,
    read_any_header,
    read_card,
    write_card,
    write_header,
)
from atypia.classifiers.calibration import Calibration, apply_temperature, fit_temperature
from atypia.classifiers.decision import p_atypical
from atypia.core.choices import BEST, FAST
from atypia.core.errors import InputError
from atypia.core.files import building_folder
from atypia.core.labels import N_ATYPICAL
from atypia.evaluation.predictions import UNKNOWN, predictions_from_table
from atypia.evaluation.site_shift import (
    LEAST_FIGURES,
    LEAST_OF_A_SIDE,
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

    from atypia.classifiers.postprocessing import Postprocessing
    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray

SPREAD_OF_TEMPERATURE: Final = 0.1
"""SD of the logarithm of the best temperature over scanners and laboratories of AMi-Br."""
SPREAD_OF_EVIDENCE: Final = 0.2
"""SD of the shift of evidence over sites, in nats, at which adapted thresholds gain most on AMi-Br
(``benchmarks/adapt.py``); it is 0.3 over scanners and laboratories."""


@dataclass(frozen=True)
class LocalFigures:
    """N labelled figures of a site, as a model answers on them."""

    probabilities: FloatArray
    """(N, 8), calibrated as shipped."""
    is_atypical: BoolArray
    """(N,)."""
    subtypes: IntArray
    """(N,) by the label; :data:`UNKNOWN` throughout where it is of votes."""
    patients: NDArray[np.str_]
    weights: FloatArray
    """(N,) how many figures of the site each stands for."""

    @classmethod
    def of(cls, table: pd.DataFrame, label: str, weights: FloatArray) -> LocalFigures:
        """Take the rows with a label of a table of predictions; `weights` (rows,).

        Raises:
            InputError: The table has no such label, or labelled figures without a weight (NaN).
        """
        predictions = predictions_from_table(table)
        truth = predictions.atypical_of(label)
        known = predictions.rows_with(truth, label)
        if lost := int(np.isnan(weights[known]).sum()):
            raise InputError(
                f"--sampled: expected the weight of every labelled figure but {lost:,} of "
                f"{int(known.sum()):,} are not in the table. Give the one that they were chosen by."
            )
        votes = predictions.vote_column(label) is not None
        subtypes = np.full(len(truth), UNKNOWN) if votes else predictions.subtypes_of(label)
        return cls(
            predictions.probabilities[known],
            truth[known] == 1,
            subtypes[known],
            predictions.patients[known],
            weights[known],
        )

    def __len__(self) -> int:
        return len(self.is_atypical)

    @property
    def too_few(self) -> str:
        """Explain why nothing can be refitted on them; empty where it can."""
        if len(self) >= LEAST_FIGURES:
            return ""
        return f"{len(self)} labelled figures: fewer than {LEAST_FIGURES}"

    @property
    def too_few_of_a_side(self) -> str:
        """Explain why no threshold can be refitted on them; empty where it can."""
        n = int(self.is_atypical.sum())
        if self.too_few or min(n, len(self) - n) >= LEAST_OF_A_SIDE:
            return self.too_few
        return f"{n} atypical and {len(self) - n} normal figures: fewer than {LEAST_OF_A_SIDE}"


@dataclass(frozen=True)
class AdaptedPart:
    """One number of a model, as it was shipped and as it is for the site."""

    name: str
    shipped: float
    adapted: float
    low: float | None = None
    """95 % interval of what the site needs; None where too few figures bear on it."""
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

    def to_json(self) -> dict[str, Any]:
        """Give it as an entry of the provenance, without what it has not."""
        return {name: value for name, value in vars(self).items() if value not in (None, "")}


def adapt_postprocessing(
    shipped: Postprocessing, local: LocalFigures
) -> tuple[Postprocessing, list[AdaptedPart]]:
    """Refit temperature and operating points on figures of the site."""
    temperature = adapted_temperature(shipped.calibration.temperature, local)
    factor = temperature.adapted / temperature.shipped
    probabilities = local.probabilities
    if factor != 1:
        probabilities = apply_temperature(probabilities, factor).astype(np.float64)
    thresholds = adapted_thresholds(shipped, local, probabilities)
    points = {
        name: shipped.points[name].model_copy(update={"threshold": part.adapted})
        for name, part in thresholds.items()
        if name in shipped.points
    }
    adapted = replace(
        shipped,
        calibration=Calibration(temperature.adapted),
        threshold=thresholds[shipped.operating_point].adapted,
        points=points,
    )
    return adapted, [temperature, *thresholds.values()]


def adapted_temperature(shipped: float, local: LocalFigures) -> AdaptedPart:
    """Find the temperature of least log loss at the site, drawn towards the shipped one."""
    known = local.subtypes != UNKNOWN
    if local.too_few or not known.any():
        why = local.too_few or "the label has no subtypes"
        return AdaptedPart("temperature", shipped, shipped, kept=why)
    given, labels = local.probabilities[known], local.subtypes[known]
    weights = local.weights[known] / local.weights[known].mean()
    factor = fit_temperature(given, labels, weights)
    logits = np.log(np.maximum(given, 1e-9)) / factor
    p = apply_temperature(given, factor)
    mean = (p * logits).sum(axis=1)
    slopes = logits[np.arange(len(labels)), labels] - mean  # of the log loss in log T
    curvatures = (p * (logits - mean[:, None]) ** 2).sum(axis=1)
    influences = weights * slopes / (weights @ curvatures)
    variance = clustered_variance(influences, local.patients[known])
    found = SiteShift.drawn(math.log(factor), variance, SPREAD_OF_TEMPERATURE)
    return AdaptedPart.drawn("temperature", shipped, found, lambda by: shipped * math.exp(by))


def adapted_thresholds(
    shipped: Postprocessing, local: LocalFigures, probabilities: FloatArray
) -> dict[str, AdaptedPart]:
    """Find thresholds, by operating point, at which a call has as much evidence as it was shipped.

    All of them move together in the odds of p_atypical. `probabilities` (N, 8) are of the site's
    temperature; where that is another than the shipped one, each threshold first goes to the same
    rank among the site's figures.
    """
    p = p_atypical(probabilities).astype(np.float64)
    before, after = (
        np.concatenate([[0.0], np.sort(p_atypical(of)), [1.0]])
        for of in (local.probabilities, probabilities)
    )
    offered = {shipped.operating_point: shipped.threshold}
    offered |= {name: point.threshold for name, point in shipped.points.items()}
    retains, kept = np.array_equal(before, after), local.too_few_of_a_side
    if not kept:
        prevalence = sum(shipped.decision.prior[:N_ATYPICAL])
        found = evidence_shift(p, local.is_atypical, local.patients, local.weights, prevalence)
        shift = SiteShift.drawn(*found, SPREAD_OF_EVIDENCE)

    def adapted(name: str, threshold: float) -> AdaptedPart:
        same = threshold if retains else float(np.interp(threshold, before, after))
        if kept or not 0 < same < 1:
            return AdaptedPart(name, threshold, same, kept=kept or "it calls all figures alike")
        odds = same / (1 - same)
        return AdaptedPart.drawn(name, threshold, shift, lambda by: odds / (odds + math.exp(by)))

    return {name: adapted(f"threshold {name}", threshold) for name, threshold in offered.items()}


def save_adapted(
    bundle: Path,
    out: Path,
    fitted: Mapping[str, Postprocessing],
    record: Mapping[str, Any],
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
    if isinstance(header, BundleHeader) and header.fast is not None and FAST in fitted:
        update["fast"] = header.fast.model_copy(update=fitted[FAST].to_header())
    with building_folder(out) as folder:
        shutil.copytree(bundle, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("onnx"))
        write_header(folder, header.model_copy(update=update))
        write_card(folder, f"{card or ''}\n{_card_section(record)}".lstrip())


def _card_section(record: Mapping[str, Any]) -> str:
    """Section of the model card on what was adapted."""
    lines = [
        f"## Adapted to {record['cohort']}",
        "",
        f"Refitted on {record['figures']} figures of {record['patients']} patients by the label "
        f"{record['label']}, {record['atypical']} of them atypical; the networks are those of "
        "the model above, and what it was worth elsewhere was measured before.",
        "",
        "| | shipped | here | 95 % | |",
        "|---|---|---|---|---|",
    ]
    for quality, parts in record["parts"].items():
        for part in parts:
            interval = f"{part['low']:.3f} to {part['high']:.3f}" if "low" in part else ""
            lines.append(
                f"| {part['name']}, {quality} | {part['shipped']:.3f} | {part['adapted']:.3f} "
                f"| {interval} | {part.get('kept', '')} |"
            )
    return "\n".join(lines) + "\n"
