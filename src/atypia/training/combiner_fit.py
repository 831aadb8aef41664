"""Fit the classifier behind other models, and choose what it may use, by patient-level folds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.classifiers.combined import GROUPS, Combiner, columns_of, standardised
from atypia.core.labels import N_SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from atypia.classifiers.combined import Array, Groups

    Indices = npt.NDArray[np.int64]
    Uses = tuple[str, ...]

USES: Final = (("network",), ("network", "truths"), ("network", "truths", "measures"))
"""Groups of features to choose from. The network alone is among them: where that is best, the
rules add nothing."""
STRENGTHS: Final = (0.01, 0.1, 1.0)
"""Inverse strengths of the penalty on coefficients to choose from."""


@dataclass(frozen=True)
class Choice:
    """What a classifier uses, and how good that was in cross-validation."""

    uses: tuple[str, ...]
    strength: float
    log_loss: float

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


def choose(
    table: Array,
    labels: Indices,
    folds: Indices,
    every: Sequence[Uses] = USES,
    groups: Groups = GROUPS,
) -> list[Choice]:
    """Score every combination by cross-validation over `folds`; the best one comes first.

    Args:
        table: (N, features).
        labels: (N,) subtype indices; -1, where there is none, does not count.
        folds: (N,) patient-level fold of each row, at least two.
        every: What may be used.
        groups: All features, by group.
    """
    scored = []
    for uses in every:
        for strength in STRENGTHS:
            p = _out_of_fold(table, labels, folds, uses, strength, groups)
            known = labels >= 0
            loss = -np.log(np.maximum(p[known, labels[known]], 1e-12)).mean()
            scored.append(Choice(uses, strength, float(loss)))
    return sorted(scored, key=lambda choice: choice.log_loss)


def cross_fitted(
    table: Array,
    labels: Indices,
    folds: Indices,
    every: Sequence[Uses] = USES,
    groups: Groups = GROUPS,
) -> Array:
    """Out-of-fold probabilities (N, 8) of the whole recipe, the choice included.

    For each fold, :func:`choose` and the fit see the other folds alone (nested cross-validation:
    Varma and Simon, BMC Bioinformatics 7, 2006). One path is left: the network's answers to these
    other folds come from members that have learned the fold's labels, as in any stacking.

    Args:
        table: (N, features).
        labels: (N,) subtype indices, -1 where there is none.
        folds: (N,) patient-level fold of each row, at least three.
        every: What may be used.
        groups: All features, by group.
    """
    probabilities = np.empty((len(table), N_SUBTYPES))
    for held_out, rest in parts(folds):
        best = choose(table[rest], labels[rest], folds[rest], every, groups)[0]
        known = rest & (labels >= 0)
        combiner = fit_combiner(table[known], labels[known], best.uses, best.strength, groups)
        probabilities[held_out] = combiner.predict_proba(table[held_out], columns_of(groups))
    return probabilities


def _out_of_fold(
    table: Array, labels: Indices, folds: Indices, uses: Uses, strength: float, groups: Groups
) -> Array:
    probabilities = np.empty((len(table), N_SUBTYPES))
    for held_out, rest in parts(folds):
        known = rest & (labels >= 0)
        combiner = fit_combiner(table[known], labels[known], uses, strength, groups)
        probabilities[held_out] = combiner.predict_proba(table[held_out], columns_of(groups))
    return probabilities


def parts(folds: Indices) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Yield which rows are held out and which are not, fold by fold."""
    for fold in np.unique(folds):
        held_out = folds == fold
        yield held_out, ~held_out
