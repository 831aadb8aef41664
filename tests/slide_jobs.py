"""A table of small slides for tests of jobs, and what is to be read of a finished one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from slide_files import noise, write_pyramid

if TYPE_CHECKING:
    from pathlib import Path

MPP = 0.25
SIZE = (300, 400)
"""Height and width, px."""


def write_slide_table(folder: Path, counts: list[int], **columns: list[str]) -> Path:
    """Write slides with so many candidates each, and the table that names them."""
    rows = []
    for number, count in enumerate(counts):
        slide = write_pyramid(folder / f"s{number}.tif", noise(*SIZE, seed=number), MPP)
        places = np.random.default_rng(number).uniform(30, 270, (count, 2)).round(2)
        listed = pd.DataFrame(places, columns=["x_px", "y_px"])
        listed.insert(0, "id", [f"c{i}" for i in range(count)])
        listed.to_csv(folder / f"s{number}.csv", index=False)
        rows.append([slide.name, f"s{number}.csv"])
    table = pd.DataFrame(rows, columns=["slide", "candidates"]).assign(**columns)
    table.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def answers(out: Path) -> pd.DataFrame:
    """All rows of a job, as anyone reads them, by name."""
    table = pd.read_parquet(out / "parts")
    return table.sort_values("patch_id", ignore_index=True)
