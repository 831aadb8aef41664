"""Intervals against tables and limits; their coverage is in test_coverage.py."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from atypia.biomarker.biomarker_intervals import (
    binomial_interval,
    joint_density,
    poisson_interval,
    rogan_gladen,
    true_fraction,
)
from atypia.biomarker.error_model import Rates


def rates(sensitivity: float, false_positives: float, prior: tuple[float, float]) -> Rates:
    """Of a model whose rates are known and the same for everyone."""
    return Rates(
        sensitivity, false_positives, np.full(50, sensitivity), np.full(50, false_positives), prior
    )


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0.0, 3.689), (1, 0.0253, 5.572), (10, 4.795, 18.39)]
)
def test_poisson_intervals_of_the_tables(count: int, low: float, high: float) -> None:
    found = poisson_interval(count)
    assert (found.value, found.low, found.high) == pytest.approx((count, low, high), rel=1e-3)


def test_binomial_intervals_against_scipy_and_of_nothing() -> None:
    for k, n in ((0, 9), (4, 20), (20, 20)):
        exact = stats.binomtest(k, n).proportion_ci(method="exact")
        found = binomial_interval(k, n)
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert binomial_interval(0, 0).value is None


@pytest.mark.parametrize(("k", "n"), [(0, 12), (3, 12), (30, 100), (100, 100)])
def test_without_errors_it_is_the_mid_p_interval_of_a_share(k: int, n: int) -> None:
    found = true_fraction(k, n, rates(1.0, 0.0, (1.0, 1.0))).interval()

    def too_large(p: float) -> float:
        return float(stats.binom.sf(k, n, p) + stats.binom.pmf(k, n, p) / 2)

    assert found.low is not None
    assert found.high is not None
    if k > 0:
        assert too_large(found.low) / too_large(1) == pytest.approx(0.025, abs=1e-3)
    if k < n:
        assert (1 - too_large(found.high)) / (1 - too_large(0)) == pytest.approx(0.025, abs=1e-3)
    assert found.value == pytest.approx((k + 1) / (n + 2), abs=2e-3)  # Laplace's rule


def test_known_errors_are_undone() -> None:
    # 1,000 figures, 30 % atypical, of which 80 % are called so, and 10 % of the others.
    found = true_fraction(310, 1000, rates(0.8, 0.1, (1.0, 1.0))).interval()
    assert found.value == pytest.approx(0.3, abs=0.005)
    assert found.low == pytest.approx(0.3 - 0.041, abs=0.005)
    assert found.high == pytest.approx(0.3 + 0.041, abs=0.005)
    assert rogan_gladen(310, 1000, rates(0.8, 0.1, (1.0, 1.0))) == pytest.approx(0.3)


def test_an_unsure_model_widens_and_the_estimate_leans_on_the_cohort() -> None:
    rng = np.random.default_rng(0)
    unsure = Rates(0.8, 0.1, rng.beta(8, 2, 2000), rng.beta(1, 9, 2000), (2.0, 18.0))
    sure, wide = (true_fraction(31, 100, r).interval() for r in (rates(0.8, 0.1, (2, 18)), unsure))
    assert wide.low < sure.low < sure.high < wide.high  # type: ignore[operator]
    assert 0.1 < wide.value < sure.value < 0.31  # type: ignore[operator]


def test_more_calls_never_mean_less() -> None:
    rng = np.random.default_rng(0)
    model = Rates(0.8, 0.15, rng.beta(8, 2, 50), rng.beta(3, 17, 50), (2.0, 8.0))
    found = [true_fraction(k, 30, model).interval() for k in range(31)]
    for name in ("value", "low", "high"):
        assert (np.diff([getattr(f, name) for f in found]) >= -1e-9).all(), name
    assert all(f.low <= f.value <= f.high for f in found)  # type: ignore[operator]
    assert all(0 <= f.low < f.high <= 1 for f in found)  # type: ignore[operator]


def test_far_fewer_calls_than_mistakes_leave_an_interval_all_the_same() -> None:
    found = true_fraction(5, 500, rates(0.9, 0.2, (2.0, 8.0))).interval()
    assert found.low == 0
    assert 0 < found.high < 0.1  # type: ignore[operator]
    most = true_fraction(500, 500, rates(0.8, 0.1, (2.0, 8.0))).interval()
    assert 0.9 < most.low < 1  # type: ignore[operator]


def test_a_density_joins_both_errors() -> None:
    perfect = rates(1.0, 0.0, (1.0, 1.0))
    alone = poisson_interval(30).scaled(1 / 2.0)
    joint = joint_density(100, 2.0, true_fraction(30, 100, perfect))
    # Without errors of the model, 30 atypical figures are as sure as a count of 30.
    assert joint.low == pytest.approx(alone.low, rel=0.06)
    assert joint.high == pytest.approx(alone.high, rel=0.06)
    nothing = joint_density(0, 2.0, None)
    assert (nothing.value, nothing.low) == (0, 0)
    assert nothing.high == pytest.approx(3.689 / 2, rel=1e-3)
