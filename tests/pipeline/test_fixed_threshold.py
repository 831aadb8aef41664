"""By whose calls the binary threshold of a run is fixed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from atypia.core.config import load_config
from atypia.training.outer_split import fit_threshold


def fixed(by: str, **columns: list[str]) -> float:
    """Threshold where the label says atypical from 0.8 on, over 20 patients with 5 figures each."""
    p = np.tile([0.1, 0.3, 0.5, 0.7, 0.9], 20)
    labels = np.where(p > 0.8, 0, 5)
    manifest = pd.DataFrame(
        {"patient_id": np.repeat(np.arange(20), 5).astype(str), "domain": "one"}
        | {name: values * 20 for name, values in columns.items()}
    )
    config = load_config("quick", [f"ensemble.threshold_by={by}"])
    return fit_threshold(config, manifest, p, labels)


MAJORITY = ["normal", "normal", "atypical", "atypical", "atypical"]


def test_the_label_alone_or_the_majority_as_well() -> None:
    assert 0.7 < fixed("label", majority_atypical=MAJORITY) < 0.9
    # A share of one quarter or more of the calls is atypical from 0.5 on.
    assert 0.3 < fixed("label_and_majority", majority_atypical=MAJORITY) < 0.5


def test_without_votes_the_label_decides() -> None:
    assert 0.7 < fixed("label_and_majority") < 0.9
    assert fixed("label_and_majority", majority_atypical=[""] * 5) == fixed("label")


def test_figures_without_a_label_count_by_their_votes() -> None:
    config = load_config("quick", ["ensemble.threshold_by=label_and_majority"])
    manifest = pd.DataFrame(
        {"patient_id": list("abcd"), "domain": "one"}
        | {"majority_atypical": ["normal", "atypical", "normal", "atypical"]}
    )
    p = np.array([0.1, 0.4, 0.2, 0.8])
    unlabelled = np.full(4, -1)
    assert 0.05 < fit_threshold(config, manifest, p, unlabelled) < 0.4
