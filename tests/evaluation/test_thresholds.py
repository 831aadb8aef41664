from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from atypia.core.errors import InputError
from atypia.evaluation.thresholds import (
    cost_threshold,
    threshold_of_sensitivity,
    threshold_of_specificity,
)


def calibrated(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right, and calls drawn from them."""
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(-2, 2, n))
    return p, rng.random(n) < p


@pytest.mark.parametrize("miss_cost", [1, 3, 9])
def test_the_threshold_of_calibrated_probabilities_is_that_of_the_costs(miss_cost: float) -> None:
    p, atypical = calibrated(40_000)
    found = cost_threshold(p, atypical, miss_cost)
    assert found == pytest.approx(1 / (1 + miss_cost), abs=0.02)
    # No other threshold costs less.
    costs = [miss_cost * (atypical & (p < t)).sum() + (~atypical & (p >= t)).sum() for t in p[:500]]
    assert miss_cost * (atypical & (p < found)).sum() + (
        ~atypical & (p >= found)
    ).sum() == pytest.approx(min(costs), rel=0.01)


def test_probabilities_need_not_be_calibrated() -> None:
    p, atypical = calibrated(40_000)
    found = cost_threshold(expit(2 * logit(p) + 1), atypical, 3)
    assert found == pytest.approx(expit(2 * logit(0.25) + 1), abs=0.05)


def test_the_curve_is_that_of_logistic_regression() -> None:
    p, atypical = calibrated(2000, 1)
    model = LogisticRegression(C=np.inf).fit(logit(np.clip(p, 1e-4, 1 - 1e-4))[:, None], atypical)
    at = (-np.log(3) - model.intercept_[0]) / model.coef_[0, 0]
    assert cost_threshold(p, atypical, 3) == pytest.approx(expit(at), abs=0.005)


def test_separated_kinds_have_a_threshold_between_them() -> None:
    p = np.array([0.1] * 10 + [0.8] * 10)
    assert 0.1 < cost_threshold(p, p > 0.5, 1) < 0.8


def test_probabilities_worth_nothing_have_one_too() -> None:
    p = np.linspace(0.1, 0.9, 50)
    assert 0 <= cost_threshold(p, p < 0.5, 3) <= 1


def test_domains_count_alike() -> None:
    """A domain that is there three times over counts as much as once."""
    one, other = calibrated(400, 2), calibrated(400, 3)
    other = other[0] ** 2, other[1]

    def fit(*parts: tuple[np.ndarray, np.ndarray], names: str) -> float:
        domains = np.concatenate([[name] * 400 for name in names])
        p, atypical = (np.concatenate(of) for of in zip(*parts, strict=True))
        return cost_threshold(p, atypical, 3, domains)

    once = fit(one, other, names="ab")
    assert fit(one, one, one, other, names="aaab") == pytest.approx(once, abs=1e-3)
    # A domain of one kind has nothing to say.
    normal = one[0], np.zeros(400, bool)
    assert fit(one, other, normal, names="abc") == pytest.approx(once, abs=1e-3)


@pytest.mark.parametrize(
    ("p", "atypical"), [([0.1, 0.2], [True, True]), ([0.3, 0.3], [True, False]), ([], [])]
)
def test_nothing_to_fit_on(p: list[float], atypical: list[bool]) -> None:
    with pytest.raises(InputError, match="operating point"):
        cost_threshold(np.array(p), np.array(atypical, bool), 3)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40),
    st.floats(0.5, 0.99),
)
def test_a_share_of_a_side_is_reached(rows: list[tuple[int, bool]], share: float) -> None:
    p = np.array([score / 20 for score, _ in rows])
    atypical = np.array([kind for _, kind in rows])
    if atypical.any():
        at = threshold_of_sensitivity(p, atypical, share)
        assert (p[atypical] >= at).mean() >= share - 1e-9
        assert (p[atypical] > at).mean() <= share + 1 / atypical.sum()
    if not atypical.all():
        at = threshold_of_specificity(p, atypical, share)
        assert (p[~atypical] < at).mean() <= share + 1 / (~atypical).sum()
        assert (p[~atypical] <= at).mean() >= share - 1e-9
