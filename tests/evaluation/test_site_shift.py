"""What few labelled figures say of a site: known shifts, weights, patients, and the way to none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from atypia.evaluation.site_shift import SiteShift, clustered_variance, evidence_shift


def made_site(
    shift: float, prevalence: float, n: int, calibrated_at: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """Answers whose log likelihood ratios are Gaussian, and too small by `shift`; and labels."""
    rng = np.random.default_rng(0)
    atypical = rng.random(n) < prevalence
    # Of N(±2, 4) the logarithm of the likelihood ratio is the score itself.
    ratio = rng.normal(np.where(atypical, 2, -2), 2)
    return expit(ratio - shift + logit(calibrated_at)), atypical


@pytest.mark.parametrize("prevalence", [0.05, 0.15, 0.5])
@pytest.mark.parametrize("shift", [-0.6, 0, 0.6])
def test_a_shift_is_found_whatever_the_share_of_atypical_figures(
    shift: float, prevalence: float
) -> None:
    n = 40_000
    p, atypical = made_site(shift, prevalence, n)
    found, variance = evidence_shift(p, atypical, np.arange(n), np.ones(n), 0.15)
    assert abs(found - shift) < 4 * np.sqrt(variance)
    assert np.sqrt(variance) < 0.06


def test_weights_undo_how_figures_were_chosen() -> None:
    n = 40_000
    p, atypical = made_site(0.5, 0.15, n)
    rng = np.random.default_rng(1)
    chance = np.where(p > 0.1, 0.8, 0.1)
    chosen = rng.random(n) < chance
    weighted, variance = evidence_shift(
        p[chosen], atypical[chosen], np.arange(chosen.sum()), 1 / chance[chosen], 0.15
    )
    plain, _ = evidence_shift(
        p[chosen], atypical[chosen], np.arange(chosen.sum()), np.ones(chosen.sum()), 0.15
    )
    assert abs(weighted - 0.5) < 4 * np.sqrt(variance)
    assert abs(plain - 0.5) > 0.5


def test_the_variance_is_that_of_repeated_draws() -> None:
    n, size = 40_000, 200
    p, atypical = made_site(0, 0.15, n)
    draws = np.random.default_rng(2).permutation(n).reshape(-1, size)
    found = [
        evidence_shift(p[rows], atypical[rows], np.arange(size), np.ones(size), 0.15)
        for rows in draws
    ]
    shifts, variances = np.array(found).T
    assert np.mean(variances) == pytest.approx(np.var(shifts), rel=0.2)


def test_figures_of_one_patient_count_together() -> None:
    influences = np.array([1.0, 1, 1, -1, -1, -1])
    alone = clustered_variance(influences, np.arange(6))
    assert alone == pytest.approx(6 * 6 / 5)
    assert clustered_variance(influences, np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(36)
    # One patient alone shows no variation over patients: the figures' own is the least.
    assert clustered_variance(influences, np.zeros(6)) == pytest.approx(6)


def test_the_fewer_the_figures_the_nearer_to_what_was_shipped() -> None:
    few, many = (SiteShift.drawn(0.5, variance, 0.2) for variance in (1.0, 0.001))
    assert 0 < few.value < 0.05
    assert not few.speaks
    assert few.low < 0 < few.high
    assert 0.45 < many.value < 0.5
    assert many.speaks
    assert many.high - many.low < few.high - few.low
