"""Intervals of counting against tables."""

from __future__ import annotations

import pytest
from scipy import stats

from atypia.biomarker.biomarker_intervals import binomial_interval, poisson_interval


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
