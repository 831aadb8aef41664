"""The figures behind each cell of the confusion matrix: first of all, every kind of mistake.

Pictures weigh most of a page, so that their total size is bounded: a few of each cell come first,
then further mistakes, the surest ones of each cell, then further figures that are called right, the
least sure ones. What is left out is counted.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.labels import SUBTYPES
from atypia.evaluation.predictions import UNKNOWN
from atypia.reports import plots
from atypia.reports.html import Html, join, tag
from atypia.reports.words import capital, missing, no_subtypes, rater_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atypia.evaluation.predictions import Predictions
    from atypia.reports.report_input import Patches, ReportInput

PICTURE_BYTES: Final = 2_100_000
"""Of all pictures of the gallery as they stand in the page; with those of other sections a report
holds at most 3 MB of pictures."""
MOST_PER_CELL: Final = 60
"""Figures of a cell that are listed at all."""
FIRST: Final = 6
"""Figures of every cell, right or wrong, that come before all others."""
_SIDE: Final = 64
_QUALITY: Final = 72
_READ_AT_ONCE: Final = 32


@dataclass(frozen=True)
class Cell:
    """The figures of one label with one answer."""

    row: int
    column: int
    figures: tuple[int, ...]
    """Rows of the predictions: of a mistake the surest first, else the least sure."""

    @property
    def is_mistake(self) -> bool:
        """Whether label and answer differ."""
        return self.row != self.column


def cell_id(row: int, column: int) -> str:
    """Name the place of a cell's figures in the page."""
    return f"cell-{row}-{column}"


def cells_of(report: ReportInput) -> list[Cell]:
    """Find the cells with figures, row by row; none without a table of predictions."""
    if report.scored is None:
        return []
    predictions, truth = report.scored
    found = []
    for row, column in np.ndindex(len(SUBTYPES), len(SUBTYPES)):
        inside = np.flatnonzero((truth == row) & (predictions.predicted == column))
        if len(inside):
            sure = predictions.probabilities[inside, column]
            order = np.argsort(sure if row == column else -sure, kind="stable")
            found.append(Cell(row, column, tuple(inside[order].tolist())))
    return found


def links(report: ReportInput) -> dict[tuple[int, int], plots.Link]:
    """Lead from the cells of the confusion matrix to their figures."""
    if report.scored is None:
        return {}
    _, truth = report.scored
    return {
        (cell.row, cell.column): plots.Link(
            f"#{cell_id(cell.row, cell.column)}", _title(cell, int((truth == cell.row).sum()))
        )
        for cell in cells_of(report)
    }


def gallery(report: ReportInput) -> Html:
    """Show the figures of each cell, folded up until someone asks."""
    if not report.metrics["confusion"]:
        return no_subtypes(report.metrics)
    if report.scored is None:
        return missing("no table of predictions with subtypes")
    predictions, truth = report.scored
    cells = cells_of(report)
    pictures = {} if report.patches is None else _pictures(cells, predictions, report.patches)
    n_of_row = np.bincount(truth, minlength=len(SUBTYPES))
    blocks: list[Html] = []
    for row, subtype in enumerate(SUBTYPES):
        of_row = sorted(
            (cell for cell in cells if cell.row == row),
            key=lambda cell: (cell.is_mistake, -len(cell.figures)),
        )
        if of_row:
            label = rater_name(report.metrics["label"])
            blocks.append(tag("h3", f"{capital(label)}: {plots.SHORT_NAMES[subtype]}"))
            blocks += [_details(cell, predictions, pictures, int(n_of_row[row])) for cell in of_row]
    shown = sum(predictions.patch_ids[i] in pictures for cell in cells for i in cell.figures)
    return join(
        tag("p", _introduction(cells, shown, len(predictions), has_images=bool(pictures))),
        None if report.patches is not None else missing("no images beside the predictions"),
        *blocks,
    )


def _introduction(cells: Sequence[Cell], shown: int, n: int, *, has_images: bool) -> str:
    wrong = sum(len(cell.figures) for cell in cells if cell.is_mistake)
    text = (
        "A click on a cell of the first confusion matrix leads here. Under each label stand the "
        "figures that the model calls so, then its mistakes, the most frequent kind first. Of "
        f"mistakes the surest come first, of the others the least sure. {wrong:,} of {n:,} figures "
        "are mistakes."
    )
    if has_images:
        text += (
            f" {shown:,} figures are shown; {n - shown:,} were left out, lest the page grow beyond "
            "3 MB of pictures. atypia serve shows all of a run."
        )
    return text


def _title(cell: Cell, n_of_row: int) -> str:
    share = 100 * len(cell.figures) / n_of_row
    label, answer = (plots.SHORT_NAMES[SUBTYPES[c]] for c in (cell.row, cell.column))
    return f"{label} called {answer}: {len(cell.figures):,} of {n_of_row:,} ({share:.0f} %)"


def _details(cell: Cell, predictions: Predictions, pictures: dict[str, str], n_of_row: int) -> Html:
    listed = [
        i
        for i in cell.figures[:MOST_PER_CELL]
        if not pictures or str(predictions.patch_ids[i]) in pictures
    ]
    hidden = len(cell.figures) - len(listed)
    wall = tag("div", *(_tile(i, cell, predictions, pictures) for i in listed), class_="wall")
    # A browser unfolds what a link leads into: the name is that of a part inside.
    inside = tag(
        "div",
        wall,
        tag("p", f"{hidden:,} {'more ' if listed else ''}not shown.", class_="note")
        if hidden
        else None,
        id=cell_id(cell.row, cell.column),
        tabindex=-1,
    )
    summary = tag("summary", _title(cell, n_of_row))
    return tag("details", summary, inside, class_="cell mistake" if cell.is_mistake else "cell")


def _tile(i: int, cell: Cell, predictions: Predictions, pictures: dict[str, str]) -> Html:
    name = str(predictions.patch_ids[i])
    probability = predictions.probabilities[i, cell.column]
    others = [
        f"{capital(rater_name(rater))}: {plots.SHORT_NAMES[SUBTYPES[labels[i]]]}"
        for rater, labels in predictions.labels.items()
        if labels[i] not in (UNKNOWN, cell.row)
    ]
    source = pictures.get(name)
    return tag(
        "figure",
        None
        if source is None
        else tag("img", src=source, alt=f"Patch {name}", title=name, loading="lazy"),
        tag(
            "figcaption",
            tag("span", f"{100 * probability:.0f}\N{NO-BREAK SPACE}%"),
            *(tag("span", other) for other in others),
            tag("code", name),
        ),
    )


def _pictures(cells: Sequence[Cell], predictions: Predictions, patches: Patches) -> dict[str, str]:
    """Encode figures, one of each cell after the other: patch id to data URI."""
    order = sorted(
        (place >= FIRST and not cell.is_mistake, place, cell.row, cell.column, i)
        for cell in cells
        for place, i in enumerate(cell.figures[:MOST_PER_CELL])
    )
    names = list(dict.fromkeys(str(predictions.patch_ids[entry[-1]]) for entry in order))
    found: dict[str, str] = {}
    left = PICTURE_BYTES
    for start in range(0, len(names), _READ_AT_ONCE):
        chunk = names[start : start + _READ_AT_ONCE]
        for name, pixels in zip(chunk, patches(chunk), strict=True):
            encoded = plots.patch_jpeg(pixels, longest_side=_SIDE, quality=_QUALITY)
            uri = "data:image/jpeg;base64," + base64.b64encode(encoded).decode()
            left -= len(uri)
            if left < 0:
                return found
            found[name] = uri
    return found
