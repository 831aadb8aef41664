"""From a table of predictions to ``metrics.json``.

Every measure is ``{"value", "low", "high", "undefined"}``: the interval covers 95 %, with the
patient as the unit (:mod:`atypia.evaluation.intervals`); ``undefined`` counts the patients without
whom the measure would have no value (1 where one patient has all figures of a class).
A measure that is undefined is null.

The majority vote is a second reference for the atypical call, not an independent one: the rater
whose labels a model learned from is one of those who voted. No rater is scored against a majority
that includes the rater's own vote; see :mod:`atypia.evaluation.raters`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import scipy  # loads scipy.stats, which takes a second, where it is used

from atypia.core.errors import InputError
from atypia.core.labels import N_ATYPICAL, N_SUBTYPES, SUBTYPES
from atypia.evaluation import metrics
from atypia.evaluation import uncertainty_scores as uncertainty
from atypia.evaluation.intervals import OF, RESAMPLES, described, estimate, measure
from atypia.evaluation.predictions import MAJORITY, UNKNOWN, Predictions
from atypia.evaluation.raters import among_raters
from atypia.evaluation.uncertainty_scores import DEFAULT_THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atypia.evaluation.intervals import Estimate, Statistic
    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray, Measures

NOT_GIVEN = "not given"
"""Name of the group of rows whose domain or scanner is empty."""
SIDES: Final = {
    "atypical_subtypes": slice(0, N_ATYPICAL),
    "normal_subtypes": slice(N_ATYPICAL, N_SUBTYPES),
}
OF_SUBTYPES: Final = ("mean_auc", "balanced_accuracy", "log_loss")

DEFINITIONS = {
    "interval": "95 %; Student's t on the logit scale of the measure (log scale of log_loss), the "
    "standard error by leaving out one patient at a time; exact (Clopper and Pearson, effective "
    "number of figures) where none or all are right",
    "mean_auc": "mean of the one-vs-rest AUCs of the classes that occur",
    "balanced_accuracy": "mean sensitivity of the classes that occur",
    "macro_f1": "mean F1 of the classes that occur or are predicted",
    "log_loss": "natural logarithm, probabilities held to at least 2.2e-16",
    "brier": "multi-class sum form, 0 to 2",
    "ece": f"top-label confidence, {metrics.ECE_BINS} bins of equal width; without what chance "
    "adds: the error that would on average be found as large as it was",
    "stages": "side: the sums of the subtypes' probabilities, called as predicted_atypical; "
    "subtypes: p(subtype | side) given the side that is right, the most probable one being the "
    "answer",
    "at_operating_point": "column predicted_atypical, whose threshold was fixed beforehand",
    "calibration": f"{metrics.ECE_BINS} bins of equal width; subtypes: largest probability against "
    "the share that is right; binary: p_atypical against the share that is atypical",
    "selective": "the figures of which the model is least sure are left unanswered; subtypes: sure "
    "by the probability of the predicted subtype; binary: by the distance of p_atypical from the "
    "threshold in logits",
    "aurc": "area under the risk-coverage curve: mean error rate over all coverages; 0 is best",
    "conformal": "prediction sets of the column conformal_set; coverage is the share that holds "
    "the label",
    "among_raters": "atypical or normal, each rater and the model against each other rater, and "
    "against 'others', the majority of all other raters without ties; at_rater_specificity: on the "
    "model's ROC curve of p_atypical, at the rater's false positive rate, with "
    "percentile intervals from resampling patients",
    "confusion": "rows are the label, columns the prediction, in the order of subtypes",
}


def evaluate(
    predictions: Predictions,
    label: str = "expert1",
    resamples: int = RESAMPLES,
    seed: int = 0,
    threshold: float | None = None,
    alpha: float | None = None,
) -> dict[str, Any]:
    """Score predictions against a named label; the content of ``metrics.json``.

    Rows without a call are left out and counted, by status, in ``left_out``.

    Args:
        predictions: The table.
        label: A rater, ``agreed`` (where all raters agree), or votes: ``majority_atypical``,
            ``atypical_<rater>``. These have no subtypes, so that only the binary part is filled.
        resamples: As for :func:`atypia.evaluation.intervals.estimate`.
        seed: As there.
        threshold: The operating point behind ``predicted_atypical``, where it is known.
        alpha: One minus the nominal coverage of ``conformal_set``, where it is known.

    Raises:
        InputError: No row has the label, or `threshold` contradicts ``predicted_atypical``.
    """
    left_out, predictions = predictions.left_out, predictions.only_answered()
    _check_threshold(predictions, threshold)
    binary_only = predictions.vote_column(label) is not None
    truth = predictions.atypical_of(label) if binary_only else predictions.subtypes_of(label)
    known = predictions.rows_with(truth, label)
    scored = predictions.take(known)
    result: dict[str, Any] = {
        "label": label,
        "n": len(scored),
        "n_patients": _count(scored.patients),
        "n_without_label": int((~known).sum()),
        "left_out": left_out,
        "interval": described(resamples, seed),
        "definitions": DEFINITIONS,
        "subtypes": list(SUBTYPES),
        "overall": {},
        "per_class": {},
        "confusion": [],
        "class_size_vs_sensitivity": {},
    }
    if not binary_only:
        result |= _subtypes(scored, truth[known], resamples, seed)
    against = dict.fromkeys([label, *([MAJORITY] if MAJORITY in predictions.votes else [])])
    result["binary"] = {
        "against": {
            name: binary
            for name in against
            if (binary := _binary(predictions, name, resamples, seed, threshold)) is not None
        }
    }
    subtypes = None if binary_only else truth[known]
    result["stages"] = {} if subtypes is None else stages(scored, subtypes, resamples, seed)
    atypical = scored.atypical_of(label) == 1
    result |= {
        "calibration": uncertainty.calibration(scored, subtypes, atypical, resamples, seed),
        "selective": uncertainty.selective(scored, subtypes, atypical, threshold, resamples, seed),
        "conformal": {}
        if subtypes is None
        else uncertainty.conformal(scored, subtypes, alpha, resamples, seed),
    }
    result["groups"] = {
        kind: _groups(scored, values, label, resamples, seed, threshold)
        for kind, values in (("domain", scored.domains), ("scanner", scored.scanners))
        if (values != "").any()
    }
    result["raters"] = rater_agreement(predictions, label, resamples, seed)
    result["among_raters"] = among_raters(predictions, resamples, seed)
    return result


def rater_agreement(
    predictions: Predictions, label: str, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Every other rater scored against `label`, as if a model, on all patches that both labelled.

    Where `label` is no rater, the first rater of the table is the reference. A patch that the
    table has several times counts once.
    """
    if not predictions.labels:
        return {}
    reference = label if label in predictions.labels else next(iter(predictions.labels))
    once = np.unique(predictions.patch_ids, return_index=True)[1]
    patches = predictions.take(np.sort(once))
    agreement = {}
    for rater in patches.labels:
        both = (patches.labels[rater] != UNKNOWN) & (patches.labels[reference] != UNKNOWN)
        if rater == reference or not both.any():
            continue
        patients = patches.patients[both]
        truth, given = patches.labels[reference][both], patches.labels[rater][both]

        def statistic(
            weights: FloatArray, truth: IntArray = truth, given: IntArray = given
        ) -> Measures:
            binary = metrics.binary_measures(truth < N_ATYPICAL, given < N_ATYPICAL, weights)
            return metrics.agreement_measures(truth, given, weights) | {
                f"binary_{name}": values for name, values in binary.items()
            }

        estimates = estimate(statistic, patients, resamples, seed)
        agreement[rater] = {
            "against": reference,
            "n": int(both.sum()),
            "n_patients": _count(patients),
            "overall": _pick(estimates, metrics.OVERALL),
            "per_class": _per_class(estimates, truth, given, patients),
            "binary": _of(estimates, "binary_"),
            "confusion": _confusion(truth, given),
        }
    return agreement


def class_size_correlation(sizes: FloatArray, sensitivity: FloatArray) -> Measures:
    """Correlation over classes of their size with their sensitivity: (R, C) twice to (R,) each."""
    # A class without sensitivity has size 0, hence the lowest rank: leaving it out of one ranking
    # only shifts the other, which no correlation sees.
    ranks = [
        scipy.stats.rankdata(values, axis=1, nan_policy="omit") for values in (sizes, sensitivity)
    ]
    return {
        "pearson": metrics.pearson(sizes, sensitivity),
        "spearman": metrics.pearson(ranks[0], ranks[1]),
    }


def _subtypes(scored: Predictions, truth: IntArray, resamples: int, seed: int) -> dict[str, Any]:
    one_hot = np.eye(N_SUBTYPES)[truth]

    def statistic(weights: FloatArray) -> Measures:
        measures = metrics.subtype_measures(truth, scored.predicted, scored.probabilities, weights)
        return {
            **measures,
            **class_size_correlation(weights @ one_hot, measures["sensitivity"]),
            "average_precision": metrics.one_vs_rest_average_precision(
                truth, scored.probabilities, weights
            ),
            f"average_precision{OF}": weights @ one_hot,
        }

    estimates = estimate(statistic, scored.patients, resamples, seed)
    return {
        "overall": _pick(estimates, metrics.OVERALL),
        "per_class": _per_class(estimates, truth, scored.predicted, scored.patients),
        "confusion": _confusion(truth, scored.predicted),
        "class_size_vs_sensitivity": _pick(estimates, ("pearson", "spearman")),
    }


def _binary(
    predictions: Predictions, label: str, resamples: int, seed: int, threshold: float | None
) -> dict[str, Any] | None:
    """Atypical against normal by `label`, on the rows that have it; None where none has."""
    truth = predictions.atypical_of(label)
    known = truth != UNKNOWN
    if not known.any():
        return None
    scored, atypical = predictions.take(known), truth[known] == 1
    statistic = binary_statistic(scored, atypical)
    estimates = estimate(statistic, scored.patients, resamples, seed)

    return {
        "n": len(scored),
        "n_patients": _count(scored.patients),
        "n_atypical": int(atypical.sum()),
        **_pick(estimates, ("auc", "average_precision")),
        "at_0.5": {"threshold": DEFAULT_THRESHOLD, **_of(estimates, "at_0.5.")},
        "at_operating_point": {"threshold": threshold, **_of(estimates, "at_operating_point.")},
    }


def binary_statistic(scored: Predictions, atypical: BoolArray) -> Statistic:
    """Weights (R, N) to the binary measures, those of a threshold named ``at_….measure``."""
    calls = {
        "at_0.5": scored.p_atypical >= DEFAULT_THRESHOLD,
        "at_operating_point": scored.predicted_atypical,
    }

    def statistic(weights: FloatArray) -> Measures:
        measures = {
            **metrics.auc_measures(atypical, scored.p_atypical, weights),
            "average_precision": metrics.average_precision(atypical, scored.p_atypical, weights),
            f"average_precision{OF}": weights @ atypical,
        }
        for point, called in calls.items():
            for name, values in metrics.binary_measures(atypical, called, weights).items():
                measures[f"{point}.{name}"] = values
        return measures

    return statistic


def given_side(probabilities: FloatArray, side: slice) -> FloatArray:
    """p(subtype | side), (N, 4), from p(subtype), (N, 8); all alike where the side has none."""
    own = probabilities[:, side]
    total = own.sum(axis=1, keepdims=True)
    alike = np.full_like(own, 1 / own.shape[1])
    return np.asarray(np.divide(own, total, out=alike, where=total > 0))


def stage_statistic(scored: Predictions, truth: IntArray) -> Statistic:
    """Weights (R, N) to the measures of each stage, named ``side.auc`` and so on.

    The side is judged by the sums of the subtypes' probabilities, its balanced accuracy by the
    calls. Of the subtypes of a side the most probable one is the answer.
    """
    atypical = truth < N_ATYPICAL
    p_side = scored.probabilities[:, SIDES["atypical_subtypes"]].sum(axis=1).clip(0, 1)
    two = np.stack([1 - p_side, p_side], axis=1)
    parts = []
    for name, side in SIDES.items():
        rows = (truth >= side.start) & (truth < side.stop)
        if rows.any():
            own = given_side(scored.probabilities[rows], side)
            parts.append((name, rows, truth[rows] - side.start, own))

    def statistic(weights: FloatArray) -> Measures:
        calls = metrics.binary_measures(atypical, scored.predicted_atypical, weights)
        measures = {
            **{
                f"side.{name}": values
                for name, values in {
                    **metrics.auc_measures(atypical, p_side, weights),
                    **metrics.only(calls, ["balanced_accuracy"]),
                }.items()
            },
            "side.log_loss": metrics.log_loss(atypical.astype(np.int64), two, weights),
        }
        for name, rows, subtypes, probabilities in parts:
            every = metrics.subtype_measures(
                subtypes, probabilities.argmax(axis=1), probabilities, weights[:, rows]
            )
            measures |= {f"{name}.{m}": v for m, v in metrics.only(every, OF_SUBTYPES).items()}
        return measures

    return statistic


def stages(scored: Predictions, truth: IntArray, resamples: int, seed: int) -> dict[str, Any]:
    """Score both stages, ``side`` and the subtypes of each side, by the subtypes `truth`, (N,).

    A side without figures is left out.
    """
    estimates = estimate(stage_statistic(scored, truth), scored.patients, resamples, seed)
    rows = {"side": truth >= 0} | {
        name: (truth >= side.start) & (truth < side.stop) for name, side in SIDES.items()
    }
    return {
        stage: {
            "n": int(mine.sum()),
            "n_patients": len(np.unique(scored.patients[mine])),
            **_of(estimates, f"{stage}."),
        }
        for stage, mine in rows.items()
        if mine.any()
    }


def _groups(
    scored: Predictions,
    values: Iterable[str],
    label: str,
    resamples: int,
    seed: int,
    threshold: float | None,
) -> dict[str, Any]:
    """Overall and binary measures within each value of a column, intervals over its patients."""
    values = np.asarray(values)
    groups = {}
    for value in np.unique(values):
        group = scored.take(values == value)
        entry: dict[str, Any] = {"n": len(group), "n_patients": _count(group.patients)}
        if group.vote_column(label) is None:
            truth = group.subtypes_of(label)
            statistic = partial(
                metrics.subtype_measures, truth, group.predicted, group.probabilities
            )
            estimates = estimate(statistic, group.patients, resamples, seed)
            entry["n_classes"] = _count(truth)
            entry["overall"] = _pick(estimates, metrics.OVERALL)
        else:
            entry |= {"n_classes": None, "overall": {}}
        entry["binary"] = _binary(group, label, resamples, seed, threshold)
        groups[str(value) or NOT_GIVEN] = entry
    return groups


def _per_class(
    estimates: Mapping[str, Estimate],
    truth: IntArray,
    predicted: IntArray,
    patients: Any,
) -> dict[str, Any]:
    return {
        subtype: {
            "n": int((truth == c).sum()),
            "n_patients": _count(patients[truth == c]),
            "n_predicted": int((predicted == c).sum()),
            **{
                name: measure(estimates[name], c) for name in metrics.PER_CLASS if name in estimates
            },
        }
        for c, subtype in enumerate(SUBTYPES)
    }


def _confusion(truth: IntArray, predicted: IntArray) -> list[list[int]]:
    matrix: list[list[int]] = metrics.confusion_matrix(truth, predicted)[0].astype(int).tolist()
    return matrix


def _pick(estimates: Mapping[str, Estimate], names: Iterable[str]) -> dict[str, Any]:
    return {name: measure(estimates[name]) for name in names if name in estimates}


def _of(estimates: Mapping[str, Estimate], prefix: str) -> dict[str, Any]:
    """Measures whose names begin so, by the rest of the name."""
    return {
        name.removeprefix(prefix): measure(value)
        for name, value in estimates.items()
        if name.startswith(prefix)
    }


def _count(values: Any) -> int:
    return len(np.unique(values))


def _check_threshold(predictions: Predictions, threshold: float | None) -> None:
    if threshold is None:
        return
    # The table holds nine digits: a score that close to the threshold may fall on either side.
    clear = np.abs(predictions.p_atypical - threshold) > 1e-6
    contradicted = clear & ((predictions.p_atypical >= threshold) != predictions.predicted_atypical)
    if contradicted.any():
        raise InputError(
            f"expected predicted_atypical to say whether p_atypical is at least {threshold} but "
            f"got the contrary in {int(contradicted.sum())} rows, the first for patch "
            f"{predictions.patch_ids[contradicted][0]!r}."
        )
