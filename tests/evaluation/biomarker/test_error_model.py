"""Counting a model's errors per patient, and what they say of a new one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from atypia.biomarker import ErrorModel
from atypia.core.errors import InputError
from atypia.core.files import write_json
from atypia.evaluation.predictions import predictions_from_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd


def test_counts_are_those_of_the_table(make_table: Callable[..., pd.DataFrame]) -> None:
    table = make_table()
    model = ErrorModel.fit(predictions_from_table(table), "expert1")
    truth, called = table["atypical_expert1"], table["predicted_atypical"]
    assert model.atypical.sum(axis=0).tolist() == [
        [(truth & called).sum(), (truth & ~called).sum()],
        [(~truth & called).sum(), (~truth & ~called).sum()],
    ]
    assert model.subtypes is not None
    first = table[table["patient_id"] == "patient00"]
    assert model.subtypes[0].sum() == len(first)
    same = first["label_expert1"] == first["predicted_subtype"]
    assert np.trace(model.subtypes[0]) == same.sum()
    assert (model.n_figures, model.n_patients) == (240, 20)


def test_a_patch_of_several_repeats_counts_once(make_table: Callable[..., pd.DataFrame]) -> None:
    import pandas as pd

    table = make_table()
    twice = pd.concat([table, table.assign(fold="other")])
    once = ErrorModel.fit(predictions_from_table(table))
    assert (ErrorModel.fit(predictions_from_table(twice)).atypical == once.atypical).all()


def test_majority_tells_no_subtypes(make_table: Callable[..., pd.DataFrame]) -> None:
    model = ErrorModel.fit(predictions_from_table(make_table()), "majority_atypical")
    assert model.subtypes is None
    assert model.rates(10).subtypes == ()


def test_few_patients_or_one_kind_of_figure_are_refused(
    make_table: Callable[..., pd.DataFrame],
) -> None:
    table = make_table()
    few = table[table["patient_id"] < "patient05"]
    with pytest.raises(InputError, match="of 5 patients"):
        ErrorModel.fit(predictions_from_table(few))
    normal = table[~table["atypical_expert1"]]
    with pytest.raises(InputError, match="got 0 atypical"):
        ErrorModel.fit(predictions_from_table(normal))


def test_it_survives_json(error_model: ErrorModel, tmp_path: Path) -> None:
    write_json(tmp_path / "errors.json", error_model.to_json())
    again = ErrorModel.from_json(json.loads((tmp_path / "errors.json").read_text()))
    assert (again.atypical == error_model.atypical).all()
    assert (again.subtypes == error_model.subtypes).all()
    assert again.label == error_model.label


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"atypical": [[1, 2, 3]]},
        {"atypical": []},
        {"atypical": [[1, 2, 3, -4]]},
        {"subtypes": [[0, 9, 0, 1]]},
        {"subtypes": [[-1, 0, 0, 1]]},
        {"subtypes": "many"},
        {"columns": None},
    ],
)
def test_other_json_is_refused(error_model: ErrorModel, change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"model\.json: expected the error counts"):
        ErrorModel.from_json(error_model.to_json() | change, "model.json")
    for value in (None, [], "x", {}):
        with pytest.raises(InputError):
            ErrorModel.from_json(value)


def test_rates_are_the_pooled_ones_and_draws_are_repeatable(error_model: ErrorModel) -> None:
    (hits, missed), (alarms, rest) = error_model.atypical.sum(axis=0)
    rates = error_model.rates(seed=3)
    assert rates.atypical.sensitivity == pytest.approx(hits / (hits + missed))
    assert rates.atypical.false_positive_rate == pytest.approx(alarms / (alarms + rest))
    again = error_model.rates(seed=3).atypical
    assert (again.sensitivity_draws == rates.atypical.sensitivity_draws).all()
    assert (rates.atypical.sensitivity_draws >= 0).all()
    assert (rates.atypical.sensitivity_draws <= 1).all()
    # The only subtypes here are one atypical and one normal: the same question.
    assert rates.subtypes[3].sensitivity == pytest.approx(rates.atypical.sensitivity)


def draws_of(correlation: float, patients: int = 400, per_patient: int = 30) -> np.ndarray:
    rng = np.random.default_rng(0)
    rate = np.full(patients, 0.7)
    if correlation:
        size = 1 / correlation - 1
        rate = rng.beta(0.7 * size, 0.3 * size, patients)
    hits = rng.binomial(per_patient, rate)
    counts = np.stack([hits, per_patient - hits, 0 * hits, 0 * hits + per_patient], axis=1)
    model = ErrorModel("expert1", counts.reshape(-1, 2, 2), None)
    return model.rates(draws=4000).atypical.sensitivity_draws


def test_the_spread_of_a_new_patient_is_that_of_the_patients() -> None:
    # Var = p (1 - p) ρ for one patient's rate, plus next to nothing for the mean of 12,000.
    for correlation in (0.05, 0.2):
        assert draws_of(correlation).std() == pytest.approx(np.sqrt(0.21 * correlation), rel=0.15)
    assert draws_of(0.0).std() < 0.04
    assert draws_of(0.2).mean() == pytest.approx(0.7, abs=0.02)


def test_what_was_never_seen_is_unknown() -> None:
    counts = np.zeros((12, 2, 2), np.int64)
    counts[:, 1, 1] = 5
    rates = ErrorModel("expert1", counts, None).rates(draws=2000).atypical
    assert rates.sensitivity_draws.std() == pytest.approx(np.sqrt(1 / 12), rel=0.05)
    assert 0 < rates.false_positive_draws.mean() < 0.03
