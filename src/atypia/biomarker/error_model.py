"""The errors of a model by every label that is known, and where they are found."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.biomarker.correction import Correction
from atypia.biomarker.label_errors import LabelErrors
from atypia.classifiers.bundle import HEADER, find_bundle, read_any_header
from atypia.core.choices import BEST
from atypia.core.errors import InputError, Problem
from atypia.core.files import read_json
from atypia.core.labels import N_SUBTYPES, SUBTYPES
from atypia.evaluation.latent_class import MIN_RATERS, latent_truth
from atypia.evaluation.predictions import MAJORITY, UNKNOWN, read_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from atypia.biomarker.figure_table import SlideFigures
    from atypia.evaluation.metrics import FloatArray, IntArray
    from atypia.evaluation.predictions import Predictions

LATENT: Final = "latent"
"""The truth behind three raters or more; see :mod:`atypia.evaluation.latent_class`."""
MIN_PATIENTS: Final = 10
_FORMAT = 2
_ROUNDING: Final = 1e-6
"""A table holds p_atypical with fewer digits than a model.json its threshold."""


class NoErrorsError(InputError):
    """A model has no error model, which is no fault of it."""


def no_error_model(truth: IntArray, patients: NDArray[np.str_], label: str) -> str:
    """Explain why errors cannot be estimated on these figures; empty where they can.

    `truth` (N,) is 1 (atypical), 0 (normal) or :data:`UNKNOWN` by `label`, `patients` (N,) are
    theirs.
    """
    n_patients, n = len(np.unique(patients[truth != UNKNOWN])), [(truth == c).sum() for c in (1, 0)]
    if n_patients >= MIN_PATIENTS and all(n):
        return ""
    return (
        f"expected atypical and normal figures of at least {MIN_PATIENTS} patients to estimate a "
        f"model's errors on but got {n[0]} atypical and {n[1]} normal figures of {n_patients} "
        f"patients by {label!r}."
    )


@dataclass(frozen=True)
class ErrorModel:
    """A model's errors by every label that is known, and by which one values are corrected."""

    label: str
    of: Mapping[str, LabelErrors]

    @classmethod
    def fit(
        cls,
        predictions: Predictions,
        label: str = "expert1",
        weights: FloatArray | None = None,
        prior: ErrorModel | None = None,
    ) -> ErrorModel:
        """Fit to a table in which no figure was predicted by a model that learned from it.

        By `label`, and where the table has them by the majority and, from three raters on, by the
        latent truth. A patch that the table has several times counts once, one without a call
        not at all; `weights` and `prior`
        are as for :meth:`LabelErrors.fit`.

        Raises:
            NoErrorsError: Fewer than ten labelled patients, or only atypical or normal figures, and
                no prior.
        """
        once = np.sort(np.unique(predictions.patch_ids, return_index=True)[1])
        once = once[predictions.answered[once]]
        table = predictions.take(once)
        lacking = no_error_model(table.atypical_of(label), table.patients, label)
        if lacking and prior is None:
            raise NoErrorsError(lacking)
        fitted: dict[str, LabelErrors] = {}
        for name, (known, target) in _targets(table, label).items():
            fitted[name] = LabelErrors.fit(
                table.probabilities[known],
                target[known],
                table.patients[known],
                table.predicted_atypical[known],
                None if weights is None else weights[once][known],
                None if prior is None else prior.of.get(name, prior.chosen),
            )
        return cls(label, fitted)

    @property
    def chosen(self) -> LabelErrors:
        """Those by the label that values are corrected by."""
        return self.of[self.label]

    def by(self, label: str | None) -> ErrorModel:
        """Correct by another label; None leaves it.

        Raises:
            InputError: There are no errors by it.
        """
        if label is None or label in self.of:
            return replace(self, label=label or self.label)
        raise InputError(
            f"--label: expected one of {list(self.of)}, by which the model's errors are known, but "
            f"got {label!r}."
        )

    def to_json(self) -> dict[str, Any]:
        """Give what strict JSON can hold."""
        return {
            "format": _FORMAT,
            "label": self.label,
            "classes": list(SUBTYPES),
            "labels": {name: errors.to_json() for name, errors in self.of.items()},
        }

    @classmethod
    def from_json(cls, value: Any, file: str = "errors") -> ErrorModel:
        """Read what :meth:`to_json` gave, now or in format 1; `file` is named in messages.

        Raises:
            InputError: It is something else.
        """
        try:
            old = value["format"] == 1
            classes = (value["columns"] if old else value)["classes"]
            if value["format"] not in (1, _FORMAT) or classes != list(SUBTYPES):
                raise ValueError("another format or other classes")
            label = str(value["label"])
            if old:
                return cls(label, {label: LabelErrors.from_counts(value)})
            of = {str(name): LabelErrors.from_json(one) for name, one in value["labels"].items()}
            if label not in of:
                raise ValueError(f"no errors by {label!r}")
            return cls(label, of)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            shown = json.dumps(value, default=str)[:60]
            what = f"expected the errors of a model but got {shown} ({error!r})."
            raise InputError(Problem(what, file)) from None


def _targets(table: Predictions, label: str) -> dict[str, tuple[NDArray[np.bool_], FloatArray]]:
    """By each label that can be fitted: which figures (N,) have it, and what it is."""
    subtypes = None if table.vote_column(label) else table.subtypes_of(label)
    sides: dict[str, FloatArray] = {}
    if table.votes and label != MAJORITY:
        sides[MAJORITY] = _unless_unknown(table.atypical_of(MAJORITY))
    raters = [table.atypical_of(rater) for rater in table.raters]
    if len(raters) >= MIN_RATERS and all({0, 1} <= {*votes} for votes in raters):
        votes = np.stack(raters)
        p = latent_truth(votes).p_atypical
        sides[LATENT] = np.where((votes != UNKNOWN).any(axis=0), p, np.nan)
    targets = {}
    if subtypes is not None:
        targets[label] = (subtypes != UNKNOWN, np.eye(N_SUBTYPES)[subtypes])
    else:
        sides = {label: _unless_unknown(table.atypical_of(label))} | sides
    for name, p in sides.items():
        known = ~np.isnan(p)
        lacking = no_error_model(np.where(known, p >= 0.5, UNKNOWN), table.patients, name)
        if name == label or not lacking:
            targets[name] = (known, np.stack([p, 1 - p], axis=1))
    return targets


def _unless_unknown(votes: IntArray) -> FloatArray:
    return np.where(votes == UNKNOWN, np.nan, votes)


@dataclass(frozen=True)
class ModelErrors:
    """A model's errors, and facts on the model for a page."""

    errors: ErrorModel | None = None
    facts: dict[str, str] = field(default_factory=dict)
    thresholds: tuple[float, ...] = ()
    """From which p_atypical on a figure is atypical, by operating point; none where unknown."""

    def at_site(self, sources: Sequence[SlideFigures]) -> Correction | None:
        """Correct the figures of one site, or of one job; None without errors."""
        if self.errors is None:
            return None
        figures = [source.figures.probabilities for source in sources]
        patients = [s.patient for s, own in zip(sources, figures, strict=True) for _ in own]
        none = np.zeros((0, N_SUBTYPES))
        return Correction.at_site(self.errors, np.concatenate([none, *figures]), np.array(patients))

    def check_calls(self, sources: Sequence[SlideFigures]) -> ModelErrors:
        """Find the operating point at which figures are called as the model does; name it.

        Quality ``fast`` calls by its own.

        Returns:
            The same, with the threshold among the facts.

        Raises:
            InputError: They are not.
        """
        if not self.thresholds:
            return self
        other, total = np.zeros(len(self.thresholds), np.int64), 0
        at = np.array(self.thresholds)[:, None]
        for source in sources:
            p, called = source.figures.p_atypical, source.figures.predicted_atypical
            clear = source.figures.answered & (np.abs(p - at) > _ROUNDING)
            other += (clear & (called != (p >= at))).sum(axis=1)
            total += len(p)
        if other.all():
            points = " or ".join(f"{threshold:.3f}" for threshold in self.thresholds)
            raise InputError(
                f"--model: expected figures that are called atypical from p = {points} on, as the "
                f"model does, but {other.min():,} of {total:,} are not called so. Were they "
                "classified by another model, or with --quality fast? Give the errors of what "
                "classified them, or leave out --model for plain counts."
            )
        threshold = f"{self.thresholds[int(other.argmin())]:.3f}"
        return replace(self, facts={**self.facts, "Called atypical from p": threshold})


def model_errors(model: str | Path, label: str | None = None, quality: str = BEST) -> ModelErrors:
    """Find the errors of a model, out of fold.

    Args:
        model: A bundle with errors; a run folder, whose out-of-fold predictions they are
            fitted to; such a table; or a JSON of :meth:`ErrorModel.to_json`.
        label: By whose eyes: a rater, ``majority_atypical`` or ``latent``, where errors by it are
            known; None is what the bundle names, else ``expert1``.
        quality: ``best``, or ``fast``, whose errors only a bundle may hold.

    Raises:
        NoErrorsError: The model has none, nor predictions out of fold to count them in.
        InputError: There is no such file, or it is damaged.
    """
    path = Path(model)
    if path.suffix == ".csv":
        return ModelErrors(ErrorModel.fit(read_predictions(path), label or "expert1"))
    if path.suffix == ".json":
        return ModelErrors(ErrorModel.from_json(read_json(path), str(path)).by(label))
    bundle = find_bundle(model)
    header = read_any_header(bundle)
    provenance = header.provenance
    facts = {"Model": f"{bundle.resolve().parent.name}/{bundle.name}"}
    facts |= {
        name: str(provenance[key])
        for name, key in (("Trained on", "cohort"), ("Learned from", "label"))
        if provenance.get(key)
    }
    of_quality = header if quality == BEST else getattr(header, quality, None)
    offered = (of_quality or header).thresholds
    thresholds = (offered.atypical, *(point.threshold for point in offered.points.values()))
    facts["Intended use"] = header.intended_use
    if of_quality is not None and of_quality.errors is not None:
        errors = ErrorModel.from_json(of_quality.errors, str(bundle / HEADER)).by(label)
        if "teacher_sha256" in provenance:  # of a student
            facts["Its errors"] = (
                "estimated on patients whose labels its teachers had seen: a little optimistic"
            )
        return ModelErrors(errors, facts, thresholds)
    if quality != BEST:
        return ModelErrors(None, facts, thresholds)
    table = bundle.parent / "predictions-oof.csv"
    if not table.is_file():
        raise NoErrorsError(
            f"{bundle} holds no errors and has no out-of-fold predictions beside it. Give the "
            "run folder, or the table predictions-oof.csv of the run."
        )
    compared = label or str(provenance.get("label") or "expert1")
    return ModelErrors(ErrorModel.fit(read_predictions(table), compared), facts, thresholds)
