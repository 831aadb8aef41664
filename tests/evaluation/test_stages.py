"""Both stages of an answer, against scikit-learn; flat and two-stage models alike."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.core.labels import PROBABILITY_COLUMNS, SUBTYPES
from atypia.evaluation.comparison import compare, comparison_table
from atypia.evaluation.predictions import predictions_from_table
from atypia.evaluation.scores import SIDES, evaluate, given_side, stage_statistic
from atypia.reports import ReportInput, render_report


def truth_of(table: pd.DataFrame) -> np.ndarray:
    return np.array([SUBTYPES.index(s) for s in table["label_expert1"]])


def test_values_are_those_of_scikit_learn(table):
    stages = evaluate(predictions_from_table(table), resamples=20)["stages"]
    json.dumps(stages, allow_nan=False)
    truth, p = truth_of(table), table[list(PROBABILITY_COLUMNS)].to_numpy()
    atypical = truth < 4
    p_side = p[:, :4].sum(1)
    side = stages["side"]
    assert (side["n"], side["n_patients"]) == (240, 20)
    assert side["auc"]["value"] == pytest.approx(reference.roc_auc_score(atypical, p_side))
    assert side["log_loss"]["value"] == pytest.approx(reference.log_loss(atypical, p_side))
    assert side["balanced_accuracy"]["value"] == pytest.approx(
        reference.balanced_accuracy_score(atypical, table["predicted_atypical"])
    )
    for name, rows, of_side in (
        ("atypical_subtypes", atypical, p[:, :4]),
        ("normal_subtypes", ~atypical, p[:, 4:]),
    ):
        own = of_side[rows] / of_side[rows].sum(1, keepdims=True)
        label = truth[rows] % 4
        stage = stages[name]
        assert stage["n"] == rows.sum()
        assert stage["n_patients"] == table["patient_id"][rows].nunique()
        expected = reference.roc_auc_score(label, own, multi_class="ovr", average="macro")
        assert stage["mean_auc"]["value"] == pytest.approx(expected)
        expected = reference.balanced_accuracy_score(label, own.argmax(1))
        assert stage["balanced_accuracy"]["value"] == pytest.approx(expected)
        assert stage["log_loss"]["value"] == pytest.approx(reference.log_loss(label, own))
        for measured in ("mean_auc", "balanced_accuracy", "log_loss"):
            low, high = stage[measured]["low"], stage[measured]["high"]
            assert low < stage[measured]["value"] < high


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), skill=st.floats(0, 3))
def test_the_log_loss_of_eight_is_that_of_both_stages(make_table, seed, skill):
    table = make_table(seed=seed, skill=skill)
    scored, truth = predictions_from_table(table), truth_of(table)
    weights = np.random.default_rng(seed).integers(0, 3, (4, len(truth))).astype(float)
    measured = stage_statistic(scored, truth)(weights)
    total = weights.sum(1)
    whole = measured["side.log_loss"].copy()
    for name, side in SIDES.items():
        inside = (truth >= side.start) & (truth < side.stop)
        whole += weights[:, inside].sum(1) / total * measured[f"{name}.log_loss"]
    expected = [
        reference.log_loss(truth, scored.probabilities, sample_weight=row, labels=range(8))
        for row in weights
    ]
    np.testing.assert_allclose(whole, expected, rtol=1e-6)


def test_the_second_stage_does_not_know_how_sure_the_first_was(table):
    """Only the side changes when all four subtypes of a side are scaled alike."""
    before = evaluate(predictions_from_table(table), resamples=10)["stages"]
    p = table[list(PROBABILITY_COLUMNS)].to_numpy(copy=True)
    p[:, :4] *= np.random.default_rng(0).uniform(0.1, 3, (240, 1))
    table[list(PROBABILITY_COLUMNS)] = p / p.sum(1, keepdims=True)
    table = table.drop(columns=["p_atypical", "predicted_atypical"])
    after = evaluate(predictions_from_table(table), resamples=10)["stages"]
    assert after["side"]["auc"]["value"] != pytest.approx(before["side"]["auc"]["value"])
    for name in SIDES:
        for measured in ("mean_auc", "balanced_accuracy", "log_loss"):
            value = before[name][measured]["value"]
            assert after[name][measured]["value"] == pytest.approx(value)


def test_a_side_without_any_probability_is_a_guess():
    p = np.array([[0, 0, 0, 0, 1, 0, 0, 0], [0.2, 0, 0, 0, 0.8, 0, 0, 0]])
    np.testing.assert_array_equal(
        given_side(p, SIDES["atypical_subtypes"]), [[0.25] * 4, [1, 0, 0, 0]]
    )


def test_a_side_without_figures_and_a_label_without_subtypes_have_no_measures(table):
    normal = table[truth_of(table) >= 4]
    stages = evaluate(predictions_from_table(normal), resamples=10)["stages"]
    assert set(stages) == {"side", "normal_subtypes"}
    assert stages["side"]["auc"]["value"] is None
    metrics = evaluate(predictions_from_table(table), "majority_atypical", resamples=10)
    assert metrics["stages"] == {}


def test_models_are_compared_stage_by_stage(make_table):
    tables = {
        name: predictions_from_table(make_table(seed=seed, skill=skill))
        for name, seed, skill in (("weak", 1, 0.5), ("strong", 2, 2.5))
    }
    result = compare(tables, resamples=60)
    alone = evaluate(tables["strong"], resamples=10)["stages"]
    for name in SIDES:
        for measured in ("mean_auc", "balanced_accuracy", "log_loss"):
            value = result["measures"]["strong"][f"stages.{name}.{measured}"]
            assert value == pytest.approx(alone[name][measured]["value"])
        assert f"stages.{name}.log_loss" in result["lower_is_better"]
        difference = result["differences"][0]["measures"][f"stages.{name}.mean_auc"]
        assert difference["low"] > 0
    assert "stages.normal_subtypes.log_loss (lower is better)" in comparison_table(result)
    assert not any("stages.side" in name for name in result["measures"]["weak"])
    binary = compare(tables, "majority_atypical", resamples=10)["measures"]["weak"]
    assert not any(name.startswith("stages") for name in binary)


def test_the_report_shows_both_stages_or_says_why_not(table):
    predictions = predictions_from_table(table)
    metrics = evaluate(predictions, resamples=10)
    text = render_report(ReportInput("a run", metrics, predictions=predictions))
    section = text.partition('<section id="stages">')[2].partition("</section>")[0]
    for stage in metrics["stages"].values():
        assert f"{stage['balanced_accuracy']['value']:.3f}" in section
        assert f"{stage['log_loss']['value']:.3f}" in section
    del metrics["stages"]  # of an earlier version
    text = render_report(ReportInput("a run", metrics, predictions=predictions))
    section = text.partition('<section id="stages">')[2].partition("</section>")[0]
    assert "earlier version" in section
