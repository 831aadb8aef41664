"""The errors of a model, counted on patients that it was not trained on.

Figures of one patient share a stain, a scanner and a tumour, so a model is better on some patients
than on others. A model's sensitivity on a new slide is therefore not its mean sensitivity: it is
drawn from a distribution over patients. Both are estimated here from the counts of each patient:

- the variation over patients as the intra-patient correlation of a beta-binomial, by the
  analysis-of-variance estimator (Ridout, Demétrio and Firth, Biometrics 55, 1999), its own error
  by resampling patients (basic bootstrap on the log scale; Davison and Hinkley, Bootstrap Methods
  and their Application, 1997, section 5.2), held to twice the estimate;
- the mean as a beta distribution on the number of figures divided by the design effect.

How the true share itself varies from patient to patient is estimated from the labels alike.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.classifiers.bundle import HEADER, find_bundle, read_any_header
from atypia.core.choices import BEST
from atypia.core.errors import InputError, Problem
from atypia.core.files import read_json
from atypia.core.labels import N_SUBTYPES, SUBTYPES
from atypia.evaluation.predictions import UNKNOWN, read_predictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from atypia.biomarker.figure_table import SlideFigures
    from atypia.evaluation.metrics import FloatArray, IntArray
    from atypia.evaluation.predictions import Predictions

DRAWS: Final = 1000
MIN_PATIENTS: Final = 10
_MAX_CORRELATION = 0.9
_MAX_INFLATION = 2  # resamples of few patients may hardly vary, and reflect to anything
_MIN_PRIOR_CORRELATION = 0.01  # patients always differ a little, whatever the sample
_FORMAT = 1
_ROUNDING: Final = 1e-6
"""A table holds p_atypical with fewer digits than a model.json its threshold."""


@dataclass(frozen=True)
class Rates:
    """How a model answers one yes-or-no question on a new patient, and how often it is so."""

    sensitivity: float
    """Mean share of the figures that are so which it calls so."""
    false_positive_rate: float
    """Mean share of the other figures which it calls so."""
    sensitivity_draws: FloatArray
    """(D,) what the sensitivity may be on one new patient."""
    false_positive_draws: FloatArray
    """(D,) likewise."""
    prior: tuple[float, float]
    """Parameters of the beta distribution of the true share over patients."""


@dataclass(frozen=True)
class ErrorRates:
    """The rates of every question, drawn once."""

    atypical: Rates
    subtypes: tuple[Rates, ...]
    """Each subtype against all others; empty where the label has no subtypes."""


class NoErrorsError(InputError):
    """A model has no error model, which is no fault of it."""


def no_error_model(truth: IntArray, patients: NDArray[np.str_], label: str) -> str:
    """Explain why errors cannot be counted on these figures; empty where they can.

    `truth` (N,) is 1 (atypical), 0 (normal) or :data:`UNKNOWN` by `label`, `patients` (N,) are
    theirs.
    """
    n_patients, n = len(np.unique(patients[truth != UNKNOWN])), [(truth == c).sum() for c in (1, 0)]
    if n_patients >= MIN_PATIENTS and all(n):
        return ""
    return (
        f"expected atypical and normal figures of at least {MIN_PATIENTS} patients to count a "
        f"model's errors on but got {n[0]} atypical and {n[1]} normal figures of {n_patients} "
        f"patients by {label!r}."
    )


@dataclass(frozen=True)
class ErrorModel:
    """Confusion counts per patient, out of fold, at the model's own operating point."""

    label: str
    """The label that the calls were compared with."""
    atypical: IntArray
    """(P, 2, 2) figures by patient, label (atypical, normal) and call (atypical, normal)."""
    subtypes: IntArray | None
    """(P, 8, 8) figures by patient, label and predicted subtype; None if it has no subtypes."""

    @classmethod
    def fit(cls, predictions: Predictions, label: str = "expert1") -> ErrorModel:
        """Count from a table in which no figure was predicted by a model that learned from it.

        A patch that the table has several times counts once.

        Raises:
            InputError: Fewer than ten labelled patients, or only atypical or only normal figures.
        """
        once = np.sort(np.unique(predictions.patch_ids, return_index=True)[1])
        table = predictions.take(once)
        truth = table.atypical_of(label)
        known = truth != UNKNOWN
        if lacking := no_error_model(truth, table.patients, label):
            raise NoErrorsError(lacking)
        names, patient = np.unique(table.patients[known], return_inverse=True)
        atypical = np.zeros((len(names), 2, 2), np.int64)
        called = table.predicted_atypical[known].astype(np.int64)
        np.add.at(atypical, (patient, 1 - truth[known], 1 - called), 1)
        subtypes = None
        if table.vote_column(label) is None:
            subtypes = np.zeros((len(names), N_SUBTYPES, N_SUBTYPES), np.int64)
            row = (patient, table.subtypes_of(label)[known], table.predicted[known])
            np.add.at(subtypes, row, 1)
        return cls(label, atypical, subtypes)

    @property
    def n_patients(self) -> int:
        """Number of patients behind the counts."""
        return len(self.atypical)

    @property
    def n_figures(self) -> int:
        """Number of figures behind the counts."""
        return int(self.atypical.sum())

    def rates(self, draws: int = DRAWS, seed: int = 0) -> ErrorRates:
        """Draw what the rates may be on a new patient."""
        rng = np.random.default_rng(seed)
        resampled = rng.multinomial(
            self.n_patients, np.full(self.n_patients, 1 / self.n_patients), size=draws
        ).astype(np.float64)  # (D, P)

        def of(confusion: IntArray) -> Rates:
            """Rates of confusion counts (P, 2, 2); what is so, and called so, comes first."""
            sides = [
                _draw(confusion[:, row, 0], confusion[:, row].sum(axis=1), resampled, rng)
                for row in (0, 1)
            ]
            (sensitivity, hits), (false_positives, alarms) = sides
            prior = _prior(confusion[:, 0].sum(axis=1), confusion.sum(axis=(1, 2)))
            return Rates(sensitivity, false_positives, hits, alarms, prior)

        atypical = of(self.atypical)
        if self.subtypes is None:
            return ErrorRates(atypical, ())
        each = [of(_one_against_all(self.subtypes, c)) for c in range(N_SUBTYPES)]
        return ErrorRates(atypical, tuple(each))

    def to_json(self) -> dict[str, Any]:
        """Give what strict JSON can hold; patients have numbers, not names."""
        subtypes = None
        if self.subtypes is not None:
            where = np.argwhere(self.subtypes)
            subtypes = [[*map(int, at), int(self.subtypes[tuple(at)])] for at in where]
        return {
            "format": _FORMAT,
            "label": self.label,
            "atypical": self.atypical.reshape(-1, 4).tolist(),
            "subtypes": subtypes,
            "columns": {
                "atypical": "per patient: atypical called atypical, atypical called normal, "
                "normal called atypical, normal called normal",
                "subtypes": "patient, label, call, figures; in the order of classes",
                "classes": list(SUBTYPES),
            },
        }

    @classmethod
    def from_json(cls, value: Any, file: str = "errors") -> ErrorModel:
        """Read what :meth:`to_json` gave; `file` is named in messages.

        Raises:
            InputError: It is something else.
        """
        try:
            if value["format"] != _FORMAT or value["columns"]["classes"] != list(SUBTYPES):
                raise ValueError("another format or other classes")
            atypical = np.array(value["atypical"], dtype=np.int64).reshape(-1, 2, 2)
            subtypes = None
            if value["subtypes"] is not None:
                subtypes = np.zeros((len(atypical), N_SUBTYPES, N_SUBTYPES), np.int64)
                entries = np.array(value["subtypes"], dtype=np.int64).reshape(-1, 4)
                if (entries < 0).any():
                    raise ValueError("a negative number")
                subtypes[entries[:, 0], entries[:, 1], entries[:, 2]] = entries[:, 3]
            if not len(atypical) or (atypical < 0).any():
                raise ValueError("no counts, or negative ones")
            return cls(str(value["label"]), atypical, subtypes)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            shown = json.dumps(value, default=str)[:60]
            what = f"expected the error counts of a model but got {shown} ({error!r})."
            raise InputError(Problem(what, file)) from None


def _one_against_all(subtypes: IntArray, c: int) -> IntArray:
    """Confusion counts (P, 2, 2) of subtype `c` against all others, the subtype first."""
    hit = subtypes[:, c, c]
    missed = subtypes[:, c].sum(axis=1) - hit
    alarm = subtypes[:, :, c].sum(axis=1) - hit
    rest = subtypes.sum(axis=(1, 2)) - hit - missed - alarm
    return np.stack([hit, missed, alarm, rest], axis=1).reshape(-1, 2, 2)


def _draw(
    called: IntArray, total: IntArray, resampled: FloatArray, rng: np.random.Generator
) -> tuple[float, FloatArray]:
    """Mean rate (a half without figures), and draws (D,) on a new patient, from counts (P,)."""
    x, m = called.astype(np.float64), total.astype(np.float64)
    n = m.sum()
    if n == 0:
        return 0.5, rng.random(len(resampled))
    mean = float(x.sum() / n)
    correlation = _correlation(x, m, np.ones((1, len(m))))
    again = _correlation(x, m, resampled)
    # On the log scale a resample is as far from the estimate as the estimate is from the truth.
    reflected = np.divide(correlation**2, again, out=np.full_like(again, np.inf), where=again > 0)
    inflated = np.minimum(reflected, min(_MAX_INFLATION * correlation[0], _MAX_CORRELATION))
    effective = n / (1 + inflated * ((m**2).sum() / n - 1))
    drawn = rng.beta(mean * effective + 0.5, (1 - mean) * effective + 0.5)
    some = inflated > 1e-4
    size = 1 / np.where(some, inflated, 0.5) - 1
    of_patient = rng.beta(np.maximum(drawn * size, 1e-6), np.maximum((1 - drawn) * size, 1e-6))
    return mean, np.where(some, of_patient, drawn)


def _prior(so: IntArray, total: IntArray) -> tuple[float, float]:
    """Beta distribution of a share over patients, by its mean and its intra-patient correlation."""
    x, m = so.astype(np.float64), total.astype(np.float64)
    mean = (x.sum() + 0.5) / (m.sum() + 1)  # never 0 or 1
    correlation = max(float(_correlation(x, m, np.ones((1, len(m))))[0]), _MIN_PRIOR_CORRELATION)
    size = 1 / correlation - 1
    return float(mean * size), float((1 - mean) * size)


def _correlation(x: FloatArray, m: FloatArray, weights: FloatArray) -> FloatArray:
    """Intra-patient correlation (R,) of x of m figures per patient (P,), for weights (R, P)."""
    patients = weights @ (m > 0)
    n, called, squares = weights @ m, weights @ x, weights @ m**2
    share = np.divide(x, m, out=np.zeros_like(x), where=m > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (weights @ (x * share) - called**2 / n) / (patients - 1)
        within = (weights @ (x - x * share)) / (n - patients)
        size = (n - squares / n) / (patients - 1)
        correlation = (between - within) / (between + (size - 1) * within)
    return np.clip(np.nan_to_num(correlation, nan=0, posinf=0, neginf=0), 0, _MAX_CORRELATION)


@dataclass(frozen=True)
class ModelErrors:
    """A model's errors, and facts on the model for a page."""

    errors: ErrorModel | None = None
    facts: dict[str, str] = field(default_factory=dict)
    threshold: float | None = None
    """The model calls a figure atypical from this p_atypical on; None where it is unknown."""

    def rates(self) -> ErrorRates | None:
        """Draw the rates; None without errors."""
        return self.errors.rates() if self.errors else None

    def check_calls(self, sources: Sequence[SlideFigures]) -> None:
        """Check that figures are called as the model calls them; quality ``fast`` calls by its own.

        Raises:
            InputError: They are not.
        """
        if self.threshold is None:
            return
        other = total = 0
        for source in sources:
            p, called = source.figures.p_atypical, source.figures.predicted_atypical
            clear = source.figures.answered & (np.abs(p - self.threshold) > _ROUNDING)
            other += int((clear & (called != (p >= self.threshold))).sum())
            total += len(p)
        if other:
            raise InputError(
                f"--model: expected figures that are called atypical from p = {self.threshold:.3f} "
                f"on, as the model does, but {other:,} of {total:,} are not called so. Were they "
                "classified by another model, or with --quality fast? Give the errors of what "
                "classified them, or leave out --model for plain counts."
            )


def model_errors(model: str | Path, label: str | None = None, quality: str = BEST) -> ModelErrors:
    """Find the errors of a model, out of fold.

    Args:
        model: A bundle with errors; a run folder, whose out-of-fold predictions are counted; such
            a table; or a JSON of :meth:`ErrorModel.to_json`.
        label: What the model is compared with; None is what the bundle names, else ``expert1``.
        quality: ``best``, or ``fast``, whose errors only a bundle may hold.

    Raises:
        NoErrorsError: The model has none, nor predictions out of fold to count them in.
        InputError: There is no such file, or it is damaged.
    """
    path = Path(model)
    if path.suffix == ".csv":
        return ModelErrors(ErrorModel.fit(read_predictions(path), label or "expert1"))
    if path.suffix == ".json":
        return ModelErrors(ErrorModel.from_json(read_json(path), str(path)))
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
    threshold = (of_quality or header).thresholds.atypical
    facts["Called atypical from p"] = f"{threshold:.3f}"
    facts["Intended use"] = header.intended_use
    if of_quality is not None and of_quality.errors is not None:
        errors = ErrorModel.from_json(of_quality.errors, str(bundle / HEADER))
        if "teacher_sha256" in provenance:  # of a student
            facts["Its errors"] = (
                "counted on patients whose labels its teachers had seen: a little optimistic"
            )
        return ModelErrors(errors, facts, threshold)
    if quality != BEST:
        return ModelErrors(None, facts, threshold)
    table = bundle.parent / "predictions-oof.csv"
    if not table.is_file():
        raise NoErrorsError(
            f"{bundle} holds no errors and has no out-of-fold predictions beside it. Give the "
            "run folder, or the table predictions-oof.csv of the run."
        )
    compared = label or str(provenance.get("label") or "expert1")
    return ModelErrors(ErrorModel.fit(read_predictions(table), compared), facts, threshold)
