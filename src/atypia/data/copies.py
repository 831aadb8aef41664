"""Copies: figures of a cohort that are in an earlier one, too, and of which one is kept."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from atypia.data.cohort import MAJORITY_COLUMN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from atypia.data.overlap import Shared

    Figure = tuple[str, str]
    """Name of its cohort, and patch id in it."""


def find_copies(
    order: Sequence[str], overlap: Mapping[tuple[str, str], Sequence[Shared]]
) -> dict[Figure, Figure]:
    """Find the figures that an earlier cohort has a picture of, and the one that stands for each.

    Pictures of one cohort are never copies of each other: that it holds both is its own matter.

    Args:
        order: Names of the cohorts; the first one's pictures are kept.
        overlap: What every two of them have in common.

    Returns:
        The figure that stands for each copy, in the order of the cohorts.
    """
    same: defaultdict[Figure, list[Figure]] = defaultdict(list)
    for (one, other), shared in overlap.items():
        for entry in shared:
            for a, b in [*entry.same_pixels, *entry.alike]:
                same[one, a].append((other, b))
                same[other, b].append((one, a))
    rank = {name: i for i, name in enumerate(order)}

    def place(figure: Figure) -> tuple[int, str]:
        return rank[figure[0]], figure[1]

    copies: dict[Figure, Figure] = {}
    seen: set[Figure] = set()
    for start in sorted(same, key=place):
        if start in seen:
            continue
        group, front = {start}, [start]
        while front:  # a copy of a copy is one, too
            new = set(same[front.pop()]) - group
            group |= new
            front += new
        seen |= group
        copies |= {figure: start for figure in group if figure[0] != start[0]}
    return {figure: copies[figure] for figure in sorted(copies, key=place)}


def without_copies(manifest: pd.DataFrame, kept: Mapping[str, str]) -> pd.DataFrame:
    """Drop copies, and give what was said of them to the figure that stands for them.

    A rater's answers are taken over where the figure has none of that rater, and a majority where
    it has no votes at all: two opinions are never mixed into one.

    Args:
        manifest: Of all cohorts; an empty cell is ``""``.
        kept: Patch id of each copy, in the order of the cohorts, to that of the figure that stays.
    """
    raters: defaultdict[str, list[str]] = defaultdict(list)
    for column in manifest.columns:
        if column.startswith(("label_", "atypical_")):
            raters[column.partition("_")[2]].append(column)
    votes = [column for column in manifest.columns if column.startswith("atypical_")]
    answers = [(columns, columns) for columns in raters.values()]
    if MAJORITY_COLUMN in manifest.columns:
        # First, while the votes are still the figure's own.
        answers.insert(0, ([MAJORITY_COLUMN], [MAJORITY_COLUMN, *votes]))
    table = manifest.set_index("patch_id", drop=False)
    for copy, figure in kept.items():
        for columns, asked in answers:
            if (table.loc[figure, asked] == "").all():
                table.loc[figure, columns] = table.loc[copy, columns]
    return table.drop(index=list(kept)).reset_index(drop=True)
