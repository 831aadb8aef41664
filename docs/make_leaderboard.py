"""Set every approach beside the flat ensemble: docs/results/leaderboard.md, from run folders.

    python docs/make_leaderboard.py runs docs/results --out docs/results/leaderboard.md

The approaches, and the names of their runs, are in docs/leaderboard.yaml. The folders given are
looked through in their order; a run counts where it is finished. What has no run is listed with
the command that makes one. Speeds come from the file of benchmarks/speed_of_runs.py, if given.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from atypia.decision import decide
from atypia.errors import InputError
from atypia.evaluation import metrics
from atypia.evaluation.compare import compare
from atypia.evaluation.intervals import estimate as estimate_of
from atypia.evaluation.intervals import measure
from atypia.evaluation.predictions import read_predictions
from atypia.labels import SUBTYPES as NAMES
from atypia.runs import read_json, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atypia.evaluation.metrics import FloatArray, IntArray, Measures

APPROACHES = Path(__file__).parent / "leaderboard.yaml"
SPLITS = {
    "table1": "The test part of `table1`",
    "cv": "Five-fold cross-validation by patient",
}
SUBTYPES = {
    "mean AUC": ("overall.mean_auc", "mean_auc"),
    "balanced accuracy": ("overall.balanced_accuracy", "balanced_accuracy"),
    "macro-F1": ("overall.macro_f1", "macro_f1"),
    "Cohen's κ": ("overall.kappa", "kappa"),
    "log-loss": ("overall.log_loss", "log_loss"),
}
_EXPERT = "binary.against.expert1"
BINARY = {
    "AUC": (f"{_EXPERT}.auc", "binary.auc"),
    "balanced accuracy": (
        f"{_EXPERT}.at_operating_point.balanced_accuracy",
        "binary.at_operating_point.balanced_accuracy",
    ),
    "sensitivity": (
        f"{_EXPERT}.at_operating_point.sensitivity",
        "binary.at_operating_point.sensitivity",
    ),
    "specificity": (
        f"{_EXPERT}.at_operating_point.specificity",
        "binary.at_operating_point.specificity",
    ),
}
_MAJORITY = "binary.against.majority_atypical"
MAJORITY = {
    name: (f"{_MAJORITY}.{of_run.removeprefix(f'{_EXPERT}.')}", of_pair)
    for name, (of_run, of_pair) in BINARY.items()
}
STAGES = {
    "side: AUC": ("stages.side.auc", "binary.auc"),
    "atypical subtypes: mean AUC": (
        "stages.atypical_subtypes.mean_auc",
        "stages.atypical_subtypes.mean_auc",
    ),
    "atypical subtypes: balanced accuracy": (
        "stages.atypical_subtypes.balanced_accuracy",
        "stages.atypical_subtypes.balanced_accuracy",
    ),
    "normal subtypes: mean AUC": (
        "stages.normal_subtypes.mean_auc",
        "stages.normal_subtypes.mean_auc",
    ),
    "normal subtypes: balanced accuracy": (
        "stages.normal_subtypes.balanced_accuracy",
        "stages.normal_subtypes.balanced_accuracy",
    ),
}
POWERS = (0.0, 0.25, 0.5, 1.0)
"""Of the frequency of a subtype, by which its probability is divided before one is chosen."""


@dataclass
class Entry:
    """One approach on one split."""

    approach: dict[str, Any]
    folder: Path | None
    metrics: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    differences: dict[str, Any] = field(default_factory=dict)
    """To the reference, against expert 1."""
    by_majority: dict[str, Any] = field(default_factory=dict)
    """The same of binary measures against the majority of the votes."""
    alike: dict[str, Any] = field(default_factory=dict)
    """Balanced accuracy with each of :data:`POWERS`, and its difference to the reference's."""
    parts: list[Entry] = field(default_factory=list)
    """The runs that it is made of, or was taught by."""
    problem: str = ""
    """Why it cannot be compared."""

    @property
    def name(self) -> str:
        """Of the approach."""
        return str(self.approach["name"])

    @property
    def title(self) -> str:
        """Its name, with a mark where its figures are optimistic."""
        return f"{self.name} †" if self.metrics.get("optimistic") else self.name

    @property
    def kind(self) -> str | None:
        """Kind of its split: an ensemble tested on others, or single members out of fold."""
        file = self.folder / "splits.json" if self.folder else None
        return read_json(file)["kind"] if file and file.is_file() else None

    @property
    def of_sides(self) -> bool:
        """Whether it knows nothing of subtypes."""
        return bool(self.config.get("loss", {}).get("of") == "sides")

    @property
    def predictions(self) -> Path:
        """The table that is judged: of the test parts, or out of fold where there is none."""
        assert self.folder is not None
        test = self.folder / "predictions-test.csv"
        return test if test.is_file() else self.folder / "predictions-oof.csv"


def main() -> None:
    """Write the page, and its figures as JSON beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of run folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--speed", type=Path, help="JSON of benchmarks/speed_of_runs.py")
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    approaches = yaml.safe_load(APPROACHES.read_text("utf-8"))
    speeds = read_json(options.speed) if options.speed is not None else {}
    page, figures = [HEADER], {}
    for split, title in SPLITS.items():
        entries = [found(a, split, options.folders) for a in approaches]
        find_parts(entries, split)
        references = [
            run for a in approaches if a.get("reference")
            for run in all_found(a, split, options.folders)
        ]  # fmt: skip
        compare_all(entries, references, options.resamples)
        decide_alike(entries, references, options.resamples)
        page += section(title, split, entries, speeds)
        figures[split] = {e.name: record(e) for e in entries if e.folder is not None}
    write_text(options.out, "\n".join(page) + "\n")
    write_json(options.out.with_suffix(".json"), figures)


def found(approach: dict[str, Any], split: str, folders: list[Path]) -> Entry:
    """Find the run of an approach; of several, the first name in the first folder."""
    return next(all_found(approach, split, folders), Entry(approach, None))


def all_found(approach: dict[str, Any], split: str, folders: list[Path]) -> Iterator[Entry]:
    """Find the finished runs of an approach."""
    for name in approach["runs"].get(split, []):
        for folder in folders:
            run = folder / name
            if not (run / "metrics.json").is_file():
                continue
            about = read_json(run / "run.json")
            if about["status"] == "finished":
                config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
                yield Entry(approach, run, read_json(run / "metrics.json"), about, config)


def find_parts(entries: list[Entry], split: str) -> None:
    """Find among the entries those that another one needs."""
    named = {name: e for e in entries for name in e.approach["runs"].get(split, [])}
    for entry in entries:
        teacher = entry.config.get("target", {}).get("teacher")
        needed = [
            *entry.config.get("runs", []),
            *filter(None, [entry.config.get("network")]),
            *([] if teacher is None else [str(Path(teacher).parent)]),
        ]
        for run in needed:
            part = named.get(Path(run).name)
            if part is None or part.folder is None:
                raise SystemExit(f"{entry.folder}: expected the run {run}, which it is made of.")
            entry.parts.append(part)


def compare_all(entries: list[Entry], references: list[Entry], resamples: int) -> None:
    """Compare each with the first reference of its kind of split, patient by patient."""
    for entry in entries:
        reference = next((r for r in references if r.kind == entry.kind), None)
        if entry.folder is None or (reference and entry.folder == reference.folder):
            continue
        if reference is None:
            entry.problem = "no flat ensemble of the same split"
            continue
        tables = {
            reference.name: read_predictions(reference.predictions),
            entry.name: read_predictions(entry.predictions),
        }
        try:
            found = compare(tables, resamples=resamples, seed=0)
        except InputError as error:
            entry.problem = str(error)
            continue
        entry.differences = found["differences"][0]["measures"]
        if "majority_atypical" in entry.metrics["binary"]["against"]:
            found = compare(tables, "majority_atypical", resamples=resamples, seed=0)
            entry.by_majority = found["differences"][0]["measures"]


def spread(entries: list[Entry]) -> dict[str, float]:
    """How far runs of the reference's recipe lie from it, by any path of :func:`told_of`."""
    found: dict[str, float] = {}
    for entry in entries:
        if entry.approach.get("repeat"):
            for name, one in told_of(entry).items():
                if one["value"] is not None:
                    found[name] = max(found.get(name, 0.0), abs(one["value"]))
    return found


def told_of(entry: Entry) -> dict[str, dict[str, Any]]:
    """All differences of an entry to the reference, by group and name."""
    alike = {k: v for k, v in entry.alike.items() if k.endswith("difference")}
    groups = {"expert1": entry.differences, "majority": entry.by_majority, "alike": alike}
    return {f"{group}/{k}": v for group, told in groups.items() for k, v in told.items()}


def sign_of(one: dict[str, Any] | None, noise: float) -> int:
    """1 or -1 where a difference is off zero beyond its interval and beyond `noise`, else 0."""
    if one is None or one["value"] is None or one["low"] is None or abs(one["value"]) <= noise:
        return 0
    return 1 if one["low"] > 0 else -1 if one["high"] < 0 else 0


def decide_alike(entries: list[Entry], references: list[Entry], resamples: int) -> None:
    """Choose subtypes as each of :data:`POWERS` has it, by the frequencies of the training part."""
    for entry in entries:
        reference = next((r for r in references if r.kind == entry.kind), None)
        if entry.folder is None or entry.of_sides or entry.problem or reference is None:
            continue
        own, other = (read_predictions(e.predictions) for e in (entry, reference))
        own, other = (t.take(np.argsort(t.patch_ids)) for t in (own, other))
        truth = own.subtypes_of("expert1")
        frequencies = frequencies_of(reference)
        chosen = [
            [decide(table.probabilities, frequencies, power) for table in (own, other)]
            for power in POWERS
        ]

        def statistic(
            weights: FloatArray, truth: IntArray = truth, chosen: list[list[IntArray]] = chosen
        ) -> Measures:
            found: Measures = {}
            for power, tables in zip(POWERS, chosen, strict=True):
                ours, theirs = (
                    metrics.balanced_accuracy(metrics.confusion_matrix(truth, t, weights))
                    for t in tables
                )
                found |= {f"{power:g}": ours, f"{power:g}, difference": ours - theirs}
            return found

        told = {k: measure(v) for k, v in estimate_of(statistic, own.patients, resamples).items()}
        if entry.folder == reference.folder:
            told = {k: v for k, v in told.items() if not k.endswith("difference")}
        entry.alike = told


def frequencies_of(entry: Entry) -> FloatArray:
    """Share of each subtype, (8,), among the figures that a run has answered out of fold.

    A run of several outer splits has a file for each; a figure then counts once for each.
    """
    assert entry.folder is not None
    whole = entry.folder / "metrics-oof.json"
    files = [whole] if whole.is_file() else sorted(entry.folder.glob("*/metrics-oof.json"))
    told = [read_json(file)["per_class"] for file in files]
    counts = np.array([sum(one[name]["n"] for one in told) for name in NAMES], dtype=np.float64)
    return np.asarray(counts / counts.sum())


def section(title: str, split: str, entries: list[Entry], speeds: dict[str, Any]) -> list[str]:
    """Write all tables of one split."""
    done = [e for e in entries if e.folder is not None]
    lines = ["", f"## {title}", ""]
    if done:
        lines += [patients_of(done[0])]
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
    alone = [e for e in done if e.problem]
    if alone:
        lines += ["", "### Not compared", ""]
        lines += [f"- {entry.name}, `{entry.folder.name}`: {entry.problem}" for entry in alone]
    missing = [e for e in entries if e.folder is None and e.approach["runs"].get(split)]
    if missing:
        kind = (reference.kind if reference is not None else None) or split
        lines += ["", "### Not run", ""]
        for entry in missing:
            told = entry.approach["command"].format(cohort="COHORT", split=kind, runs="runs")
            lines.append(f"- {entry.name} ({entry.approach['about']}): `{told}`")
    return lines


def patients_of(entry: Entry) -> str:
    """Say how many figures and patients there are, and how unequal the patients' shares are."""
    sizes = np.unique(read_predictions(entry.predictions).patients, return_counts=True)[1]
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
        "atypical: AUC": (f"{_EXPERT}.auc", "expert1/binary.auc"),
    }

    def value(entry: Entry, name: str) -> float | None:
        measure = entry.alike.get("1") if name == "1" else path(entry.metrics, name)
        return None if measure is None or (entry.of_sides and name != f"{_EXPERT}.auc") else (
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
        speed = speeds.get(entry.folder.name if entry.folder else "", {})
        cells.append("–" if hours is None else f"{hours:.2f}")
        cells.append(f"{speed['patches_per_second']:.0f}" if speed else "–")
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
        cells = [estimate(path(entry.metrics, name)) for name, _ in measures.values()]
        lines.append(f"| **{entry.title}** | {' | '.join(cells)} |")
        names = [f"{group}/{name}" for _, name in measures.values()]
        lines += difference_line(entry, names, noise)
    return lines


def difference_line(entry: Entry, names: list[str], noise: dict[str, float]) -> list[str]:
    """Write one line of differences; none where there is none."""
    told = told_of(entry)
    if not any(name in told for name in names):
        return []
    cells = [difference(told.get(name), noise.get(name, 0.0)) for name in names]
    return [f"| difference | {' | '.join(cells)} |"]


def alike_table(entries: list[Entry], noise: dict[str, float]) -> list[str]:
    """Write balanced accuracies of subtypes that are all chosen in one way."""
    lines = [
        f"| approach | {' | '.join(f'power {power:g}' for power in POWERS)} |",
        "|---" * (1 + len(POWERS)) + "|",
    ]
    for entry in entries:
        if entry.alike:
            cells = [estimate(entry.alike[f"{power:g}"]) for power in POWERS]
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
        speed = speeds.get(entry.folder.name if entry.folder else "", {})
        cells = [
            entry.name,
            f"`{entry.folder.name}`" if entry.folder else "",
            f"{told['parameters'] / 1e6:.2f} M" if told["parameters"] is not None else "–",
            f"{told['wall_hours']:.2f}",
            str(told["threads"] or "–"),
            f"{told['cpu_hours']:.2f}" if told["cpu_hours"] is not None else "–",
            told["processor"],
            f"{speed['patches_per_second']:.0f}" if speed else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def costs(entry: Entry) -> dict[str, Any]:
    """Give parameters that answer, and hours over all sessions, those of its parts with them."""
    sessions = entry.run["sessions"]
    cpu = [s.get("cpu_seconds") for s in sessions]
    members = entry.config.get("ensemble", {})
    n = members.get("trained") or members.get("members", 1)
    if entry.config.get("model", {}).get("frozen"):
        n = 1  # the members share a backbone; their layers are its ten-thousandth
    models = entry.run.get("models", [])
    own = {
        "parameters": n * models[0]["parameters"] if models else None,
        "wall_hours": sum(s["seconds"] for s in sessions) / 3600,
        "cpu_hours": None if None in cpu else sum(cpu) / 3600,
    }
    parts = [costs(part) for part in entry.parts]
    processor = entry.run["machine"]["processor"].replace("(R)", "").removesuffix(" Processor")
    # A teacher does not answer; the networks below a hybrid or a stack do.
    answering = parts if entry.config.get("kind") in ("hybrid", "stack") else []
    return {
        "parameters": total([own, *answering], "parameters"),
        "wall_hours": total([own, *parts], "wall_hours"),
        "threads": entry.run["machine"].get("threads"),
        "cpu_hours": total([own, *parts], "cpu_hours"),
        "processor": processor,
    }


def total(told: list[dict[str, Any]], name: str) -> float | None:
    """Add up; None where one of them is not known."""
    values = [one[name] for one in told]
    return None if None in values else sum(values)


def record(entry: Entry) -> dict[str, Any]:
    """Give the figures of one approach: of a model of sides only those of sides."""
    eight = {} if entry.of_sides else {**SUBTYPES, **STAGES}
    names = {**eight, **{f"binary {k}": v for k, v in BINARY.items()}}
    votes = {f"binary {k}, majority": v for k, v in MAJORITY.items()}
    return {
        "run": entry.folder.name if entry.folder else None,
        "cohort_sha256": entry.run["cohort"]["sha256"],
        "seed": entry.run["seed"],
        "measures": {k: path(entry.metrics, name) for k, (name, _) in {**names, **votes}.items()},
        "differences": {
            **{k: entry.differences.get(name) for k, (_, name) in names.items()},
            **{k: entry.by_majority.get(name) for k, (_, name) in votes.items()},
        },
        "balanced accuracy, decided alike": entry.alike,
        "cost": costs(entry),
    }


def path(tree: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Give what a dotted name leads to; None where it leads nowhere."""
    node: Any = tree
    for part in name.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def estimate(measure: dict[str, Any] | None) -> str:
    """Write a measure with its interval."""
    if measure is None or measure["value"] is None:
        return "–"
    return f"{measure['value']:.3f} ({measure['low']:.3f}–{measure['high']:.3f})"


def difference(measure: dict[str, Any] | None, noise: float) -> str:
    """Write a difference with its interval, in bold where that is off zero beyond `noise`."""
    if measure is None or measure["value"] is None or measure["low"] is None:
        return "–"
    told = f"{measure['value']:+.3f} ({measure['low']:+.3f} to {measure['high']:+.3f})"
    return f"**{told}**" if sign_of(measure, noise) else told


HEADER = """# Every approach beside the flat ensemble

Made by `docs/make_leaderboard.py` from run folders; the approaches are those of
[leaderboard.yaml](../leaderboard.yaml), and all figures are also in
[leaderboard.json](leaderboard.json). Scored against expert 1 where nothing else is said, one seed
each. In brackets: 95 % intervals from 2,000 resamples of patients. *Difference*: minus the flat
ensemble (of the preset `quick`, where there is no other) on the same patches, resampled together.

**▲, ▼ and bold** mark a difference whose interval does not hold zero and which is larger than
that of any run of the flat ensemble's own recipe (*again*: another processor and a later commit;
*seed 1*), since intervals over patients know nothing of chance in training. Even so, of many
differences of nothing some are marked; the less alike the patients' shares, the more.

**Power.** A subtype is chosen by p / frequency^power, and a figure called atypical, as each run
fixed it out of fold: flat ensembles, LoRA, probes and rules have the power 0.25 (`quick`: 0.5),
hybrids and stacks 0.5. Balanced accuracy depends on that choice, mean AUC and log-loss do not;
*decided alike* gives all of them the same power.

**Out of fold** a run answers with one member, and calibration, threshold and choice of subtype are
fixed on the same answers; the recipe of the flat ensemble, which most others share, was itself
chosen with a look at many of these patients. Differences are between runs that share this. † marks
what more was chosen with a look at these figures: of the rules, and with them of hybrid and stack,
the constants, on 162 of the patients. Students are not cross-validated: their teachers have seen
the labels of the fold that would judge them.

**Cost.** Wall hours are those of the run's sessions on its number of threads, with whatever else
ran on the machine; CPU hours are its own; both with those of the runs that it is made of or was
taught by. Processors differ in speed by half and more: hours compare on one of them only. Patches
per second are of 512 patches, from files to the table, with both cores of a quiet AMD EPYC
([speed.json](speed.json)). Parameters are those that answer.

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


if __name__ == "__main__":
    main()
