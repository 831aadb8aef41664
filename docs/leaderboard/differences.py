"""What the runs differ by, patient by patient, and whether that is more than chance."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from kept_results import has_metrics, path, read_metrics

from atypia.classifiers.decision import decide
from atypia.core.errors import InputError
from atypia.core.labels import SUBTYPES as NAMES
from atypia.evaluation.comparison import compare
from atypia.evaluation.intervals import difference, estimate, measure
from atypia.evaluation.metrics import agreement_measures
from atypia.evaluation.predictions import read_predictions
from leaderboard.runs import costs

if TYPE_CHECKING:
    from atypia.evaluation.metrics import FloatArray
    from leaderboard.runs import Entry

SUBTYPES = {
    "mean AUC": ("overall.mean_auc", "mean_auc"),
    "balanced accuracy": ("overall.balanced_accuracy", "balanced_accuracy"),
    "macro-F1": ("overall.macro_f1", "macro_f1"),
    "Cohen's κ": ("overall.kappa", "kappa"),
    "log-loss": ("overall.log_loss", "log_loss"),
}
EXPERT = "binary.against.expert1"
BINARY = {
    "AUC": (f"{EXPERT}.auc", "binary.auc"),
    "balanced accuracy": (
        f"{EXPERT}.at_operating_point.balanced_accuracy",
        "binary.at_operating_point.balanced_accuracy",
    ),
    "sensitivity": (
        f"{EXPERT}.at_operating_point.sensitivity",
        "binary.at_operating_point.sensitivity",
    ),
    "specificity": (
        f"{EXPERT}.at_operating_point.specificity",
        "binary.at_operating_point.specificity",
    ),
}
BY_MAJORITY = "binary.against.majority_atypical"
MAJORITY = {
    name: (f"{BY_MAJORITY}.{of_run.removeprefix(f'{EXPERT}.')}", of_pair)
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


def compare_all(entries: list[Entry], references: list[Entry], resamples: int) -> None:
    """Compare each with the first reference of its kind of split, patient by patient."""
    for entry in entries:
        reference = next((r for r in references if r.kind == entry.kind), None)
        if entry.folder is None or (reference and entry.folder == reference.folder):
            continue
        if reference is None:
            entry.problem = "no flat ensemble of the same split"
            continue
        entry.other_folds = entry.kind == "all" and entry.folds != reference.folds
        tables = {
            reference.name: read_predictions(reference.folder),
            entry.name: read_predictions(entry.folder),
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
        own, other = (read_predictions(e.folder) for e in (entry, reference))
        own, other = (t.take(np.argsort(t.patch_ids)) for t in (own, other))
        truth = own.subtypes_of("expert1")
        frequencies = frequencies_of(reference)
        chosen = [
            [decide(table.probabilities, frequencies, power) for table in (own, other)]
            for power in POWERS
        ]

        told = {}
        for power, tables in zip(POWERS, chosen, strict=True):
            ours, theirs = (
                estimate(partial(agreement_measures, truth, t), own.patients, resamples)
                for t in tables
            )
            balanced, reference_balanced = (e["balanced_accuracy"] for e in (ours, theirs))
            told[f"{power:g}"] = measure(balanced)
            if entry.folder != reference.folder:
                told[f"{power:g}, difference"] = measure(difference(balanced, reference_balanced))
        entry.alike = told


def frequencies_of(entry: Entry) -> FloatArray:
    """Share of each subtype, (8,), among the figures that a run has answered out of fold.

    A run of several outer splits has a file for each; a figure then counts once for each.
    """
    assert entry.folder is not None
    parts = [entry.folder, *sorted(entry.folder.glob("*/"))]
    told = [read_metrics(f, "metrics-oof") for f in parts if has_metrics(f, "metrics-oof")]
    if has_metrics(entry.folder, "metrics-oof"):
        told = told[:1]
    elif not told:  # of the split "all" the judged table is that out of fold
        told = [entry.metrics]
    counts = np.array(
        [sum(one["per_class"][name]["n"] for one in told) for name in NAMES], dtype=np.float64
    )
    return np.asarray(counts / counts.sum())


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
