"""What is shown: a run, a cohort or a slide, recognised by what lies there, and read."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from atypia.biomarker import read_slides
from atypia.core.errors import InputError, Problem
from atypia.core.files import read_json
from atypia.core.labels import SUBTYPES
from atypia.data.cohort import MAJORITY_COLUMN, Cohort
from atypia.evaluation.predictions import UNKNOWN, Predictions, read_predictions
from atypia.reports.report_input import cohort_of
from atypia.slides.reader import unknown_resolution
from atypia.slides.slide_pool import SlidePool
from atypia.web.figure_rows import GIVEN, OUT_OF_FOLD, TEST, AlignedPredictions, Doubt, FigureRows
from atypia.web.pictures import CohortPictures, Pictures, SlidePictures

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from atypia.biomarker import SlideFigures
    from atypia.evaluation.metrics import IntArray

Kind = Literal["run", "cohort", "slide"]

_CODES = {subtype: i for i, subtype in enumerate(SUBTYPES)} | {"": UNKNOWN}
_VOTES = {"True": 1, "False": 0, "": UNKNOWN}


@dataclass(frozen=True)
class Shown:
    """A source that has been read."""

    kind: Kind
    figures: FigureRows
    pictures: Pictures
    cohort: Cohort | None = None
    pool: SlidePool | None = None
    """Of a slide, open."""
    found: SlideFigures | None = None
    """Of a slide with results: the figures and their places."""


def kind_of(source: Path) -> Kind:
    """Recognise a source.

    Raises:
        InputError: It is neither a run, nor a cohort, nor a slide.
    """
    if (source / "run.json").is_file():
        return "run"
    if (source / "cohort.json").is_file():
        return "cohort"
    if source.is_file() or (source.is_dir() and any(source.glob("*.dcm"))):
        return "slide"
    found = "a folder without them" if source.is_dir() else "nothing there"
    raise InputError(
        f"{source}: expected a run (a folder with run.json), a cohort (a folder with cohort.json) "
        f"or a slide, but got {found}."
    )


@contextmanager
def open_source(
    source: Path,
    *,
    cohort: Path | None = None,
    results: Path | None = None,
    mpp: float | None = None,
    count_all: bool = False,
) -> Iterator[Shown]:
    """Read a run, a cohort or a slide, which stays open until the block ends.

    Args:
        source: Any of them.
        cohort: Of a run, where it no longer lies where it was.
        results: Of a cohort: a table of predictions. Of a slide: what ``atypia slide`` wrote, as
            CSV.
        mpp: µm per pixel of a slide whose file does not have it.
        count_all: As for :meth:`atypia.biomarker.SlideFigures.counted`, of a slide.

    Raises:
        InputError: Lists every problem of the source and of the tables.
    """
    kind = kind_of(source)
    if kind != "run" and cohort is not None:
        raise InputError("--cohort belongs to a run. Show the cohort itself: atypia serve COHORT")
    if kind == "run" and results is not None:
        raise InputError("--results belongs to a cohort or a slide; a run has results of its own.")
    if kind == "slide":
        with SlidePool(source, mpp=mpp) as pool:
            if pool.info.mpp is None:
                raise InputError(unknown_resolution(source))
            yield _slide(pool, results, count_all=count_all)
    elif kind == "run":
        yield _run(source, None if cohort is None else Cohort.open(cohort))
    else:
        tables = {} if results is None else {GIVEN: read_predictions(results)}
        opened = Cohort.open(source)
        yield _labelled("cohort", opened.name, opened, tables)


def run_tables(run: Path) -> dict[str, Predictions]:
    """Read the predictions of a run by models that had not learned from the figures, by part.

    Raises:
        InputError: The run has no such table yet, or a problem of one.
    """
    files = {OUT_OF_FOLD: run / "predictions-oof.csv", TEST: run / "predictions-test.csv"}
    if any(run.glob("outer-*")):  # their test parts together hold every patient
        files.pop(OUT_OF_FOLD)
    tables = {part: read_predictions(file) for part, file in files.items() if file.is_file()}
    if not tables:
        raise InputError(f"{run} has no predictions yet. Finish the run first: --resume")
    return tables


def answers_of(path: Path, patch_ids: list[str]) -> AlignedPredictions:
    """Read the answers of a run, or of a table, on these figures."""
    tables = run_tables(path) if path.is_dir() else {GIVEN: read_predictions(path)}
    return AlignedPredictions.align(patch_ids, tables)


def _run(folder: Path, cohort: Cohort | None) -> Shown:
    run = read_json(folder / "run.json")
    cohort = cohort or cohort_of(folder, run)
    if cohort is None:
        raise InputError(
            f"{folder}: the cohort of this run is not where it was. Give it: --cohort COHORT"
        )
    tables = run_tables(folder)
    metrics = folder / "metrics.json"
    label = str(read_json(metrics)["label"]) if metrics.is_file() else None
    return _labelled("run", folder.resolve().name, cohort, tables, label)


def _labelled(
    kind: Kind,
    name: str,
    cohort: Cohort,
    tables: Mapping[str, Predictions],
    label: str | None = None,
) -> Shown:
    manifest = cohort.manifest
    patch_ids = manifest["patch_id"].tolist()

    def codes(column: str, code_of: Mapping[str, int]) -> IntArray:
        return np.asarray(manifest[column].map(code_of), dtype=np.int64)

    labels = {rater: codes(f"label_{rater}", _CODES) for rater in cohort.raters}
    chosen = label if label in labels else next(iter(labels), None)
    # Each of these models was not trained on the figures that it answers for.
    # A table that was given may be by one that has, and would repeat wrong labels.
    honest = tables.get(OUT_OF_FOLD, tables.get(TEST))
    doubt = None
    if (
        honest is not None
        and chosen is not None
        and chosen in honest.labels
        and (honest.answered & (honest.labels[chosen] != UNKNOWN)).any()
    ):
        doubt = Doubt.find(patch_ids, honest, chosen)
    figures = FigureRows(
        name=name,
        patch_ids=patch_ids,
        patients=manifest["patient_id"].tolist(),
        domains=manifest["domain"].tolist(),
        scanners=manifest["scanner"].tolist(),
        labels=labels,
        votes={
            "majority" if column == MAJORITY_COLUMN else column.removeprefix("atypical_"): codes(
                column, _VOTES
            )
            for column in cohort.vote_columns
        },
        label=chosen,
        answers=AlignedPredictions.align(patch_ids, tables) if tables else None,
        doubt=doubt,
    )
    return Shown(kind, figures, CohortPictures(cohort), cohort=cohort)


def _slide(pool: SlidePool, results: Path | None, *, count_all: bool) -> Shown:
    name = pool.info.path.name
    if results is None:
        nothing = FigureRows(name, [], [], [], [])
        return Shown("slide", nothing, SlidePictures(pool, np.empty((0, 2))), pool=pool)
    if results.suffix.lower() != ".csv":
        what = "expected the results as CSV. Write them with: atypia slide SLIDE --out FILE.csv"
        raise InputError(Problem(what, str(results)))
    slides = {found.slide: found for found in read_slides([results])}
    found = slides.get(name) or (next(iter(slides.values())) if len(slides) == 1 else None)
    if found is None:
        what = f"expected figures of slide {name!r} but it has those of {sorted(slides)}."
        raise InputError(Problem(what, str(results)))
    if count_all:
        found = found.counted(count_all=True)
    table = found.figures
    patch_ids = table.patch_ids.tolist()
    figures = FigureRows(
        name=name,
        patch_ids=patch_ids,
        patients=[found.patient] * len(table),
        domains=table.domains.tolist(),
        scanners=table.scanners.tolist(),
        labels=dict(table.labels),
        label=next(iter(table.labels), None),
        answers=AlignedPredictions.align(patch_ids, {GIVEN: table}) if len(table) else None,
    )
    pictures = SlidePictures(pool, found.centres_px)
    return Shown("slide", figures, pictures, pool=pool, found=found)
