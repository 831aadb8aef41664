"""Label audit: which patches have a label that is probably wrong, in the order to look at them.

A patch is an issue where the model, which was not trained on it, is confident of another subtype
than the label (:mod:`atypia.evaluation.confident_learning`). A confident mistake of the model looks
the same, so issues are ranked first by the labels of the other raters (:data:`EVIDENCE`) and only
then by the quality of the label.

A vote (atypical or normal) of a rater who gave no subtypes has no part in the ranking. How often it
sides with the suggestion shows how far each kind of evidence can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from atypia.core.errors import InputError
from atypia.core.labels import N_ATYPICAL, N_SUBTYPES, SUBTYPES
from atypia.evaluation import confident_learning as confident
from atypia.evaluation import metrics
from atypia.evaluation.intervals import OF, RESAMPLES, described, estimate, measure
from atypia.evaluation.predictions import AGREED, UNKNOWN, Predictions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray, Measures

NO_ISSUE: Final = "none"
NEITHER: Final = "neither"
"""Side of the model where it gives the label of no rater."""
EVIDENCE: Final = {
    "confirmed": "more of the other raters give the suggested subtype than the label",
    "contested": "the other raters give a third subtype or are split: the figure is ambiguous",
    "alone": "no other rater has labelled the patch",
    "defended": "more of the other raters give the label than the suggestion",
}
"""Kinds of evidence for an issue, the strongest first."""

_VOTE: Final = "atypical_"

DEFINITIONS: Final = {
    "issue": "the model is confident of another subtype than the label; confident: the "
    "probability is at least its mean among the patches with that label (confident learning)",
    "suggested_subtype": "the most probable of the subtypes that the model is confident of; "
    "where it is confident of none, the most probable",
    "quality": "normalised margin, 0 to 1; below 0.5 another subtype is more probable",
    "evidence": EVIDENCE,
    "rank": "by evidence, then by quality; what is no issue comes last",
    "given_wrong": "estimated share of the patches with this label that are of another subtype; "
    "the model's own confident mistakes count in, so that it is rather too high",
    "true_missed": "estimated share of the patches of this subtype that have another label",
    "joint": "estimated distribution of given (rows) and true (columns) labels",
    "referees": "share of the issues across the line between atypical and normal in which a vote "
    "that had no part in the ranking sides with the suggestion",
    "binary_balanced_accuracy": "of atypical or normal, by the column predicted_atypical",
    "interval": "95 %, by leaving out one patient at a time",
}


@dataclass(frozen=True)
class AuditResult:
    """What an audit found."""

    label: str
    """The label that was audited: a rater, or ``agreed``."""
    table: pd.DataFrame
    """One row per patch with that label, by rank; the columns of ``audit.csv``."""
    probabilities: FloatArray
    """(N, 8) in the order of `table`."""
    summary: dict[str, Any]
    """The content of ``audit.json``."""

    @property
    def issues(self) -> pd.DataFrame:
        """The rows of `table` that are issues: the first ones."""
        return self.table[self.table["is_issue"]]


def audit(
    predictions: Predictions,
    label: str = "expert1",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> AuditResult:
    """Find the labels that are probably wrong, and measure the model by what raters agree on.

    Args:
        predictions: Each patch once, by a model that was not trained on it: out-of-fold
            predictions. On patches that a model was trained on, it repeats wrong labels.
        label: A rater, or ``agreed`` for the patches that all raters label alike.
        resamples: As for :func:`atypia.evaluation.intervals.estimate`.
        seed: As there.

    Raises:
        InputError: No row has the label, or a patch is there several times.
    """
    left_out, predictions = predictions.left_out, predictions.only_answered()
    given = predictions.subtypes_of(label)
    known = predictions.rows_with(given, label)
    _check_each_patch_once(predictions)
    rows, given = predictions.take(known), given[known]
    thresholds = confident.class_thresholds(given, rows.probabilities)
    sure_of = confident.confident_classes(rows.probabilities, thresholds)[0]
    is_issue = (sure_of != UNKNOWN) & (sure_of != given)
    suggested = np.where(sure_of == UNKNOWN, rows.probabilities.argmax(1), sure_of)
    evidence = _evidence(
        is_issue, given, suggested, [other for name, other in rows.labels.items() if name != label]
    )
    quality = confident.normalized_margin(given, rows.probabilities)
    tiers = {kind: tier for tier, kind in enumerate([*EVIDENCE, NO_ISSUE])}
    order = np.lexsort((rows.patch_ids, quality, np.array([tiers[kind] for kind in evidence])))
    table = _table(rows, given, suggested, is_issue, evidence, quality).iloc[order]
    table.insert(0, "rank", np.arange(1, len(table) + 1))

    def noise(weights: FloatArray) -> Measures:
        return confident.noise_measures(given, rows.probabilities, weights)

    estimates = estimate(noise, rows.patients, resamples, seed)
    counts = confident.confident_joint(given, sure_of[None], N_SUBTYPES)[0].astype(int)
    summary = {
        "label": label,
        "n": len(rows),
        "n_patients": len(np.unique(rows.patients)),
        "n_without_label": int((~known).sum()),
        "left_out": left_out,
        "interval": described(resamples, seed),
        "definitions": DEFINITIONS,
        "subtypes": list(SUBTYPES),
        "n_issues": int(is_issue.sum()),
        "evidence": {kind: int((evidence == kind).sum()) for kind in EVIDENCE},
        "pairs": _pairs(given, suggested, evidence),
        "noise": measure(estimates["wrong"]),
        "per_class": {
            subtype: {
                "n": int((given == c).sum()),
                "n_issues": int((is_issue & (given == c)).sum()),
                "n_suggested": int((is_issue & (suggested == c)).sum()),
                "threshold": None if np.isnan(thresholds[0, c]) else float(thresholds[0, c]),
                "given_wrong": measure(estimates["given_wrong"], c),
                "true_missed": measure(estimates["true_missed"], c),
            }
            for c, subtype in enumerate(SUBTYPES)
        },
        "confident_joint": counts.tolist(),
        "joint": estimates["joint"].value.tolist(),
        "referees": _referees(rows, given, suggested, evidence, resamples, seed),
        "cells": rater_cells(predictions, resamples, seed),
    }
    probabilities = rows.probabilities[order]
    return AuditResult(label, table.reset_index(drop=True), probabilities, summary)


def _check_each_patch_once(predictions: Predictions) -> None:
    names, times = np.unique(predictions.patch_ids, return_counts=True)
    if (times > 1).any():
        raise InputError(
            f"expected every patch once but got {int((times > 1).sum())} several times, such as "
            f"{str(names[times > 1][0])!r}. Audit one fold or repeat at a time."
        )


def _evidence(
    is_issue: BoolArray, given: IntArray, suggested: IntArray, others: list[IntArray]
) -> NDArray[np.str_]:
    """Compare each issue with the other raters: (N,) keys of :data:`EVIDENCE`, or none."""
    labels = np.array(others, dtype=np.int64).reshape(len(others), len(given))
    confirming, defending = (labels == suggested).sum(0), (labels == given).sum(0)
    return np.select(
        [
            ~is_issue,
            (labels == UNKNOWN).all(0),
            confirming > defending,
            defending > confirming,
        ],
        [NO_ISSUE, "alone", "confirmed", "defended"],
        "contested",
    )


def _table(
    rows: Predictions,
    given: IntArray,
    suggested: IntArray,
    is_issue: BoolArray,
    evidence: NDArray[np.str_],
    quality: FloatArray,
) -> pd.DataFrame:
    every = np.arange(len(rows))
    agreed, disagreed = agreed_and_not(rows)
    return pd.DataFrame(
        {
            "patch_id": rows.patch_ids,
            "patient_id": rows.patients,
            "domain": rows.domains,
            "fold": rows.folds,
            "given_subtype": _names(given),
            "suggested_subtype": _names(suggested),
            "predicted_subtype": _names(rows.predicted),
            "p_given": rows.probabilities[every, given],
            "p_suggested": rows.probabilities[every, suggested],
            "quality": quality,
            "is_issue": is_issue,
            "evidence": evidence,
            "crosses_atypical": (given < N_ATYPICAL) != (suggested < N_ATYPICAL),
            "raters_agree": np.select([agreed, disagreed], ["True", "False"], ""),
            **{f"label_{rater}": _names(labels) for rater, labels in rows.labels.items()},
            **{
                f"{_VOTE}{referee}": np.array(["False", "True", ""])[votes]  # UNKNOWN is the last
                for referee, votes in _referee_votes(rows).items()
            },
        }
    )


def _names(subtypes: IntArray) -> NDArray[np.str_]:
    return np.array([*SUBTYPES, ""])[subtypes]  # UNKNOWN is the last


def _pairs(
    given: IntArray, suggested: IntArray, evidence: NDArray[np.str_]
) -> list[dict[str, Any]]:
    """Count the issues of each pair of label and suggestion, the most frequent pair first."""
    pairs = []
    for g, s in np.ndindex(N_SUBTYPES, N_SUBTYPES):
        kinds = evidence[(given == g) & (suggested == s) & (evidence != NO_ISSUE)]
        if len(kinds):
            pairs.append(
                {
                    "given": SUBTYPES[g],
                    "suggested": SUBTYPES[s],
                    "n": len(kinds),
                    **{kind: int((kinds == kind).sum()) for kind in EVIDENCE},
                }
            )
    return sorted(pairs, key=lambda pair: -pair["n"])


def _referee_votes(rows: Predictions) -> dict[str, IntArray]:
    """Votes of those who gave no subtypes, by name."""
    votes = {
        column.removeprefix(_VOTE): vote
        for column, vote in rows.votes.items()
        if column.startswith(_VOTE)
    }
    return {name: vote for name, vote in votes.items() if name not in rows.labels}


def _referees(
    rows: Predictions,
    given: IntArray,
    suggested: IntArray,
    evidence: NDArray[np.str_],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Referee to kind of evidence to the number and share of votes that side with the suggestion.

    A vote only counts where one of label and suggestion is atypical and the other normal.
    """
    referees: dict[str, Any] = {}
    crosses = (given < N_ATYPICAL) != (suggested < N_ATYPICAL)
    for referee, votes in _referee_votes(rows).items():
        sides = (votes == 1) == (suggested < N_ATYPICAL)
        referees[referee] = {}
        for kind in EVIDENCE:
            cast = crosses & (votes != UNKNOWN) & (evidence == kind)
            if cast.any():
                share = shares({kind: sides[cast]}, rows.patients[cast], resamples, seed)[kind]
                referees[referee][kind] = {"of": int(cast.sum()), **share}
    return referees


def rater_cells(
    predictions: Predictions, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Measure the model where the raters agree, and see with whom it sides where they do not.

    Rows that fewer than two raters labelled are left out. Arguments as for :func:`audit`.

    Returns:
        ``agreed`` and ``disagreed`` (None where there are no such rows), each with ``n``,
        ``n_patients`` and ``against``: the model's measures per rater, or against ``agreed``.
        ``disagreed`` also has ``sides``: per rater, and ``neither``, the number and share of the
        model's answers.
    """
    cells: dict[str, Any] = {"agreed": None, "disagreed": None}
    if len(predictions.labels) < 2:
        return cells
    agreed = predictions.subtypes_of(AGREED)
    for name, chosen in zip(cells, agreed_and_not(predictions), strict=True):
        if not chosen.any():
            continue
        rows = predictions.take(chosen)
        truths = {AGREED: agreed[chosen]} if name == "agreed" else rows.labels
        cells[name] = {
            "n": len(rows),
            "n_patients": len(np.unique(rows.patients)),
            "against": {
                rater: _against(
                    rows.take(truth != UNKNOWN), truth[truth != UNKNOWN], resamples, seed
                )
                for rater, truth in truths.items()
                if (truth != UNKNOWN).any()
            },
        }
        if name == "disagreed":
            sides = {rater: rows.predicted == truth for rater, truth in rows.labels.items()}
            sides[NEITHER] = ~np.any(list(sides.values()), axis=0)
            cells[name]["sides"] = shares(sides, rows.patients, resamples, seed)
    return cells


def agreed_and_not(rows: Predictions) -> tuple[BoolArray, BoolArray]:
    """Rows that two or more raters labelled: those they label alike, and the others."""
    agreed = rows.subtypes_of(AGREED) != UNKNOWN
    twice = (np.stack(list(rows.labels.values())) != UNKNOWN).sum(0) > 1
    return agreed, twice & ~agreed


def shares(
    groups: Mapping[str, BoolArray], patients: NDArray[np.str_], resamples: int, seed: int
) -> dict[str, Any]:
    """Count the rows in each group and give their share, with intervals."""

    def statistic(weights: FloatArray) -> Measures:
        found = {name: weights @ inside / weights.sum(1) for name, inside in groups.items()}
        return found | {f"{name}{OF}": weights.sum(1) for name in groups}

    estimates = estimate(statistic, patients, resamples, seed)
    return {
        name: {"n": int(inside.sum()), "share": measure(estimates[name])}
        for name, inside in groups.items()
    }


def _against(rows: Predictions, truth: IntArray, resamples: int, seed: int) -> dict[str, Any]:
    def statistic(weights: FloatArray) -> Measures:
        every = metrics.agreement_measures(truth, rows.predicted, weights)
        binary = metrics.binary_measures(truth < N_ATYPICAL, rows.predicted_atypical, weights)
        return {
            **metrics.only(every, ("accuracy", "kappa", "balanced_accuracy")),
            **{f"binary_{k}": v for k, v in metrics.only(binary, ["balanced_accuracy"]).items()},
        }

    estimates = estimate(statistic, rows.patients, resamples, seed)
    return {"n": len(rows)} | {name: measure(value) for name, value in estimates.items()}
