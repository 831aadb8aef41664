from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.core.errors import InputError
from atypia.evaluation.metrics import binary_measures
from atypia.evaluation.thresholds import operating_point


def balanced_accuracy(p, atypical, threshold):
    return binary_measures(atypical, p >= threshold)["balanced_accuracy"][0]


def test_middle_of_the_gap_between_separated_classes():
    p, atypical = np.array([0.1, 0.3, 0.7, 0.8]), np.array([False, False, True, True])
    assert operating_point(p, atypical) == pytest.approx(0.5)


def test_widest_of_equally_good_gaps():
    # 0.1-0.2 and 0.3-0.9 both give 3/4.
    p = np.array([0.1, 0.2, 0.3, 0.9])
    atypical = np.array([False, True, False, True])
    assert operating_point(p, atypical) == pytest.approx(0.6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=30))
def test_no_threshold_does_better(rows):
    p = np.array([score / 20 for score, _ in rows])
    atypical = np.array([vote for _, vote in rows])
    if atypical.all() or not atypical.any() or np.ptp(p) == 0:
        with pytest.raises(InputError, match="operating point"):
            operating_point(p, atypical)
        return
    between = np.unique(p)[1:]
    best = max(balanced_accuracy(p, atypical, t) for t in between)
    assert balanced_accuracy(p, atypical, operating_point(p, atypical)) == pytest.approx(best)


def test_resampling_patients_holds_up_better_on_new_data():
    rng = np.random.default_rng(0)
    ideal = 0.5  # where the two normal densities below cross

    def cohort():
        patients = np.repeat(np.arange(40), 8)
        atypical = rng.random(len(patients)) < 0.2
        shift = rng.normal(scale=0.05, size=40)[patients]
        p = 0.4 + 0.2 * atypical + shift + rng.normal(scale=0.15, size=len(patients))
        return p, atypical, patients

    plain, resampled = [], []
    for _ in range(30):
        p, atypical, patients = cohort()
        plain.append(operating_point(p, atypical))
        resampled.append(operating_point(p, atypical, patients, resamples=50))
    error = [np.mean((np.array(found) - ideal) ** 2) for found in (plain, resampled)]
    assert error[1] < error[0]


def test_seeded():
    rng = np.random.default_rng(0)
    p, atypical, patients = rng.random(60), rng.random(60) < 0.4, np.arange(60) // 6
    first = operating_point(p, atypical, patients, seed=3)
    assert first == operating_point(p, atypical, patients, seed=3)
    assert 0 < first < 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.booleans(), st.sampled_from("ab")), min_size=2, max_size=30
    )
)
def test_domains_count_alike(rows):
    p = np.array([score / 20 for score, _, _ in rows])
    atypical = np.array([vote for _, vote, _ in rows])
    domains = np.array([domain for _, _, domain in rows])
    usable = [d for d in "ab" if 0 < atypical[domains == d].sum() < (domains == d).sum()]
    counted = np.isin(domains, usable)
    if not usable or np.ptp(p[counted]) == 0:
        with pytest.raises(InputError, match="operating point"):
            operating_point(p, atypical, domains=domains)
        return

    def mean_accuracy(t):
        return np.mean(
            [balanced_accuracy(p[domains == d], atypical[domains == d], t) for d in usable]
        )

    best = max(mean_accuracy(t) for t in np.unique(p[counted])[1:])
    found = operating_point(p, atypical, domains=domains)
    assert mean_accuracy(found) == pytest.approx(best)


def test_a_large_domain_does_not_decide_alone():
    rng = np.random.default_rng(1)
    large, small = 4000, 1000
    atypical = rng.random(large + small) < 0.3
    domains = np.repeat(["large", "small"], [large, small])
    centre = np.where(domains == "large", 0.3, 0.5)
    noise = rng.normal(scale=0.12, size=large + small)
    p = np.clip(centre + 0.1 * (2 * atypical - 1) + noise, 0, 1)
    patients = np.arange(large + small) // 10
    alone = operating_point(p, atypical, patients, resamples=50)
    alike = operating_point(p, atypical, patients, resamples=50, domains=domains)
    assert alone < 0.35
    assert alike == pytest.approx(0.4, abs=0.04)
