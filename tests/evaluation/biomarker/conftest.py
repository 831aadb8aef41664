"""Slides with figures at known places, and a model with known errors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from atypia.biomarker import ErrorModel, SlideFigures, read_slides
from atypia.biomarker.label_errors import SIDE, LabelErrors
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
    """60 patients; 80 % of atypical figures are called so, 10 % of the others; some spread."""
    errors = LabelErrors(
        slope=1.0,
        biases=np.zeros(8),
        covariance=0.01 * np.eye(8),
        spread=np.array([0.3] + [0.2] * 8),
        prevalence=0.2,
        calls=np.array([[160, 40], [80, 720]]),
        n_patients=60,
    )
    more = replace(errors, biases=0.8 * SIDE, has_subtypes=False)
    return ErrorModel("expert1", {"expert1": errors, "majority_atypical": more})
