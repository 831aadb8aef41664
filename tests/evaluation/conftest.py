"""A small table of predictions with everything that the contract knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from atypia.core.labels import N_ATYPICAL, PROBABILITY_COLUMNS, SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Callable


def _table(n: int = 240, seed: int = 0, skill: float = 1.5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(8), np.random.default_rng(1).integers(0, 8, n - 8)])
    second = np.where(np.random.default_rng(2).random(n) < 0.7, truth, (truth + 1) % 8)
    logits = rng.normal(size=(n, 8))
    logits[np.arange(n), truth] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = np.array(SUBTYPES)
    table = pd.DataFrame(
        {
            "patch_id": [f"patch{i:03}" for i in range(n)],
            "patient_id": [f"patient{i % 20:02}" for i in range(n)],
            "domain": ["lab A" if i % 20 < 12 else "lab B" for i in range(n)],
            "fold": "test",
            **{c: probabilities[:, k] for k, c in enumerate(PROBABILITY_COLUMNS)},
        }
    )
    table["p_atypical"] = probabilities[:, :N_ATYPICAL].sum(1)
    table["predicted_subtype"] = names[probabilities.argmax(1)]
    table["predicted_atypical"] = table["p_atypical"] >= 0.4
    table["label_expert1"] = names[truth]
    table["label_expert2"] = names[second]
    table["scanner"] = ["S1" if i % 20 < 6 else "" for i in range(n)]
    table["atypical_expert1"] = truth < N_ATYPICAL
    table["atypical_expert2"] = second < N_ATYPICAL
    table["majority_atypical"] = (second < N_ATYPICAL).astype(object)  # may be empty
    return table


@pytest.fixture(scope="session")
def make_table() -> Callable[..., pd.DataFrame]:
    """Makes a table of the same patches and labels for each seed and skill."""
    return _table


@pytest.fixture
def table() -> pd.DataFrame:
    return _table()
