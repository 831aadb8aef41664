"""The prevalence of a site, and shares with their intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from atypia.biomarker import ErrorModel
from atypia.biomarker.biomarker_intervals import (
    binomial_interval,
    joint_density,
    poisson_interval,
)
from atypia.biomarker.correction import Correction
from atypia.biomarker.label_errors import SIDE
from atypia.biomarker.site_prevalence import patient_weights, site_shift


def figures(
    n: int, prevalence: float, rng: np.random.Generator, calibrated_at: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated log-odds (n,) at another prevalence, and what the figures are."""
    truth = rng.random(n) < prevalence
    distance = rng.normal(np.where(truth, 1.5, -1.5), np.sqrt(3))  # log of the likelihood ratio
    return logit(calibrated_at) + distance, truth


def as_probabilities(log_odds: np.ndarray) -> np.ndarray:
    p = expit(log_odds)
    return np.outer(p, SIDE) / 4 + np.outer(1 - p, 1 - SIDE) / 4


def test_the_shift_is_the_maximum_of_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    for prevalence in (0.05, 0.2, 0.5):
        log_odds, _ = figures(600, prevalence, rng)
        patients = np.repeat(np.arange(30), 20)  # all of one size: figures count alike
        found, _ = site_shift(log_odds, patients, 0.2, 0.0, 5, rng)

        def loss(share: float, log_odds: np.ndarray = log_odds) -> float:
            ratio = np.exp(log_odds - logit(0.2))
            return float(-np.log(share * ratio + 1 - share).sum())

        grid = np.linspace(0.001, 0.999, 999)
        brute = grid[np.argmin([loss(share) for share in grid])]
        exact = minimize_scalar(loss, bounds=(1e-4, 1 - 1e-4), method="bounded").x
        share = expit(logit(0.2) + found)
        assert share == pytest.approx(brute, abs=0.003)
        assert share == pytest.approx(exact, abs=0.003)
        assert share == pytest.approx(prevalence, abs=0.06)


def test_expectation_maximisation_ends_at_the_same_place() -> None:
    rng = np.random.default_rng(1)
    log_odds, _ = figures(400, 0.45, rng)
    share = 0.2
    for _ in range(2000):
        share = expit(log_odds + logit(share) - logit(0.2)).mean()
    found, draws = site_shift(log_odds, np.arange(400) // 20, 0.2, 0.0, 400, rng)
    assert expit(logit(0.2) + found) == pytest.approx(share, abs=0.002)
    assert abs(np.median(draws) - found) < 0.1


def test_a_site_of_one_patient_stays_near_the_calibration() -> None:
    rng = np.random.default_rng(2)
    log_odds, _ = figures(400, 0.6, rng)
    one, draws = site_shift(log_odds, np.zeros(400, np.int64), 0.2, 1.0, 200, rng)
    many, _ = site_shift(log_odds, np.arange(400) // 10, 0.2, 1.0, 10, rng)
    assert 0 < one < many
    assert draws.std() > 0.2
    extreme, _ = site_shift(np.full(9, -30.0), np.arange(9), 0.2, 0.0, 3, rng)
    assert extreme == -6  # the end of the grid
    assert patient_weights(np.array([1, 10, 10_000])) == pytest.approx([1 / 11, 1 / 2, 1], abs=1e-3)


@pytest.mark.parametrize("n", [1, 2, 9, 300])
@pytest.mark.parametrize("seed", [0, 1])
def test_shares_add_up_and_lie_in_their_intervals(
    error_model: ErrorModel, n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(8, 0.05), n)
    for label in error_model.of:
        found = Correction.at_site(error_model.by(label), p, np.arange(n) // 3).shares(p)
        assert found.value.sum() == pytest.approx(1)
        assert found.fraction == pytest.approx(found.value[:4].sum())
        assert found.draws.sum(axis=1) == pytest.approx(1)
        for measure in (found.atypical(), *(found.subtype(c) for c in range(8))):
            assert measure.value is not None
            assert 0 <= measure.low <= measure.value <= measure.high <= 1  # type: ignore[operator]
            assert measure.low < measure.high  # type: ignore[operator]


def test_few_figures_are_never_sure(error_model: ErrorModel) -> None:
    sure = np.full((1, 8), 0.0005)
    sure[0, 5] = 1 - sure[0].sum() + 0.0005
    for p in (sure, sure[:, [5, 1, 2, 3, 4, 0, 6, 7]]):
        widths = []
        for n in (1, 5, 20, 100):
            figures = p.repeat(n, axis=0)
            measure = Correction.at_site(error_model, figures, np.zeros(n)).shares(figures)
            low, high = measure.atypical().low, measure.atypical().high
            assert low is not None
            assert high is not None
            widths.append(high - low)
        assert widths == sorted(widths, reverse=True)
        assert widths[0] > 0.6
        assert widths[2] > 0.1  # none of twenty: up to 0.17 by Clopper and Pearson


def test_the_order_of_figures_is_of_no_matter(error_model: ErrorModel) -> None:
    rng = np.random.default_rng(4)
    p, order = rng.dirichlet(np.full(8, 0.3), 50), rng.permutation(50)
    patients = np.array([f"p{i % 7}" for i in range(50)])
    one = Correction.at_site(error_model, p, patients)
    other = Correction.at_site(error_model, p[order], patients[order])
    assert other.shift == pytest.approx(one.shift)
    again = other.shares(p[order])
    assert again.value == pytest.approx(one.shares(p).value)
    assert again.atypical().low == pytest.approx(one.shares(p).atypical().low, abs=1e-9)


def test_a_site_where_figures_are_more_often_atypical(error_model: ErrorModel) -> None:
    rng = np.random.default_rng(5)
    log_odds, truth = figures(3000, 0.5, rng)
    p, patients = as_probabilities(log_odds), np.arange(3000) // 20
    correction = Correction.at_site(error_model, p, patients)
    assert expit(log_odds).mean() < 0.4  # by itself the model sees too few
    assert correction.shares(p).fraction == pytest.approx(truth.mean(), abs=0.03)
    # What patients alone may explain stays within the interval.
    plain = expit(log_odds[:20]).mean()
    measure = correction.shares(p[:20]).atypical()
    assert measure.low <= plain  # type: ignore[operator]
    assert correction.others["majority_atypical"].mean(p) @ SIDE > correction.mean(p) @ SIDE


def test_no_figure_may_be_so_and_every_one(error_model: ErrorModel) -> None:
    sure = np.eye(8)[[5] * 40] * 0.999 + 0.001 / 8
    known = replace(error_model.chosen, covariance=np.zeros((8, 8)), spread=np.zeros(9))
    site = Correction.at_site(ErrorModel("expert1", {"expert1": known}), sure, np.zeros(40))
    none = site.shares(sure)
    assert none.atypical().low == 0
    assert 0 < none.atypical().high < 0.15  # type: ignore[operator]
    assert none.subtype(5).high > 0.99  # type: ignore[operator]
    assert site.shares(np.eye(8)[[0] * 40]).atypical().high == 1


def test_without_errors_of_the_model_it_is_the_error_of_counting(error_model: ErrorModel) -> None:
    known = replace(
        error_model.chosen, covariance=np.zeros((8, 8)), spread=np.zeros(9), prevalence=0.3
    )
    p = np.eye(8)[np.arange(200) % 10 // 3 * 2]  # 3 of 10 bipolar, sure
    site = Correction.at_site(ErrorModel("expert1", {"expert1": known}), p, np.arange(200) // 5)
    found, exact = site.shares(p).subtype(0), binomial_interval(60, 200)
    assert found.value == pytest.approx(0.3, abs=0.001)
    assert found.low == pytest.approx(exact.low, abs=0.015)
    assert found.high == pytest.approx(exact.high, abs=0.015)


def test_a_density_joins_both_errors() -> None:
    alone = poisson_interval(30).scaled(1 / 2.0)
    shares = np.random.default_rng(0).beta(30, 70, 20_000)
    joint = joint_density(100, 2.0, 0.3, shares)
    # Without errors of the model, 30 atypical figures are as sure as a count of 30.
    assert joint.value == pytest.approx(15)
    assert joint.low == pytest.approx(alone.low, rel=0.06)
    assert joint.high == pytest.approx(alone.high, rel=0.06)
    nothing = joint_density(0, 2.0, 0.0, np.empty(0))
    assert (nothing.value, nothing.low) == (0, 0)
    assert nothing.high == pytest.approx(3.689 / 2, rel=1e-3)
