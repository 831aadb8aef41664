"""The page: texts and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from kept_results import difference, interval, path

from atypia.evaluation.predictions import read_predictions
from leaderboard.differences import (
    BINARY,
    EXPERT,
    MAJORITY,
    POWERS,
    STAGES,
    SUBTYPES,
    sign_of,
    spread,
    told_of,
)
from leaderboard.runs import costs

if TYPE_CHECKING:
    from leaderboard.runs import Entry

HEADER = """# Every approach beside the flat ensemble

Made by `docs/make_leaderboard.py` from run folders; the approaches are those of
[leaderboard.yaml](../leaderboard.yaml), and all figures are also in
[leaderboard.json](leaderboard.json). Scored against expert 1 where nothing else is said, one seed
each. In brackets: 95 % intervals over patients. *Difference*: minus the flat
ensemble (of the preset `quick`, where there is no other) on the same patches, paired.

**▲, ▼ and bold** mark a difference whose interval does not hold zero and which is larger than
that of any run of the flat ensemble's own recipe (*again*: another processor and a later commit;
*seed 1*, *seed 2*), since intervals over patients know nothing of chance in training. Even so, of
many differences of nothing some are marked; the less alike the patients' shares, the more.

**Power.** A subtype is chosen by p / frequency^power, with the frequencies of the training part.
The power is a setting: 0.25 of networks that learn subtypes and of the rules (`quick`: 0.5), 0.5 of
hybrids, stacks and joins, 0 of votes. Balanced accuracy depends on it, mean AUC and log-loss do
not; *decided alike* gives all of them the same power.

**Out of fold** a run answers with one member (bagging with all that have not drawn the patient, 2.5
on average), and calibration and threshold are fixed on the same answers; the recipe of the flat
ensemble, which most others share, was itself chosen with a look at many of these patients.
Differences are between runs that share this. † marks what more was chosen with a look at these
figures: of the rules, and with them of the hybrid, the stack and the joins of three, the constants,
on 162 of the patients.

**Cost.** Wall hours are those of the run's sessions on its number of threads, with whatever else
ran on the machine; CPU hours are its own; both with those of the runs that it is made of or was
taught by. Nearly all runs had one thread, two of them at a time on 2 cores: together they take
there the hours of one. The ViT-S probe out of fold found its features in the cache of the cohort;
an earlier run, which made them, took 0.19 hours. Processors differ in speed by half and more: hours
compare on one of them only. Patches per second are of 512 patches, from files to the table, with
both cores of a quiet AMD EPYC ([speed.json](speed.json)); in italics those of a run of the same
networks, which differ by a fifth from one measurement to the next. Parameters are those that
answer.

Multiple-instance learning answers for patients, not for figures, and the study of few labels has
other figures of merit: [one answer for a patient](mil.md) · [few labels](few-labels.md)."""
ALIKE_NOTE = (
    "Balanced accuracy over eight subtypes where every approach chooses that of the largest "
    "p / frequency^power, by the frequencies of the training part: what is left of a difference is "
    "of the probabilities, not of the choice. Power 0 is right most often, power 1 aims at "
    "balanced accuracy itself."
)
MAJORITY_NOTE = (
    "The binary baseline learns these votes; the others learn the subtypes of two experts, and "
    "mostly fix their threshold by both."
)
STAGES_NOTE = (
    "The side, then the subtype among the figures of one side, given that side; every model of "
    "eight subtypes answers both. Within a side the most probable subtype is chosen. Guessing: "
    "AUC 0.5, balanced accuracy of four subtypes 0.25."
)


def section(title: str, split: str, entries: list[Entry], speeds: dict[str, Any]) -> list[str]:
    """Write all tables of one split."""
    done = [e for e in entries if e.folder is not None]
    lines = ["", f"## {title}", ""]
    if done:
        of_other_folds = [e for e in done if e.other_folds]
        lines += [patients_of(done[0])]
        lines += [f"\n{told}" for told in dict.fromkeys(map(folds_of, of_other_folds))]
    eight = [e for e in done if not e.of_sides]
    reference = next((e for e in done if e.approach.get("reference")), None)
    noise = spread(done)
    if reference is not None:
        lines += ["", *glance(done, noise, speeds), "", *verdict(eight, reference.name, noise)]
    lines += ["", "### Eight subtypes", "", *table(eight, SUBTYPES, "expert1", noise)]
    lines += ["", "### Decided alike", "", ALIKE_NOTE, "", *alike_table(eight, noise)]
    lines += ["", "### Atypical or normal, against expert 1", ""]
    lines += table(done, BINARY, "expert1", noise)
    lines += [
        "",
        "### Atypical or normal, against the majority of the votes",
        "",
        MAJORITY_NOTE,
        "",
    ]
    lines += table(done, MAJORITY, "majority", noise)
    lines += ["", "### Each stage by itself", "", STAGES_NOTE, ""]
    lines += table(eight, STAGES, "expert1", noise)
    lines += ["", "### Cost", "", *cost(done, speeds)]
    alone = [f"- {e.name}, `{e.folder.name}`: {e.problem}" for e in done if e.problem and e.folder]
    if alone:
        lines += ["", "### Not compared", "", *alone]
    missing = [e for e in entries if e.folder is None and e.approach["runs"].get(split)]
    reasons = {e.name: reason_of(e, split) for e in entries if e.folder is None}
    reasons = {name: reason for name, reason in reasons.items() if reason}
    if missing or reasons:
        kind = (reference.kind if reference is not None else None) or split
        lines += ["", "### Not run", ""]
        for entry in missing:
            told = entry.approach["command"].format(cohort="COHORT", split=kind, runs="runs")
            lines.append(f"- {entry.name} ({entry.approach['about']}): `{told}`")
        lines += [f"- {name}: {reason}" for name, reason in reasons.items()]
    return lines


def reason_of(entry: Entry, split: str) -> str:
    """Why there is no such run of an approach; empty where there could be."""
    return str(entry.approach.get("without", {}).get(split, ""))


def folds_of(entry: Entry) -> str:
    """Say what a run of other folds has learned from."""
    share = 100 - 100 / entry.folds
    return (
        f"‡ {entry.folds} folds: each member has learned from {share:.0f} % of the patients, and "
        "answers for the others."
    )


def speed_of(entry: Entry, speeds: dict[str, Any]) -> str:
    """Patches per second; in italics those of the run of the same networks that is named."""
    own = speeds.get(entry.folder.name if entry.folder else "")
    alike = speeds.get(entry.approach.get("as_fast_as", ""))
    if own is not None:
        return f"{own['patches_per_second']:.0f}"
    return "–" if alike is None else f"*{alike['patches_per_second']:.0f}*"


def patients_of(entry: Entry) -> str:
    """Say how many figures and patients there are, and how unequal the patients' shares are."""
    sizes = np.unique(read_predictions(entry.folder).patients, return_counts=True)[1]
    alike = sizes.sum() ** 2 / (sizes**2).sum()
    return (
        f"{sizes.sum():,} figures of {len(sizes)} patients. They are unequal: the largest has "
        f"{100 * sizes.max() / sizes.sum():.0f} % of the figures, and all together weigh like "
        f"{alike:.0f} of one size, (Σn)² / Σn²."
    )


def glance(entries: list[Entry], noise: dict[str, float], speeds: dict[str, Any]) -> list[str]:
    """Write one line per approach, the best mean AUC first."""
    columns = {
        "mean AUC": ("overall.mean_auc", "expert1/mean_auc"),
        "Cohen's κ": ("overall.kappa", "expert1/kappa"),
        "balanced accuracy": ("overall.balanced_accuracy", "expert1/balanced_accuracy"),
        "the same at power 1": ("1", "alike/1, difference"),
        "atypical: AUC": (f"{EXPERT}.auc", "expert1/binary.auc"),
    }

    def value(entry: Entry, name: str) -> float | None:
        measure = entry.alike.get("1") if name == "1" else path(entry.metrics, name)
        return None if measure is None or (entry.of_sides and name != f"{EXPERT}.auc") else (
            measure["value"]
        )  # fmt: skip

    lines = [f"| approach | {' | '.join(columns)} | CPU hours | patches/s |"]
    lines.append("|---" + "|---:" * (len(columns) + 2) + "|")
    shown = [e for e in entries if not e.problem]
    for entry in sorted(shown, key=lambda e: value(e, "overall.mean_auc") or 0.0, reverse=True):
        differences = told_of(entry)
        cells = []
        for name, of_pair in columns.values():
            number = value(entry, name)
            sign = sign_of(differences.get(of_pair), noise.get(of_pair, 0.0))
            cells.append(
                "–" if number is None else f"{number:.3f}{' ▲' * (sign > 0)}{' ▼' * (sign < 0)}"
            )
        hours = costs(entry)["cpu_hours"]
        cells.append("–" if hours is None else f"{hours:.2f}")
        cells.append(speed_of(entry, speeds))
        lines.append(f"| {entry.title} | {' | '.join(cells)} |")
    return lines


def verdict(entries: list[Entry], reference: str, noise: dict[str, float]) -> list[str]:
    """Say whose balanced accuracy differs from the reference's, and at which powers."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        if not entry.differences or entry.approach.get("repeat"):
            continue
        names = [f"{power:g}, difference" for power in POWERS]
        signs = [sign_of(entry.alike[n], noise.get(f"alike/{n}", 0.0)) for n in names]
        for sign, word in ((1, "better"), (-1, "worse")):
            at = [f"{power:g}" for power, s in zip(POWERS, signs, strict=True) if s == sign]
            if len(at) == len(POWERS):
                groups.setdefault(f"{word} at every power", []).append(entry.title)
            elif at:
                groups.setdefault(f"{word} at some", []).append(
                    f"{entry.title} (at {', '.join(at)})"
                )
        if not any(signs):
            groups.setdefault("not told apart at any", []).append(entry.title)
    order = ["better at every power", "better at some", "not told apart at any"]
    order += ["worse at some", "worse at every power"]
    told = [f"**{k}**: {' · '.join(groups[k])}" for k in order if k in groups]
    if not told:
        return [f"Nothing can be compared with the {reference} yet."]
    return [
        f"Balanced accuracy over eight subtypes against the *{reference}*, "
        f"[decided alike](#decided-alike): {'; '.join(told)}."
    ]


def table(
    entries: list[Entry], measures: dict[str, tuple[str, str]], group: str, noise: dict[str, float]
) -> list[str]:
    """Write two lines per approach: its measures, and how far they are from the reference's."""
    lines = [f"| approach | {' | '.join(measures)} |", "|---" * (1 + len(measures)) + "|"]
    for entry in entries:
        cells = [interval(path(entry.metrics, name)) for name, _ in measures.values()]
        lines.append(f"| **{entry.title}** | {' | '.join(cells)} |")
        names = [f"{group}/{name}" for _, name in measures.values()]
        lines += difference_line(entry, names, noise)
    return lines


def difference_line(entry: Entry, names: list[str], noise: dict[str, float]) -> list[str]:
    """Write one line of differences; none where there is none."""
    told = told_of(entry)
    if not any(name in told for name in names):
        return []
    cells = [
        difference(d := told.get(name), bold=bool(sign_of(d, noise.get(name, 0.0))))
        for name in names
    ]
    return [f"| difference | {' | '.join(cells)} |"]


def alike_table(entries: list[Entry], noise: dict[str, float]) -> list[str]:
    """Write balanced accuracies of subtypes that are all chosen in one way."""
    lines = [
        f"| approach | {' | '.join(f'power {power:g}' for power in POWERS)} |",
        "|---" * (1 + len(POWERS)) + "|",
    ]
    for entry in entries:
        if entry.alike:
            cells = [interval(entry.alike[f"{power:g}"]) for power in POWERS]
            lines.append(f"| **{entry.title}** | {' | '.join(cells)} |")
            names = [f"alike/{power:g}, difference" for power in POWERS]
            lines += difference_line(entry, names, noise)
    return lines


def cost(entries: list[Entry], speeds: dict[str, Any]) -> list[str]:
    """Write what each approach costs to train and to ask."""
    lines = [
        "| approach | run | parameters | training, wall hours | threads | CPU hours | processor "
        "| patches/s |",
        "|---|---|---:|---:|---:|---:|---|---:|",
    ]
    for entry in entries:
        told = costs(entry)
        cells = [
            entry.name,
            f"`{entry.folder.name}`" if entry.folder else "",
            f"{told['parameters'] / 1e6:.2f} M" if told["parameters"] is not None else "–",
            f"{told['wall_hours']:.2f}",
            str(told["threads"] or "–"),
            f"{told['cpu_hours']:.2f}" if told["cpu_hours"] is not None else "–",
            told["processor"],
            speed_of(entry, speeds),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
