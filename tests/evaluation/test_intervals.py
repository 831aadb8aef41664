from __future__ import annotations

import numpy as np
import pytest

from atypia.core.errors import InputError
from atypia.evaluation import intervals


def mean_of(values):
    return lambda weights: {"mean": weights @ values / weights.sum(1)}


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


def test_undefined_resamples_are_counted_and_left_out():
    patients = np.array(["a", "b", "c"])

    def only_where_a(weights):
        return {"m": np.where(weights[:, 0] > 0, weights[:, 0], np.nan)}

    estimate = intervals.estimate(only_where_a, patients, resamples=1000, seed=0)["m"]
    # A patient of three is missed with probability (2/3)^3 = 0.296.
    assert 250 < estimate.undefined < 345
    assert (estimate.value, estimate.low, estimate.high) == (1, 1, 3)


def test_one_patient_gives_no_interval():
    estimate = intervals.estimate(mean_of(np.arange(4.0)), np.array(["a"] * 4), 10)["mean"]
    assert estimate.value == 1.5
    assert np.isnan([estimate.low, estimate.high]).all()


def test_no_resamples_are_refused():
    with pytest.raises(InputError, match="at least one resample"):
        intervals.estimate(mean_of(np.arange(4.0)), np.arange(4), resamples=0)


def test_percentiles_are_those_of_numpy():
    sample = np.random.default_rng(0).normal(size=(500, 2, 3))
    low, high = intervals.percentile_interval(sample, level=0.9)
    np.testing.assert_allclose(low, np.quantile(sample, 0.05, axis=0))
    np.testing.assert_allclose(high, np.quantile(sample, 0.95, axis=0))


@pytest.mark.parametrize("clustered", [True, False])
def test_coverage_where_figures_of_a_patient_resemble_one_another(clustered):
    """Patients as the unit cover near 95 % of true values; patches as the unit do not."""
    rng = np.random.default_rng(7)
    covered, studies, patients, figures = 0, 300 if clustered else 60, 50, 10
    for study in range(studies):
        of_patient = rng.normal(size=patients)
        unit = np.repeat(np.arange(patients), figures)
        values = of_patient[unit] + rng.normal(size=len(unit))
        unit = unit if clustered else np.arange(len(unit))
        estimate = intervals.estimate(mean_of(values), unit, resamples=300, seed=study)["mean"]
        covered += bool(estimate.low <= 0 <= estimate.high)
    if clustered:
        assert 0.90 <= covered / studies <= 0.98
    else:
        assert covered / studies < 0.7
