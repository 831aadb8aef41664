"""How often 95 % intervals hold the truth, for 12, 40 and 200 patients.

The patients of AMi-Br are taken for the population: the truth is a measure of the whole table of
out-of-fold predictions. Patients are drawn from it with replacement, each draw is measured as if it
were all there is, and it is counted how often the interval holds the truth. Beside it the interval
that was given before: the percentiles of resampled patients.

    python benchmarks/coverage.py --out docs/results/coverage.md

Differences are those of two models on the same draws, the second minus the first.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.files import write_text
from atypia.core.labels import DISPLAY_NAMES, N_ATYPICAL, SUBTYPES
from atypia.evaluation import metrics
from atypia.evaluation.intervals import Estimate, difference, estimate, patient_weights
from atypia.evaluation.predictions import Predictions, read_predictions
from atypia.evaluation.scores import binary_statistic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from atypia.evaluation.metrics import FloatArray, IntArray, Measures

    Interval = tuple[FloatArray, FloatArray]

RESULTS: Final = Path(__file__).parents[1] / "docs" / "results"
DRAWS: Final = {12: 1000, 40: 1000, 200: 300}
"""Draws by how many patients; resampling as before is done for the first quarter of them."""
RESAMPLES: Final = 300
CALL: Final = "at_operating_point."
NAMES: Final = {
    "mean_auc": "mean AUC",
    "balanced_accuracy": "balanced accuracy, eight subtypes",
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "kappa": "κ",
    "log_loss": "log-loss",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
    "auc": "atypical or not: AUC",
    f"{CALL}balanced_accuracy": "atypical or not: balanced accuracy",
    f"{CALL}sensitivity": "atypical or not: sensitivity",
    f"{CALL}specificity": "atypical or not: specificity",
    f"{CALL}ppv": "atypical or not: PPV",
    "p_atypical.ece": "p(atypical): calibration error (ECE)",
}
OF_EACH: Final = {"sensitivity": "Sensitivity", "ppv": "PPV", "auc": "AUC"}
DIFFERENCE: Final = "difference of "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tables", nargs=2, default=["released-all", "lora-all"])
    parser.add_argument("--share", type=float, default=1.0, help="Of the draws, to try it out.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tables = [labelled(read_predictions(RESULTS / name)) for name in options.tables]
    found = {
        n: coverage(tables, n, max(4, round(draws * options.share)), options.seed)
        for n, draws in DRAWS.items()
    }
    text = page(found, options.tables, len(np.unique(tables[0].patients)))
    print(text)
    if options.out:
        write_text(options.out, text)


def labelled(table: Predictions) -> Predictions:
    """Keep the rows with a label, in the order of their patches."""
    table = table.take(table.subtypes_of("expert1") >= 0)
    return table.take(np.argsort(table.patch_ids))


def measures(table: Predictions, truth: IntArray, weights: FloatArray) -> Measures:
    """All measures of the page; those of each subtype are arrays."""
    atypical = truth < N_ATYPICAL
    subtypes = metrics.subtype_measures(truth, table.predicted, table.probabilities, weights)
    calibration = metrics.calibration_measures(atypical, table.p_atypical, weights)
    return {
        **metrics.only(subtypes, [n for n in metrics.OVERALL if n in NAMES]),
        **{f"each.{k}": v for k, v in metrics.only(subtypes, OF_EACH).items()},
        **binary_statistic(table, atypical)(weights),
        **{f"p_atypical.{k}": v for k, v in calibration.items()},
    }


def coverage(tables: list[Predictions], n: int, draws: int, seed: int) -> dict[str, Counts]:
    """Count for `n` patients how often each interval holds the truth."""
    truth = tables[0].subtypes_of("expert1")
    everything = [measures(t, truth, np.ones((1, len(t)))) for t in tables]
    true = {name: values[0] for name, values in everything[0].items()}
    true |= {f"{DIFFERENCE}{k}": everything[1][k][0] - v for k, v in true.items()}
    names, patient = np.unique(tables[0].patients, return_inverse=True)
    rows_of = [np.flatnonzero(patient == i) for i in range(len(names))]
    rng = np.random.default_rng(seed)
    counts: dict[str, Counts] = {}
    for draw in range(draws):
        drawn = [rows_of[i] for i in rng.integers(0, len(names), n)]
        rows = np.concatenate(drawn)
        patients = np.repeat(np.arange(n), [len(r) for r in drawn])
        statistics = [partial(measures, t.take(rows), truth[rows]) for t in tables]
        estimates = [estimate(s, patients, RESAMPLES, draw) for s in statistics]
        now = {
            **estimates[0],
            **{f"{DIFFERENCE}{k}": difference(estimates[1][k], v) for k, v in estimates[0].items()},
        }
        before = percentiles(statistics, patients, draw) if draw < draws / 4 else {}
        for name, found in now.items():
            counts.setdefault(name, Counts()).add(true[name], found, before.get(name))
    return counts


class Counts:
    """What came out draw by draw; arrays where a measure is one."""

    def __init__(self) -> None:
        self.true: FloatArray = np.array(np.nan)
        self.held: list[FloatArray] = []
        self.width: list[FloatArray] = []
        self.held_before: list[FloatArray] = []
        self.width_before: list[FloatArray] = []

    def add(self, true: FloatArray, found: Estimate, before: Interval | None) -> None:
        """Count one draw; a draw without an interval counts for nothing."""
        self.true = true
        self.held.append(holds(found.low, true, found.high))
        self.width.append(found.high - found.low)
        if before is not None:
            self.held_before.append(holds(before[0], true, before[1]))
            self.width_before.append(before[1] - before[0])


def holds(low: FloatArray, true: FloatArray, high: FloatArray) -> FloatArray:
    """1 or 0, NaN where there is no interval."""
    return np.where(np.isnan(low + high), np.nan, (low <= true) & (true <= high))


def percentiles(
    statistics: Sequence[Callable[[FloatArray], Measures]], patients: IntArray, seed: int
) -> dict[str, Interval]:
    """Percentiles of resampled patients, of one table and of the difference."""
    chunks: dict[str, list[FloatArray]] = {}
    for weights in patient_weights(patients, RESAMPLES, seed):
        first, second = (statistic(weights) for statistic in statistics)
        for name, values in first.items():
            if "/" not in name:
                chunks.setdefault(name, []).append(values)
                chunks.setdefault(f"{DIFFERENCE}{name}", []).append(second[name] - values)
    found = {}
    for name, parts in chunks.items():
        low, high = np.nanquantile(np.concatenate(parts), [0.025, 0.975], axis=0)
        found[name] = (low, high)
    return found


def page(found: Mapping[int, Mapping[str, Counts]], tables: list[str], patients: int) -> str:
    """Lay it out."""
    draws = ", ".join(f"{len(of['kappa'].held):,} draws of {n}" for n, of in found.items())
    head = [
        f"| measure | truth | {' | '.join(f'{n} patients' for n in found)} | width, 40 |",
        f"|---|---:|{'---:|' * len(found)}---:|",
    ]
    lines = [
        "# How often the intervals hold the truth",
        "",
        f"Made by `benchmarks/coverage.py`, seed 0: {draws} of the {patients} patients of AMi-Br, "
        f"drawn with replacement from the out-of-fold predictions of `{tables[0]}` against expert "
        "1. The truth is the measure of all patients. Percent of the 95 % intervals that hold it; "
        f"in brackets the percentiles of {RESAMPLES:,} resamples of patients, as reports gave them "
        "before (a quarter of the draws). *Width*: median width of the intervals of 40 patients. "
        "The test part of the split `table1` has 40 patients. The chance of the draws alone moves "
        "these numbers by 1 to 2 points.",
        "",
        *head,
    ]
    lines += [line(label, found, name, ()) for name, label in NAMES.items()]
    for kind, title in OF_EACH.items():
        lines += [
            "",
            f"## {title} of each subtype",
            "",
            *head,
        ]
        lines += [line(DISPLAY_NAMES[s], found, f"each.{kind}", c) for c, s in enumerate(SUBTYPES)]
    lines += [
        "",
        "## Differences",
        "",
        f"`{tables[1]}` minus `{tables[0]}` on the same draws.",
        "",
        *head,
    ]
    lines += [line(label, found, f"{DIFFERENCE}{name}", ()) for name, label in NAMES.items()]
    return "\n".join(lines) + "\n"


def line(
    label: str, found: Mapping[int, Mapping[str, Counts]], name: str, index: int | tuple[()]
) -> str:
    """Write one row."""
    true = next(iter(found.values()))[name].true[index]
    cells = [label, f"{true:+.3f}" if name.startswith(DIFFERENCE) else f"{true:.3f}"]
    for counts in found.values():
        now, before = (mean(h, index) for h in (counts[name].held, counts[name].held_before))
        cells.append(f"{100 * now:.1f} ({100 * before:.1f})")
    at_40 = found[40][name]
    widths = [np.nanmedian([w[index] for w in of]) for of in (at_40.width, at_40.width_before)]
    cells.append(f"{widths[0]:.3f} ({widths[1]:.3f})")
    return f"| {' | '.join(cells)} |"


def mean(values: list[FloatArray], index: int | tuple[()]) -> float:
    """Mean over the draws with an interval."""
    return float(np.nanmean([value[index] for value in values]))


if __name__ == "__main__":
    main()
