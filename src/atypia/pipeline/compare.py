"""Compare tables of predictions on the same patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atypia.evaluation.comparison import compare as compare_tables
from atypia.evaluation.predictions import Predictions, read_predictions

if TYPE_CHECKING:
    from collections.abc import Sequence


def compare(
    tables: Sequence[Path],
    label: str = "expert1",
    resamples: int = 2000,
    seed: int = 0,
    *,
    intersection: bool = False,
    average_repeats: bool = False,
) -> dict[str, Any]:
    """Compare prediction tables or runs on the same patches, patient by patient."""
    names = _short_names(tables)
    named: dict[str, Predictions] = {
        name: read_predictions(table) for name, table in zip(names, tables, strict=True)
    }
    return compare_tables(
        named, label, resamples, seed, intersection=intersection, average_repeats=average_repeats
    )


def _short_names(paths: Sequence[Path]) -> list[str]:
    names = [path.name if path.is_dir() else path.stem for path in map(Path.resolve, paths)]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
