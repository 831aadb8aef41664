"""Sensitivity against specificity, against scikit-learn and the paired comparison."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score

from atypia.core.errors import InputError
from atypia.core.labels import SUBTYPES
from atypia.evaluation.comparison import ATYPICAL, MEAN, compare, trade, trade_table
from atypia.evaluation.predictions import predictions_from_table


@pytest.fixture
def tables(make_table):
    frames = {"network": make_table(seed=0), "hybrid": make_table(seed=3, skill=2.5)}
    return frames, {name: predictions_from_table(frame) for name, frame in frames.items()}


def row_of(result, question, model):
    (row,) = result[(result["question"] == question) & (result["model"] == model)].to_dict(
        "records"
    )
    return row


def test_values_are_those_of_scikit_learn(tables):
    frames, read = tables
    result = trade(read, resamples=50)
    assert len(result) == 2 * (1 + 8 + 1)
    for model, frame in frames.items():
        truth, called = frame["label_expert1"], frame["predicted_subtype"]
        specificities = []
        for subtype in SUBTYPES:
            row = row_of(result, subtype, model)
            assert row["n"] == (truth == subtype).sum()
            (tn, fp), _ = confusion_matrix(truth == subtype, called == subtype)
            specificities.append(tn / (tn + fp))
            assert row["specificity"] == pytest.approx(specificities[-1])
            recall = recall_score(truth == subtype, called == subtype)
            assert row["sensitivity"] == pytest.approx(recall)
        mean = row_of(result, MEAN, model)
        assert mean["n"] == 240
        assert mean["sensitivity"] == pytest.approx(recall_score(truth, called, average="macro"))
        assert mean["specificity"] == pytest.approx(np.mean(specificities))
        atypical = truth.str.startswith("amf")
        side = row_of(result, ATYPICAL, model)
        assert side["n"] == atypical.sum()
        recall = recall_score(atypical, frame["predicted_atypical"])
        assert side["sensitivity"] == pytest.approx(recall)


def test_differences_are_those_of_the_paired_comparison(tables):
    _, read = tables
    result = trade(read, resamples=200, seed=4)
    expected = compare(read, resamples=200, seed=4)["differences"][0]["measures"]
    row = row_of(result, ATYPICAL, "hybrid")
    for measure in ("sensitivity", "specificity"):
        told = expected[f"binary.at_operating_point.{measure}"]
        assert row[f"{measure}_difference"] == pytest.approx(told["value"])
        assert row[f"{measure}_difference_low"] == pytest.approx(told["low"])
        assert row[f"{measure}_difference_high"] == pytest.approx(told["high"])
    balanced = row_of(result, MEAN, "hybrid")  # over eight classes that is balanced accuracy
    assert balanced["sensitivity_difference"] == pytest.approx(
        expected["balanced_accuracy"]["value"]
    )
    assert np.isnan(row_of(result, ATYPICAL, "network")["sensitivity_difference"])


def test_the_order_of_rows_does_not_matter_and_unlabelled_ones_do_not_count(tables):
    frames, read = tables
    turned = {
        n: predictions_from_table(f.sample(frac=1, random_state=1)) for n, f in frames.items()
    }
    assert trade(read, resamples=20).equals(trade(turned, resamples=20))
    blank = {n: f.assign(label_expert1=f["label_expert1"].where(f.index >= 60, "")) for n, f in
             frames.items()}  # fmt: skip
    without = trade({n: predictions_from_table(f) for n, f in blank.items()}, resamples=20)
    kept = trade({n: predictions_from_table(f[60:]) for n, f in frames.items()}, resamples=20)
    assert without.equals(kept)


def test_the_table_has_a_row_for_each_and_a_dash_for_what_is_not_there(tables):
    _, read = tables
    lines = trade_table(trade(read, resamples=20)).splitlines()
    assert len(lines) == 2 + 20
    assert lines[2].startswith("| atypical | ")
    assert "| network | " in lines[2]
    assert lines[2].count("| – |") == 2
    assert lines[2].endswith("| – |")
    assert "–" not in lines[3]


def test_tables_of_other_patches_or_without_the_label_are_refused(tables):
    frames, read = tables
    fewer = predictions_from_table(frames["hybrid"][:100])
    with pytest.raises(InputError, match="the same patches and folds"):
        trade({"network": read["network"], "hybrid": fewer})
    blank = {n: predictions_from_table(f.assign(label_expert1="")) for n, f in frames.items()}
    with pytest.raises(InputError, match="label 'expert1'"):
        trade(blank)
