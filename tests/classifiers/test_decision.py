"""Call and subtype from one rule; operating points by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia import pipeline
from atypia.classifiers.answers import Answers
from atypia.classifiers.bundle import Thresholds
from atypia.classifiers.decision import Decision, OperatingPoint, Rate, p_atypical
from atypia.classifiers.loading import load_ensemble
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.errors import InputError
from atypia.core.labels import N_ATYPICAL, SUBTYPES
from atypia.inference.patch_predictions import prediction_table

POINTS = {
    "balanced": OperatingPoint(
        threshold=0.3, sensitivity=Rate(value=0.8, low=0.7, high=0.9), ppv={"0.1": 0.4}
    ),
    "sensitive": OperatingPoint(threshold=0.1),
    "specific": OperatingPoint(threshold=0.6),
}


@given(
    weights=st.lists(st.floats(2**-20, 1, width=32), min_size=8, max_size=8),
    prior=st.lists(st.floats(1e-3, 1), min_size=8, max_size=8),
    power=st.floats(0, 1),
    threshold=st.floats(0, 1),
)
def test_subtype_and_call_never_contradict_each_other(
    weights: list[float], prior: list[float], power: float, threshold: float
) -> None:
    probabilities = np.array([weights], np.float32) / np.float32(sum(weights))
    answers = Postprocessing(Decision(prior=prior, power=power), threshold)
    about = pd.DataFrame({"patch_id": ["a"]})
    row = prediction_table(about, Answers(probabilities), answers).iloc[0]
    side = row["predicted_subtype"].startswith("amf_")
    assert side == row["predicted_atypical"] == (row["p_atypical"] >= np.float32(threshold))
    same_side = slice(None, N_ATYPICAL) if side else slice(N_ATYPICAL, None)
    ratios = probabilities[0] / np.array(prior) ** power
    assert ratios[SUBTYPES.index(row["predicted_subtype"])] == ratios[same_side].max()


def test_the_side_comes_first() -> None:
    metaphase = np.array([[0.1, 0.1, 0.1, 0.1, 0, 0.6, 0, 0]])
    plain = Decision(prior=[1 / 8] * 8, power=0)
    assert plain.subtypes(metaphase, 0.5)[0] == SUBTYPES.index("nmf_metaphase")
    assert plain.subtypes(metaphase, 0.4)[0] == 0


def test_weights_make_each_side_add_up_to_its_labels() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(8, 4000, p=[0.02, 0.03, 0.05, 0.1, 0.1, 0.35, 0.33, 0.02])
    bias = np.array([0.5, 0, -1, 0.5, 0, 0.8, -0.8, 0])
    logits = rng.normal(scale=1.5, size=(4000, 8)) + 2 * np.eye(8)[labels] + bias
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    fitted = Decision.fit(p, labels, 0)
    assert fitted.weights is not None
    for side in (slice(0, N_ATYPICAL), slice(N_ATYPICAL, 8)):
        own = (labels < N_ATYPICAL) == (side.start == 0)
        shares = p[own, side] * np.array(fitted.weights)[side]
        expected = (shares / shares.sum(axis=1, keepdims=True)).sum(axis=0)
        counts = np.bincount(labels[own] - side.start, minlength=4)
        np.testing.assert_allclose(expected, counts, rtol=0.03, atol=1.5)

    def right(decision: Decision) -> float:
        return float((decision.subtypes(p, 0.3) == labels).mean())

    assert right(fitted) > right(fitted.model_copy(update={"weights": None})) + 0.03


def test_a_subtype_without_labels_has_a_weight_and_is_never_divided_by_nothing() -> None:
    p = np.full((6, 8), 1 / 8)
    fitted = Decision.fit(p, np.array([0, 0, 1, 5, 5, 6]), 0)
    assert np.isfinite(fitted.weights).all()


def test_an_operating_point_is_measured_over_patients() -> None:
    atypical = np.array([True, True, False, False, False, False] * 10)
    p = np.where(atypical, [0.9, 0.2, 0.6, 0.1, 0.1, 0.1] * 10, [0.9, 0.2, 0.6, 0.1, 0.1, 0.1] * 10)
    point = OperatingPoint.measured(0.5, p, atypical, np.arange(60) // 6)
    assert point.sensitivity is not None
    assert point.specificity is not None
    assert (point.sensitivity.value, point.specificity.value) == (0.5, 0.75)
    assert point.ppv["0.2"] == pytest.approx(0.2 * 0.5 / (0.2 * 0.5 + 0.8 * 0.25))
    alone = OperatingPoint.measured(0.5, p[:6], atypical[:6], np.zeros(6))
    assert alone.sensitivity is not None
    assert alone.sensitivity.low is None
    never = OperatingPoint.measured(1.0, p, atypical, np.arange(60) // 6)
    assert never.ppv == {}  # no call, no share of calls


def test_rounded_probabilities_sum_to_one_at_most() -> None:
    rounded = np.array([[0.25000003, 0.25000003, 0.25000003, 0.25000003, 0, 0, 0, 0]], np.float32)
    assert rounded.sum() > 1
    assert p_atypical(rounded)[0] == 1


def test_operating_points_are_chosen_by_name_and_saved() -> None:
    answers = Postprocessing(threshold=0.3, points=POINTS)
    specific = answers.with_operating_point("specific")
    assert (specific.threshold, specific.operating_point) == (0.6, "specific")
    # What is saved is the model, whichever point it is used at.
    assert specific.to_header() == answers.to_header()
    header = Thresholds.model_validate_json(specific.to_header()["thresholds"].model_dump_json())
    assert header == Thresholds(atypical=0.3, points=POINTS)
    with pytest.raises(InputError, match=r"balanced.*sensitive.*specific"):
        answers.with_operating_point("best")


def test_a_model_without_points_has_one() -> None:
    old = Postprocessing(threshold=0.2)
    assert old.with_operating_point("balanced") == old
    with pytest.raises(InputError, match=r"expected one of \['balanced'\]"):
        old.with_operating_point("sensitive")


def test_the_released_model_answers_at_each_of_its_points(tmp_path: Path) -> None:
    """Looser points call whatever stricter ones do, and call and subtype agree at each."""
    cells = Path(__file__).parents[2] / "docs" / "images" / "cells"
    thresholds, called = [], []
    for point in ("sensitive", "balanced", "specific"):
        table, _ = pipeline.predict(
            [cells], tmp_path / f"{point}.csv", quality="fast", operating_point=point, mpp=0.25
        )
        threshold = load_ensemble(quality="fast", operating_point=point).threshold
        answered = table[table["predicted_subtype"] != ""]
        calls = answered["p_atypical"] >= np.float32(threshold)
        assert answered["predicted_atypical"].astype(bool).tolist() == calls.tolist()
        assert answered["predicted_subtype"].str.startswith("amf_").tolist() == calls.tolist()
        thresholds.append(threshold)
        called.append(calls.sum())
    assert thresholds == sorted(thresholds)
    assert called == sorted(called, reverse=True)
    with pytest.raises(InputError, match=r"--operating-point.*balanced.*sensitive.*specific"):
        pipeline.predict([cells], None, quality="fast", operating_point="best", mpp=0.25)
