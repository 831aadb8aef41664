"""The model among the raters: who agrees with whom, and how far the model is ahead or behind.

A rater is judged like a model: the calls are taken for answers and scored against another rater's.
The model is scored on the same figures, so that each difference is paired. A majority that
includes a rater's own vote favours that rater; *the others* are the majority of all raters but the
one who is judged, and a tie among them is no majority.

A model and a rater at different operating points trade sensitivity for specificity. The fairer
question is how sensitive the model would be at the rater's own specificity, which its ROC curve
answers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.evaluation import metrics
from atypia.evaluation.intervals import (
    LEVEL,
    OF,
    RESAMPLES,
    difference,
    estimate,
    measure,
    patient_weights,
)
from atypia.evaluation.predictions import UNKNOWN, majority

if TYPE_CHECKING:
    from atypia.evaluation.intervals import Estimate
    from atypia.evaluation.metrics import BoolArray, FloatArray, Measures
    from atypia.evaluation.predictions import Predictions

OTHERS: Final = "others"
"""Reference that is the majority of all raters but the one who is judged."""


def among_raters(
    predictions: Predictions, resamples: int = RESAMPLES, seed: int = 0
) -> list[dict[str, Any]]:
    """Score each rater and the model against each other rater: atypical against normal.

    Every rater counts, with subtypes or votes alone, and every patch once. With three raters or
    more each is scored against :data:`OTHERS`, too.

    Returns:
        One entry per rater and reference, on the figures that both have: ``rater``, ``against``,
        ``n``, ``n_patients``, ``n_atypical`` (by the reference); ``of_rater``, ``of_model`` and
        ``model_minus_rater``, each the measures of
        :func:`atypia.evaluation.metrics.binary_measures`; and ``at_rater_specificity`` with the
        model's ``sensitivity`` there and ``model_minus_rater``. All with intervals.
    """
    patches = predictions.averaged()
    calls = {rater: patches.atypical_of(rater) for rater in patches.raters}
    entries = []
    for rater, given in calls.items():
        references = {name: others for name, others in calls.items() if name != rater}
        if len(references) > 1:
            references[OTHERS] = majority(list(references.values()))
        for against, truth in references.items():
            both = (given != UNKNOWN) & (truth != UNKNOWN)
            if both.any():
                measured = _compare(
                    patches.take(both), given[both] == 1, truth[both] == 1, resamples, seed
                )
                entries.append({"rater": rater, "against": against, **measured})
    return entries


def _compare(
    patches: Predictions, given: BoolArray, truth: BoolArray, resamples: int, seed: int
) -> dict[str, Any]:
    """Score a rater's calls and the model's against the same `truth`; all (N,)."""

    def of_rater(weights: FloatArray) -> Measures:
        return metrics.binary_measures(truth, given, weights)

    def of_model(weights: FloatArray) -> Measures:
        return metrics.binary_measures(truth, patches.predicted_atypical, weights)

    def at_rater_specificity(weights: FloatArray) -> Measures:
        at = 1 - of_rater(weights)["specificity"]
        sensitivity = metrics.sensitivity_at(truth, patches.p_atypical, at, weights)
        return {"sensitivity": sensitivity, f"sensitivity{OF}": weights @ truth}

    rater, model, at_rater = (
        estimate(statistic, patches.patients, resamples, seed)
        for statistic in (of_rater, of_model, at_rater_specificity)
    )
    there = at_rater["sensitivity"]
    drawn = [
        (at_rater_specificity(weights)["sensitivity"], of_rater(weights)["sensitivity"])
        for weights in patient_weights(patches.patients, resamples, seed)
    ]
    model_there, rater_there = np.concatenate(drawn, axis=1)
    ahead = _over_draws(difference(there, rater["sensitivity"]), model_there - rater_there)
    return {
        "n": len(patches),
        "n_patients": len(set(patches.patients)),
        "n_atypical": int(truth.sum()),
        "of_rater": {name: measure(found) for name, found in rater.items()},
        "of_model": {name: measure(found) for name, found in model.items()},
        "model_minus_rater": {n: measure(difference(model[n], rater[n])) for n in model},
        "at_rater_specificity": {
            "sensitivity": measure(_over_draws(there, model_there)),
            "model_minus_rater": measure(ahead),
        },
    }


def _over_draws(found: Estimate, drawn: FloatArray) -> Estimate:
    """Take the interval from `drawn` patients (R,), where these differ at all.

    At a given specificity a ROC curve moves in steps, as a quantile does, for which leaving out one
    patient at a time is no guide (Efron, The Jackknife, the Bootstrap and Other Resampling Plans,
    1982, section 3.4).
    """
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(found.low) or not len(drawn) or drawn.min() == drawn.max():
        return found
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return replace(
        found, low=np.minimum(low, found.value), high=np.maximum(high, found.value), p=None
    )
