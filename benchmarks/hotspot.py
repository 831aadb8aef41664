"""What a hot-spot's figures are worth, on slides whose truth is known: simulated ones.

    python benchmarks/hotspot.py --out docs/results/hotspot.md

1. *Inflation*: figures scattered evenly over 10 × 10 mm, 15 % of them called atypical at random:
   the share of atypical figures in the hot-spot of most atypical ones.
2. *Chance*: how often the p-value of shuffled calls is at most 0.05 on such slides, on slides whose
   figures cluster while their calls do not, and where the calls truly cluster.
3. *Audit*: a detector with a precision of 0.8 and a recall of 0.7 on the mean over patients, which
   vary (beta, concentration 20) or not; of 30 or 100 figures and 10 or 33 fields of one patient, or
   of all ten together, it is seen what they are: how often the interval holds the density.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.biomarker import find_hotspot
from atypia.biomarker.biomarker_intervals import Measure, poisson_interval
from atypia.biomarker.detector_audit import FIELD_MM2, AuditedShare, DetectorAudit
from atypia.biomarker.hotspot import AREA_MM2
from atypia.biomarker.hotspot_chance import shuffled_calls
from atypia.biomarker.slide_biomarkers import Counts
from atypia.core.files import write_text
from atypia.core.labels import N_SUBTYPES
from atypia.evaluation.intervals import LEVEL

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

SIDE_UM: Final = 10_000.0
SHARE: Final = 0.15
DENSITIES: Final = (1, 5, 20)
SEED: Final = 0


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slides", type=int, default=120, help="simulated ones per row")
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    text = "\n".join(
        [
            "# The hot-spot, against a known truth",
            "",
            f"`python benchmarks/hotspot.py --out docs/results/hotspot.md`: {options.slides} "
            f"simulated slides of 10 × 10 mm per row (seed {SEED}), hot-spots of {AREA_MM2} mm².",
            "± is the standard error of the simulation.",
            "",
            *inflation(options.slides, rng),
            "",
            *chance(options.slides, rng),
            "",
            *audit(10 * options.slides, rng),
            "",
        ]
    )
    write_text(options.out, text)
    print(text)


def even(per_mm2: float, rng: np.random.Generator) -> Floats:
    """Scatter figures evenly."""
    return rng.uniform(0, SIDE_UM, (rng.poisson(per_mm2 * SIDE_UM**2 / 1e6), 2))


def clustered(per_mm2: float, rng: np.random.Generator) -> Floats:
    """Scatter clusters of five figures on the mean, with a spread of 300 µm."""
    parents = even(per_mm2 / 5, rng)
    places = np.repeat(parents, rng.poisson(5, len(parents)), axis=0)
    return (places + rng.normal(0, 300, places.shape)) % SIDE_UM


def inflation(n: int, rng: np.random.Generator) -> list[str]:
    """Share of atypical figures in a hot-spot that they have chosen, and in one of all figures."""
    rows = []
    for per_mm2 in DENSITIES:
        shares = {"atypical": [], "all": []}  # type: dict[str, list[float]]
        for _ in range(n):
            places = even(per_mm2, rng)
            called = rng.random(len(places)) < SHARE
            for of, found in shares.items():
                hotspot = find_hotspot(places[called] if of == "atypical" else places)
                if hotspot is not None:
                    found.append(float(called[hotspot.contains(places)].mean()))
        cells = [f"{np.mean(s):.2f} ± {np.std(s) / np.sqrt(len(s)):.2f}" for s in shares.values()]
        rows.append(f"| {per_mm2} | {SHARE} | {' | '.join(cells)} |")
    return [
        "## The share of atypical figures in a hot-spot",
        "",
        "| figures per mm² | true share | in a hot-spot of most atypical figures "
        "| of most figures |",
        "|---:|---:|---:|---:|",
        *rows,
        "",
        "The share in a hot-spot that atypical figures have chosen is therefore not given.",
    ]


def chance(n: int, rng: np.random.Generator) -> list[str]:
    """How often shuffled calls give p of at most 0.05."""
    rows = []
    for name, scatter, within in (
        ("figures even, calls at random", even, SHARE),
        ("figures in clusters, calls at random", clustered, SHARE),
        (f"figures even, one place of {AREA_MM2} mm² with 30 % atypical", even, 0.3),
        (f"figures even, one place of {AREA_MM2} mm² with 50 % atypical", even, 0.5),
        (f"figures even, one place of {AREA_MM2} mm² with 70 % atypical", even, 0.7),
    ):
        cells = []
        repeats = n if within == SHARE else n // 3
        for per_mm2 in DENSITIES:
            hits = []
            for _ in range(repeats):
                places = scatter(per_mm2, rng)
                there = np.linalg.norm(places - SIDE_UM / 2, axis=1) <= np.sqrt(
                    AREA_MM2 * 1e6 / np.pi
                )
                called = rng.random(len(places)) < np.where(there, within, SHARE)
                hits.append(p_value(places, called, int(rng.integers(2**31))) <= 0.05)
            spread = np.sqrt(np.mean(hits) * (1 - np.mean(hits)) / repeats)
            cells.append(f"{100 * np.mean(hits):.1f} ± {100 * spread:.1f} %")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return [
        "## How often p is at most 0.05, calls shuffled over the figures",
        "",
        f"| slides, {100 * SHARE:.0f} % atypical elsewhere | "
        + " | ".join(f"{d} per mm²" for d in DENSITIES)
        + " |",
        "|---|" + "---:|" * len(DENSITIES),
        *rows,
        "",
        "The first two rows should be 5 % or less: counts have ties, which makes the test careful.",
        "The others, of a third as many slides, are its power.",
    ]


def p_value(places: Floats, called: Bools, seed: int) -> float:
    """Give p of the hot-spot of the figures called atypical; 1 without any."""
    hotspot = find_hotspot(places[called])
    if hotspot is None:
        return 1.0
    by_chance = shuffled_calls(places, called, AREA_MM2, "circle", seed=seed)
    return by_chance.p_value(int(called[hotspot.contains(places)].sum()))


def audit(n: int, rng: np.random.Generator) -> list[str]:
    """How often the interval of the corrected density holds the true one."""
    rows = []
    for patients, concentration in ((1, None), (10, None), (10, 20.0)):
        for looked_at in (30, 100):
            held, plain, width, bias = [], [], [], []
            for _ in range(n):
                counts, (low, value, high), true = audited_patient(
                    patients, concentration, looked_at, rng
                )
                held.append(low <= true <= high)
                width.append(high / low)
                bias.append(value / true)
                low, _, high = numbers(poisson_interval(counts.figures))
                plain.append(low <= true * (counts.area_mm2 or 0) <= high)
            vary = "alike" if concentration is None else "differ"
            rows.append(
                f"| {patients} | {vary if patients > 1 else '–'} | {looked_at} | "
                f"{100 * np.mean(held):.1f} ± {100 * np.std(held) / np.sqrt(n):.1f} % | "
                f"{np.mean(bias):.2f} | {np.median(width):.1f} | {100 * np.mean(plain):.0f} % |"
            )
    return [
        "## The density by an audit of the detector",
        "",
        f"Precision 0.8, recall 0.7, 10 mitoses per mm², 20 mm² a patient; {n} simulations a row.",
        "Figures, and a third as many fields, are those of all patients together; the density is",
        "that of the first of them.",
        "",
        f"| patients | precision and recall | figures looked at | {100 * LEVEL:.0f} % intervals "
        "that hold the density | estimate over truth, mean | high over low end, median "
        "| plain count |",
        "|---:|---|---:|---:|---:|---:|---:|",
        *rows,
        "",
        "The last column: exact intervals of the plain count, without the errors of the detector.",
    ]


def audited_patient(
    patients: int, concentration: float | None, looked_at: int, rng: np.random.Generator
) -> tuple[Counts, tuple[float, float, float], float]:
    """Simulate figures and audit of some patients: density of the first one, and the truth."""
    area, truth = 20.0, 10.0
    figures, fields, counts_of = [], [], []
    per_patient = rng.multinomial(looked_at, np.full(patients, 1 / patients))
    fields_of = rng.multinomial(-(-looked_at // 3), np.full(patients, 1 / patients))
    for number in range(patients):
        precision, recall = (
            m if concentration is None else rng.beta(m * concentration, (1 - m) * concentration)
            for m in (0.8, 0.7)
        )
        right = rng.poisson(truth * recall * area)
        wrong = rng.poisson(truth * recall * area * (1 - precision) / precision)
        seen = min(int(per_patient[number]), right + wrong)
        figures.append((f"P{number}", int(rng.hypergeometric(right, wrong, seen)), seen))
        mitoses = int(rng.poisson(truth * FIELD_MM2 * fields_of[number]))
        fields.append((f"P{number}", int(rng.binomial(mitoses, recall)), mitoses))
        counts_of.append(Counts(int(right + wrong), 0, (0,) * N_SUBTYPES, area))
    found = DetectorAudit(AuditedShare.of(figures), None, AuditedShare.of(fields), (), "")
    density = found.density(counts_of[0], "all", "P0")
    assert density is not None
    return counts_of[0], numbers(density), truth


def numbers(measure: Measure) -> tuple[float, float, float]:
    """Give low end, value and high end of a measure that has them."""
    return measure.low or 0.0, measure.value or 0.0, measure.high or 0.0


if __name__ == "__main__":
    main()
