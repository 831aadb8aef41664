"""Call and subtype from one rule; operating points by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.classifiers.answers import Answers
from atypia.classifiers.bundle import Thresholds
from atypia.classifiers.decision import Decision, OperatingPoint, Rate, decide, p_atypical
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
    prior = np.full(8, 1 / 8)
    assert decide(metaphase, prior, 0)[0] == SUBTYPES.index("nmf_metaphase")
    assert decide(metaphase, prior, 0, 0.5)[0] == SUBTYPES.index("nmf_metaphase")
    assert decide(metaphase, prior, 0, 0.4)[0] == 0


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
