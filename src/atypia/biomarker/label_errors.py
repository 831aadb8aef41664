"""How far a model's probabilities are from what raters call, on patients it was not trained on.

A model is calibrated to the labels that it learned from, and raters differ: on AMi-Br one calls
14 % of the figures atypical, another 29 %. For each label there are, fitted out of fold,

- a slope of the log-probabilities and a bias of each subtype (bias-corrected temperature scaling:
  Alexandari, Kundaje and Shrikumar, ICML 2020) that bring probabilities to that label; of votes,
  which name no subtype, one bias of the atypical side. They are drawn towards those of a `prior`,
  as a model's own errors are where local labels refit them;
- the covariance of the biases over patients, figures of one of whom resemble one another
  (sandwich estimator: Liang and Zeger, Biometrika 73, 1986);
- the spread of the biases from patient to patient, by the method of moments from how much more
  the sums of labels of patients vary about those of their probabilities than labels by chance do
  (as DerSimonian and Laird, Controlled Clinical Trials 7, 1986). A bias moves sensitivity and
  false positives together, as they move over patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import softmax

from atypia.biomarker.site_prevalence import patient_weights
from atypia.core.labels import N_ATYPICAL, N_SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import FloatArray, IntArray

SIDE: Final = (np.arange(N_SUBTYPES) < N_ATYPICAL).astype(np.float64)
"""(8,) 1 for atypical subtypes."""
_LEAST: Final = 1e-6
_SLOPE_SD: Final = 0.25
_SIDE_SD: Final = 1.0
_SUBTYPE_SD: Final = 0.5
_SPREAD: Final = np.array([0.3] + [0.4] * N_SUBTYPES)
"""(9,) of the side and of the subtypes, where it cannot be estimated."""
_SPREAD_PATIENTS: Final = 20
_OLD_SD: Final = 0.25


@dataclass(frozen=True)
class LabelErrors:
    """How far a model's probabilities are from one label."""

    slope: float
    """Of the log-probabilities."""
    biases: FloatArray
    """(8,) what is then added for each subtype."""
    covariance: FloatArray
    """(8, 8) of the biases, from the patients they were fitted on."""
    spread: FloatArray
    """(9,) standard deviations over patients: of the atypical side, then of each subtype."""
    prevalence: float
    """Atypical share, by patients as a site is; see :mod:`atypia.biomarker.site_prevalence`."""
    calls: IntArray
    """(2, 2) figures by label (atypical, normal) and call of the model (atypical, normal)."""
    n_patients: int
    has_subtypes: bool = True
    """Whether the label names subtypes; else within a side they are as the model has them."""
    prior_patients: float = 1.0
    """How many patients stand for the prevalence where a site's is estimated."""

    @property
    def n_figures(self) -> int:
        """Number of figures it was fitted on."""
        return int(self.calls.sum())

    @property
    def rates(self) -> tuple[float, float]:
        """Share of the atypical figures that are called so, and of the normal ones."""
        shares = self.calls[:, 0] / np.maximum(self.calls.sum(axis=1), 1)
        return float(shares[0]), float(shares[1])

    def scores(self, probabilities: FloatArray) -> FloatArray:
        """Logarithms of the recalibrated probabilities (N, 8), each row up to a constant."""
        scores = self.slope * np.log(np.maximum(probabilities, _LEAST)) + self.biases
        return np.asarray(scores - scores.max(axis=1, keepdims=True))

    def draw(self, draws: int, rng: np.random.Generator) -> FloatArray:
        """Draw (D, 8) how far the biases of one patient may be from those fitted."""
        values, vectors = np.linalg.eigh(self.covariance)
        fitted = rng.standard_normal((draws, N_SUBTYPES)) * np.sqrt(np.maximum(values, 0))
        of_patient = rng.standard_normal((draws, 1 + N_SUBTYPES)) * self.spread
        return np.asarray(fitted @ vectors.T + of_patient[:, :1] * SIDE + of_patient[:, 1:])

    @classmethod
    def fit(
        cls,
        probabilities: FloatArray,
        target: FloatArray,
        patients: NDArray[np.generic],
        called: NDArray[np.bool_],
        weights: FloatArray | None = None,
        prior: LabelErrors | None = None,
    ) -> LabelErrors:
        """Fit to figures of which no patient was learned from.

        Args:
            probabilities: (N, 8).
            target: (N, 8) the subtype, as a 1 among zeros; or of votes (N, 2), how likely the
                figure is atypical, and normal.
            patients: (N,) theirs.
            called: (N,) whether the model calls them atypical.
            weights: (N,) how many figures each stands for, where they are no random sample.
            prior: What the result is drawn towards; the shipped errors, where labels are local.
        """
        from scipy.optimize import minimize

        names, patient = np.unique(patients, return_inverse=True)
        stands_for = np.ones(len(target)) if weights is None else weights
        weights = stands_for / stands_for.mean()
        of_subtypes = target.shape[1] == N_SUBTYPES
        groups = np.eye(N_SUBTYPES) if of_subtypes else np.stack([SIDE, 1 - SIDE])
        basis = np.concatenate([SIDE[None], groups]) if of_subtypes else SIDE[None]
        sd = np.array([_SIDE_SD] + [_SUBTYPE_SD] * (len(basis) - 1))
        start, slope = (np.zeros(N_SUBTYPES), 1.0) if prior is None else (prior.biases, prior.slope)
        log_p = np.log(np.maximum(probabilities, _LEAST))

        def surplus(x: FloatArray) -> tuple[float, FloatArray]:
            """Log-likelihood, and by figure and subtype (N, 8) what the label has above it."""
            p = softmax(x[0] * log_p + start + x[1:] @ basis, axis=1)
            of_group = np.maximum(p @ groups.T, _LEAST)
            given = p * ((target / of_group) @ groups)
            return float(weights @ (target * np.log(of_group)).sum(axis=1)), weights[:, None] * (
                given - p
            )

        def loss(x: FloatArray) -> tuple[float, FloatArray]:
            likelihood, more = surplus(x)
            off = np.concatenate([[(x[0] - slope) / _SLOPE_SD], x[1:] / sd])
            slopes = np.concatenate([[(more * log_p).sum()], basis @ more.sum(axis=0)])
            return 0.5 * off @ off - likelihood, off / np.array([_SLOPE_SD, *sd]) - slopes

        first = np.concatenate([[slope], np.zeros(len(basis))])
        bounds = [(0.1, 10.0)] + [(-8.0, 8.0)] * len(basis)
        x = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds).x
        step = 1e-4 * np.eye(len(x))[1:]
        curvature = np.array([(loss(x + s)[1] - loss(x - s)[1])[1:] / 2e-4 for s in step])
        of_patients = np.zeros((len(names), len(basis)))
        np.add.at(of_patients, patient, surplus(x)[1] @ basis.T)
        inverse = np.linalg.inv(curvature)
        covariance = inverse @ (of_patients.T @ of_patients + np.diag(sd**-2)) @ inverse
        centred = basis - basis.mean(axis=1, keepdims=True)  # adding to all changes nothing

        p = softmax(x[0] * log_p + start + x[1:] @ basis, axis=1)
        atypical = target @ (groups @ SIDE > 0)
        questions = [(atypical, p @ SIDE)]
        if of_subtypes:
            questions += zip(target.T, p.T, strict=True)
        before = np.square(_SPREAD if prior is None else prior.spread)
        own = np.zeros(1 + N_SUBTYPES)
        own[: len(questions)] = [_spread(*question, patient) for question in questions]
        spread = (len(names) * own + _SPREAD_PATIENTS * before) / (len(names) + _SPREAD_PATIENTS)
        figures = np.bincount(patient, stands_for)
        mean = np.bincount(patient, stands_for * atypical) / figures
        of_patient = patient_weights(figures)
        calls = np.array([[sure @ called, sure @ ~called] for sure in (atypical, 1 - atypical)])
        return cls(
            float(x[0]),
            start + x[1:] @ centred,
            centred.T @ covariance @ centred,
            np.sqrt(spread) * (1 if of_subtypes else np.arange(1 + N_SUBTYPES) == 0),
            float(np.clip(np.average(mean, weights=of_patient), 1e-3, 1 - 1e-3)),
            np.round(calls).astype(np.int64),
            len(names),
            of_subtypes,
            1.0 if prior is None else prior.prior_patients + float(of_patient.sum()),
        )

    def to_json(self) -> dict[str, Any]:
        """Give what strict JSON can hold; patients have neither names nor numbers."""
        rounded = {
            name: np.round(getattr(self, name), 6).tolist()
            for name in ("slope", "biases", "covariance", "spread", "prevalence", "prior_patients")
        }
        return rounded | {
            "calls": self.calls.tolist(),
            "patients": self.n_patients,
            "subtypes": self.has_subtypes,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LabelErrors:
        """Read what :meth:`to_json` gave; raise ValueError, KeyError or TypeError for all else."""
        shapes = {"biases": (8,), "covariance": (8, 8), "spread": (9,), "calls": (2, 2)}
        arrays = {name: np.array(value[name], np.float64) for name in shapes}
        numbers = [float(value[name]) for name in ("slope", "prevalence", "prior_patients")]
        wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
        finite = all(np.isfinite(array).all() for array in (*arrays.values(), np.array(numbers)))
        positive = numbers[0] > 0 and 0 < numbers[1] < 1 and numbers[2] >= 0
        if wrong or not finite or not positive or (arrays["calls"] < 0).any():
            raise ValueError(f"other shapes ({wrong}), or numbers out of range")
        if (arrays["spread"] < 0).any():
            raise ValueError("a negative spread")
        return cls(
            numbers[0],
            arrays["biases"],
            arrays["covariance"],
            arrays["spread"],
            numbers[1],
            arrays["calls"].astype(np.int64),
            int(value["patients"]),
            bool(value["subtypes"]),
            numbers[2],
        )

    @classmethod
    def from_counts(cls, value: Mapping[str, Any]) -> LabelErrors:
        """Read an entry of format 1: confusion counts per patient, and no recalibration."""
        counts = np.array(value["atypical"], dtype=np.int64).reshape(-1, 2, 2)
        if not len(counts) or (counts < 0).any():
            raise ValueError("no counts, or negative ones")
        figures = counts.sum(axis=(1, 2))
        share = counts[:, 0].sum(axis=1) / np.maximum(figures, 1)
        prevalence = np.average(share, weights=patient_weights(figures) + 1e-9)
        return cls(
            1.0,
            np.zeros(N_SUBTYPES),
            np.eye(N_SUBTYPES) * _OLD_SD**2,
            _SPREAD,
            float(np.clip(prevalence, 1e-3, 1 - 1e-3)),
            counts.sum(axis=0),
            len(counts),
            value["subtypes"] is not None,
        )


def _spread(labels: FloatArray, probabilities: FloatArray, patient: NDArray[np.integer]) -> float:
    """Variance over patients of the log-odds that probabilities (N,) lack to give labels (N,)."""
    chance = np.bincount(patient, probabilities * (1 - probabilities))
    more = np.bincount(patient, labels - probabilities) ** 2 - chance
    return float(np.clip(more.sum() / max(float(np.square(chance).sum()), 1e-12), 0, 1.5**2))
