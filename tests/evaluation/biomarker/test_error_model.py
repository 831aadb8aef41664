"""A model's errors by each label: fitted, written, read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from atypia.biomarker import ErrorModel
from atypia.biomarker.label_errors import SIDE, LabelErrors
from atypia.core.errors import InputError
from atypia.core.files import write_json
from atypia.core.labels import SUBTYPES
from atypia.evaluation.latent_class import latent_truth
from atypia.evaluation.predictions import UNKNOWN, predictions_from_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from atypia.evaluation.metrics import FloatArray, IntArray

PRIOR = np.array([0.02, 0.03, 0.05, 0.1, 0.05, 0.35, 0.35, 0.05])


def calibrated(
    n: int, rng: np.random.Generator, log_factors: FloatArray | None = None
) -> tuple[FloatArray, IntArray]:
    """Probabilities (n, 8), and labels that they are right about but for some factors."""
    logits = np.log(PRIOR) + rng.normal(0, 1.5, (n, 8))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = np.exp(logits + (0 if log_factors is None else log_factors))
    true /= true.sum(axis=1, keepdims=True)
    return p, (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)


def fitted(p: FloatArray, labels: IntArray, patients: IntArray, **more: Any) -> LabelErrors:
    target = np.eye(8)[labels]
    return LabelErrors.fit(p, target, patients, p @ SIDE >= 0.5, **more)


def test_the_bias_of_a_label_is_found() -> None:
    rng = np.random.default_rng(0)
    factors = np.array([0.8, 0.8, 0.8, 0.8, 0, 0, -0.5, 0])
    p, labels = calibrated(6000, rng, factors)
    found = fitted(p, labels, np.arange(6000) // 20)
    assert found.slope == pytest.approx(1, abs=0.06)
    assert found.biases - found.biases[5] == pytest.approx(factors, abs=0.2)
    scores = np.exp(found.scores(p))
    shares = (scores / scores.sum(axis=1, keepdims=True)).mean(axis=0)
    assert shares == pytest.approx(np.bincount(labels, minlength=8) / 6000, abs=0.005)
    assert found.spread[0] < 0.2  # patients are alike
    votes = np.stack([labels < 4, labels >= 4], axis=1).astype(float)
    by_votes = LabelErrors.fit(p, votes, np.arange(6000) // 20, p @ SIDE >= 0.5)
    assert not by_votes.has_subtypes
    assert np.ptp(by_votes.biases[:4]) == np.ptp(by_votes.biases[4:]) == 0
    assert by_votes.biases[0] - by_votes.biases[4] == pytest.approx(0.9, abs=0.15)


def test_the_spread_of_patients_is_that_they_were_made_with() -> None:
    rng = np.random.default_rng(1)
    of_patient = rng.normal(0, 0.8, 300)
    patients = np.repeat(np.arange(300), 40)
    p, labels = calibrated(12_000, rng, of_patient[patients][:, None] * SIDE)
    found = fitted(p, labels, patients)
    assert found.spread[0] == pytest.approx(0.8, rel=0.15)
    shared = found.covariance[:4, :4].mean() + found.covariance[4:, 4:].mean()
    crossed = found.covariance[:4, 4:].mean()
    # The mean of 300 patients' biases, each 0.8 apart, and figures: 0.8 / √300 and a little.
    assert np.sqrt(shared - 2 * crossed) == pytest.approx(0.8 / np.sqrt(300), rel=0.5)


def test_few_local_labels_leave_the_prior_and_many_replace_it() -> None:
    rng = np.random.default_rng(2)
    prior = fitted(*calibrated(4000, rng), np.arange(4000) // 20)
    p, labels = calibrated(5000, rng, 1.2 * SIDE)
    patients = np.arange(5000) // 10
    sides = []
    for n in (2, 100, 5000):
        found = fitted(p[:n], labels[:n], patients[:n], prior=prior)
        sides.append((found.biases - prior.biases) @ (SIDE / 4 - (1 - SIDE) / 4))
        assert found.prior_patients > prior.prior_patients
    assert abs(sides[0]) < 0.5
    assert sides[2] == pytest.approx(1.2, abs=0.15)
    assert abs(sides[0]) < sides[1] < 1.8


def test_weights_stand_for_figures_that_were_not_drawn() -> None:
    rng = np.random.default_rng(3)
    p, labels = calibrated(4000, rng)
    patients = np.arange(4000) // 20
    keep = (labels < 4) | (rng.random(4000) < 0.25)  # atypical ones four times as often
    weighted = fitted(
        p[keep], labels[keep], patients[keep], weights=np.where(labels[keep] < 4, 1.0, 4.0)
    )
    assert weighted.prevalence == pytest.approx((labels < 4).mean(), abs=0.03)
    whole = fitted(p, labels, patients)
    assert weighted.biases == pytest.approx(whole.biases, abs=0.25)
    assert fitted(p[keep], labels[keep], patients[keep]).prevalence > weighted.prevalence + 0.1


def test_calls_are_those_of_the_table(make_table: Callable[..., pd.DataFrame]) -> None:
    table = make_table()
    model = ErrorModel.fit(predictions_from_table(table), "expert1")
    truth, called = table["atypical_expert1"], table["predicted_atypical"]
    assert model.chosen.calls.tolist() == [
        [(truth & called).sum(), (truth & ~called).sum()],
        [(~truth & called).sum(), (~truth & ~called).sum()],
    ]
    assert (model.chosen.n_figures, model.chosen.n_patients) == (240, 20)


def test_a_patch_of_several_repeats_counts_once(make_table: Callable[..., pd.DataFrame]) -> None:
    import pandas as pd

    table = make_table()
    twice = pd.concat([table, table.assign(fold="other")])
    once = ErrorModel.fit(predictions_from_table(table))
    assert ErrorModel.fit(predictions_from_table(twice)).to_json() == once.to_json()


def test_other_labels_are_fitted_beside(make_table: Callable[..., pd.DataFrame]) -> None:
    model = ErrorModel.fit(predictions_from_table(make_table()), "majority_atypical")
    assert not model.chosen.has_subtypes
    model = ErrorModel.fit(predictions_from_table(make_table()))
    assert {"expert1", "majority_atypical"} <= {*model.of}
    assert model.by("majority_atypical").chosen is model.of["majority_atypical"]
    assert model.by(None) == model
    with pytest.raises(InputError, match="expected one of"):
        model.by("expert9")


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
    assert again.to_json() == error_model.to_json()
    assert again.label == error_model.label


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3},
        {"format": 1},
        {"classes": ["a"]},
        {"label": "another"},
        {"labels": {"expert1": {}}},
        {"labels": "many"},
        {"slope": -1},
        {"prevalence": 1},
        {"biases": [0]},
        {"covariance": None},
        {"spread": [-1] * 9},
        {"calls": [[1, 2], [3, -4]]},
    ],
)
def test_other_json_is_refused(error_model: ErrorModel, change: dict[str, object]) -> None:
    value = error_model.to_json()
    (value if {*change} <= {*value} else value["labels"]["expert1"]).update(change)
    with pytest.raises(InputError, match=r"model\.json: expected the errors of a model"):
        ErrorModel.from_json(value, "model.json")
    for other in (None, [], "x", {}):
        with pytest.raises(InputError):
            ErrorModel.from_json(other)


def test_counts_of_older_bundles_are_read() -> None:
    old = {
        "format": 1,
        "label": "expert1",
        "atypical": [[8, 2, 1, 29], [1, 0, 4, 15]],
        "subtypes": [[0, 3, 3, 9], [0, 5, 5, 31]],
        "columns": {"classes": list(SUBTYPES)},
    }
    model = ErrorModel.from_json(old)
    assert model.chosen.calls.tolist() == [[9, 2], [5, 44]]
    assert (model.chosen.n_patients, model.chosen.has_subtypes) == (2, True)
    assert model.chosen.rates == pytest.approx((9 / 11, 5 / 49))
    assert 0.05 < model.chosen.prevalence < 0.25
    with pytest.raises(InputError, match="negative"):
        ErrorModel.from_json(old | {"atypical": [[1, 2, 3, -4]]})


def test_the_truth_behind_three_raters_is_found() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(20_000) < 0.25
    sensitivity, specificity = np.array([0.6, 0.8, 0.9]), np.array([0.98, 0.9, 0.85])
    called = rng.random((3, 20_000)) < np.where(
        truth, sensitivity[:, None], 1 - specificity[:, None]
    )
    votes = called.astype(np.int64)
    votes[2, rng.random(20_000) < 0.2] = UNKNOWN
    found = latent_truth(votes)
    assert found.prevalence == pytest.approx(0.25, abs=0.02)
    assert found.sensitivity == pytest.approx(sensitivity, abs=0.04)
    assert found.specificity == pytest.approx(specificity, abs=0.02)
    assert found.p_atypical[truth].mean() > 0.75
    assert ((found.p_atypical >= 0) & (found.p_atypical <= 1)).all()
    for wrong in (votes[:2], np.where(np.arange(3)[:, None] == 1, 0, votes)):
        with pytest.raises(InputError, match="at least 3 raters"):
            latent_truth(wrong)
