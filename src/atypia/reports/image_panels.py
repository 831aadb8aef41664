"""The images of a run's report: examples, mistakes, and the figures behind each confusion cell.

Images weigh most of a page, so that their total size is bounded: a few of each cell come first,
then further mistakes, the surest ones of each cell, then further figures that are called right, the
least sure ones. What is left out is counted.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.labels import SUBTYPES
from atypia.evaluation.predictions import AGREED, UNKNOWN
from atypia.reports import plots
from atypia.reports.words import SHORT_NAMES, capital, rater_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atypia.evaluation.predictions import Predictions
    from atypia.reports.report_input import Patches, ReportInput

EXAMPLES_PER_CLASS: Final = 8
MISTAKES_SHOWN: Final = 24
IMAGE_BYTES: Final = 2_100_000
"""Of all images of the gallery as they stand in the page; with those of other sections a report
holds at most 3 MB of images."""
MOST_PER_CELL: Final = 60
"""Figures of a cell that are listed at all."""
FIRST: Final = 6
"""Figures of every cell, right or wrong, that come before all others."""
_GALLERY_JPEG: Final = {"longest_side": 64, "quality": 72}
_READ_AT_ONCE: Final = 32


@dataclass(frozen=True)
class ConfusionCell:
    """The figures of one label with one prediction."""

    row: int
    column: int
    figures: tuple[int, ...]
    """Rows of the predictions: of a mistake the surest first, else the least sure."""
    n_of_row: int
    """Figures with the label."""

    @property
    def is_mistake(self) -> bool:
        """Whether label and prediction differ."""
        return self.row != self.column

    @property
    def anchor(self) -> str:
        """Name of the cell's figures in the page."""
        return f"cell-{self.row}-{self.column}"

    @property
    def title(self) -> str:
        """Label, prediction and number of figures."""
        label, called = (SHORT_NAMES[SUBTYPES[c]] for c in (self.row, self.column))
        n, of = len(self.figures), self.n_of_row
        return f"{label} called {called}: {n:,} of {of:,} ({100 * n / of:.0f} %)"


def cells_of(report: ReportInput) -> list[ConfusionCell]:
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
            figures = tuple(inside[order].tolist())
            found.append(ConfusionCell(row, column, figures, int((truth == row).sum())))
    return found


def links(report: ReportInput) -> dict[tuple[int, int], plots.Link]:
    """Lead from the cells of the confusion matrix to their figures."""
    return {
        (cell.row, cell.column): plots.Link(f"#{cell.anchor}", cell.title)
        for cell in cells_of(report)
    }


def gallery(report: ReportInput) -> dict[str, Any]:
    """Figures of each cell, by label: those called right, then the most frequent mistakes."""
    if report.scored is None:
        return {}
    predictions, _ = report.scored
    cells = cells_of(report)
    images = {} if report.patches is None else _images(cells, predictions, report.patches)
    by_label: dict[str, list[dict[str, Any]]] = {}
    for cell in sorted(cells, key=lambda c: (c.row, c.is_mistake, -len(c.figures))):
        shown = _gallery_cell(cell, predictions, images)
        by_label.setdefault(SUBTYPES[cell.row], []).append(shown)
    names = predictions.patch_ids
    return {
        "n": len(predictions),
        "n_wrong": sum(len(cell.figures) for cell in cells if cell.is_mistake),
        "n_shown": sum(str(names[i]) in images for cell in cells for i in cell.figures),
        "by_label": by_label,
    }


def _gallery_cell(
    cell: ConfusionCell, predictions: Predictions, images: Mapping[str, str]
) -> dict[str, Any]:
    tiles = []
    for i in cell.figures[:MOST_PER_CELL]:
        patch = str(predictions.patch_ids[i])
        if images and patch not in images:
            continue
        others = [
            f"{capital(rater_name(rater))}: {SHORT_NAMES[SUBTYPES[labels[i]]]}"
            for rater, labels in predictions.labels.items()
            if labels[i] not in (UNKNOWN, cell.row)
        ]
        probability = predictions.probabilities[i, cell.column]
        tiles.append(
            {
                "patch": patch,
                "image": images.get(patch),
                "probability": probability,
                "others": others,
            }
        )
    return {
        "is_mistake": cell.is_mistake,
        "anchor": cell.anchor,
        "title": cell.title,
        "tiles": tiles,
        "hidden": len(cell.figures) - len(tiles),
    }


def _images(
    cells: Sequence[ConfusionCell], predictions: Predictions, patches: Patches
) -> dict[str, str]:
    """Encode figures, one of each cell after the other: patch id to data URI."""
    order = sorted(
        (place >= FIRST and not cell.is_mistake, place, cell.row, cell.column, i)
        for cell in cells
        for place, i in enumerate(cell.figures[:MOST_PER_CELL])
    )
    names = list(dict.fromkeys(str(predictions.patch_ids[entry[-1]]) for entry in order))
    found: dict[str, str] = {}
    left = IMAGE_BYTES
    for start in range(0, len(names), _READ_AT_ONCE):
        chunk = names[start : start + _READ_AT_ONCE]
        for name, uri in data_uris(patches, chunk, **_GALLERY_JPEG).items():
            left -= len(uri)
            if left < 0:
                return found
            found[name] = uri
    return found


def examples(report: ReportInput) -> dict[str, Any]:
    """Up to eight patches per class that all raters agree on, one patient after the other."""
    found: dict[str, dict[str, str]] = {subtype: {} for subtype in SUBTYPES}
    for predictions in report.tables:
        if AGREED not in predictions.label_choices:
            continue
        agreed = predictions.subtypes_of(AGREED)
        for i in np.flatnonzero(agreed != UNKNOWN):
            patch, patient = str(predictions.patch_ids[i]), str(predictions.patients[i])
            found[SUBTYPES[agreed[i]]][patch] = patient
    if report.patches is None or not any(found.values()):
        return {"strips": {}}
    chosen = {s: one_patient_each(patients)[:EXAMPLES_PER_CLASS] for s, patients in found.items()}
    images = data_uris(report.patches, [patch for patches in chosen.values() for patch in patches])
    return {"strips": {s: {patch: images[patch] for patch in chosen[s]} for s in SUBTYPES}}


def one_patient_each(patient_of: Mapping[str, str]) -> list[str]:
    """Patches in a fixed arbitrary order, the first of every patient before anyone's second."""
    seen: Counter[str] = Counter()
    order = []
    for patch in sorted(patient_of, key=lambda name: hashlib.sha256(name.encode()).digest()):
        order.append((seen[patient_of[patch]], patch))
        seen[patient_of[patch]] += 1
    return [patch for _, patch in sorted(order, key=lambda entry: entry[0])]


def mistakes(report: ReportInput) -> dict[str, Any]:
    """Find the patches on which the model was surest and yet wrong."""
    if report.scored is None:
        return {}
    predictions, truth = report.scored
    wrong = np.flatnonzero(predictions.predicted != truth)
    confidence = predictions.probabilities[wrong, predictions.predicted[wrong]]
    worst = wrong[np.argsort(-confidence, kind="stable")][:MISTAKES_SHOWN]
    names = [str(predictions.patch_ids[i]) for i in worst]
    return {
        "n": len(truth),
        "n_wrong": len(wrong),
        "shared": {
            rater: int((labels[wrong] == predictions.predicted[wrong]).sum())
            for rater, labels in predictions.labels.items()
            if not np.array_equal(labels, truth)
        },
        "shown": [(name, _labels(predictions, i)) for name, i in zip(names, worst, strict=True)],
        "images": {} if report.patches is None else data_uris(report.patches, names),
    }


def _labels(predictions: Predictions, i: int) -> list[tuple[str, str]]:
    """Give the model's prediction and every rater's label of patch `i`."""
    called = predictions.predicted[i]
    percent = f"{100 * predictions.probabilities[i, called]:.0f}\N{NO-BREAK SPACE}%"
    return [("Model", f"{SHORT_NAMES[SUBTYPES[called]]} {percent}")] + [
        (
            capital(rater_name(rater)),
            "no label" if labels[i] == UNKNOWN else SHORT_NAMES[SUBTYPES[labels[i]]],
        )
        for rater, labels in predictions.labels.items()
    ]


def data_uris(patches: Patches, names: Sequence[str], **jpeg: int) -> dict[str, str]:
    """Read patches by id and encode them for a page: patch id to data URI."""
    return {
        name: "data:image/jpeg;base64," + base64.b64encode(plots.patch_jpeg(patch, **jpeg)).decode()
        for name, patch in zip(names, patches(names), strict=True)
    }
