"""Patient-level cross-validation: predictions by models that have not seen the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.errors import InputError
from atypia.core.progress import OnStep, silent
from atypia.data.splits import Outer, Splits, stratify
from atypia.training.mil.mil_network import fit_patients

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.core.config import MilConfig
    from atypia.training.mil.bag_features import BagFeatures
    from atypia.training.mil.patient_target import Target

COUNT: Final = "n_figures"
"""Name of the model that is given nothing of a patient but how many figures there are."""


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for P patients with N figures."""

    probabilities: dict[str, npt.NDArray[np.float64]]
    """Model to (P, C), averaged over the repeats: each pooling, and :data:`COUNT`."""
    weights: dict[str, npt.NDArray[np.float64]]
    """Pooling to (N,), averaged likewise; NaN where the patient has no target."""
    folds: npt.NDArray[np.int64]
    """(repeats, P) which fold each patient was in."""

    def splits(self, target: Target, config: MilConfig, cohort_sha256: str) -> Splits:
        """Folds in the format of ``splits.json``; patients without a target are in no part."""
        outer = []
        for fold_of in self.folds:
            parts = [tuple(target.patients[fold_of == f].tolist()) for f in range(config.folds)]
            outer += [
                Outer(test, tuple(part for other, part in enumerate(parts) if other != f))
                for f, test in enumerate(parts)
            ]
        return Splits("cv", config.seed, cohort_sha256, tuple(outer))


def cross_validate(
    figures: BagFeatures, target: Target, config: MilConfig, on_step: OnStep = silent
) -> OutOfFold:
    """Fit every pooling on the other folds' patients and predict for each fold's.

    Raises:
        InputError: Fewer patients than folds.
    """
    n, n_classes = len(target.patients), len(target.classes)
    if n < config.folds:
        raise InputError(f"folds: expected at most {n}, the patients, but got {config.folds}.")
    rows = figures.rows_of(target.patients)
    bags = [figures.values[r] for r in rows]
    counts = np.array([len(r) for r in rows])
    probabilities = {name: np.zeros((n, n_classes)) for name in (*config.pooling, COUNT)}
    weights: dict[str, npt.NDArray[np.float64]] = {
        name: np.full(len(figures.patients), np.nan) for name in config.pooling
    }
    for of_figures in weights.values():
        of_figures[np.concatenate(rows)] = 0
    shares = np.full(config.folds, 1 / config.folds)
    classes = np.eye(n_classes, dtype=np.int64)[target.values]
    draws = [np.random.default_rng([config.seed, 3, repeat]) for repeat in range(config.repeats)]
    folds = np.stack([stratify(classes, shares, random) for random in draws])
    for repeat, fold_of in enumerate(folds):
        for fold in range(config.folds):
            train, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            own = [bags[i] for i in train]
            values = target.values[train]
            for pooling in config.pooling:
                seed = int(np.random.SeedSequence([config.seed, repeat, fold]).generate_state(1)[0])
                model = fit_patients(own, values, n_classes, pooling, config, seed >> 1)
                for i in test:
                    p, of_figures = model(bags[i])
                    probabilities[pooling][i] += p / config.repeats
                    weights[pooling][rows[i]] += of_figures / config.repeats
            p = _by_count(counts[train], values, counts[test], n_classes)
            probabilities[COUNT][test] += p / config.repeats
            on_step("folds", repeat * config.folds + fold + 1, config.repeats * config.folds)
    return OutOfFold(probabilities, weights, folds)


def _by_count(
    counts: npt.NDArray[np.int64],
    values: npt.NDArray[np.int64],
    wanted: npt.NDArray[np.int64],
    n_classes: int,
) -> npt.NDArray[np.float64]:
    """Logistic regression on the logarithm of the number of figures: what a model must beat."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(np.log(counts)[:, None], values)
    p = np.zeros((len(wanted), n_classes))
    p[:, model.classes_] = model.predict_proba(np.log(wanted)[:, None])
    return p
