"""Write the model card from the runs behind the released model.

    python docs/make_model_card.py docs/results/released-all --bundle src/atypia/released \
        --out docs/model-card.md [--held-out docs/results/students-table1-s0] \
        [--domains docs/results/released-domains]

The first run is judged out of fold; where the released networks are its students, their own figures
out of fold would be optimistic.

Every figure of the card comes from a ``metrics.json``; the words around them are here.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from atypia.bundle import write_card
from atypia.labels import DISPLAY_NAMES
from atypia.runs import read_json, write_text

CARD = """# Model card: the model in the package

**Research use. Not a medical device; not for diagnosis.** {version}

## What it is

Tells which of eight subtypes a mitotic figure in H&E histology has, how probable each is, and
whether the figure is atypical. Input: an RGB crop centred on one mitotic figure, of at least 18 µm
(smaller ones down to 13.5 µm are mirrored at the rim), with its resolution in µm per pixel. It does
not find mitotic figures and does not tell them from look-alikes: given something else, it still
answers.

| quality | networks | input | averaging |
|---|---|---|---|
| `best` | {members} {network}, each on four fifths of the patients | {size} px of \
{field:g} µm | members, rotations and flips |
{fast}
{taught}
Probabilities are calibrated by one temperature ({temperature}), fitted out of fold with both
domains counting alike. A figure is called atypical from p_atypical = {threshold:.3f} on, fixed out
of fold; the subtype is the one with the largest p / frequency^{power:g}. The prediction sets are
made to miss at most 10 % of the figures of each subtype (split conformal, class-conditional).

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

All against expert 1, with 95 % intervals from resampling patients. *Out of fold*: five-fold
cross-validation by patient with {whose} networks, each of which answers for the fifth of the
patients that it has not seen. The released model answers with all of its networks, and there is no
patient left that none of them has seen. {held_out_words}

| measure | out of fold | expert 2 | held out |
|---|---|---|---|
{overall}

| subtype | AUC | sensitivity | PPV |
|---|---|---|---|
{per_class}
{domains}
## Known failures

{failures}
- It is wrong more often on figures that the experts disagree about.
- Calibration error, threshold and temperature are of the same out-of-fold answers: a little
  optimistic.
- A crop that is not centred on the figure, out of focus, or no mitosis at all gets an answer that
  looks as sure as any other.
- A wrong resolution (`--mpp`) changes the size of what it sees and spoils the answer silently.
- The threshold and the calibration come from two cohorts of breast cancer. On another scanner,
  tumour or species the ranking can be expected to hold better than the threshold: check it on some
  fifty labelled figures of your own (`atypia evaluate`) before counting on it.
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
    parser.add_argument("--held-out", type=Path, help="results of the recipe on a test part")
    parser.add_argument("--domains", type=Path, help="results of the recipe with domains left out")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    held_out = {} if options.held_out is None else read_json(options.held_out / "metrics.json")
    domains = {
        folder.name.removeprefix("tested-on-"): read_json(folder / "metrics.json")
        for folder in sorted((options.domains or Path("none")).glob("tested-on-*"))
    }
    header = read_json(options.bundle / "model.json")
    text = card(read_json(options.all / "metrics.json"), held_out, domains, header)
    write_text(options.out, text)
    write_card(options.bundle, text)


def card(
    out_of_fold: dict[str, Any],
    held_out: dict[str, Any],
    domains: dict[str, Any],
    header: dict[str, Any],
) -> str:
    """Fill the card."""
    fast = header.get("fast")
    students = "teacher_sha256" in header["provenance"]
    expert = next(iter(out_of_fold["raters"].values()))
    overall = [
        f"| {words} | {figure(path(out_of_fold, name))} | {figure(path(expert, of_rater))} "
        f"| {figure(path(held_out, name))} |"
        for words, (name, of_rater) in MEASURES.items()
    ]
    per_class = [
        f"| {DISPLAY_NAMES[s]} | "
        + " | ".join(figure(row[name]) for name in ("auc", "sensitivity", "ppv"))
        + " |"
        for s, row in out_of_fold["per_class"].items()
    ]
    counts = [
        f"| {DISPLAY_NAMES[s]} | {row['n']:,} | {row['n_patients']} |"
        for s, row in out_of_fold["per_class"].items()
    ]
    return CARD.format(
        version=f"Made with {header['created_with']}.",
        members=len(header["members"]),
        size=header["input"]["size_px"],
        field=header["input"]["field_of_view_um"],
        network=network_words(header["network"]),
        fast=""
        if fast is None
        else f"| `fast` | {fast_network(header)} | "
        f"{fast['input']['size_px']} px of {fast['input']['field_of_view_um']:g} µm | none |\n",
        taught=TAUGHT if students else "",
        whose="the teachers', five" if students else "this model's own",
        temperature=f"{header['calibration'].get('temperature', 1):.2f}",
        threshold=header["thresholds"]["atypical"],
        power=header["decision"]["power"],
        domains=domain_words(domains),
        n=out_of_fold["n"],
        patients=out_of_fold["n_patients"],
        kappa2=figure(expert["overall"]["kappa"]),
        counts="\n".join(counts) + "\n",
        held_out_words="*Held out*: the same recipe, students included, on the test patients of "
        "`table1`."
        if held_out
        else "The recipe has not been judged on a test part or on another domain yet.",
        overall="\n".join(overall),
        per_class="\n".join(per_class),
        failures="\n".join(failures(out_of_fold)),
    )


def network_words(network: dict[str, Any]) -> str:
    """Name a network."""
    name = {"tf_efficientnet_lite0": "EfficientNet-Lite0"}.get(
        network["backbone"], network["backbone"]
    )
    cut = network.get("reduction")
    return name if cut is None else f"{name} up to feature maps of 1/{cut}"


def fast_network(header: dict[str, Any]) -> str:
    """Say what answers at quality ``fast``."""
    if "teacher_sha256" in header["provenance"].get("fast", {}):
        return "1 such network, distilled from the out-of-fold answers of the others"
    return f"{len(header['fast']['members'])} of them"


def domain_words(domains: dict[str, dict[str, Any]]) -> str:
    """Tell how the recipe does on a domain that it has not seen."""
    if not domains:
        return ""
    lines = [
        "",
        "On a domain that it has not learned from (networks, temperature and threshold from the "
        "other domain alone):",
        "",
        "| measure | " + " | ".join(f"tested on {name}" for name in domains) + " |",
        "|---|" + "---|" * len(domains),
    ]
    for words, (name, _) in MEASURES.items():
        cells = " | ".join(figure(path(metrics, name)) for metrics in domains.values())
        lines.append(f"| {words} | {cells} |")
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


def path(metrics: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Find ``overall.kappa`` and the like; None where a table has no such measure."""
    node: Any = metrics
    for part in name.split("."):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return node if isinstance(node, dict) else None


def figure(measure: dict[str, Any] | None) -> str:
    """Give a measure with its interval."""
    if measure is None or measure.get("value") is None:
        return "–"
    if measure.get("low") is None:
        return f"{measure['value']:.3f}"
    return f"{measure['value']:.3f} ({measure['low']:.3f}–{measure['high']:.3f})"


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
