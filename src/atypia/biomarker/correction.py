"""From probabilities to shares: what a rater would find among figures, with intervals.

The share of a subtype is the mean of its probabilities, recalibrated to the rater
(:class:`atypia.biomarker.label_errors.LabelErrors`) and brought to the prevalence of the site
(:mod:`atypia.biomarker.site_prevalence`). All shares come from one estimate: they add up to 1, and
those of the atypical subtypes to the atypical fraction. A mean of calibrated probabilities is the
expected true value, what a survival model wants as its covariate (regression calibration:
Prentice, Biometrika 69, 1982); a count of calls is biased by the model's errors, and a count that
is corrected by sensitivity and specificity varies too much in one patient.

The interval is of draws. Each draws the recalibration anew, by its error over the patients that it
was fitted on; what the model does to this patient, where sensitivity and false positives move
together, as a shift of all probabilities moves both; the prevalence of the site; and the counted
figures (a Dirichlet distribution that adds half a figure to either side, as Jeffreys' prior does,
so that few figures are never sure). In one draw of four the prevalence is left as it was: where
patients, and not the frequency of like figures, make a site differ, probabilities hold without a
shift, and nothing but labels could show which of both it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import logsumexp, softmax

from atypia.biomarker.biomarker_intervals import Measure
from atypia.biomarker.label_errors import SIDE
from atypia.biomarker.site_prevalence import site_shift
from atypia.core.labels import N_SUBTYPES
from atypia.evaluation.intervals import LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from atypia.biomarker.error_model import ErrorModel
    from atypia.biomarker.label_errors import LabelErrors
    from atypia.evaluation.metrics import FloatArray

DRAWS: Final = 500
_UNSHIFTED: Final = 0.25
_ADDED: Final = 1 / N_SUBTYPES
"""Figures of each subtype that every patient is thought to have beside those counted."""
_EVERY: Final = 10
"""One of so many draws suffices for chances that only decide where an interval ends."""


@dataclass(frozen=True)
class Shares:
    """Shares of the subtypes among n figures: an estimate, and what else they may be."""

    value: FloatArray
    """(8,) summing to 1."""
    draws: FloatArray
    """(D, 8) likewise."""
    none: FloatArray
    """(9,) chance that a subtype, or at last an atypical figure, is not among the figures."""
    all_atypical: float
    """Chance that all figures are atypical."""

    @property
    def fraction(self) -> float:
        """Share of the atypical figures."""
        return float(self.value @ SIDE)

    @property
    def standard_error(self) -> float:
        """Standard deviation of the atypical fraction over the draws."""
        return float((self.draws @ SIDE).std())

    def atypical(self, level: float = LEVEL) -> Measure:
        """Atypical fraction with its interval."""
        return self._interval(self.fraction, self.draws @ SIDE, -1, self.all_atypical, level)

    def subtype(self, c: int, level: float = LEVEL) -> Measure:
        """Share of the subtype of an index with its interval."""
        return self._interval(float(self.value[c]), self.draws[:, c], c, 0.0, level)

    def _interval(
        self, value: float, draws: FloatArray, c: int, every: float, level: float
    ) -> Measure:
        """Central interval; up to 0 or 1 where possibly no figure, or every one, is so."""
        tail = (1 - level) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        low = 0.0 if self.none[c] > tail else min(low, value)
        high = 1.0 if every > tail else max(high, value)
        return Measure(value, float(low), float(high))


@dataclass(frozen=True)
class Correction:
    """What turns a model's probabilities on figures of one site into shares, by one label."""

    label: str
    errors: LabelErrors
    shift: float
    """The site's log factor of the odds of atypical; see :func:`site_shift`."""
    log_factors: FloatArray
    """(D, 8) draws of what the recalibration of one patient lacks, the shift included."""
    others: Mapping[str, Correction] = field(default_factory=dict)
    """The same by other labels."""

    @classmethod
    def at_site(
        cls,
        model: ErrorModel,
        probabilities: FloatArray,
        patients: NDArray[np.generic],
        draws: int = DRAWS,
        seed: int = 0,
    ) -> Correction:
        """Estimate the prevalence of a site from all its figures.

        Args:
            model: The model's errors.
            probabilities: (N, 8) of the figures, as the model gave them.
            patients: (N,) theirs.
            draws: How many, of everything that is not certain.
            seed: Of the draws.
        """
        _, patient = np.unique(patients, return_inverse=True)

        def by(label: str, others: Mapping[str, Correction]) -> Correction:
            errors, rng = model.of[label], np.random.default_rng(seed)
            shift, shifts = 0.0, np.zeros(draws)
            if len(probabilities):
                scores = errors.scores(probabilities)
                shift, shifts = site_shift(
                    logsumexp(scores, axis=1, b=SIDE) - logsumexp(scores, axis=1, b=1 - SIDE),
                    patient,
                    errors.prevalence,
                    errors.prior_patients,
                    draws,
                    rng,
                )
            shifts[rng.random(draws) < _UNSHIFTED] = 0
            log_factors = errors.draw(draws, rng) + shifts[:, None] * SIDE
            return cls(label, errors, shift, log_factors, others)

        return by(model.label, {name: by(name, {}) for name in model.of if name != model.label})

    def mean(self, probabilities: FloatArray) -> FloatArray:
        """Estimate the shares of the subtypes (8,) among figures, probabilities (N, 8), N > 0."""
        scores = self.errors.scores(probabilities) + self.shift * SIDE
        return np.asarray(softmax(scores, axis=1).mean(axis=0))

    def shares(self, probabilities: FloatArray, seed: int = 0) -> Shares:
        """Estimate them with all that they may be; the figures are of one patient."""
        n, scores = len(probabilities), self.errors.scores(probabilities)
        odds, factors = np.exp(scores), np.exp(self.log_factors)
        mean = factors * ((1 / (odds @ factors.T)).T @ odds) / n  # (D, 8) softmax of each draw
        drawn = np.random.default_rng(seed).standard_gamma(n * mean + _ADDED)
        none, every = [], []
        for factor in self.log_factors[::_EVERY]:
            is_so = softmax(scores + factor, axis=1)  # (N, 8)
            atypical = (is_so @ SIDE).clip(0, 1)
            none.append(np.append(np.prod(1 - is_so, axis=0), np.prod(1 - atypical)))
            every.append(np.prod(atypical))
        return Shares(
            self.mean(probabilities),
            drawn / drawn.sum(axis=1, keepdims=True),
            none=np.mean(none, axis=0),
            all_atypical=float(np.mean(every)),
        )
