"""What `atypia adapt` gains at a new site, by how many figures are labelled there.

    atypia prepare ../shared/atnorm-md --out cohorts/atnorm --mpp 0.25 \
        --patients ../shared/atnorm-md/groups.csv
    atypia predict cohorts/atnorm --out atnorm.csv
    python benchmarks/adapt.py --atnorm atnorm.csv --out docs/results/adapt.md

Sites are the two domains of AMi-Br, each answered by networks of the other, their scanners and
laboratories, and, as another hospital, AtNorM-MD, answered by the model in the package. What was
shipped is fitted as a training does: to the other domain's figures out of fold. In every draw half
of the site's patients can be labelled; the others are the test. Figures are chosen at random or as
`atypia adapt --plan` does, and the gain is that of the balanced accuracy of the call.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from thresholds import groups

from atypia.classifiers.bundle import find_bundle, read_header
from atypia.classifiers.calibration import Calibration
from atypia.classifiers.decision import p_atypical
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.config import load_config
from atypia.core.files import write_text
from atypia.core.labels import PROBABILITY_COLUMNS
from atypia.evaluation.metrics import binary_measures
from atypia.evaluation.predictions import Predictions, read_predictions
from atypia.evaluation.sampling_plan import chances, draw_figures
from atypia.evaluation.site_shift import LEAST_OF_A_SIDE, evidence_shift
from atypia.training.outer_split import fit_postprocessing
from atypia.training.site_adaptation import LocalFigures, adapt_postprocessing
from atypia.training.targets import scored_labels

if TYPE_CHECKING:
    import numpy.typing as npt

RESULTS: Final = Path("docs/results")
SIZES: Final = (50, 100, 200)
TRUTHS: Final = ("expert1", "majority_atypical")
LEAST_TEST: Final = 100
LEAST_DRAWS: Final = 10
"""Fewer are no mean: the cell is a dash, and the site is in no mean over sites."""

CHOSEN: Final = (
    "The spread over sites (0.2) and the odds at which a threshold moves (3 : 1) were chosen by "
    "`--choose` on the AMi-Br sites that are reported here, so gains there may be too good. "
    "AtNorM-MD was not used."
)


def main() -> None:
    """Measure the gain at every site, and choose spread and odds on AMi-Br with --choose."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--atnorm", type=Path, help="predictions of the model in the package")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--choose", action="store_true", help="the spread and the odds, on AMi-Br")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sites = ami_br_sites()
    if options.choose:
        print(choice(sites, options.draws))
        return
    if options.atnorm is not None:
        bundle = find_bundle("released")
        shipped = Postprocessing.from_header(read_header(bundle), "model.json")
        sites["AtNorM-MD"] = (shipped, read_predictions(options.atnorm))
    page = report(sites, options.draws)
    print(page)
    if options.out is not None:
        write_text(options.out, page)


def ami_br_sites() -> dict[str, tuple[Postprocessing, Predictions]]:
    """Domains of AMi-Br and their parts, each with what was fitted to the other domain."""
    known = pd.read_csv(RESULTS / "released-all/predictions-oof.csv.bz2", keep_default_na=False)
    known = known.astype(dict.fromkeys(PROBABILITY_COLUMNS, float))
    config = load_config("released", [])
    tested = read_predictions(RESULTS / "flat-domains/predictions-test.csv.bz2")
    sites: dict[str, tuple[Postprocessing, Predictions]] = {}
    for domain in ("MIDOG21", "TUPAC16"):
        source = known[known["domain"] != domain].reset_index(drop=True)
        probabilities = source[list(PROBABILITY_COLUMNS)].to_numpy()
        fitted, _ = fit_postprocessing(
            config,
            source,
            scored_labels(source, "expert1"),
            probabilities,
            source["fold"].to_numpy(dtype=int),
        )
        shipped = replace(fitted, calibration=Calibration())  # the tables are calibrated
        target = tested.take(tested.domains == domain)
        sites |= {name: (shipped, target.take(rows)) for name, rows in groups(target).items()}
    return sites


def draws_of(
    site: Predictions, label: str, figures: int, planned: bool, draws: int
) -> list[tuple[LocalFigures, Predictions]]:
    """Draw labelled figures of half of the patients, and give all figures of the others."""
    site = site.take(site.atypical_of(label) >= 0)
    made = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        names = rng.permutation(np.unique(site.patients))
        half = np.isin(site.patients, names[: len(names) // 2])
        pool, rest = site.take(half), site.take(~half)
        if len(pool) < 1.5 * figures or len(rest) < LEAST_TEST:
            continue
        if planned:
            rows = draw_figures(pool.p_atypical, figures, seed)
            weights = 1 / chances(pool.p_atypical, figures)[rows]
        else:
            rows, weights = rng.choice(len(pool), figures, replace=False), np.ones(figures)
        made.append((LocalFigures(pool.take(rows), label, weights, {}), rest))
    return made


def accuracy(postprocessing: Postprocessing, test: Predictions, label: str) -> float:
    """Balanced accuracy of the call."""
    p = p_atypical(postprocessing.calibration.apply(test.probabilities))
    truth = test.atypical_of(label) == 1
    called = p >= postprocessing.threshold
    return float(binary_measures(truth, called)["balanced_accuracy"][0])


def relative(adapted: Postprocessing, shipped: Postprocessing) -> Postprocessing:
    """Apply only what the temperature changes: the tables are calibrated as shipped."""
    factor = adapted.calibration.temperature / shipped.calibration.temperature
    return replace(adapted, calibration=Calibration(factor))


def report(sites: dict[str, tuple[Postprocessing, Predictions]], draws: int) -> str:
    """Lay out the gains."""
    lines = [
        "# What a model gains from labels of a new site",
        "",
        f"Made by `benchmarks/adapt.py`, {draws} draws (seeds 0 to {draws - 1}). Gain of the "
        "balanced accuracy of the call on patients without labels, in thousandths: the mean, and "
        "in brackets the worst and the best twentieth of the draws; after the bar how often the "
        f"threshold moved. A dash: the site has figures for fewer than {LEAST_DRAWS} draws, and is "
        "in no mean.",
        "",
        CHOSEN,
    ]
    totals: dict[str, list[float]] = {}
    for label in TRUTHS:
        lines += ["", f"## By {label}", ""]
        ways = [(n, planned) for n in SIZES for planned in (False, True)]
        heads = [f"{n} {'planned' if planned else 'at random'}" for n, planned in ways]
        lines += [f"| site | shipped | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
        for name, (shipped, site) in sites.items():
            if label not in site.label_choices and not site.vote_column(label):
                continue
            plain = replace(shipped, calibration=Calibration())
            base = accuracy(plain, site.take(site.atypical_of(label) >= 0), label)
            cells = []
            for head, (n, planned) in zip(heads, ways, strict=True):
                gains, moved = gains_of(shipped, draws_of(site, label, n, planned, draws), label)
                if len(gains) >= LEAST_DRAWS:
                    totals.setdefault(f"{label}, {head}, {kind(name)}", []).append(gains.mean())
                cells.append(cell(gains, moved))
            lines.append(f"| {name} | {base:.3f} | {' | '.join(cells)} |")
    lines += ["", "## Mean over sites", "", "| | gain |", "|---|---|"]
    lines += [f"| {name} | {1000 * np.mean(values):+.1f} |" for name, values in totals.items()]
    return "\n".join(lines) + "\n"


def kind(site: str) -> str:
    """Tell whole domains from their parts."""
    return "domains" if site.endswith(", all") else "AtNorM-MD" if "AtNorM" in site else "parts"


def gains_of(
    shipped: Postprocessing, made: list[tuple[LocalFigures, Predictions]], label: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Gain of each draw, and whether its threshold moved."""
    # Of the thresholds one, and neither sets nor errors: they change no call.
    shipped = replace(shipped, points={}, conformal=None, errors=None)
    plain, gains, moved = replace(shipped, calibration=Calibration()), [], []
    for local, test in made:
        adapted, parts = adapt_postprocessing(shipped, local)
        gains.append(
            accuracy(relative(adapted, shipped), test, label) - accuracy(plain, test, label)
        )
        moved.append(not parts[1].kept)
    return np.array(gains), np.array(moved)


def cell(gains: npt.NDArray[np.float64], moved: npt.NDArray[np.bool_]) -> str:
    """Write one cell of the table."""
    if len(gains) < LEAST_DRAWS:
        return "–"
    low, high = 1000 * np.quantile(gains, [0.05, 0.95])
    return f"{1000 * gains.mean():+.1f} ({low:+.0f} to {high:+.0f}) \\| {moved.mean():.0%}"


def choice(sites: dict[str, tuple[Postprocessing, Predictions]], draws: int) -> str:
    """Mean gains for spreads of the evidence over sites, and odds at which thresholds move."""
    spreads, odds = (0.1, 0.2, 0.3, 0.4), (0.0, 0.674, 1.0, 1.28, 1.645, 1.96)
    lines = []
    for label in TRUTHS:
        for figures in SIZES:
            found: dict[str, list[Any]] = {"domains": [], "parts": []}
            for name, (shipped, site) in sites.items():
                made = draws_of(site, label, figures, planned=False, draws=draws)
                rows = [_gains(shipped, local, test, label, spreads, odds) for local, test in made]
                if rows:
                    found[kind(name)].append(np.mean(rows, axis=0))
            for group, values in found.items():
                mean = 1000 * np.mean(values, axis=0).reshape(len(spreads), len(odds))
                worst = 1000 * np.min(values, axis=0).reshape(len(spreads), len(odds))
                lines.append(f"{label}, {figures} figures, {group}: mean, then worst site")
                lines += [
                    f"  spread {s}: {np.round(m, 1).tolist()} {np.round(w, 1).tolist()}"
                    for s, m, w in zip(spreads, mean, worst, strict=True)
                ]
    return "\n".join([f"columns: z of {odds}", *lines])


def _gains(
    shipped: Postprocessing,
    local: LocalFigures,
    test: Predictions,
    label: str,
    spreads: tuple[float, ...],
    odds: tuple[float, ...],
) -> list[float]:
    """Gains of moving the threshold alone, by spread and odds."""
    sides = np.bincount(local.is_atypical, minlength=2)
    base = accuracy(replace(shipped, calibration=Calibration()), test, label)
    if sides.min() < LEAST_OF_A_SIDE:
        return [0.0] * len(spreads) * len(odds)
    found, variance = evidence_shift(
        local.predictions.p_atypical,
        local.is_atypical,
        local.predictions.patients,
        local.weights,
        sum(shipped.decision.prior[:4]),
    )
    gains = []
    for spread in spreads:
        share = spread**2 / (spread**2 + variance)
        for z in odds:
            by = share * found if abs(share * found) > z * np.sqrt(share * variance) else 0.0
            at = shipped.threshold / (1 - shipped.threshold)
            moved = replace(shipped, threshold=at / (at + np.exp(by)), calibration=Calibration())
            gains.append(accuracy(moved, test, label) - base)
    return gains


if __name__ == "__main__":
    main()
