"""Tables of predictions on the same patches compared: differences, and the trade of two rates."""

from __future__ import annotations

from functools import partial
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from atypia.core.errors import InputError, Problem, first_few
from atypia.core.labels import N_ATYPICAL, SUBTYPES, in_words
from atypia.evaluation import metrics
from atypia.evaluation.intervals import (
    OF,
    RESAMPLES,
    described,
    difference,
    estimate,
    finite_or_none,
    measure,
)
from atypia.evaluation.scores import SIDES, binary_statistic, stage_statistic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.evaluation.intervals import Estimate, Statistic
    from atypia.evaluation.metrics import FloatArray, IntArray, Measures
    from atypia.evaluation.predictions import Predictions

MEASURES: Final = ("sensitivity", "specificity")
ATYPICAL: Final = "atypical"
MEAN: Final = "mean of subtypes"


def compare(
    tables: Mapping[str, Predictions],
    label: str = "expert1",
    resamples: int = RESAMPLES,
    seed: int = 0,
    *,
    intersection: bool = False,
    average_repeats: bool = False,
) -> dict[str, Any]:
    """Differences of two or more tables over the same patients, with intervals.

    Args:
        tables: Name to table; every later one is compared with every earlier one.
        label: A rater, ``agreed`` or ``majority_atypical`` (binary measures only).
        resamples: As for :func:`atypia.evaluation.intervals.estimate`.
        seed: As there.
        intersection: Compare on the patches that all tables have, instead of refusing.
        average_repeats: Aggregate repeated predictions of a patch, see
            :meth:`atypia.evaluation.predictions.Predictions.averaged`, instead of refusing.

    Returns:
        ``left_out`` (patches per table outside the intersection), ``not_answered`` (patches per
        table without a call, by status; such a patch is left out of every table),
        ``lower_is_better`` (names of measures), ``measures`` (table, name, value) and
        ``differences``: a list of
        ``{"of", "minus", "measures": {name: {"value", "low", "high", "p", "undefined"}}}``.
        Measures are named ``binary.auc``, ``binary.at_0.5.sensitivity``,
        ``stages.atypical_subtypes.mean_auc`` and so on; ``p`` is the two-sided p-value of no
        difference. What is undefined is None.

    Raises:
        InputError: Fewer than two tables, other patches, patients or labels, or no labelled row.
    """
    if len(tables) < 2:
        raise InputError(f"expected two or more tables to compare but got {len(tables)}.")
    if average_repeats:
        tables = {name: table.averaged() for name, table in tables.items()}
    tables, not_answered = _answered_by_all(tables)
    aligned, left_out = _align(tables, intersection=intersection)
    truth, binary_only = _common_truth(aligned, label)
    known = next(iter(aligned.values())).rows_with(truth, label)
    scored = {name: table.take(known) for name, table in aligned.items()}
    patients = next(iter(scored.values())).patients
    estimates = {}
    for name, table in scored.items():
        statistic = _statistic(table, truth[known], binary_only=binary_only)
        estimates[name] = estimate(statistic, patients, resamples, seed)
    measures = list(next(iter(estimates.values())))
    return {
        "label": label,
        "n": int(known.sum()),
        "n_patients": len(np.unique(patients)),
        "n_without_label": int((~known).sum()),
        "left_out": left_out,
        "not_answered": not_answered,
        "interval": described(resamples, seed),
        "lower_is_better": sorted(
            m for m in measures if m.rpartition(".")[2] in metrics.LOWER_IS_BETTER
        ),
        "measures": {
            name: {m: finite_or_none(found.value) for m, found in of_table.items()}
            for name, of_table in estimates.items()
        },
        "differences": [
            {
                "of": second,
                "minus": first,
                "measures": {
                    m: measure(difference(estimates[second][m], estimates[first][m]))
                    for m in measures
                },
            }
            for first, second in combinations(estimates, 2)
        ],
    }


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """Write the comparison as Markdown: one table per pair, one line per measure."""
    interval = comparison["interval"]
    lines = [
        f"Label {comparison['label']}: {comparison['n']} patches of {comparison['n_patients']} "
        f"patients; {interval['level']:.0%} intervals and p-values by leaving out one patient at a "
        "time, in all tables at once.",
    ]
    for name, left_out in comparison["left_out"].items():
        if left_out:
            lines.append(f"{left_out} patches of {name} are not in every table and left out.")
    for name, counts in comparison["not_answered"].items():
        if counts:
            lines.append(f"Left out of every table, as {name} has no call: {in_words(counts)}.")
    if comparison["n_without_label"]:
        lines.append(f"{comparison['n_without_label']} patches have no such label.")
    for pair in comparison["differences"]:
        of, minus = pair["of"], pair["minus"]
        lines += [
            "",
            f"| measure | {minus} | {of} | difference | {interval['level']:.0%} interval | p |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for name, d in pair["measures"].items():
            note = " (lower is better)" if name in comparison["lower_is_better"] else ""
            before = _number(comparison["measures"][minus][name], ".3f")
            after = _number(comparison["measures"][of][name], ".3f")
            lines.append(
                f"| {name}{note} | {before} | {after} | {_number(d['value'], '+.3f')} | "
                f"{_number(d['low'], '+.3f')} to {_number(d['high'], '+.3f')} | "
                f"{_number(d['p'], '.4f')} |"
            )
    return "\n".join(lines) + "\n"


def _answered_by_all(
    tables: Mapping[str, Predictions],
) -> tuple[dict[str, Predictions], dict[str, dict[str, int]]]:
    """Leave the patches out that one of the tables has no call for; what each has none for."""
    open_ids = [table.patch_ids[~table.answered] for table in tables.values()]
    answered = {
        name: table.take(~np.isin(table.patch_ids, np.concatenate(open_ids)))
        for name, table in tables.items()
    }
    return answered, {name: table.left_out for name, table in tables.items()}


def _align(
    tables: Mapping[str, Predictions], *, intersection: bool
) -> tuple[dict[str, Predictions], dict[str, int]]:
    """Rows of every table in the order of the common patches, and how many each leaves out."""
    problems = []
    for name, table in tables.items():
        ids, times = np.unique(table.patch_ids, return_counts=True)
        if (times > 1).any():
            several = first_few(ids[times > 1].tolist())
            what = f"expected every patch once but got {several} several times."
            advice = "Compare single folds or repeats, or ask for the repeats to be averaged."
            problems.append(Problem(f"{what} {advice}", name))
    if problems:
        raise InputError(problems)
    every = set().union(*(table.patch_ids.tolist() for table in tables.values()))
    common = every.intersection(*(table.patch_ids.tolist() for table in tables.values()))
    for name, table in tables.items():
        if not intersection and (missing := sorted(every - set(table.patch_ids.tolist()))):
            what = f"expected the patches of the other tables but {len(missing)} are missing: "
            advice = "Ask for the intersection to compare on the common patches only."
            problems.append(Problem(f"{what}{first_few(missing)}. {advice}", name))
    if not common:
        problems.append(Problem(f"expected patches common to {list(tables)} but there are none."))
    if problems:
        raise InputError(problems)
    patches = np.array(sorted(common))
    aligned = {}
    for name, table in tables.items():
        order = np.argsort(table.patch_ids)
        aligned[name] = table.take(order[np.searchsorted(table.patch_ids[order], patches)])
    first_name, first = next(iter(aligned.items()))
    for name, table in aligned.items():
        other = table.patients != first.patients
        if other.any():
            what = f"expected the patients of {first_name} but got others for {int(other.sum())} "
            problems.append(Problem(f"{what}patches: {first_few(patches[other])}.", name))
    if problems:
        raise InputError(problems)
    return aligned, {name: len(table) - len(patches) for name, table in tables.items()}


def _common_truth(aligned: Mapping[str, Predictions], label: str) -> tuple[IntArray, bool]:
    """Take the label from the tables that have it, the same in all; and whether it is of votes."""
    named = {n: t for n, t in aligned.items() if label in t.label_choices or t.vote_column(label)}
    of_subtypes = {name: t for name, t in named.items() if t.vote_column(label) is None}
    truths = {name: table.subtypes_of(label) for name, table in of_subtypes.items()}
    truths = truths or {name: table.atypical_of(label) for name, table in named.items()}
    if not truths:
        choices = sorted({c for table in aligned.values() for c in table.label_choices})
        raise InputError(f"expected a label out of {choices} but got {label!r}.")
    first_name, first = next(iter(truths.items()))
    problems = [
        Problem(
            f"expected the labels {label!r} of {first_name} but got others for "
            f"{int((truth != first).sum())} patches: "
            f"{first_few(aligned[name].patch_ids[truth != first].tolist())}.",
            name,
        )
        for name, truth in truths.items()
        if (truth != first).any()
    ]
    if problems:
        raise InputError(problems)
    return first, not of_subtypes


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _statistic(table: Predictions, truth: IntArray, *, binary_only: bool) -> Statistic:
    atypical = truth == 1 if binary_only else truth < N_ATYPICAL
    binary = binary_statistic(table, atypical)
    stages = None if binary_only else stage_statistic(table, truth)

    def statistic(weights: FloatArray) -> Measures:
        measures: Measures = {}
        if not binary_only:
            every = metrics.subtype_measures(truth, table.predicted, table.probabilities, weights)
            measures |= metrics.only(every, metrics.OVERALL)
        measures |= {f"binary.{name}": v for name, v in binary(weights).items()}
        if stages is not None:
            measures |= {
                f"stages.{name}": v
                for name, v in stages(weights).items()
                if name.partition(".")[0] in SIDES  # the side is in the binary measures
            }
        return measures

    return statistic


def trade(
    tables: Mapping[str, Predictions],
    label: str = "expert1",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Sensitivity and specificity of each model's calls, and how far they are from the first's.

    Arguments as for :func:`compare`; the tables are of the same patches.

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
    known = aligned[first].rows_with(truth, label)
    truth = truth[known]
    scored = {name: table.take(known) for name, table in aligned.items()}

    estimates = {
        name: estimate(partial(_rates, table, truth), table.patients, resamples, seed)
        for name, table in scored.items()
    }
    atypical = int((truth < N_ATYPICAL).sum())
    sizes = [atypical, *np.bincount(truth, minlength=len(SUBTYPES)), len(truth)]
    rows = []
    for name, n in zip((ATYPICAL, *SUBTYPES, MEAN), sizes, strict=True):
        for model in scored:
            row: dict[str, Any] = {"question": name, "n": int(n), "model": model}
            for rate in MEASURES:
                own, base = (estimates[m][f"{name} {rate}"] for m in (model, first))
                row |= _interval(rate, own)
                if model != first:
                    row |= _interval(f"{rate}_difference", difference(own, base))
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
        for rate in MEASURES:
            cells += [_cell(row, rate, ".3f"), _cell(row, f"{rate}_difference", "+.3f")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _rates(table: Predictions, truth: Any, weights: FloatArray) -> Measures:
    """Both measures (R,) of atypical, each subtype and their mean: ``atypical sensitivity``."""
    binary = metrics.binary_measures(truth < N_ATYPICAL, table.predicted_atypical, weights)
    subtypes = metrics.agreement_measures(truth, table.predicted, weights)
    rates: Measures = {}
    for rate, ending in product(MEASURES, ("", OF)):
        of_each = subtypes[f"{rate}{ending}"]
        rates[f"{ATYPICAL} {rate}{ending}"] = binary[f"{rate}{ending}"]
        rates |= {f"{name} {rate}{ending}": of_each[:, c] for c, name in enumerate(SUBTYPES)}
        rates[f"{MEAN} {rate}{ending}"] = of_each if ending else metrics.mean_of_defined(of_each)
    return rates


def _aligned(tables: Mapping[str, Predictions]) -> dict[str, Predictions]:
    ordered = {n: t.take(np.lexsort((t.folds, t.patch_ids))) for n, t in tables.items()}
    ids = [np.stack([table.patch_ids, table.folds]) for table in ordered.values()]
    if any(not np.array_equal(ids[0], other) for other in ids[1:]):
        sizes = ", ".join(f"{len(table)} ({name})" for name, table in tables.items())
        raise InputError(f"expected tables of the same patches and folds but got {sizes}.")
    return ordered


def _interval(name: str, found: Estimate) -> dict[str, float]:
    ends = {f"{name}_low": float(found.low), f"{name}_high": float(found.high)}
    return {name: float(found.value), **ends}


def _cell(row: Mapping[Any, Any], name: str, form: str) -> str:
    if name not in row or row[name] != row[name]:
        return "–"
    return f"{row[name]:{form}} ({row[f'{name}_low']:{form}} to {row[f'{name}_high']:{form}})"
