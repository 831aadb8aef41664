"""Plans of which figures to label: chances, weights, and whether what is foreseen comes true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from atypia.core.errors import InputError
from atypia.evaluation.sampling_plan import (
    chances,
    conclusion,
    draw_figures,
    exact_interval,
    foresee,
    read_weights,
    usual_answers,
)

ANSWERS = usual_answers(0.145)
THRESHOLD = 0.15


def test_the_usual_site_is_calibrated() -> None:
    assert ANSWERS.mean() == pytest.approx(0.145, abs=0.002)


@pytest.mark.parametrize("figures", [1, 50, 400, 1999, 2000])
def test_chances_sum_to_the_figures_and_none_is_above_one(figures: int) -> None:
    chance = chances(ANSWERS, figures)
    assert chance.sum() == pytest.approx(figures)
    assert chance.max() <= 1
    assert chance.min() > 0
    drawn = draw_figures(ANSWERS, figures, seed=3)
    assert len(set(drawn)) == len(drawn) == figures


def test_weighted_figures_stand_for_the_site() -> None:
    chance = chances(ANSWERS, 200)
    means = [
        np.average(ANSWERS[rows], weights=1 / chance[rows])
        for rows in (draw_figures(ANSWERS, 200, seed) for seed in range(50))
    ]
    assert np.mean(means) == pytest.approx(ANSWERS.mean(), abs=0.003)


def test_fifty_at_random_hold_some_seven_atypical_ones_and_show_little() -> None:
    random, planned = foresee(ANSWERS, None, THRESHOLD, 50)[50]
    assert random.atypical == pytest.approx(7.25, abs=0.1)
    low, high = random.sensitivity
    assert low < 0.6
    assert high > 0.98
    assert planned.atypical > 12


@pytest.mark.parametrize("planned", [False, True])
def test_what_is_foreseen_comes_true(planned: bool) -> None:
    figures, rng = 200, np.random.default_rng(0)
    chance = chances(ANSWERS, figures) if planned else np.full(2000, figures / 2000)
    foreseen = conclusion(ANSWERS, chance, THRESHOLD, patients=figures)
    specificities = []
    for seed in range(300):
        atypical = rng.random(2000) < ANSWERS
        rows = draw_figures(ANSWERS, figures, seed) if planned else rng.choice(2000, figures, False)
        normal = rows[~atypical[rows]]
        weights = 1 / chance[normal]
        specificities.append(np.average(ANSWERS[normal] < THRESHOLD, weights=weights))
    low, high = np.quantile(specificities, [0.025, 0.975])
    assert foreseen.specificity[1] - foreseen.specificity[0] == pytest.approx(high - low, rel=0.25)


def test_intervals_of_whole_counts_are_those_of_clopper_and_pearson() -> None:
    exact = binomtest(18, 20).proportion_ci(method="exact")
    assert exact_interval(0.9, 20) == pytest.approx((exact.low, exact.high))


def test_no_more_figures_than_there_are() -> None:
    with pytest.raises(InputError, match="2,000"):
        foresee(ANSWERS, None, THRESHOLD, 2001)


def test_weights_are_read_by_patch(tmp_path: Path) -> None:
    plan = tmp_path / "plan.csv"
    plan.write_text("patch_id,weight\na,2.5\nb,3\n")
    found = read_weights(plan, ["b", "a", "c"])
    assert found[:2].tolist() == [3, 2.5]
    assert np.isnan(found[2])
    assert read_weights(None, ["b"]).tolist() == [1]
