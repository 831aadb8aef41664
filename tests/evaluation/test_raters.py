from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference

from atypia.core.labels import is_atypical
from atypia.evaluation import metrics
from atypia.evaluation.curves import roc_points
from atypia.evaluation.predictions import majority, predictions_from_table
from atypia.evaluation.raters import OTHERS, among_raters
from atypia.evaluation.scores import evaluate


@pytest.fixture
def three(table: pd.DataFrame) -> pd.DataFrame:
    """A table with a third rater, who gave votes alone, and not for every figure."""
    third = table["label_expert1"].map(is_atypical) ^ (np.random.default_rng(3).random(240) < 0.2)
    return table.assign(atypical_expert3=third.astype(object).where(np.arange(240) % 10 > 0, ""))


def entries_of(table: pd.DataFrame) -> dict[tuple[str, str], dict]:
    entries = among_raters(predictions_from_table(table), resamples=60)
    json.dumps(entries, allow_nan=False)
    return {(entry["rater"], entry["against"]): entry for entry in entries}


def value(measures: dict, name: str) -> float:
    return measures[name]["value"]


def test_every_rater_and_the_model_against_every_other_rater(three):
    entries = entries_of(three)
    raters = ("expert1", "expert2", "expert3")
    expected = [(r, a) for r in raters for a in (*(o for o in raters if o != r), OTHERS)]
    assert list(entries) == expected

    calls = {
        "expert1": three["label_expert1"].map(is_atypical),
        "expert2": three["label_expert2"].map(is_atypical),
        "expert3": three["atypical_expert3"].replace("", None),
    }
    for (rater, against), entry in entries.items():
        if against == OTHERS:
            continue
        both = calls[rater].notna() & calls[against].notna()
        truth, given = calls[against][both].astype(bool), calls[rater][both].astype(bool)
        called = three["predicted_atypical"][both]
        assert (entry["n"], entry["n_atypical"]) == (both.sum(), truth.sum())
        for part, answers in (("of_rater", given), ("of_model", called)):
            scores = entry[part]
            balanced = reference.balanced_accuracy_score(truth, answers)
            assert value(scores, "balanced_accuracy") == pytest.approx(balanced)
            assert value(scores, "ppv") == pytest.approx(reference.precision_score(truth, answers))
            kappa = reference.cohen_kappa_score(truth, answers)
            assert value(scores, "kappa") == pytest.approx(kappa)
        ahead = value(entry["of_model"], "ppv") - value(entry["of_rater"], "ppv")
        assert value(entry["model_minus_rater"], "ppv") == pytest.approx(ahead)


def test_the_own_vote_is_not_in_the_majority_of_the_others(three):
    entry = entries_of(three)["expert1", OTHERS]
    second = three["label_expert2"].map(is_atypical)
    third = three["atypical_expert3"]
    # Two others: where they differ there is no majority; where one did not vote the other decides.
    has = (third == "") | (second == third)
    truth = second[has]
    own = three["label_expert1"].map(is_atypical)[has]
    assert entry["n"] == has.sum()
    sensitivity = value(entry["of_rater"], "sensitivity")
    assert sensitivity == pytest.approx(reference.recall_score(truth, own))
    changed = three.assign(label_expert1=three["label_expert1"].sample(frac=1).to_numpy())
    again = entries_of(changed)["expert1", OTHERS]
    assert (again["n"], again["n_atypical"]) == (entry["n"], entry["n_atypical"])


def test_model_at_the_specificity_of_a_rater(three):
    entry = entries_of(three)["expert2", "expert1"]
    truth = three["label_expert1"].map(is_atypical).to_numpy()
    x, y, _ = reference.roc_curve(truth, three["p_atypical"], drop_intermediate=False)
    rate = 1 - value(entry["of_rater"], "specificity")
    at = entry["at_rater_specificity"]
    assert value(at, "sensitivity") == pytest.approx(np.interp(rate, x, y))
    ahead = np.interp(rate, x, y) - value(entry["of_rater"], "sensitivity")
    assert value(at, "model_minus_rater") == pytest.approx(ahead)
    assert at["model_minus_rater"]["low"] < ahead < at["model_minus_rater"]["high"]


def test_a_model_that_calls_as_a_rater_does_not_differ(three):
    third = three["atypical_expert3"] == True  # noqa: E712 (it may be empty)
    as_expert3 = three.assign(predicted_atypical=third, p_atypical=third.astype(float))
    entry = entries_of(as_expert3)["expert3", "expert1"]
    for part in ("model_minus_rater", "at_rater_specificity"):
        measures = {k: m for k, m in entry[part].items() if k != "sensitivity" or part[0] == "m"}
        assert {m["value"] for m in measures.values()} == {0.0}


def test_sensitivity_on_the_roc_curve_of_each_weighting():
    rng = np.random.default_rng(0)
    positive, score = rng.random(60) < 0.4, rng.integers(0, 12, 60) / 12
    weights = np.stack([np.ones(60), rng.integers(0, 4, 60)])
    rates = np.array([0.25, 0.6])
    found = metrics.sensitivity_at(positive, score, rates, weights)
    for r in range(2):
        drawn = np.repeat(np.arange(60), weights[r].astype(int))
        x, y = roc_points(positive[drawn], score[drawn])
        assert found[r] == pytest.approx(np.interp(rates[r], x, y))
    # Where the curve rises, its top counts; without positives there is none.
    steps = metrics.sensitivity_at(np.array([True, False]), np.array([1.0, 0.0]), np.zeros(1))
    assert steps == [1.0]
    none = metrics.sensitivity_at(np.zeros(2, bool), np.array([1.0, 0.0]), np.zeros(1))
    assert np.isnan(none).all()


def test_majority_of_votes():
    votes = [np.array([1, 1, 0, -1, -1]), np.array([0, 1, 0, 1, -1])]
    assert majority(votes).tolist() == [-1, 1, 0, 1, -1]


def test_one_rater_is_compared_with_nobody(table):
    alone = table.drop(columns=["label_expert2", "atypical_expert2", "majority_atypical"])
    assert entries_of(alone) == {}
    result = evaluate(predictions_from_table(alone), resamples=20)
    assert result["among_raters"] == []
