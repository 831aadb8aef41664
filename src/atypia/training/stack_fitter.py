"""The stack: the models of several finished runs, aggregated or under a logistic meta-learner."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.classifiers.aggregation import Aggregation
from atypia.classifiers.combined import Meta, aggregate, groups_of, meta_features, save_stack
from atypia.core.config import StackConfig
from atypia.core.errors import InputError, LeakError, Problem
from atypia.core.files import read_json, sha256_file
from atypia.core.labels import N_SUBTYPES
from atypia.training.base_predictions import BasePredictions, splits_of
from atypia.training.combiner_fit import (
    choose,
    cross_fitted,
    fit_aggregation,
    fit_choice,
    parts,
)
from atypia.training.outer_split import FittedModel, ModelFitter
from atypia.training.targets import chosen_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from atypia.classifiers.postprocessing import Postprocessing
    from atypia.core.config import StackKind
    from atypia.data.cohort import Cohort
    from atypia.data.splits import Splits
    from atypia.training.combiner_fit import Choice

    Array = npt.NDArray[np.float64]
    Indices = npt.NDArray[np.int64]

log = logging.getLogger("atypia")


class StackFitter(ModelFitter[StackConfig]):
    """Aggregates the models of several runs, by their out-of-fold predictions.

    Out-of-fold predictions of the stack come from the whole recipe, fold by fold. As in a hybrid, a
    model predicts the test part with all its members, out of fold with some of them.
    """

    base: list[list[BasePredictions]]
    """For each outer split, of each model, in the order of the first one's rows."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__(config)
        self.sources = [Path(name) for name in config.runs]
        if len(self.sources) < 2:
            raise InputError(
                "runs: expected two or more finished runs, runs=[RUN1,RUN2], but got "
                f"{len(self.sources)}."
            )

    def split(self, cohort: Cohort, out: Path) -> Splits:  # noqa: ARG002
        """Take the splits of the first run, whose test parts must be those of the others."""
        first, *others = [splits_of("runs", source, cohort) for source in self.sources]
        problems = []
        for source, other in zip(self.sources[1:], others, strict=True):
            if [set(o.test) for o in other.outer] != [set(o.test) for o in first.outer]:
                what = (
                    f"expected the test part of {self.sources[0]} but got another: one of the two "
                    "has learned from patients that the other is tested on. Train both with one "
                    "--split."
                )
                problems.append(Problem(what, str(source)))
        if problems:
            raise LeakError(problems)
        of_runs = [BasePredictions.of_run(source, cohort, first) for source in self.sources]
        self.base = [self._aligned(of_outer) for of_outer in zip(*of_runs, strict=True)]
        return first

    def _aligned(self, base: Sequence[BasePredictions]) -> list[BasePredictions]:
        """Bring the rows of all models into the order of the first one's."""
        first, *others = base
        aligned, problems = [first], []
        for source, other in zip(self.sources[1:], others, strict=True):
            same = np.array_equal(np.sort(other.part.training), np.sort(first.part.training))
            if not same or not np.array_equal(other.part.test, first.part.test):
                what = f"expected answers for the patches of {self.sources[0]} but got others."
                problems.append(Problem(what, str(source)))
                continue
            place = {row: i for i, row in enumerate(other.part.training.tolist())}
            order = [place[row] for row in first.part.training.tolist()]
            part = replace(other.part, training=first.part.training, folds=other.part.folds[order])
            aligned.append(replace(other, part=part, training=other.training[order]))
        if problems:
            raise InputError(problems)
        return aligned

    def fit(self, number: int) -> FittedModel:
        """Fit the aggregation or the meta-learner of one outer split."""
        base, kind = self.base[number], self.config.join
        part = base[0].part
        labels = chosen_labels(self.run.cohort.manifest, self.config.label)[part.training]
        training = np.stack([model.training for model in base])
        meta, choices = fit_meta(kind, training, labels, part.folds)
        facts: dict[str, Any] = {
            "initial_weights": "models: "
            + ", ".join(os.path.relpath(model.bundle, self.run.folder) for model in base),
            "models_sha256": [sha256_file(model.bundle / "model.json") for model in base],
            "parameters": 0,
        }
        if isinstance(meta, Aggregation):
            facts["join"] = meta.model_dump(mode="json", exclude_none=True)
        else:
            log.info("stack: C = %g is best out of fold", choices[0].strength)
            facts["parameters"] = meta.coefficients.size + meta.intercept.size
            facts["choice"] = [choice.to_json() for choice in choices]
        test = np.stack([model.test for model in base])
        self.on_step("models", number + 1, len(self.base))
        return FittedStack(
            part,
            cross_validated(kind, training, labels, part.folds),
            aggregate(meta, test) if len(part.test) else np.empty((0, N_SUBTYPES)),
            facts,
            [model.bundle for model in base],
            meta,
        )

    def optimistic(self) -> tuple[bool, bool]:
        """Take over from any of the models."""
        metrics = [read_json(source / "metrics.json") for source in self.sources]
        return (
            any(model.optimistic for of_outer in self.base for model in of_outer),
            any(m.get("optimistic", False) for m in metrics),
        )


@dataclass(frozen=True)
class FittedStack(FittedModel):
    """The stack of one outer split."""

    bundles: list[Path]
    meta: Meta

    def save(
        self, folder: Path, postprocessing: Postprocessing, provenance: dict[str, Any]
    ) -> None:
        """Write the bundle, those of the models in it."""
        save_stack(folder, self.bundles, self.meta, postprocessing, provenance)


def fit_meta(
    kind: StackKind, base: Array, labels: Indices, folds: Indices
) -> tuple[Meta, list[Choice]]:
    """Fit what makes one prediction of several, on patients that no model was trained on.

    ``logistic`` is multinomial logistic regression on the logarithms of all probabilities; its
    penalty is chosen by cross-validation over the folds. The other kinds and the arguments are
    those of :func:`~atypia.training.combiner_fit.fit_aggregation`, with `folds` (N,) as well: at
    least two for ``logistic``.

    Returns:
        The aggregation, and of ``logistic`` the penalties that were tried, the best one first.
    """
    if kind != "logistic":
        return fit_aggregation(kind, base, labels), []
    groups, table = groups_of(len(base)), meta_features(base)
    choices = choose(table, labels, folds, [tuple(groups)], groups)
    return fit_choice(table, labels, choices[0], groups), choices


def cross_validated(kind: StackKind, base: Array, labels: Indices, folds: Indices) -> Array:
    """Out-of-fold predictions (N, 8): each fold's are fitted on the other folds alone.

    The arguments are those of :func:`fit_meta`, with at least three folds for ``logistic``.
    """
    if kind == "logistic":
        groups = groups_of(len(base))
        return cross_fitted(meta_features(base), labels, folds, [tuple(groups)], groups)
    predictions = np.empty(base.shape[1:])
    for held_out, rest in parts(folds):
        meta, _ = fit_meta(kind, base[:, rest], labels[rest], folds[rest])
        predictions[held_out] = aggregate(meta, base[:, held_out])
    return predictions
