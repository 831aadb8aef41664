"""Slides with figures at known places, and a model with known errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from atypia.biomarker import ErrorModel, SlideFigures, read_slides
from atypia.core.labels import PROBABILITY_COLUMNS, SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MPP = 0.25


def slide_table(
    subtypes: list[str],
    centres_um: list[tuple[float, float]],
    slide: str = "case 1.svs",
    patient: str = "P1",
) -> pd.DataFrame:
    """A table as the slide verb writes it; every figure is 90 % sure to be its subtype."""
    rows = []
    for i, (subtype, (x, y)) in enumerate(zip(subtypes, centres_um, strict=True)):
        p = dict.fromkeys(PROBABILITY_COLUMNS, 0.1 / 7) | {f"p_{subtype}": 0.9}
        rows.append(
            {"patch_id": f"{slide}/{i}", "patient_id": patient, "fold": "", **p}
            | {
                "p_atypical": sum(p[f"p_{s}"] for s in SUBTYPES[:4]),
                "predicted_subtype": subtype,
                "predicted_atypical": subtype.startswith("amf"),
                "slide": slide,
                "x_px": x / MPP,
                "y_px": y / MPP,
                "x_um": x,
                "y_um": y,
            }
        )
    return pd.DataFrame(rows)


@pytest.fixture
def table() -> Callable[..., pd.DataFrame]:
    return slide_table


@pytest.fixture
def read_one(tmp_path: Path) -> Callable[[pd.DataFrame], SlideFigures]:
    """Writes a table and reads it back."""

    def read(table: pd.DataFrame) -> SlideFigures:
        path = tmp_path / "one.csv"
        table.to_csv(path, index=False)
        return read_slides([path])[0]

    return read


@pytest.fixture(scope="session")
def error_model() -> ErrorModel:
    """60 patients; finds 80 % of atypical figures, calls 10 % of the others so; some spread."""
    rng = np.random.default_rng(0)
    patients = 60
    figures = rng.integers(5, 40, patients)
    atypical = rng.binomial(figures, rng.beta(2, 8, patients))
    hits = rng.binomial(atypical, rng.beta(16, 4, patients))
    alarms = rng.binomial(figures - atypical, rng.beta(2, 18, patients))
    counts = np.stack([hits, atypical - hits, alarms, figures - atypical - alarms], axis=1)
    subtypes = np.zeros((patients, 8, 8), np.int64)
    subtypes[:, 3, 3], subtypes[:, 3, 5] = hits, atypical - hits
    subtypes[:, 5, 3], subtypes[:, 5, 5] = alarms, figures - atypical - alarms
    return ErrorModel("expert1", counts.reshape(-1, 2, 2), subtypes)
