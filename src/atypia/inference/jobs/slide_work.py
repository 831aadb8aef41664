"""Slides as work: list the candidates of each, then classify them, a range at a time.

A slide with a million candidates is many items, so that several workers share it. The candidates
are listed once, into a file of the job: what is counted at the beginning is what is asked for at
the end, even if the detector's file is written anew meanwhile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pandas as pd

from atypia.classifiers.loading import load_ensemble
from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.inference.jobs.parts import part_path, read_rows
from atypia.inference.jobs.work import Failure, FinishedPart, hash_of
from atypia.inference.slide_predictions import classify_slide, origin_of
from atypia.slides.candidates import Candidate, read_candidates
from atypia.slides.slide_pool import MOST_READERS, SlidePool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atypia.inference.jobs.slide_list import SlideRow

PLACE: Final = ("patch_id", "x_px", "y_px")


@dataclass(frozen=True, slots=True)
class Listing:
    """A slide whose candidates are to be listed."""

    job: str
    row: SlideRow
    size: int = 1

    @property
    def key(self) -> str:
        """See :class:`atypia.inference.jobs.work.WorkItem`."""
        return hash_of(self.job, self.row.slide_id)


@dataclass(frozen=True, slots=True)
class CandidateRange:
    """Some candidates of a slide."""

    listing: Listing
    group: int
    """Which of the groups of rows in the file of candidates, from 0."""
    size: int

    @property
    def key(self) -> str:
        """See :class:`atypia.inference.jobs.work.WorkItem`."""
        return hash_of(self.listing.job, self.listing.row.slide_id, self.group)


@dataclass(frozen=True)
class ListCandidates:
    """Worker that reads and checks the candidates of slides."""

    group_size: int
    """Largest number of candidates in a range."""
    skip_bad: bool
    """Leave out bad candidates; they are the failures of the part."""

    def __call__(self, item: Listing) -> FinishedPart:
        """List the candidates of a slide: a row each, with a name that is its own in the job.

        Raises:
            InputError: The slide cannot be opened, or something is wrong with its candidates.
        """
        row = item.row
        if row.candidates is None:
            return FinishedPart(pd.DataFrame(columns=PLACE), 0)
        try:
            with SlidePool(row.slide, mpp=row.mpp, readers=1) as pool:
                info = pool.info
            found = read_candidates(row.candidates, info, units=row.units, skip_bad=self.skip_bad)
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


class ClassifyCandidates:
    """Worker that classifies ranges of candidates. Keeps the model and the last slide open.

    Args:
        model: See :func:`atypia.classifiers.loading.load_ensemble`.
        quality: Likewise.
        backend: Likewise.
        device: Likewise.
        threads: Of the network; also bounds the processes that read the slide. None: as the
            machine has it.
        candidates: Folder with the files of :class:`ListCandidates`.
        further: Columns that any of those files has besides the candidate's name and place. Every
            answer has them: who reads all files as one table takes the columns of the first.
    """

    def __init__(
        self,
        model: Path | str,
        quality: str,
        backend: str,
        device: str,
        threads: int | None,
        candidates: Path,
        further: Sequence[str] = (),
    ) -> None:
        self._model = load_ensemble(model, quality, backend=backend, device=device, threads=threads)
        self._readers = None if threads is None else min(MOST_READERS, threads)
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
        table, problems = classify_slide(self._model, pool, candidates)
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


def cut(listing: Listing, n_candidates: int, group_size: int) -> list[CandidateRange]:
    """Cut the candidates of a slide into ranges."""
    starts = range(0, n_candidates, group_size)
    return [
        CandidateRange(listing, group, min(group_size, n_candidates - start))
        for group, start in enumerate(starts)
    ]


def names_of(item: CandidateRange, candidates: Path) -> list[str]:
    """Names of the candidates of a range."""
    file = part_path(candidates, item.listing.key)
    return [str(name) for name in read_rows(file, item.group, ["patch_id"])["patch_id"]]


def _names(ids: Sequence[str], row: SlideRow) -> list[str]:
    """Put the slide's name before each id; detectors number the figures of every slide alike."""
    own = f"{row.slide.stem}/"  # what ids begin with where their file had none
    if all(name.startswith(own) for name in ids):
        ids = [name.removeprefix(own) for name in ids]
    return [f"{row.slide_id}/{name}" for name in ids]


def _for_tables(what: str) -> str:
    """Advice for options of ``atypia slide``, which are columns here."""
    return re.sub(r"--(mpp|units)\b", r"the table's column \1", what)
