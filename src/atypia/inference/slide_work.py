"""Slides as items of a job: list the candidates of each, then classify them, a range at a time.

A slide with a million candidates is many items, so that several workers share it. They are listed
once, into a file of the job, even if the detector's file is written anew meanwhile.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import pandas as pd

from atypia.biomarker.figure_table import PLACE_COLUMNS
from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.core.files import write_text
from atypia.core.labels import STATUSES
from atypia.core.tables import csv_text
from atypia.evaluation.predictions import REQUIRED_COLUMNS, in_order
from atypia.inference.job import FAILED, write_failures, write_rows
from atypia.inference.job_parts import (
    Failure,
    FinishedPart,
    hash_of,
    part_path,
    read_rows,
    read_summary,
)
from atypia.inference.local_engine import do_all
from atypia.inference.slide_predictions import classify_slide, origin_of
from atypia.slides.candidates import Candidate
from atypia.slides.read_candidates import read_candidates
from atypia.slides.slide_pool import MOST_READERS, SlidePool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atypia.inference.job import Job, JobModel, JobResult
    from atypia.inference.slide_list import SlideRow

_PLACE: Final = ("patch_id", "x_px", "y_px")

log = logging.getLogger("atypia")


@dataclass(frozen=True, slots=True)
class Listing:
    """A slide whose candidates are to be listed; an item of a job."""

    job: str
    row: SlideRow
    size: int = 1

    @property
    def key(self) -> str:
        """Hash of the job and the slide."""
        return hash_of(self.job, self.row.slide_id)


@dataclass(frozen=True, slots=True)
class CandidateRange:
    """Some candidates of a slide; an item of a job."""

    listing: Listing
    group: int
    """Which of the groups of rows in the file of candidates, from 0."""
    size: int

    @property
    def key(self) -> str:
        """Hash of the job, the slide and the group."""
        return hash_of(self.listing.job, self.listing.row.slide_id, self.group)

    def inputs(self, candidates: Path) -> list[tuple[str, str]]:
        """Slide and name of each candidate, by the files of :class:`ListCandidates`."""
        file = part_path(candidates, self.listing.key)
        names = read_rows(file, self.group, ["patch_id"])["patch_id"]
        return [(self.listing.row.slide_id, str(name)) for name in names]


def cut_slide(listing: Listing, n_candidates: int, group_size: int) -> list[CandidateRange]:
    """Cut the candidates of a slide into ranges."""
    starts = range(0, n_candidates, group_size)
    return [
        CandidateRange(listing, group, min(group_size, n_candidates - start))
        for group, start in enumerate(starts)
    ]


@dataclass(frozen=True)
class ListCandidates:
    """Worker that reads and checks the candidates of slides."""

    group_size: int
    """Largest number of candidates in a range."""
    skip_bad: bool
    """Leave out bad candidates; they are the failures of the part."""
    all_classes: bool = False

    def __call__(self, item: Listing) -> FinishedPart:
        """List the candidates of a slide: a row each, with a name that is its own in the job.

        Raises:
            InputError: The slide cannot be opened, or something is wrong with its candidates.
        """
        row = item.row
        if row.candidates is None:
            return FinishedPart(pd.DataFrame(columns=_PLACE), 0)
        try:
            with SlidePool(row.slide, mpp=row.mpp, readers=1) as pool:
                info = pool.info
            found = read_candidates(
                row.candidates,
                info,
                units=row.units,
                skip_bad=self.skip_bad,
                all_classes=self.all_classes,
            )
        except InputError as error:
            problems = [
                Problem(_for_tables(p.what), p.file, p.row, p.column) for p in error.problems
            ]
            raise InputError(problems) from None
        candidates = found.candidates
        about = sorted({column for c in candidates for column in c.about})
        table = pd.DataFrame(
            {
                "patch_id": _names([c.id for c in candidates], row),
                "x_px": [c.x for c in candidates],
                "y_px": [c.y for c in candidates],
                **{column: [c.about.get(column, "") for c in candidates] for column in about},
                **origin_of(info),
            }
        )
        skipped = [Failure(row.slide_id, "", str(problem)) for problem in found.problems]
        return FinishedPart(table, len(table), skipped, self.group_size)

    def close(self) -> None:
        """Nothing is kept."""


def _names(ids: Sequence[str], row: SlideRow) -> list[str]:
    """Put the slide's name before each id; detectors number the figures of every slide alike."""
    own = f"{row.slide.stem}/"  # what ids begin with where their file had none
    if all(name.startswith(own) for name in ids):
        ids = [name.removeprefix(own) for name in ids]
    return [f"{row.slide_id}/{name}" for name in ids]


def _for_tables(what: str) -> str:
    """Name the table's columns in advice that names options of ``atypia slide``."""
    return re.sub(r"--(mpp|units)\b", r"the table's column \1", what)


class ClassifyCandidates:
    """Worker that classifies ranges of candidates. Keeps the model and the last slide open.

    Its threads also bound the processes that read the slide. `candidates` is the folder with the
    files of :class:`ListCandidates`. Every part has all `further` columns of those files: whoever
    reads all files as one table takes the columns of the first. With `count_all`, all are called.
    """

    def __init__(
        self,
        model: JobModel,
        candidates: Path,
        further: Sequence[str] = (),
        *,
        count_all: bool = False,
    ) -> None:
        self._model, self._count_all = model.load(), count_all
        self._readers = None if model.threads is None else min(MOST_READERS, model.threads)
        self._candidates, self._further = candidates, further
        self._slide_id = ""
        self._pool: SlidePool | None = None

    def __call__(self, item: CandidateRange) -> FinishedPart:
        """Classify the candidates of a range.

        Raises:
            AtypiaError: Not one candidate could be read, or the slide went away meanwhile.
        """
        row = item.listing.row
        listed = read_rows(part_path(self._candidates, item.listing.key), item.group)
        candidates = [
            Candidate(
                cells["patch_id"],
                cells["x_px"],
                cells["y_px"],
                about={column: cells.get(column, "") for column in self._further},
            )
            for cells in listed.to_dict("records")
        ]
        pool = self._open(row)
        table, problems = classify_slide(self._model, pool, candidates, count_all=self._count_all)
        if pool.lost is not None:  # another attempt may find it again
            self.close()
            raise AtypiaError(f"{row.slide}: the slide cannot be read any more: {pool.lost}")
        answered = set(table["patch_id"])
        missing = [c.id for c in candidates if c.id not in answered]
        failures = [
            Failure(row.slide_id, name, str(problem))
            for name, problem in zip(missing, problems, strict=True)
        ]
        table["slide"] = row.slide_id
        if row.patient:
            table["patient_id"] = row.patient
        return FinishedPart(table, len(table), failures)

    def close(self) -> None:
        """Close the slide."""
        if self._pool is not None:
            self._pool.close()
        self._pool, self._slide_id = None, ""

    def _open(self, row: SlideRow) -> SlidePool:
        if self._pool is None or self._slide_id != row.slide_id:
            self.close()
            self._pool = SlidePool(row.slide, mpp=row.mpp, readers=self._readers)
            self._slide_id = row.slide_id
        return self._pool


@dataclass(frozen=True)
class ListedSlides:
    """The candidates of all slides, as they were when the job was started."""

    rows: Sequence[SlideRow]
    failures: Sequence[Failure]
    """Slides whose candidates could not be listed."""
    ranges: Sequence[CandidateRange]
    """Of all other slides, in the order of the table."""
    further: Sequence[str]
    """Columns that the candidates of any slide have besides name and place."""
    skipped: Sequence[Failure]
    """Bad candidates that were left out."""

    @property
    def unlisted(self) -> set[str]:
        """Names of the slides whose candidates could not be listed."""
        return {failure.slide for failure in self.failures}


def list_slides(
    job: Job,
    rows: Sequence[SlideRow],
    item_size: int,
    *,
    skip_bad: bool,
    all_classes: bool = False,
) -> ListedSlides:
    """List the candidates of all slides that are not listed yet, and cut them into ranges."""
    listings = [Listing(job.key, row) for row in rows]
    lost = do_all(
        job.engine,
        partial(ListCandidates, item_size, skip_bad, all_classes),
        listings,
        job.candidates,
    )
    ranges: list[CandidateRange] = []
    further: set[str] = set()
    failures: list[Failure] = []
    skipped: list[Failure] = []
    for listing in listings:
        if listing.key in lost:
            failures.append(Failure(listing.row.slide_id, "", lost[listing.key]))
            continue
        listed = read_summary(part_path(job.candidates, listing.key))
        ranges += cut_slide(listing, listed.rows, item_size)
        further |= set(listed.columns) - set(_PLACE)
        skipped += listed.failures
    return ListedSlides(rows, failures, ranges, sorted(further), skipped)


def write_counts(job: Job, slides: ListedSlides, result: JobResult) -> None:
    """Write ``failed.csv``, ``slides.csv`` and, with bad candidates, ``skipped.csv``."""
    write_failures(job.path / FAILED, result.failures)
    if job.identity["skip_bad"]:
        write_failures(job.path / "skipped.csv", result.skipped)
    asked: Counter[str] = Counter()
    not_answered: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for item in slides.ranges:
        asked[item.listing.row.slide_id] += item.size
        not_answered[item.listing.row.slide_id].update(result.not_answered_of.get(item.key, {}))
    failed = _failed_candidates(result)
    rows: list[list[str | int]] = []
    for row in slides.rows:
        name = row.slide_id
        others = not_answered[name]
        answered = asked[name] - failed[name] - others.total()
        counts: list[str | int] = [asked[name], answered, failed[name]]
        if name in slides.unlisted:  # nobody can count its candidates
            counts = ["", 0, ""]
        rows.append([name, row.patient, *counts, *(others[status] for status in STATUSES[1:])])
    columns = ["slide", "patient_id", "candidates", "answered", "failed", *STATUSES[1:]]
    text = csv_text(pd.DataFrame(rows, columns=columns))
    write_text(job.path / "slides.csv", text)


def write_csv(csv: Path, slides: ListedSlides, result: JobResult) -> None:
    """Write the rows of all slides as one CSV, or as one per slide into a folder.

    A table without rows means that nothing was found on the slide. One with candidates, none of
    which could be read, has no table.
    """
    unlisted = slides.unlisted
    files: dict[str, list[Path]] = {
        row.slide_id: [] for row in slides.rows if row.slide_id not in unlisted
    }
    for item in slides.ranges:
        if item.key in result.files:
            files[item.listing.row.slide_id].append(result.files[item.key])
    columns = result.columns or in_order((*REQUIRED_COLUMNS, "slide", *PLACE_COLUMNS))
    failed = _failed_candidates(result)
    unread = [slide for slide, of_slide in files.items() if failed[slide] and not of_slide]
    partly = [slide for slide, of_slide in files.items() if failed[slide] and of_slide]
    if unread:
        log.warning(
            "%s: %d slides have candidates but no answer, and so no table and no density: %s",
            csv,
            len(unread),
            _some(unread),
        )
    if partly:
        log.warning(
            "%s: %d slides lack answers of some candidates; their densities are too low by what "
            "these hold: %s",
            csv,
            len(partly),
            _some(partly),
        )
    if csv.suffix:
        write_rows(csv, result.files.values(), columns)
        nothing = sum(not of_slide for of_slide in files.values()) - len(unread)
        if nothing:
            log.warning(
                "%s: %d slides have no figure and so no row. For the biomarker, where they count, "
                "give --csv a folder: a table per slide.",
                csv,
                nothing,
            )
        return
    for slide, of_slide in files.items():
        if slide in unread:
            (csv / f"{slide}.csv").unlink(missing_ok=True)  # of an earlier run
        else:
            write_rows(csv / f"{slide}.csv", of_slide, columns)


def _failed_candidates(result: JobResult) -> Counter[str]:
    return Counter(failure.slide for failure in result.failures if failure.patch_id)


def _some(names: Sequence[str]) -> str:
    more = len(names) - 10
    return ", ".join(names[:10]) + (f" and {more} more" if more > 0 else "")
