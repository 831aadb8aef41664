from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from atypia.core.errors import InputError
from atypia.core.labels import SUBTYPES
from atypia.evaluation import intervals, metrics
from atypia.evaluation.intervals import OF, difference, estimate
from atypia.evaluation.predictions import predictions_from_table
from atypia.evaluation.scores import evaluate


def mean_of(values):
    return lambda weights: {"mean": weights @ values / weights.sum(1)}


def share_of(right, asked=None):
    asked = np.ones(len(right), dtype=bool) if asked is None else asked

    def statistic(weights):
        of = weights @ asked
        return {"share": metrics.ratio(weights @ (asked & right), of), f"share{OF}": of}

    return statistic


def ends(found):
    return float(found.low), float(found.high)


def student(values):
    """Mean, standard error and degrees of freedom of independent values, from their moments."""
    freedom = 2 * len(values) / (stats.kurtosis(values, fisher=False) - 1)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), error, min(freedom, len(values) - 1)


def test_a_mean_of_independent_values_has_the_textbook_interval():
    values = np.random.default_rng(0).normal(size=30)
    found = estimate(mean_of(values), np.arange(30))["mean"]
    mean, error, freedom = student(values)
    assert found.value == pytest.approx(mean)
    assert ends(found) == pytest.approx(stats.t.interval(0.95, freedom, mean, error))
    assert found.undefined == 0


def test_patients_count_as_often_as_they_are_not_as_their_figures_do():
    values = np.random.default_rng(1).normal(size=12)
    alone = estimate(mean_of(values), np.arange(12))["mean"]
    ten_each = estimate(mean_of(np.repeat(values, 10)), np.repeat(np.arange(12), 10))["mean"]
    assert ends(ten_each) == pytest.approx(ends(alone))


@pytest.mark.parametrize("all_right", [True, False])
def test_none_or_all_right_is_the_exact_interval(all_right):
    for n in (2, 7, 40):
        found = estimate(share_of(np.full(n, all_right)), np.arange(n))["share"]
        expected = stats.binomtest(n * all_right, n).proportion_ci(0.95, "exact")
        assert ends(found) == pytest.approx((expected.low, expected.high))


def test_the_exact_interval_counts_effective_figures():
    figures = np.array([30, 5, 5, 1, 1])
    patients = np.repeat(np.arange(5), figures)
    found = estimate(share_of(np.ones(42, dtype=bool)), patients)["share"]
    effective = figures.sum() ** 2 / (figures**2).sum()  # Kish
    assert ends(found) == pytest.approx((0.025 ** (1 / effective), 1))


def test_a_share_that_hangs_on_one_patient_is_hardly_known():
    right, asked = np.zeros((2, 40), dtype=bool)
    right[0], asked[:4] = True, True
    found = estimate(share_of(right, asked), np.repeat(np.arange(10), 4))["share"]
    assert (found.value, found.undefined) == (0.25, 1)
    assert found.low < 0.01
    assert found.high > 0.95


def test_differences_are_paired():
    rng = np.random.default_rng(2)
    hard, patients = rng.normal(size=25), np.arange(25)
    first, second = hard + 0.1 * rng.normal(size=25), hard + 0.2
    a, b = (estimate(mean_of(values), patients)["mean"] for values in (first, second))
    found = difference(b, a)
    mean, error, freedom = student(second - first)
    assert found.value == pytest.approx(mean)
    assert ends(found) == pytest.approx(stats.t.interval(0.95, freedom, mean, error))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(mean) / error, freedom))
    back = difference(a, b)
    assert ends(back) == pytest.approx((-found.high, -found.low))
    assert found.high - found.low < (a.high - a.low) / 5


def test_equal_models_may_differ_on_figures_not_seen():
    right = np.array([True, False] * 10)
    found = estimate(share_of(right), np.arange(20))["share"]
    same = difference(found, found)
    assert same.low < same.value == 0 < same.high
    assert same.p == 1


def test_the_error_of_an_auc_is_that_of_its_source():
    """Hanley and McNeil 1982: an area of 0.893 of 51 abnormal and 58 normal images has 0.032."""
    variance = metrics.auc_variance(np.array(0.893), np.array(51.0), np.array(58.0))
    assert np.sqrt(variance) == pytest.approx(0.0325, abs=5e-4)


def test_an_auc_of_few_figures_is_not_taken_for_sure():
    """Figures of eight patients, all but ranked alike: the jackknife alone has nearly no error."""
    positive = np.tile([True, False, False, False, False], 8)
    score = np.tile([0.8, 0.9, 0.3, 0.2, 0.1], 8)
    score[2] = 0.85
    patients = np.repeat(np.arange(8), 5)

    def interval(positive, endings):
        def statistic(weights):
            every = metrics.auc_measures(positive, score, weights)
            return {name: v for name, v in every.items() if name.endswith(endings)}

        found = estimate(statistic, patients)["auc"]
        return float(found.high - found.low), int(found.undefined)

    assert interval(positive, ("auc", "/of"))[0] < 0.2
    assert interval(positive, ("auc", "/of", "/variance"))[0] > 0.35
    of_one_patient = positive & (patients == 3)
    width, undefined = interval(of_one_patient, ("auc", "/of", "/variance"))
    assert (width > 0.95, undefined) == (True, 1)


def test_the_calibration_error_of_a_calibrated_model_is_near_nothing():
    rng = np.random.default_rng(3)
    held, values, plain = 0, [], []
    for draw in range(40):
        probability, patients = rng.random(300), np.repeat(np.arange(30), 10)
        positive = rng.random(300) < probability

        def statistic(weights, positive=positive, probability=probability):
            return metrics.calibration_measures(positive, probability, weights)

        found = estimate(statistic, patients, 300, draw)["ece"]
        held += bool(found.low <= 0)
        values.append(float(found.value))
        plain.append(float(metrics.binary_ece(positive, probability)[0]))
        assert found.low <= found.value < plain[-1] <= found.high + 1e-9
    assert held >= 36
    assert np.median(values) < 0.03 < 0.07 < np.median(plain)


def test_every_interval_has_a_width_and_holds_its_value(make_table):
    table = make_table(seed=4)
    sure = table[table["patient_id"].isin(table["patient_id"].unique()[:3])]
    perfect = sure.assign(predicted_subtype=sure["label_expert1"])
    for name in SUBTYPES:
        perfect[f"p_{name}"] = (perfect["label_expert1"] == name).astype(float)
    perfect["p_atypical"] = perfect["label_expert1"].str.startswith("amf").astype(float)
    perfect["predicted_atypical"] = perfect["p_atypical"] == 1
    for frame in (table, sure, perfect):
        found = evaluate(predictions_from_table(frame), resamples=100)
        json.dumps(found, allow_nan=False)
        for measure in measures_in(found):
            if measure["value"] is None or measure["low"] is None or measure["high"] is None:
                continue
            assert measure["low"] <= measure["value"] <= measure["high"]
            assert measure["low"] < measure["high"]


def measures_in(tree):
    if isinstance(tree, dict):
        if "undefined" in tree:
            yield tree
        else:
            yield from (m for branch in tree.values() for m in measures_in(branch))
    elif isinstance(tree, list):
        yield from (m for branch in tree for m in measures_in(branch))


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(5)
    right, patients = rng.random(60) < 0.7, rng.integers(0, 9, 60)
    order = rng.permutation(60)
    found = estimate(share_of(right), patients)["share"]
    turned = estimate(share_of(right[order]), patients[order])["share"]
    assert ends(turned) == pytest.approx(ends(found))


def test_many_patients_are_left_out_in_groups(monkeypatch):
    values = np.random.default_rng(6).normal(size=3000)
    one_by_one = estimate(mean_of(values[:900]), np.arange(900))["mean"]
    in_groups = estimate(mean_of(values), np.arange(3000))["mean"]
    assert len(one_by_one.without) == 900
    assert len(in_groups.without) == 1000
    width = in_groups.high - in_groups.low
    assert width == pytest.approx(2 * 1.96 / np.sqrt(3000), rel=0.1)
    monkeypatch.setattr(intervals, "_CHUNK_ELEMENTS", 5000)
    chunked = estimate(mean_of(values[:900]), np.arange(900))["mean"]
    assert ends(chunked) == pytest.approx(ends(one_by_one))


def test_one_patient_gives_no_interval():
    found = estimate(mean_of(np.arange(4.0)), np.array(["a"] * 4), 10)["mean"]
    assert found.value == 1.5
    assert np.isnan([found.low, found.high]).all()


def test_no_resamples_are_refused():
    with pytest.raises(InputError, match="at least one resample"):
        estimate(mean_of(np.arange(4.0)), np.arange(4), resamples=0)


@pytest.mark.parametrize("patients", [12, 40])
def test_coverage_where_figures_of_a_patient_resemble_one_another(patients):
    """Patients as the unit cover near 95 % of true values; figures as the unit do not."""
    rng = np.random.default_rng(7)
    covered, of_figures, studies = 0, 0, 300
    for _ in range(studies):
        figures = rng.integers(1, 20, patients)
        unit = np.repeat(np.arange(patients), figures)
        right = rng.random(len(unit)) < np.repeat(rng.beta(8, 2, patients), figures)
        found = estimate(share_of(right), unit)["share"]
        covered += bool(found.low <= 0.8 <= found.high)
        if patients == 40:
            found = estimate(share_of(right), np.arange(len(unit)))["share"]
            of_figures += bool(found.low <= 0.8 <= found.high)
    assert 0.925 <= covered / studies <= 0.98
    assert of_figures / studies < 0.88


def test_patients_are_drawn_whole_and_as_many_as_there_are():
    patients = np.array(["b", "a", "b", "c", "a", "b"])
    weights = np.concatenate(list(intervals.patient_weights(patients, 50, seed=1)))
    assert weights.shape == (50, 6)
    for patient in "abc":
        of_patient = weights[:, patients == patient]
        assert (of_patient == of_patient[:, :1]).all()
    first_of_each = weights[:, [1, 0, 3]]
    assert (first_of_each.sum(1) == 3).all()


def test_resamples_depend_on_neither_row_order_nor_chunks(monkeypatch):
    patients = np.array(["b", "a", "b", "c"])
    order = np.array([2, 0, 3, 1])
    weights = np.concatenate(list(intervals.patient_weights(patients, 20, seed=1)))
    shuffled = np.concatenate(list(intervals.patient_weights(patients[order], 20, seed=1)))
    assert (weights[:, order] == shuffled).all()
    monkeypatch.setattr(intervals, "_CHUNK_ELEMENTS", 12)
    chunks = list(intervals.patient_weights(patients, 20, seed=1))
    assert len(chunks) == 7
    assert (np.concatenate(chunks) == weights).all()
    other = np.concatenate(list(intervals.patient_weights(patients, 20, seed=2)))
    assert (other != weights).any()
