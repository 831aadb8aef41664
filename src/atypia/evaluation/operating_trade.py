"""The trade between sensitivity and specificity: several models on the same patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from atypia.core.errors import InputError
from atypia.core.labels import N_ATYPICAL, SUBTYPES
from atypia.evaluation import metrics
from atypia.evaluation.intervals import RESAMPLES, percentile_interval, resample
from atypia.evaluation.predictions import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.evaluation.metrics import FloatArray, Measures
    from atypia.evaluation.predictions import Predictions

MEASURES: Final = ("sensitivity", "specificity")
ATYPICAL: Final = "atypical"
MEAN: Final = "mean of subtypes"


def trade(
    tables: Mapping[str, Predictions],
    label: str = "expert1",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Sensitivity and specificity of each model's calls, and how far they are from the first's.

    Args:
        tables: Name to table, all of the same patches; the first is what the others are compared
            with.
        label: A rater, or ``agreed``.
        resamples: Resamples of patients, the same for all tables.
        seed: Seed of the resampling.

    Returns:
        One row per question (``atypical``, each subtype, the mean over subtypes) and model:
        ``question``, ``n`` (figures that are so), ``model``, and for both measures the value,
        ``_low`` and ``_high`` (95 % intervals), and ``_difference`` with its own interval; NaN
        where undefined, or for the first model.

    Raises:
        InputError: Tables of other patches, or none with the label.
    """
    first, aligned = next(iter(tables)), _aligned(tables)
    truth = aligned[first].subtypes_of(label)
    known = truth != UNKNOWN
    if not known.any():
        raise InputError(f"expected rows with the label {label!r} but none of {len(truth)} has it.")
    truth = truth[known]
    scored = {name: table.take(known) for name, table in aligned.items()}

    def statistic(weights: FloatArray) -> Measures:
        return {
            f"{name}.{measure}": values
            for name, table in scored.items()
            for measure, values in _rates(table, truth, weights).items()
        }

    values = statistic(np.ones((1, len(truth))))
    samples = resample(statistic, scored[first].patients, resamples, seed)
    atypical = int((truth < N_ATYPICAL).sum())
    sizes = [atypical, *np.bincount(truth, minlength=len(SUBTYPES)), len(truth)]
    rows = []
    for question, (name, n) in enumerate(zip((ATYPICAL, *SUBTYPES, MEAN), sizes, strict=True)):
        for model in scored:
            row: dict[str, Any] = {"question": name, "n": int(n), "model": model}
            for measure in MEASURES:
                own, base = f"{model}.{measure}", f"{first}.{measure}"
                value, sample = values[own][0, question], samples[own][:, question]
                row |= _interval(measure, value, sample)
                if model != first:
                    value, sample = (
                        value - values[base][0, question],
                        sample - samples[base][:, question],
                    )
                    row |= _interval(f"{measure}_difference", value, sample)
            rows.append(row)
    return pd.DataFrame(rows)


def trade_table(table: pd.DataFrame) -> str:
    """Write the trade as Markdown."""
    lines = [
        "| question | figures | model | sensitivity | difference | specificity | difference |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for row in table.to_dict("records"):
        cells = [str(row["question"]), f"{row['n']:,}", str(row["model"])]
        for measure in MEASURES:
            cells += [_told(row, measure, ".3f"), _told(row, f"{measure}_difference", "+.3f")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _rates(table: Predictions, truth: Any, weights: FloatArray) -> Measures:
    """Both measures, (R, 1 + 8 + 1): atypical, each subtype, their mean."""
    binary = metrics.binary_measures(truth < N_ATYPICAL, table.predicted_atypical, weights)
    subtypes = metrics.agreement_measures(truth, table.predicted, weights)
    rates = {}
    for measure in MEASURES:
        of_each = subtypes[measure]
        defined = (~np.isnan(of_each)).sum(axis=1, keepdims=True)
        mean = np.nansum(of_each, axis=1, keepdims=True) / np.maximum(defined, 1)
        rates[measure] = np.hstack([binary[measure][:, None], of_each, mean])
    return rates


def _aligned(tables: Mapping[str, Predictions]) -> dict[str, Predictions]:
    ordered = {n: t.take(np.lexsort((t.folds, t.patch_ids))) for n, t in tables.items()}
    ids = [np.stack([table.patch_ids, table.folds]) for table in ordered.values()]
    if any(not np.array_equal(ids[0], other) for other in ids[1:]):
        sizes = ", ".join(f"{len(table)} ({name})" for name, table in tables.items())
        raise InputError(f"expected tables of the same patches and folds but got {sizes}.")
    return ordered


def _interval(name: str, value: float, sample: FloatArray) -> dict[str, float]:
    low, high = percentile_interval(sample)
    return {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}


def _told(row: Mapping[Any, Any], name: str, form: str) -> str:
    if name not in row or row[name] != row[name]:
        return "–"
    return f"{row[name]:{form}} ({row[f'{name}_low']:{form}} to {row[f'{name}_high']:{form}})"
