"""What is learned from whom."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from atypia.config import TargetConfig
from atypia.errors import InputError
from atypia.training.targets import chosen_labels, require_every_class, soft_targets

MANIFEST = pd.DataFrame(
    {
        "label_expert1": ["amf_bipolar", "nmf_ring", "", "amf_other"],
        "label_expert2": ["amf_bipolar", "nmf_metaphase", "nmf_ring", ""],
    }
)


def test_a_rater_and_agreement() -> None:
    assert chosen_labels(MANIFEST, "expert1").tolist() == [0, 7, -1, 3]
    # One opinion alone is no agreement.
    assert chosen_labels(MANIFEST, "agreed").tolist() == [0, -1, -1, -1]


def test_an_unknown_rater_is_told_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"expert1.*expert3"):
        chosen_labels(MANIFEST, "expert3")


def test_the_second_rater_takes_a_share_where_there_is_one() -> None:
    labels = chosen_labels(MANIFEST, "expert1")
    config = TargetConfig(second_rater="expert2", second_rater_mass=0.35)
    targets = soft_targets(MANIFEST, labels, config)
    np.testing.assert_allclose(targets[0], np.eye(8)[0])
    assert targets[1, 7] == pytest.approx(0.65)
    assert targets[1, 5] == pytest.approx(0.35)
    assert targets[2].sum() == 0
    np.testing.assert_allclose(targets[3], np.eye(8)[3])


def test_smoothing_spreads_over_all_classes() -> None:
    labels = chosen_labels(MANIFEST, "expert1")
    targets = soft_targets(MANIFEST, labels, TargetConfig(smoothing=0.08))
    assert targets[0, 0] == pytest.approx(0.93)
    assert targets[0, 1] == pytest.approx(0.01)
    np.testing.assert_allclose(targets.sum(1), [1, 1, 0, 1], rtol=1e-6)


def test_a_missing_class_is_named() -> None:
    with pytest.raises(InputError, match=r"training part.*nmf_ring"):
        require_every_class(np.arange(7), "training part of member 1")
