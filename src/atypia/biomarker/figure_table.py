"""Figures of slides: tables of predictions with the place of each figure, and images of them.

The columns are those of ``predictions.csv`` and ``slide`` (name of the slide), ``x_px``, ``y_px``
(centre in pixels of the full resolution) and ``x_um``, ``y_um`` (the same in µm). Where the scanned
part of a slide does not begin at the corner of the full resolution, ``origin_x_px`` and
``origin_y_px`` hold where it does. ``patient_id`` may be empty where a table of patients names
it. A table with a header and no row is a slide on which nothing was found, named as the
file.
"""

from __future__ import annotations

import logging
import math
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from atypia.core.errors import InputError, Problem, first_few
from atypia.core.found_files import entries_in
from atypia.core.labels import N_SUBTYPES, ORIGIN_COLUMNS, PROBABILITY_COLUMNS
from atypia.data.patient_names import spelling_problems
from atypia.evaluation.predictions import (
    REQUIRED_COLUMNS,
    Predictions,
    parse_cells,
    predictions_from_table,
    read_cells,
)
from atypia.slides.slide_pool import SlidePool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import FloatArray

log = logging.getLogger("atypia")

FIELD_UM: Final = 32.0
"""Side of the image of a figure."""
_IMAGE_MPP: Final = 0.25

PLACE_COLUMNS: Final = ("x_px", "y_px", "x_um", "y_um")
_WHOLE: Final = re.compile(r"\d+(\.0+)?")
_MPP_TOLERANCE = 0.01
_MOST_ASPECT = 0.25
"""Pixels whose sides differ by more than this share are a fault of the table."""


@dataclass(frozen=True)
class LeftOut:
    """The M candidates of a slide that count nowhere, as they have no call."""

    status: NDArray[np.str_]
    """(M,) out of :data:`atypia.core.labels.STATUSES`."""
    centres_px: FloatArray
    """(M, 2)"""
    centres_um: FloatArray
    """(M, 2)"""


@dataclass(frozen=True)
class SlideFigures:
    """The figures of one slide."""

    slide: str
    patient: str
    figures: Predictions
    """N of them, none where nothing was found."""
    centres_px: FloatArray
    """(N, 2) x and y in pixels of the full resolution."""
    centres_um: FloatArray
    """(N, 2) x and y in µm."""
    origin: tuple[int, int] = (0, 0)
    """Where the scanned part begins, px: QuPath counts from there."""
    left_out: LeftOut = LeftOut(np.empty(0, np.str_), np.empty((0, 2)), np.empty((0, 2)))
    """What was split off by :meth:`counted`."""

    def __len__(self) -> int:
        return len(self.figures)

    def counted(self, *, count_all: bool = False) -> SlideFigures:
        """Split off what has no call, which is in no measure; with `count_all`, nothing.

        Raises:
            InputError: With `count_all`, where something has no call.
        """
        if count_all:
            return replace(self, figures=self.figures.all_answered())
        answered = self.figures.answered
        if answered.all():
            return self
        return replace(
            self,
            figures=self.figures.take(answered),
            centres_px=self.centres_px[answered],
            centres_um=self.centres_um[answered],
            left_out=LeftOut(
                self.figures.status[~answered],
                self.centres_px[~answered],
                self.centres_um[~answered],
            ),
        )

    @property
    def mpp(self) -> float | None:
        """µm per pixel; None without figures. Its square is the area of a pixel."""
        size = self.um_per_px
        return None if size is None else math.sqrt(size[0] * size[1])

    @property
    def um_per_px(self) -> FloatArray | None:
        """Width and height of a pixel in µm, (2,); None without figures."""
        px, um = (
            np.abs(np.concatenate(centres)).sum(axis=0)
            for centres in (
                (self.centres_px, self.left_out.centres_px),
                (self.centres_um, self.left_out.centres_um),
            )
        )
        if px.sum() == 0:
            return None
        one = np.full(2, um.sum() / px.sum())
        both = um / px if px.all() else one
        # Rounded coordinates differ a little from axis to axis, wrong ones a lot.
        apart = abs(both[0] / both[1] - 1) if both.all() else 1.0
        return both if _MPP_TOLERANCE < apart < _MOST_ASPECT else one


def read_slides(
    paths: Sequence[Path], patients: Mapping[str, str] | None = None
) -> list[SlideFigures]:
    """Read tables of one or more slides each, in the order of the tables.

    A table of `patients` (slide to patient) stands above the column ``patient_id``.

    Raises:
        InputError: Lists every problem of every table: columns, cells, slides that stand in two
            tables, slides without or of several patients.
    """
    problems: list[Problem] = []
    slides: list[SlideFigures] = []
    first: dict[str, Path] = {}
    for path in paths:
        try:
            found = _read(path, patients)
        except InputError as error:
            problems += error.problems
            continue
        for slide in found:
            if slide.slide in first:
                what = f"has the slide {slide.slide!r}, like {first[slide.slide]}."
                problems.append(Problem(f"{what} Give every slide once.", str(path)))
            first.setdefault(slide.slide, path)
        slides += found
    if patients is None and (unnamed := [s.slide for s in slides if s.patient == s.slide]):
        log.warning(
            "%d slides name no patient (%s): each counts as a patient of its own. Give a table of "
            "patients.",
            len(unnamed),
            first_few([*map(repr, unnamed)]),
        )
    if not paths:
        problems.append(Problem("expected at least one table of a slide but got none."))
    if problems:
        raise InputError(problems)
    return slides


def slide_figures(table: pd.DataFrame, slide: str, patient: str = "") -> SlideFigures:
    """Take the figures of one slide from a table in memory, which may have no row.

    The patient is the slide's own name where it is unknown.
    """
    patient = patient or slide
    figures = predictions_from_table(table.assign(patient_id=patient)) if len(table) else _none()
    places = table[list(PLACE_COLUMNS)].to_numpy(dtype=np.float64)
    return SlideFigures(slide, patient, figures, places[:, :2], places[:, 2:])


def read_patients(path: Path) -> dict[str, str]:
    """Read a CSV with the columns ``slide`` and ``patient_id``; other columns are not used.

    Raises:
        InputError: Lists every problem of the table.
    """
    table, problems = read_cells(path, ("slide", "patient_id"))
    for row, slide, patient in zip(table.index, table["slide"], table["patient_id"], strict=True):
        if not slide.strip() or not patient.strip():
            what = f"expected a slide and its patient but got {slide!r} and {patient!r}."
            problems.append(Problem(what, str(path), row))
    problems += spelling_problems(table["patient_id"], str(path))
    for row in table.index[table.duplicated("slide")]:
        what = f"expected each slide once but got {table['slide'][row]!r} again."
        problems.append(Problem(what, str(path), row, "slide"))
    if problems:
        raise InputError(problems)
    return dict(zip(table["slide"], table["patient_id"], strict=True))


def areas_of(names: Sequence[str], area: float | Path | None) -> dict[str, float]:
    """Areas in which figures were searched, mm², by slide; a slide of unknown area is left out.

    `area` is that of every slide, or a CSV with the columns ``slide`` and ``area_mm2``.

    Raises:
        InputError: No area, or lists every problem of the table.
    """
    if area is None:
        return {}
    if isinstance(area, (int, float)):
        if not (np.isfinite(area) and area > 0):
            raise InputError(f"expected an area of more than 0 mm² but got {area:g}.")
        return dict.fromkeys(names, area)
    areas = _read_areas(area)
    if missing := [name for name in names if name not in areas]:
        log.warning("%s has no area of %d slides: their densities are empty", area, len(missing))
    return areas


def _read_areas(path: Path) -> dict[str, float]:
    table, problems = read_cells(path, ("slide", "area_mm2"))
    areas: dict[str, float] = {}
    for row, slide, text in zip(table.index, table["slide"], table["area_mm2"], strict=True):
        area = pd.to_numeric(text, errors="coerce")
        if slide in areas:
            what = f"expected each slide once but got {slide!r} again."
            problems.append(Problem(what, str(path), row, "slide"))
        elif text.strip() and not (np.isfinite(area) and area > 0):
            what = f"expected mm² above 0, or nothing where it is not known, but got {text!r}."
            problems.append(Problem(what, str(path), row, "area_mm2"))
        elif text.strip():
            areas[slide] = float(area)
    if problems:
        raise InputError(problems)
    return areas


@contextmanager
def open_image(folder: Path | None, source: SlideFigures) -> Iterator[SlidePool | None]:
    """Open the image of a slide in a process of its own, if there is a folder that has it.

    Raises:
        InputError: There is no such folder, or the image cannot be opened.
        AtypiaError: The process ended at once.
    """
    path = None
    if folder is not None:
        if not folder.is_dir():
            raise InputError(Problem("expected a folder with slides.", str(folder)))
        exact = folder / source.slide
        same = [p for p in entries_in(folder) if p.is_file() and p.stem == source.slide]
        path = exact if exact.exists() else same[0] if len(same) == 1 else None
        if path is None:
            found = f"{len(same)} files of that name" if same else "no such file"
            log.warning("Slide %s: %s in %s, its page has no images", source.slide, found, folder)
    if path is None:
        yield None
        return
    with SlidePool(path, mpp=source.mpp, readers=1) as slide:
        yield slide


def images_of(
    image: SlidePool, source: SlideFigures
) -> Callable[[Sequence[str]], list[NDArray[np.uint8]]]:
    """Make what reads the images of figures, RGB (S, S, 3), by their patch ids.

    One that cannot be read is white, and logged: it costs an image, not the measures of a cohort.
    """
    place = dict(zip(map(str, source.figures.patch_ids), source.centres_px, strict=True))
    side = round(FIELD_UM / _IMAGE_MPP)

    def read(names: Sequence[str]) -> list[NDArray[np.uint8]]:
        centres = np.array([place[name] for name in names]).reshape(-1, 2)
        found = image.read(centres, FIELD_UM, _IMAGE_MPP)
        for number, (name, pixels) in enumerate(zip(names, found, strict=True)):
            if isinstance(pixels, Problem):
                log.warning("Slide %s, figure %s has no image: %s", source.slide, name, pixels)
                found[number] = np.full((side, side, 3), 255, np.uint8)
        return found  # type: ignore[return-value]  # no problem is left

    return read


def _read(path: Path, patients: Mapping[str, str] | None) -> list[SlideFigures]:
    table, problems = read_cells(path, (*REQUIRED_COLUMNS, "slide", *PLACE_COLUMNS))
    if table.empty:
        table_of = {path.stem: table}
    else:
        table_of = {str(name): rows for name, rows in table.groupby("slide", sort=False)}
    places = table[list(PLACE_COLUMNS)].apply(pd.to_numeric, errors="coerce").astype(float)
    for column in PLACE_COLUMNS:
        for row in table.index[~np.isfinite(places[column])]:
            what = f"expected a number but got {table[column][row]!r}."
            problems.append(Problem(what, str(path), row, column))
    what = "expected the name of the slide but the cell is empty."
    empty = table.index[table["slide"].str.strip() == ""]
    problems += [Problem(what, str(path), row, "slide") for row in empty]
    patient_of = {name: _patient(name, rows, patients) for name, rows in table_of.items()}
    problems += [
        Problem(patient.what, str(path))
        for patient in patient_of.values()
        if isinstance(patient, Problem)
    ]
    origin_of: dict[str, tuple[int, int]] = {}
    for name, of_slide in table_of.items():
        origin = _origin(name, of_slide)
        if isinstance(origin, Problem):
            problems.append(Problem(origin.what, str(path)))
        else:
            origin_of[name] = origin
    named = table.assign(
        patient_id=table["slide"].map(lambda name: str(patient_of.get(name, name)))
    )
    predictions = None
    try:
        predictions = parse_cells(named, str(path)) if len(named) else _none()
    except InputError as error:
        problems += error.problems
    if problems or predictions is None:
        raise InputError(problems)
    slides = []
    for name, patient in patient_of.items():
        rows = np.flatnonzero((table["slide"] == name).to_numpy(dtype=bool))
        centres = places.to_numpy(dtype=np.float64)[rows]
        slide = SlideFigures(
            name,
            str(patient),
            predictions.take(rows),
            centres[:, :2],
            centres[:, 2:],
            origin_of[name],
        )
        if slide.um_per_px is not None:
            apart = np.abs(slide.centres_px * slide.um_per_px - slide.centres_um).max()
            if apart > _MPP_TOLERANCE * np.abs(slide.centres_um).max() + 1:
                what = (
                    f"expected x_um and y_um to be x_px and y_px times one resolution on slide "
                    f"{name!r} but they differ by up to {apart:.0f} µm."
                )
                problems.append(Problem(what, str(path)))
        slides.append(slide)
    if problems:
        raise InputError(problems)
    return slides


def _patient(name: str, rows: pd.DataFrame, patients: Mapping[str, str] | None) -> str | Problem:
    """Whose slide it is, by the table of patients or else by its own rows."""
    if patients is not None:
        if name in patients:
            return patients[name]
        return Problem(
            f"expected slide {name!r} in the table of patients but it is not there; it has "
            f"{first_few([*map(repr, sorted(patients))])}."
        )
    own = sorted({text.strip() for text in rows["patient_id"]} - {""})
    if len(own) == 1 and (rows["patient_id"].str.strip() != "").all():
        return str(own[0])
    if not own:
        return name  # until a table of patients is given; read_slides warns
    shown = first_few([*map(repr, own)])
    return Problem(f"expected one patient for slide {name!r} but got {shown} or none.")


def _origin(name: str, rows: pd.DataFrame) -> tuple[int, int] | Problem:
    """Where the scanned part of a slide begins; the corner without such columns."""
    named = [column for column in ORIGIN_COLUMNS if column in rows.columns]
    if not named:
        return 0, 0
    if len(named) == 1:
        return Problem(
            f"expected both {' and '.join(ORIGIN_COLUMNS)}, or neither, but got {named}."
        )
    origins = sorted({tuple(cells) for cells in rows[list(ORIGIN_COLUMNS)].to_numpy().tolist()})
    if origins in ([], [("", "")]):
        return 0, 0
    # Tables that were joined have 4000.0 for 4000.
    if len(origins) == 1 and all(_WHOLE.fullmatch(cell) for cell in origins[0]):
        return int(float(origins[0][0])), int(float(origins[0][1]))
    return Problem(
        f"expected {' and '.join(ORIGIN_COLUMNS)} of slide {name!r} to be whole numbers, in each "
        f"row the same, but got {first_few([repr(' and '.join(cells)) for cells in origins])}."
    )


def _none() -> Predictions:
    """Make a table of predictions without a row, which no reader gives."""
    row = dict.fromkeys(PROBABILITY_COLUMNS, 1 / N_SUBTYPES)
    row_table = pd.DataFrame([{"patch_id": "none", "patient_id": "none", **row}])
    return predictions_from_table(row_table).take(np.empty(0, np.int64))
