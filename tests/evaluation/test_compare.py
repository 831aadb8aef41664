from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from atypia.core.errors import InputError
from atypia.core.labels import PROBABILITY_COLUMNS
from atypia.evaluation.comparison import compare, comparison_table
from atypia.evaluation.predictions import predictions_from_table
from atypia.evaluation.scores import evaluate


@pytest.fixture(scope="module")
def tables(make_table):
    return {
        "weak": predictions_from_table(make_table(seed=1, skill=0.8)),
        "strong": predictions_from_table(make_table(seed=2, skill=2.0)),
    }


def test_a_better_model_is_better_and_values_are_those_of_evaluate(tables):
    result = compare(tables, resamples=100)
    json.dumps(result, allow_nan=False)
    (pair,) = result["differences"]
    assert (pair["of"], pair["minus"]) == ("strong", "weak")
    for name, d in pair["measures"].items():
        by = result["measures"]
        assert d["value"] == pytest.approx(by["strong"][name] - by["weak"][name])
    assert 0 < pair["measures"]["mean_auc"]["low"] < pair["measures"]["mean_auc"]["value"]
    assert pair["measures"]["log_loss"]["high"] < 0
    assert pair["measures"]["mean_auc"]["p"] < 1e-4
    alone = evaluate(tables["strong"], resamples=10)
    for name, measure in alone["overall"].items():
        assert result["measures"]["strong"][name] == pytest.approx(measure["value"])
    at = alone["binary"]["against"]["expert1"]["at_0.5"]
    assert result["measures"]["strong"]["binary.at_0.5.ppv"] == pytest.approx(at["ppv"]["value"])


def test_antisymmetric_and_blind_to_row_order(tables):
    shuffled = tables["weak"].take(np.random.default_rng(0).permutation(len(tables["weak"])))
    (forth,) = compare(tables, resamples=60)["differences"]
    backward = {"strong": tables["strong"], "weak": shuffled}
    (back,) = compare(backward, resamples=60)["differences"]
    for name, d in forth["measures"].items():
        b = back["measures"][name]
        assert b["value"] == pytest.approx(-d["value"])
        assert (b["low"], b["high"]) == pytest.approx((-d["high"], -d["low"]))
        assert b["p"] == pytest.approx(d["p"])


def test_identical_tables_do_not_differ(tables):
    (pair,) = compare({"a": tables["weak"], "b": tables["weak"]}, resamples=30)["differences"]
    for d in pair["measures"].values():
        assert (d["value"], d["p"]) == (0, 1)
        assert d["low"] is None or -d["low"] == pytest.approx(d["high"])


def test_three_tables_give_three_pairs_and_text(tables):
    result = compare({**tables, "again": tables["weak"]}, resamples=20)
    pairs = [(d["of"], d["minus"]) for d in result["differences"]]
    assert pairs == [("strong", "weak"), ("again", "weak"), ("again", "strong")]
    text = comparison_table(result)
    assert text.count("| measure |") == 3
    assert "240 patches of 20 patients" in text
    assert "log_loss (lower is better)" in text


def test_other_patches_are_refused_or_left_out_and_counted(tables):
    fewer = {"weak": tables["weak"], "strong": tables["strong"].take(np.arange(7, 240))}
    with pytest.raises(InputError, match=r"strong: .* 7 are missing: patch000, .*\.\.\."):
        compare(fewer)
    result = compare(fewer, resamples=20, intersection=True)
    assert result["n"] == 233
    assert result["left_out"] == {"weak": 7, "strong": 0}
    assert "7 patches of weak are not in every table" in comparison_table(result)
    same_rows = {name: table.take(np.arange(7, 240)) for name, table in tables.items()}
    assert compare(same_rows, resamples=20)["differences"] == result["differences"]
    with pytest.raises(InputError, match="common to"):
        compare(
            {"a": tables["weak"].take(np.arange(9)), "b": tables["weak"].take(np.arange(9, 20))},
            intersection=True,
        )


def test_majority_compares_only_the_binary_measures(tables):
    result = compare(tables, label="majority_atypical", resamples=20)
    assert all(name.startswith("binary.") for name in result["measures"]["weak"])
    assert result["lower_is_better"] == []


def test_labels_may_be_in_one_table_only_but_not_contradict(tables, make_table):
    theirs = make_table(seed=2, skill=2.0)
    bare = theirs.drop(columns=[c for c in theirs.columns if c.startswith("label_")])
    with_labels = compare(tables, resamples=20)
    without = compare(
        {"weak": tables["weak"], "strong": predictions_from_table(bare)}, resamples=20
    )
    assert without == with_labels
    theirs.loc[4, "label_expert1"] = "nmf_ring"
    with pytest.raises(InputError, match="others for 1 patches: patch004"):
        compare({"weak": tables["weak"], "strong": predictions_from_table(theirs)})
    with pytest.raises(InputError, match="got 'expert9'"):
        compare(tables, label="expert9")


def test_other_faults(tables, make_table):
    with pytest.raises(InputError, match="two or more"):
        compare({"weak": tables["weak"]})
    moved = make_table()
    moved.loc[2, "patient_id"] = "someone"
    with pytest.raises(InputError, match="patients of weak but got others for 1 patches: patch002"):
        compare({"weak": tables["weak"], "moved": predictions_from_table(moved)})
    moved = make_table()
    moved.loc[2, ["patch_id", "fold"]] = "patch001", "other"
    with pytest.raises(InputError, match="every patch once but got patch001"):
        compare({"weak": tables["weak"], "twice": predictions_from_table(moved)})


def test_joined_repeats_do_not_contradict_themselves(make_table):
    """Two of five call it normal and agree on the subtype; three atypical, each another one."""
    answers = ["nmf_ring", "nmf_ring", "amf_other", "amf_bipolar", "amf_multipolar"]
    row = make_table().head(1)
    repeats = pd.concat([row.assign(fold=i) for i in range(5)], ignore_index=True)
    repeats = repeats.assign(predicted_subtype=answers, conformal_set=answers)
    repeats["predicted_atypical"] = repeats["predicted_subtype"].str.startswith("amf")
    joined = predictions_from_table(repeats).averaged()
    assert joined.predicted_atypical.tolist() == [True]
    named = np.array([0, 1, 3])
    assert joined.predicted[0] == named[joined.probabilities[0, named].argmax()]
    assert joined.sets[0].nonzero()[0].tolist() == joined.predicted.tolist()


def test_repeats_are_refused_or_joined(make_table):
    """Three repeats, of which the last one lacks a patient; the means are those of pandas."""
    parts = [make_table(seed=i, skill=1.0).assign(fold=i) for i in range(3)]
    parts[2] = parts[2][parts[2]["patient_id"] != parts[2]["patient_id"].iloc[0]]
    for i, part in enumerate(parts):
        part["predicted_atypical"] = part["p_atypical"] > (0.1, 0.5, 0.9)[i]
    table = pd.concat(parts, ignore_index=True)
    repeated, once = predictions_from_table(table), predictions_from_table(parts[0])
    with pytest.raises(InputError, match="repeats to be averaged"):
        compare({"a": repeated, "b": once})
    joined = repeated.averaged()
    assert once.averaged() is once
    by_patch = table.groupby("patch_id")
    means = by_patch[[*PROBABILITY_COLUMNS]].mean()
    assert joined.patch_ids.tolist() == list(means.index)
    np.testing.assert_allclose(joined.probabilities, means)
    np.testing.assert_allclose(joined.p_atypical, by_patch["p_atypical"].mean())
    calls = by_patch["predicted_atypical"].mean()
    np.testing.assert_array_equal(joined.predicted_atypical, calls >= 0.5)
    for patch, named, call in zip(
        joined.patch_ids, joined.predicted, joined.predicted_atypical, strict=True
    ):
        own = (repeated.patch_ids == patch) & (repeated.predicted_atypical == call)
        times = np.bincount(repeated.predicted[own], minlength=8)
        assert times[named] == times.max()
    result = compare({"a": repeated, "b": once}, average_repeats=True, resamples=20)
    assert result["n"] == len(once)
