"""Fit what combines models, and choose what it may use, by patient-level folds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.classifiers.aggregation import Aggregation
from atypia.classifiers.combined import GROUPS, Combiner, columns_of, standardised
from atypia.core.labels import N_SUBTYPES
from atypia.evaluation.metrics import one_vs_rest_auc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from atypia.classifiers.combined import Array, Groups
    from atypia.core.config import JoinKind

    Indices = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]
    Uses = tuple[str, ...]

USES: Final = (("network",), ("network", "truths"), ("network", "truths", "measures"))
"""Groups of features to choose from. The network alone is among them: where that is best, the
rules add nothing."""
STRENGTHS: Final = (0.01, 0.1, 1.0)
"""Inverse strengths of the penalty on coefficients to choose from."""


@dataclass(frozen=True)
class Choice:
    """What a classifier uses, and how good that was in cross-validation."""

    uses: Uses
    strength: float
    log_loss: float = math.nan

    def to_json(self) -> dict[str, Any]:
        """Entries for ``run.json``."""
        return {"uses": list(self.uses), "strength": self.strength, "log_loss": self.log_loss}


def fit_combiner(
    table: Array, labels: Indices, uses: Uses, strength: float, groups: Groups = GROUPS
) -> Combiner:
    """Fit multinomial logistic regression (scikit-learn) with an L2 penalty.

    Args:
        table: (N, features), such as from :func:`atypia.classifiers.combined.feature_table`.
        labels: (N,) subtype indices.
        uses: Groups of features.
        strength: Inverse strength of the penalty.
        groups: All that there are, with their columns in the order of the table.
    """
    from sklearn.linear_model import LogisticRegression

    names = tuple(name for group in uses for name in groups[group])
    columns = columns_of(groups)
    x = table[:, [columns.index(name) for name in names]]
    mean, scale = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    model = LogisticRegression(C=strength, max_iter=2000)
    model.fit(standardised(x, mean, scale), labels)
    coefficients = np.zeros((N_SUBTYPES, len(names)))
    # A subtype that is not there to learn from is as rare as half a figure.
    intercept = np.full(N_SUBTYPES, model.intercept_.min() - math.log(2 * len(labels)))
    if len(model.classes_) == 2:  # one row for both
        coefficients[model.classes_] = np.vstack([-model.coef_, model.coef_]) / 2
        intercept[model.classes_] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        coefficients[model.classes_] = model.coef_
        intercept[model.classes_] = model.intercept_
    return Combiner(names, mean, scale, coefficients, intercept)


def fit_choice(table: Array, labels: Indices, choice: Choice, groups: Groups = GROUPS) -> Combiner:
    """Fit a chosen classifier on the rows that have a label, those of 0 or more."""
    known = labels >= 0
    return fit_combiner(table[known], labels[known], choice.uses, choice.strength, groups)


def choose(
    table: Array,
    labels: Indices,
    folds: Indices,
    every: Sequence[Uses] = USES,
    groups: Groups = GROUPS,
) -> list[Choice]:
    """Score every combination by cross-validation over `folds`; the best one comes first.

    Args:
        table: As `groups`, see :func:`fit_combiner`.
        labels: (N,) subtype indices; -1, where there is none, does not count.
        folds: (N,) patient-level fold of each row, at least two.
        every: What may be used.
        groups: All features, by group.
    """
    known, scored = labels >= 0, []
    for uses, strength in product(every, STRENGTHS):
        choice = Choice(uses, strength)
        p = _out_of_fold(table, labels, folds, groups, choice)
        loss = -np.log(np.maximum(p[known, labels[known]], 1e-12)).mean()
        scored.append(replace(choice, log_loss=float(loss)))
    return sorted(scored, key=lambda choice: choice.log_loss)


def cross_fitted(
    table: Array,
    labels: Indices,
    folds: Indices,
    every: Sequence[Uses] = USES,
    groups: Groups = GROUPS,
) -> Array:
    """Out-of-fold probabilities (N, 8) of the whole recipe, the choice included.

    For each fold, of at least three, :func:`choose` and the fit see the other folds alone (nested
    cross-validation: Varma and Simon, BMC Bioinformatics 7, 2006). One path is left: the network's
    answers to these other folds come from members that have learned the fold's labels, as in any
    stacking. Arguments as for :func:`choose`.
    """
    return _out_of_fold(table, labels, folds, groups, every)


def _out_of_fold(
    table: Array, labels: Indices, folds: Indices, groups: Groups, how: Choice | Sequence[Uses]
) -> Array:
    """(N, 8) by one choice, or by the best one for the rows outside the fold."""
    probabilities = np.empty((len(table), N_SUBTYPES))
    for held_out, rest in parts(folds):
        own, known = table[rest], labels[rest]
        best = how if isinstance(how, Choice) else choose(own, known, folds[rest], how, groups)[0]
        combiner = fit_choice(own, known, best, groups)
        probabilities[held_out] = combiner.predict_proba(table[held_out], columns_of(groups))
    return probabilities


def fit_aggregation(
    kind: JoinKind, predictions: npt.NDArray[np.floating[Any]], labels: Indices
) -> Aggregation:
    """Decide how members are aggregated, from their out-of-fold predictions.

    The weight of a member is its mean one-vs-rest AUC on these (as AUCMEDI weighs on a part of the
    data that is held out for it). Each has its own such patients; a fold of easy figures makes for
    a larger weight. `predictions` are (K, N, 8), NaN where a member was trained on the patient or
    was not asked; `labels` (N,) are -1 where there is none.
    """
    if kind != "weighted":
        return Aggregation(kind=kind)
    weights = []
    for own in predictions:
        mine = ~np.isnan(own).any(axis=1) & (labels >= 0)
        auc = one_vs_rest_auc(labels[mine], own[mine].astype(np.float64))
        weights.append(float(np.nanmean(auc)))
    return Aggregation(kind=kind, weights=tuple(weights))


def parts(folds: Indices) -> Iterator[tuple[Mask, Mask]]:
    """Yield which rows are held out and which are not, fold by fold."""
    for fold in np.unique(folds):
        held_out = folds == fold
        yield held_out, ~held_out
