"""Several models joined: by a mean, weights, a median, votes, or a logistic meta-learner.

Stacking fits a second model to what the first ones say of patients that they have not learned from
(Wolpert, Neural Networks 5, 1992). The models may be of any kind: networks, the rules, a hybrid.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from atypia._version import __version__
from atypia.classifiers.aggregation import Aggregation
from atypia.classifiers.bundle import HEADER, StackedModel, StackHeader, find_bundle, write_header
from atypia.classifiers.combiner import Combiner, log_p
from atypia.classifiers.postprocessing import Postprocessed, Postprocessing
from atypia.core.files import read_as, sha256_file
from atypia.core.labels import SUBTYPES
from atypia.evaluation.metrics import one_vs_rest_auc
from atypia.training.combiner_fit import choose, columns_of, cross_fitted, fit_combiner, parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.classifiers.protocol import SubtypeModel
    from atypia.core.config import InputSpec, StackKind
    from atypia.training.combiner_fit import Choice

    Array: TypeAlias = npt.NDArray[np.float64]
    Indices: TypeAlias = npt.NDArray[np.int64]

Meta: TypeAlias = Aggregation | Combiner
"""What makes one answer of several."""


def groups_of(n_models: int) -> dict[str, tuple[str, ...]]:
    """Features of a meta-learner, by model: ``0.log_p_amf_bipolar`` and so on."""
    return {str(i): tuple(f"{i}.log_p_{subtype}" for subtype in SUBTYPES) for i in range(n_models)}


def joined(meta: Meta, opinions: Array) -> Array:
    """One answer (N, 8) of those of K models (K, N, 8)."""
    if isinstance(meta, Aggregation):
        return meta(opinions)
    return meta.predict_proba(_table(opinions), columns_of(groups_of(len(opinions))))


def fit_meta(
    kind: StackKind, opinions: Array, labels: Indices, folds: Indices
) -> tuple[Meta, list[Choice]]:
    """Fit what joins models, on their answers to patients that they have not learned from.

    ``logistic`` is multinomial logistic regression on the logarithms of all probabilities; its
    penalty is chosen by cross-validation over the folds. ``weighted`` goes by each model's mean
    AUC.

    Args:
        kind: Of the join.
        opinions: (K, N, 8) out of fold.
        labels: (N,) subtype indices, -1 where there is none.
        folds: (N,) patient-level fold of each row; at least two for ``logistic``.

    Returns:
        What joins them, and of ``logistic`` the penalties that were tried, the best one first.
    """
    known = labels >= 0
    if kind == "logistic":
        groups, table = groups_of(len(opinions)), _table(opinions)
        choices = choose(table, labels, folds, [tuple(groups)], groups)
        best = choices[0]
        fitted = fit_combiner(table[known], labels[known], best.uses, best.strength, groups)
        return fitted, choices
    if kind == "weighted":
        aucs = [np.nanmean(one_vs_rest_auc(labels[known], own[known])) for own in opinions]
        return Aggregation(kind=kind, weights=tuple(float(auc) for auc in aucs)), []
    return Aggregation(kind=kind), []


def cross_joined(kind: StackKind, opinions: Array, labels: Indices, folds: Indices) -> Array:
    """Out-of-fold answers (N, 8): each fold's join is fitted on the other folds alone.

    Args:
        kind: Of the join.
        opinions: (K, N, 8) out of fold.
        labels: (N,) subtype indices, -1 where there is none.
        folds: (N,) patient-level fold of each row; at least three for ``logistic``.
    """
    if kind == "logistic":
        groups = groups_of(len(opinions))
        return cross_fitted(_table(opinions), labels, folds, [tuple(groups)], groups)
    answers = np.empty(opinions.shape[1:])
    for held_out, rest in parts(folds):
        meta, _ = fit_meta(kind, opinions[:, rest], labels[rest], folds[rest])
        answers[held_out] = joined(meta, opinions[:, held_out])
    return answers


def _table(opinions: Array) -> Array:
    """Features (N, K * 8)."""
    return log_p(np.concatenate(list(opinions), axis=1))


class StackClassifier(Postprocessed):
    """Several models, used like :class:`atypia.classifiers.ensemble.Ensemble`.

    Args:
        models: Give the probabilities that `meta` was fitted on.
        meta: Makes one answer of theirs.
        answers: What becomes of it.
        provenance: Where all this comes from.
    """

    def __init__(
        self,
        models: Sequence[SubtypeModel],
        meta: Meta,
        answers: Postprocessing,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.models, self.meta, self.postprocessing = list(models), meta, answers
        self.provenance = dict(provenance or {})
        self.specs: Sequence[InputSpec] = [s for model in models for s in model.specs]

    def predict_proba(
        self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64
    ) -> npt.NDArray[np.float32]:
        """Calibrated subtype probabilities, as :class:`SubtypeModel` gives them.

        Raises:
            InputError: Patches of another type, or much smaller than the field of view.
        """
        opinions = [model.predict_proba(patches, mpp, batch_size) for model in self.models]
        return self.postprocessing.calibration.apply(
            joined(self.meta, np.stack(opinions).astype(float))
        )

    @classmethod
    def load(cls, model: Path | str, models: Sequence[SubtypeModel]) -> StackClassifier:
        """Read a bundle.

        Args:
            model: A bundle or a run folder.
            models: Loaded from the folders that :func:`atypia.classifiers.bundle.parts_of` gives.

        Raises:
            InputError: Not a bundle of a stack, or of other models.
        """
        file = find_bundle(model) / HEADER
        header = read_as(StackHeader, file)
        meta: Meta
        if header.combiner is not None:
            columns = columns_of(groups_of(len(header.models)))
            meta = Combiner.from_json(header.combiner, str(file), columns)
        else:
            meta = header.join
        return cls(models, meta, Postprocessing.from_header(header, str(file)), header.provenance)


def save_stack(
    folder: Path,
    models: Sequence[Path],
    meta: Meta,
    answers: Postprocessing,
    provenance: Mapping[str, Any],
) -> None:
    """Write a bundle; ``model.json`` comes last, so a folder with it is complete.

    Args:
        folder: Made if need be.
        models: Bundles, which are copied.
        meta: Makes one answer of theirs.
        answers: What becomes of it.
        provenance: Where all this comes from.

    Raises:
        AtypiaError: The folder cannot be written.
    """
    stacked = []
    for i, model in enumerate(models):
        inner = folder / f"model-{i}"
        shutil.copytree(model, inner, dirs_exist_ok=True)
        stacked.append(StackedModel(folder=inner.name, sha256=sha256_file(inner / HEADER)))
    header = StackHeader(
        created_with=f"atypia {__version__}",
        provenance=dict(provenance),
        models=stacked,
        join=meta if isinstance(meta, Aggregation) else Aggregation(),
        combiner=meta.to_json() if isinstance(meta, Combiner) else None,
        **answers.to_header(),
    )
    write_header(folder, header)
