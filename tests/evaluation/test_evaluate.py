from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from scipy import stats

from atypia.core.errors import InputError
from atypia.core.labels import PROBABILITY_COLUMNS, SUBTYPES, is_atypical, parse_subtype
from atypia.evaluation import metrics
from atypia.evaluation.predictions import predictions_from_table
from atypia.evaluation.scores import class_size_correlation, evaluate, rater_agreement


def scored(table, **options):
    result = evaluate(predictions_from_table(table), resamples=40, **options)
    json.dumps(result, allow_nan=False)  # strict JSON
    return result


def measures_in(tree):
    """Every {"value", "low", "high", "undefined"} of a nested structure."""
    if isinstance(tree, dict):
        if "value" in tree:
            yield tree
        else:
            for branch in tree.values():
                yield from measures_in(branch)


def test_values_are_those_of_scikit_learn(table):
    result = scored(table)
    truth, called = table["label_expert1"], table["predicted_subtype"]
    assert (result["n"], result["n_patients"], result["n_without_label"]) == (240, 20, 0)
    assert tuple(result["overall"]) == metrics.OVERALL
    overall = {name: measure["value"] for name, measure in result["overall"].items()}
    assert overall["accuracy"] == pytest.approx(reference.accuracy_score(truth, called))
    assert overall["kappa"] == pytest.approx(reference.cohen_kappa_score(truth, called))
    probabilities = table[list(PROBABILITY_COLUMNS)].to_numpy()
    aucs = [
        reference.roc_auc_score(truth == s, probabilities[:, c]) for c, s in enumerate(SUBTYPES)
    ]
    assert overall["mean_auc"] == pytest.approx(np.mean(aucs))
    confusion = reference.confusion_matrix(truth, called, labels=SUBTYPES)
    assert result["confusion"] == confusion.tolist()
    assert tuple(result["per_class"]) == SUBTYPES
    for c, (subtype, measured) in enumerate(result["per_class"].items()):
        assert set(metrics.PER_CLASS) < set(measured)
        assert measured["n"] == confusion[c].sum()
        assert measured["n_predicted"] == confusion[:, c].sum()
        assert measured["n_patients"] == table["patient_id"][truth == subtype].nunique()
        assert measured["auc"]["value"] == pytest.approx(aucs[c])
    sizes, sensitivity = confusion.sum(1), np.diag(confusion) / confusion.sum(1)
    correlation = result["class_size_vs_sensitivity"]
    expected = stats.pearsonr(sizes, sensitivity).statistic
    assert correlation["pearson"]["value"] == pytest.approx(expected)
    expected = stats.spearmanr(sizes, sensitivity).statistic
    assert correlation["spearman"]["value"] == pytest.approx(expected)


def test_every_measure_has_an_interval_around_it(table):
    measures = list(measures_in(scored(table)))
    assert len(measures) > 200
    for measure in measures:
        assert set(measure) == {"value", "low", "high", "undefined"}
        assert measure["low"] <= measure["high"]
    assert len({json.dumps(measure) for measure in measures}) > 100


def test_seeded(table):
    assert scored(table, seed=5) == scored(table, seed=5)
    assert scored(table, seed=5) != scored(table, seed=6)
    shuffled = measures_in(scored(table.sample(frac=1, random_state=0)))
    for measure, other in zip(measures_in(scored(table)), shuffled, strict=True):
        assert measure == pytest.approx(other)


def test_binary_part(table):
    table.loc[3, "majority_atypical"] = None
    result = scored(table, threshold=0.4)
    assert set(result["binary"]["against"]) == {"expert1", "majority_atypical"}
    for label, entry in result["binary"]["against"].items():
        atypical = (
            table["label_expert1"].map(is_atypical)
            if label == "expert1"
            else table["majority_atypical"].dropna().astype(bool)
        )
        rows = table.loc[atypical.index]
        assert entry["n"] == len(rows)
        assert entry["n_atypical"] == atypical.sum()
        auc = reference.roc_auc_score(atypical, rows["p_atypical"])
        assert entry["auc"]["value"] == pytest.approx(auc)
        for point, threshold in (("at_0.5", 0.5), ("at_operating_point", 0.4)):
            called = rows["p_atypical"] >= threshold
            assert entry[point]["threshold"] == threshold
            for name, score in (
                ("balanced_accuracy", reference.balanced_accuracy_score),
                ("sensitivity", reference.recall_score),
                ("ppv", reference.precision_score),
                ("f1", reference.f1_score),
            ):
                assert entry[point][name]["value"] == pytest.approx(score(atypical, called))


def test_threshold_unknown_or_contradicted(table):
    entry = scored(table)["binary"]["against"]["expert1"]
    assert entry["at_operating_point"]["threshold"] is None
    with pytest.raises(InputError, match="got the contrary in"):
        scored(table, threshold=0.6)


def test_calibration_tells_each_bin(table):
    result = scored(table)["calibration"]
    for part, outcome, probability in (
        (
            "subtypes",
            table["label_expert1"] == table["predicted_subtype"],
            table[list(PROBABILITY_COLUMNS)].max(axis=1),
        ),
        ("binary", table["label_expert1"].map(is_atypical), table["p_atypical"]),
    ):
        assert len(result[part]["bins"]) == metrics.ECE_BINS
        for told in result[part]["bins"]:
            inside = (probability > told["from"]) & (probability <= told["to"])
            assert told["n"] == inside.sum()
            if told["n"]:
                assert told["observed"] == pytest.approx(outcome[inside].mean())
                assert told["mean_probability"] == pytest.approx(probability[inside].mean())
            else:
                assert told["observed"] is None
    filled = [told for told in result["binary"]["bins"] if told["n"]]
    gap = [b["n"] * abs(b["observed"] - b["mean_probability"]) for b in filled]
    ece = result["binary"]["ece"]
    assert ece["low"] <= ece["value"] < sum(gap) / 240 <= ece["high"]


@pytest.mark.parametrize("threshold", [None, 0.4])
def test_abstaining_from_the_least_sure(table, threshold):
    result = scored(table, threshold=threshold)["selective"]
    assert result["binary"]["threshold"] == (threshold or 0.5)
    odds = table["p_atypical"] / (1 - table["p_atypical"])
    cut = threshold or 0.5
    sure = {
        "subtypes": table[list(PROBABILITY_COLUMNS)].max(axis=1),
        "binary": np.abs(np.log(odds / (cut / (1 - cut)))),
    }
    truth = {"subtypes": table["label_expert1"], "binary": table["label_expert1"].map(is_atypical)}
    answer = {"subtypes": table["predicted_subtype"], "binary": table["p_atypical"] >= cut}
    for part, entry in result.items():
        for at in entry["at_coverage"]:
            assert at["n"] == round(at["coverage"] * 240)
            rows = sure[part].nlargest(at["n"]).index
            for name, score in (
                ("accuracy", reference.accuracy_score),
                ("balanced_accuracy", reference.balanced_accuracy_score),
            ):
                expected = score(truth[part][rows], answer[part][rows])
                assert at[name]["value"] == pytest.approx(expected)
        errors = (truth[part] != answer[part])[sure[part].sort_values(ascending=False).index]
        assert entry["aurc"]["value"] == pytest.approx(errors.expanding().mean().mean())
        assert [at["coverage"] for at in entry["at_coverage"]] == [1, 0.9, 0.8, 0.7]


def test_prediction_sets_are_measured_where_they_are_known(table):
    assert scored(table)["conformal"] == {}
    table["conformal_set"] = table["label_expert2"] + "|nmf_ring"
    table["conformal_set"] = table["conformal_set"].replace("nmf_ring|nmf_ring", "nmf_ring")
    table.loc[:4, "conformal_set"] = ""
    table.loc[5:9, "conformal_set"] = "empty"
    result = scored(table, alpha=0.2)["conformal"]
    assert (result["alpha"], result["n"], result["n_without_set"]) == (0.2, 235, 5)
    rows = table[5:]
    told = rows["conformal_set"].str.split("|")
    held = [truth in names for truth, names in zip(rows["label_expert1"], told, strict=True)]
    assert result["coverage"]["value"] == pytest.approx(np.mean(held))
    named = zip(rows["predicted_subtype"], told, strict=True)
    assert result["named_inside"]["value"] == pytest.approx(np.mean([n in s for n, s in named]))
    size = np.where(rows["conformal_set"] == "empty", 0, rows["conformal_set"].str.count(r"\|") + 1)
    assert result["mean_size"]["value"] == pytest.approx(size.mean())
    assert result["empty"]["value"] == pytest.approx(5 / 235)
    assert result["single"]["value"] == pytest.approx((size == 1).mean())
    for subtype, entry in result["per_class"].items():
        of_class = (rows["label_expert1"] == subtype).to_numpy()
        assert entry["n"] == of_class.sum()
        assert entry["coverage"]["value"] == pytest.approx(np.array(held)[of_class].mean())
        assert entry["mean_size"]["value"] == pytest.approx(size[of_class].mean())
    assert scored(table, label="majority_atypical")["conformal"] == {}


def test_groups_are_scored_apart(table):
    groups = scored(table)["groups"]
    assert set(groups["domain"]) == {"lab A", "lab B"}
    assert set(groups["scanner"]) == {"S1", "not given"}
    part = table[table["domain"] == "lab B"]
    group = groups["domain"]["lab B"]
    assert (group["n"], group["n_patients"]) == (len(part), 8)
    accuracy = (part["label_expert1"] == part["predicted_subtype"]).mean()
    assert group["overall"]["accuracy"]["value"] == pytest.approx(accuracy)
    alone = scored(part)
    assert group["overall"] == alone["overall"]
    assert group["binary"] == alone["binary"]["against"]["expert1"]
    assert scored(table.drop(columns=["domain", "scanner"]))["groups"] == {}


def test_rows_without_the_label_are_counted(table):
    table.loc[:9, "label_expert1"] = None
    result = scored(table)
    assert (result["n"], result["n_without_label"]) == (230, 10)
    agreed = scored(table, label="agreed")
    same = table["label_expert1"] == table["label_expert2"]
    assert (agreed["n"], agreed["n_without_label"]) == (same.sum(), (~same).sum())
    table["label_expert1"] = None
    with pytest.raises(InputError, match="none of the 240 rows"):
        scored(table)


def test_majority_fills_only_the_binary_part(table):
    result = scored(table, label="majority_atypical")
    assert result["overall"] == result["per_class"] == {}
    assert result["confusion"] == []
    assert set(result["binary"]["against"]) == {"majority_atypical"}
    assert result["calibration"]["subtypes"] == result["selective"]["subtypes"] == {}
    atypical = table["majority_atypical"].astype(bool)
    accuracy = result["selective"]["binary"]["at_coverage"][0]["accuracy"]["value"]
    assert accuracy == pytest.approx((atypical == (table["p_atypical"] >= 0.5)).mean())
    assert result["groups"]["domain"]["lab A"]["overall"] == {}
    assert result["groups"]["domain"]["lab A"]["binary"]["n"] == 144


def test_absent_classes_are_null_and_one_patient_has_no_interval(table):
    table = table[table["label_expert1"].isin(SUBTYPES[3:])].assign(patient_id="one")
    result = scored(table)
    assert result["per_class"]["amf_bipolar"]["n"] == 0
    assert result["per_class"]["amf_bipolar"]["auc"] == {
        "value": None,
        "low": None,
        "high": None,
        "undefined": 0,
    }
    accuracy = result["overall"]["accuracy"]
    assert accuracy["value"] > 0
    assert accuracy["low"] is accuracy["high"] is None


def test_rater_agreement_counts_a_patch_once(table):
    agreement = scored(table)["raters"]
    assert list(agreement) == ["expert2"]
    kappa = reference.cohen_kappa_score(table["label_expert1"], table["label_expert2"])
    assert agreement["expert2"]["overall"]["kappa"]["value"] == pytest.approx(kappa)
    twice = pd.concat([table, table[:50].assign(fold="again")])
    assert scored(twice)["raters"] == agreement
    assert scored(table, label="expert2")["raters"]["expert1"]["against"] == "expert2"
    alone = table.drop(columns=["label_expert2"])
    assert scored(alone)["raters"] == {}


def test_class_size_correlation_leaves_out_absent_classes():
    sizes = np.array([[5.0, 1, 9, 0], [3.0, 3, 7, 8]])
    sensitivity = np.array([[0.2, 0.1, 0.15, np.nan], [0.5, 0.2, 0.5, 0.9]])
    result = class_size_correlation(sizes, sensitivity)
    for r, k in ((0, 3), (1, 4)):
        x, y = sizes[r, :k], sensitivity[r, :k]
        assert result["pearson"][r] == pytest.approx(stats.pearsonr(x, y).statistic)
        assert result["spearman"][r] == pytest.approx(stats.spearmanr(x, y).statistic)


@pytest.mark.realdata
def test_agreement_of_the_two_experts_of_ami_br(ami_br):
    source = pd.read_csv(ami_br / "AMI-BR.csv", dtype=str, keep_default_na=False)
    table = pd.DataFrame(
        {
            "patch_id": source["dataset"] + "_" + source["uid"],
            "patient_id": source["dataset"] + "_" + source["slide"],
            **dict.fromkeys(PROBABILITY_COLUMNS, 0.125),
            "label_expert1": source["expert1_label"].map(parse_subtype),
            "label_expert2": source["expert2_label"].map(parse_subtype),
        }
    )
    agreement = rater_agreement(predictions_from_table(table), "expert1", resamples=100)["expert2"]
    assert (agreement["n"], agreement["n_patients"]) == (3720, 202)
    value = {name: measure["value"] for name, measure in agreement["overall"].items()}
    assert value["accuracy"] == pytest.approx(0.706, abs=5e-4)
    assert value["kappa"] == pytest.approx(0.597, abs=5e-4)
    assert value["balanced_accuracy"] == pytest.approx(0.630, abs=5e-4)
    counts = [entry["n"] for entry in agreement["per_class"].values()]
    assert counts == [59, 71, 154, 255, 253, 1349, 1527, 52]
