"""Write the model card from the runs behind the released model.

    python docs/make_model_card.py docs/results/released-all --bundle src/atypia/released \
        --held-out docs/results/students-table1 --held-out-fast docs/results/fast-table1 \
        --domains docs/results/flat-domains --out docs/model-card.md

The first run is of the teachers, judged out of fold; figures of their students out of fold would be
optimistic. The others are of the same recipe on patients and domains left out.

Every figure of the card comes from a ``metrics.json``; the words around them are here.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kept_results import difference, interval, path, read_metrics

from atypia.classifiers.bundle import write_card
from atypia.classifiers.decision import PREVALENCES
from atypia.core.files import read_json, write_text
from atypia.core.labels import DISPLAY_NAMES, N_ATYPICAL
from atypia.evaluation.predictions import read_predictions
from atypia.evaluation.raters import among_raters
from atypia.reports.words import rater_name

if TYPE_CHECKING:
    from atypia.evaluation.predictions import Predictions

CARD = """# Model card: the model in the package

**Research use. Not a medical device; not for diagnosis.** {version}

## What it is

Tells which of eight subtypes a mitotic figure in H&E histology has, how probable each is, and
whether the figure is atypical. Input: an RGB crop centred on one mitotic figure, of at least 18 µm
(smaller ones down to 13.5 µm are mirrored at the rim), with its resolution in µm per pixel. It does
not find mitotic figures.

**A guard** decides whether there is an answer: not on glass, black, ink or what is out of focus,
not on what is no mitotic figure, and not on what is unlike the training. Of what is no mitotic
figure it has seen {guard_seen}
Its limits, and what it rejects, are measured in `docs/results/guard.md`: **of other tumours and
species it falsely rejects more than of breast cancer.** What is rejected has no call and is counted
beside every total.

| quality | networks | input | averaging |
|---|---|---|---|
| `best` | {members} {network}, each on four fifths of the patients | {size} px of \
{field:g} µm | members, rotations and flips |
{fast}
{taught}
Probabilities are calibrated by one temperature ({temperature}), fitted with both domains counting
alike. A figure is called atypical from p_atypical = {threshold:.3f} on (`fast`:
{fast_threshold:.3f}), where a missed atypical figure costs as much as three false calls, by expert
1 and the majority of the votes alike; the subtype is the one of that side with the largest p ·
weight / frequency^{power:g}, so that call and subtype cannot contradict each other. Prediction sets
aim at missing 10 % of the figures of each subtype. All this, and the error rates that `atypia
biomarker` corrects by, was fixed on the students' answers to patients whose labels they had met
only through their teachers: **a little optimistic**. What it comes to on other patients is told
below.

## Training data

AMi-Br (Bertram et al., BVM 2025): {n:,} mitotic figures of {patients} breast-cancer cases, from the
TUPAC16 and MIDOG21 challenges, H&E, about 0.25 µm per pixel. Two experts gave the subtype of each
figure, a third an atypical/normal vote. The experts agree with κ {kappa2}. Labels learned: expert 1
with 0.65 and expert 2 with 0.35 of the mass, and the share of the three atypical votes.

| subtype | figures (expert 1) | patients |
|---|---|---|
{counts}
Scanners: MIDOG21 has slides of three scanners of one laboratory (Hamamatsu XR and S360, Aperio
CS2), TUPAC16 of Aperio ScanScope and Leica SCN400 of three laboratories. Breast cancer of humans
only; no other tumour, no other species, no other stain was seen.

Licences: AMi-Br patches MIT (AMi-Br_Benchmark); initial weights of EfficientNet-Lite0 Apache-2.0
(ImageNet); these weights Apache-2.0.

## How good it is

All against expert 1, with 95 % intervals over patients. No patient is left whom none of
the released networks has seen; what stands for them is

- *teachers, out of fold*: five-fold cross-validation by patient of the five teachers, each of which
  answers for the fifth of the patients that it has not seen ({n:,} figures), and
- *held out*: the same recipe, students included, taught by 162 patients and tested on the 40 others
  of the split `table1` ({n_held:,} figures; one seed, others are in the results).

| measure | teachers, out of fold | expert 2, all | `best`, held out | `fast`, held out | \
expert 2, held out |
|---|---|---|---|---|---|
{overall}

The unit of intervals is the patient. Measured by drawing 12, 40 and 200 patients from AMi-Br ([all
measures](results/coverage.md)), they hold the truth of the mean AUC in 98, 94 and 94 %, of the
balanced accuracy of eight subtypes in 94, 96 and 94 %, of κ in 93, 95 and 93 %, of the balanced
accuracy of the atypical call in 92, 97 and 94 %, of ECE in 99, 99 and 96 %, and of the sensitivity
of each subtype in at least 93, 93 and 85 %.

| subtype | AUC | sensitivity | PPV | AUC, held out | sensitivity, held out |
|---|---|---|---|---|---|
{per_class}

### Among the experts

Atypical or normal: teachers out of fold and the three experts, each against each, on the same
figures. Experts differ in how often they call a figure atypical. The PPV says how often the
reference agrees with an atypical call; the last column compares at the expert's own specificity, on
the model's ROC curve. *The others* are the majority of the two other experts, where they agree.

| against | judged | balanced accuracy | sensitivity | specificity | PPV | model minus expert: \
balanced accuracy | sensitivity at the expert's specificity |
|---|---|---|---|---|---|---|---|
{experts}

### By scanner

`best` on the held-out patients. Parts are small; a figure on one scanner is a hint, not a measure.
TUPAC16 does not tell the scanner of a slide.

| scanner | figures, patients | binary AUC | balanced accuracy | sensitivity | specificity | ECE |
|---|---|---|---|---|---|---|
{scanners}
{domains}
### When it is sure

Held-out patients, `best`. The surest figures alone, by the probability of the named subtype
(`--min-confidence`) and by how far p_atypical is from the threshold:

| answered | least probability | right subtype | right call, atypical or normal |
|---|---|---|---|
{selective}

Prediction sets hold {set_size} subtypes on average and the label in {set_coverage} of the figures:

| subtype | figures, patients | in the set | size of the set |
|---|---|---|---|
{sets}

### Operating points

Of `best`, out of fold, against expert 1 (`--operating-point`). What a call of atypical is worth
(PPV) depends on how many figures are atypical.

| point | threshold | sensitivity | specificity | PPV at {prevalences} atypical |
|---|---|---|---|---|
{points}

The held-out figures above were answered when subtype and call were still decided apart, each at the
threshold in its table; the named subtype was then on the other side of the call in
{contradictions:.0%} of them, and {outside}.

## Known failures

{failures}
- It is wrong more often on figures that the experts disagree about.
- Real look-alikes were not among what the guard was trained on. A pyknotic nucleus, an apoptotic
  body or an overstained nucleus may pass, and then gets an answer that looks as sure as any other.
- Figures of a laboratory, tumour or species that the guard was not trained on may be rejected.
- A wrong resolution (`--mpp`) changes the size of what it sees and spoils the answer silently.
- The threshold and the calibration come from two cohorts of breast cancer. Fixed on one of them,
  the threshold lost 0.02 of balanced accuracy on the scanners of the other, against the best one
  there.
  Another tumour or species was never tried: check on some fifty labelled figures of your own
  (`atypia evaluate`) before counting on it. What another hospital's experts call atypical differs,
  too: against the majority of the votes the figures above are lower.
- Nobody has shown that acting on its answers helps a patient.
"""


TAUGHT = """
The networks are students: half of what each learned from are labels and votes, half the
out-of-fold answers of five networks of the same kind that had learned from labels and votes alone
(`atypia train --preset released --split all`, then `atypia distill --quality best
ensemble.trained=3`).
"""


def main() -> None:
    """Read the runs' results and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("all", type=Path, help="results of the released model's own run")
    parser.add_argument("--held-out", type=Path, required=True, help="of the recipe, on table1")
    parser.add_argument("--held-out-fast", type=Path, required=True, help="likewise, of fast")
    parser.add_argument("--domains", type=Path, required=True, help="with domains left out")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    domains = {
        folder.name.removeprefix("tested-on-"): read_metrics(folder)
        for folder in sorted(options.domains.glob("tested-on-*"))
    }
    text = card(
        read_metrics(options.all),
        among_raters(read_predictions(options.all)),
        read_metrics(options.held_out),
        read_metrics(options.held_out_fast),
        domains,
        read_predictions(options.held_out),
        read_json(options.bundle / "model.json"),
    )
    write_text(options.out, text)
    write_card(options.bundle, text)


def card(
    out_of_fold: dict[str, Any],
    experts: list[dict[str, Any]],
    best: dict[str, Any],
    fast: dict[str, Any],
    domains: dict[str, Any],
    table: Predictions,
    header: dict[str, Any],
) -> str:
    """Fill the card."""
    all_of, held = (next(iter(m["raters"].values())) for m in (out_of_fold, best))
    overall = [
        f"| {words} | {interval(path(out_of_fold, name))} | {interval(path(all_of, of_rater))} "
        f"| {interval(path(best, name))} | {interval(path(fast, name))} "
        f"| {interval(path(held, of_rater))} |"
        for words, (name, of_rater) in MEASURES.items()
    ]
    cells = (f"{threshold(out_of_fold):.3f}", "–", *(f"{threshold(m):.3f}" for m in (best, fast)))
    overall.append(f"| threshold on p_atypical | {' | '.join(cells)} | – |")
    per_class = [
        f"| {DISPLAY_NAMES[s]} | "
        + " | ".join(interval(row[name]) for name in ("auc", "sensitivity", "ppv"))
        + " | "
        + " | ".join(interval(best["per_class"][s][name]) for name in ("auc", "sensitivity"))
        + " |"
        for s, row in out_of_fold["per_class"].items()
    ]
    counts = [
        f"| {DISPLAY_NAMES[s]} | {row['n']:,} | {row['n_patients']} |"
        for s, row in out_of_fold["per_class"].items()
    ]
    other_side = (table.predicted < N_ATYPICAL) != table.predicted_atypical
    named = table.sets[np.arange(len(table)), table.predicted]
    conformal = best["conformal"]
    return CARD.format(
        guard_seen=header["guard"]["seen"],
        version=f"Made with {header['created_with']}.",
        members=len(header["members"]),
        size=header["input"]["size_px"],
        field=header["input"]["field_of_view_um"],
        network=network_words(header["network"]),
        fast=f"| `fast` | 1 such network, a student of the same teachers | "
        f"{header['fast']['input']['size_px']} px of "
        f"{header['fast']['input']['field_of_view_um']:g} µm | none |",
        taught=TAUGHT,
        temperature=f"{header['calibration'].get('temperature', 1):.2f}",
        threshold=header["thresholds"]["atypical"],
        fast_threshold=header["fast"]["thresholds"]["atypical"],
        power=header["decision"]["power"],
        experts="\n".join(among_experts(experts)),
        scanners="\n".join(by_scanner(best)),
        domains=domain_words(domains),
        n=out_of_fold["n"],
        n_held=best["n"],
        patients=out_of_fold["n_patients"],
        kappa2=interval(all_of["overall"]["kappa"]),
        counts="\n".join(counts) + "\n",
        overall="\n".join(overall),
        per_class="\n".join(per_class),
        selective="\n".join(when_sure(best, table)),
        set_size=interval(conformal["mean_size"]),
        set_coverage=interval(conformal["coverage"]),
        sets="\n".join(sets(conformal)),
        contradictions=other_side.mean(),
        outside=f"not in the prediction set in {(~named).sum()} of {len(named):,}",
        prevalences=", ".join(f"{100 * share:g}" for share in PREVALENCES) + " %",
        points="\n".join(operating_points(header["thresholds"]["points"])),
        failures="\n".join([*failures(out_of_fold), *missed_sets(conformal)]),
    )


def operating_points(points: dict[str, Any]) -> list[str]:
    """Lay out the operating points of a bundle."""
    rows = []
    for name, point in points.items():
        rates = (
            f"{rate['value']:.3f} ({rate['low']:.3f}–{rate['high']:.3f})"
            for rate in (point["sensitivity"], point["specificity"])
        )
        ppv = ", ".join(f"{value:.2f}" for value in point["ppv"].values())
        rows.append(f"| `{name}` | {point['threshold']:.3f} | {' | '.join(rates)} | {ppv} |")
    return rows


def threshold(metrics: dict[str, Any]) -> float:
    """Give the threshold that was fixed before."""
    return float(metrics["binary"]["against"]["expert1"]["at_operating_point"]["threshold"])


def among_experts(entries: list[dict[str, Any]]) -> list[str]:
    """Give one row per reference and expert, the model's below, where figures are the same."""
    names = ("balanced_accuracy", "sensitivity", "specificity", "ppv")
    lines = []
    for entry in sorted(entries, key=lambda e: e["against"]):
        reference, expert = rater_name(entry["against"]), rater_name(entry["rater"])
        ahead = entry["model_minus_rater"]["balanced_accuracy"]
        at = entry["at_rater_specificity"]["model_minus_rater"]
        for judged, part in ((expert, "of_rater"), ("model", "of_model")):
            cells = [interval(entry[part][name]) for name in names]
            both = (
                ["", ""] if part == "of_rater" else [difference(d, bold=False) for d in (ahead, at)]
            )
            lines.append(f"| {reference} | {judged} | {' | '.join([*cells, *both])} |")
    return lines


def by_scanner(metrics: dict[str, Any]) -> list[str]:
    """Give one row per scanner that is told."""
    lines = []
    for name, part in metrics["groups"]["scanner"].items():
        at = part["binary"]["at_operating_point"]
        cells = [
            part["binary"]["auc"], at["balanced_accuracy"], at["sensitivity"], at["specificity"],
            part["overall"]["ece"],
        ]  # fmt: skip
        lines.append(
            f"| {name} | {part['n']:,}, {part['n_patients']} | {' | '.join(map(interval, cells))} |"
        )
    return lines


def when_sure(metrics: dict[str, Any], table: Predictions) -> list[str]:
    """Give one row per share of answered figures."""
    told = np.sort(table.probabilities[np.arange(len(table)), table.predicted])[::-1]
    subtypes, binary = (metrics["selective"][k]["at_coverage"] for k in ("subtypes", "binary"))
    return [
        f"| {row['coverage']:.0%} | {told[row['n'] - 1]:.2f} | {interval(row['accuracy'])} "
        f"| {interval(call['accuracy'])} |"
        for row, call in zip(subtypes, binary, strict=True)
    ]


def sets(conformal: dict[str, Any]) -> list[str]:
    """Give one row per subtype."""
    return [
        f"| {DISPLAY_NAMES[s]} | {row['n']:,}, {row['n_patients']} | {interval(row['coverage'])} "
        f"| {interval(row['mean_size'])} |"
        for s, row in conformal["per_class"].items()
    ]


def missed_sets(conformal: dict[str, Any]) -> list[str]:
    """Say where sets miss more than they aim at, beyond chance."""
    aim = 1 - conformal["alpha"]
    short = [
        f"{DISPLAY_NAMES[s]} ({row['coverage']['value']:.0%})"
        for s, row in conformal["per_class"].items()
        if row["coverage"]["high"] is not None and row["coverage"]["high"] <= aim
    ]
    told = f"- Prediction sets hold the label in fewer than {aim:.0%} of the held-out figures of: "
    return [f"{told}{', '.join(short)}."] if short else []


def network_words(network: dict[str, Any]) -> str:
    """Name a network."""
    name = {"tf_efficientnet_lite0": "EfficientNet-Lite0"}.get(
        network["backbone"], network["backbone"]
    )
    cut = network.get("reduction")
    return name if cut is None else f"{name} up to feature maps of 1/{cut}"


def domain_words(domains: dict[str, dict[str, Any]]) -> str:
    """Tell how the recipe does on a domain that it has not seen."""
    lines = [
        "",
        "### On a domain that it has not learned from",
        "",
        "Five teachers, their temperature and threshold from the other domain alone.",
        "",
        "| measure | " + " | ".join(f"tested on {name}" for name in domains) + " |",
        "|---|" + "---|" * len(domains),
    ]
    for words, (name, _) in MEASURES.items():
        cells = " | ".join(interval(path(metrics, name)) for metrics in domains.values())
        lines.append(f"| {words} | {cells} |")
    cells = " | ".join(f"{threshold(metrics):.3f}" for metrics in domains.values())
    lines.append(f"| threshold on p_atypical | {cells} |")
    return "\n".join(lines) + "\n"


_BINARY = "binary.against.expert1"
# Path in metrics.json, and in a rater's part of it.
MEASURES = {
    "mean AUC of the eight subtypes": ("overall.mean_auc", ""),
    "balanced accuracy, eight subtypes": ("overall.balanced_accuracy",) * 2,
    "macro F1": ("overall.macro_f1",) * 2,
    "Cohen's κ": ("overall.kappa",) * 2,
    "expected calibration error": ("overall.ece", ""),
    "AUC, atypical against normal": (f"{_BINARY}.auc", ""),
    "balanced accuracy, atypical against normal": (
        f"{_BINARY}.at_operating_point.balanced_accuracy",
        "binary.balanced_accuracy",
    ),
    "sensitivity for atypical": (f"{_BINARY}.at_operating_point.sensitivity", "binary.sensitivity"),
    "specificity": (f"{_BINARY}.at_operating_point.specificity", "binary.specificity"),
    "AUC against the majority of the votes": ("binary.against.majority_atypical.auc", ""),
    "balanced accuracy against that majority": (
        "binary.against.majority_atypical.at_operating_point.balanced_accuracy",
        "",
    ),
}


def failures(metrics: dict[str, Any]) -> list[str]:
    """Say, for each subtype found in less than six of ten figures, what it is taken for."""
    lines = []
    names = list(metrics["per_class"])
    for i, subtype in enumerate(names):
        row = metrics["confusion"][i]
        if sum(row) and row[i] / sum(row) < 0.6:
            taken = sorted((c for c in range(len(row)) if c != i), key=lambda c: -row[c])[:2]
            words = " and ".join(
                f"{DISPLAY_NAMES[names[c]]} ({100 * row[c] / sum(row):.0f} %)" for c in taken
            )
            lines.append(
                f"- {DISPLAY_NAMES[subtype]}: {100 * row[i] / sum(row):.0f} % of {sum(row)} found; "
                f"most often taken for {words}."
            )
    return lines


if __name__ == "__main__":
    main()
