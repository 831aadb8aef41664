"""Classify the candidates of many slides, on one machine or on many."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from atypia.biomarker.figure_table import PLACE_COLUMNS
from atypia.classifiers.loading import find_model, load_ensemble
from atypia.core.choices import BEST, RELEASED
from atypia.core.errors import InputError, collected
from atypia.core.files import sha256_file, write_text
from atypia.core.progress import OnDone, silent
from atypia.evaluation.predictions import REQUIRED_COLUMNS, in_order
from atypia.inference.jobs.job import (
    FAILED,
    ITEM_SIZE,
    EngineChoice,
    JobResult,
    check_csv,
    columns_of,
    finish_job,
    model_hash,
    open_engine,
    retry,
    write_answers,
    write_failures,
)
from atypia.inference.jobs.job_folder import JobFolder
from atypia.inference.jobs.local_engine import do_all
from atypia.inference.jobs.parts import check_pyarrow, keys_in, part_path, read_summary
from atypia.inference.jobs.slide_list import read_slide_table
from atypia.inference.jobs.slide_work import (
    PLACE,
    ClassifyCandidates,
    ListCandidates,
    Listing,
    cut,
    names_of,
)
from atypia.inference.jobs.work import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from atypia.inference.jobs.slide_work import CandidateRange

log = logging.getLogger("atypia")


def slides(
    table: Path,
    out: Path,
    model: Path | str = RELEASED,
    *,
    engine: EngineChoice | None = None,
    csv: Path | None = None,
    quality: str = BEST,
    backend: str = "auto",
    device: str = "auto",
    skip_bad: bool = False,
    item_size: int = ITEM_SIZE,
    on_start: OnDone = silent,
    on_done: OnDone = silent,
) -> JobResult:
    """Classify the candidates of the slides in a table, or what a job like it has not done yet.

    Leaves in `out`: ``parts/`` (Parquet, the rows of ``predictions.csv`` with the place of each
    figure), ``slides.csv`` (a row per slide: how many candidates, answers, failures),
    ``failed.csv`` and, with `skip_bad`, ``skipped.csv``; ``job.json``.

    Args:
        table: See :func:`atypia.inference.jobs.slide_list.read_slide_table`.
        out: Folder of the job; if it holds this job, it goes on.
        model: ``released`` for the model in the package, a bundle, a run folder, or an export.
        engine: Where the work is done; None is in this process.
        csv: Also write the answers as one ``.csv``, or into this folder as one per slide, which
            is what :func:`atypia.pipeline.biomarker` reads.
        quality: ``best``, or ``fast`` where the model has it.
        backend: See :func:`atypia.classifiers.loading.load_ensemble`.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``; with ``cuda`` each worker of Ray has a GPU.
        skip_bad: Leave out candidates that are bad (outside their slide, twice) and list them,
            instead of failing their slide.
        item_size: Most candidates that one worker does at a time.
        on_start: Called with the number of candidates.
        on_done: Called with the number of candidates done since the last call; first with those
            that were done before.

    Raises:
        InputError: Lists every problem of the table and of the options, or what differs from the
            job in `out`.
        MissingExtraError: The extra ``cluster`` is not installed.
        AtypiaError: The work cannot go on, or the count at the end is wrong.
    """
    choice = engine or EngineChoice()
    problems = [*choice.problems(), *check_csv(csv, folder=True)]
    with collected(problems):
        check_pyarrow()
    with collected(problems):
        rows = read_slide_table(table)
    with collected(problems):
        folder = find_model(model).absolute()
    if problems:
        raise InputError(problems)
    # A model that cannot be used is told now, not when all slides have been looked through.
    load_ensemble(
        folder, quality, backend=backend, device=device if choice.name == "local" else "cpu"
    )
    identity = {
        "kind": "slides",
        "table": sha256_file(table),
        "model": model_hash(folder, backend),
        "quality": quality,
        "backend": backend,
        "skip_bad": skip_bad,
        "item_size": item_size,
    }
    with (
        open_engine(choice, device) as place,
        JobFolder.open(out.absolute(), identity) as job,
    ):
        listings = [Listing(job.key, row) for row in rows]
        unlisted = do_all(
            place, partial(ListCandidates, item_size, skip_bad), listings, job.candidates
        )
        ranges, further, skipped = _ranges(job, listings, unlisted, item_size)
        on_start(sum(item.size for item in ranges))
        make = partial(
            ClassifyCandidates,
            folder,
            quality,
            backend,
            device,
            choice.worker_threads,
            job.candidates,
            further,
        )
        before = keys_in(job.parts)
        lost = do_all(place, make, ranges, job.parts, on_done)
        retry(place, make, [item for item in ranges if item.key in before], job)
        counted = finish_job(
            job,
            ranges,
            lost,
            lambda item: (
                (item.listing.row.slide_id, name) for name in names_of(item, job.candidates)
            ),
        )
        without = [
            Failure(listing.row.slide_id, "", unlisted[listing.key])
            for listing in listings
            if listing.key in unlisted
        ]
        result = replace(counted, failures=[*without, *counted.failures], skipped=skipped)
        _write_lists(job, listings, unlisted, ranges, result)
        if csv is not None:
            _write_csv(csv, job, listings, unlisted, ranges, lost, result.failures)
        job.note(
            "failed" if result.failures else "done",
            slides=len(rows),
            slides_failed=len(without),
            candidates=result.inputs,
            answered=result.answered,
            failed=result.inputs - result.answered,
        )
    return result


def _ranges(
    job: JobFolder, listings: Sequence[Listing], unlisted: Mapping[str, str], item_size: int
) -> tuple[list[CandidateRange], list[str], list[Failure]]:
    """Cut every listed slide into ranges; columns of all candidates; what was skipped."""
    ranges: list[CandidateRange] = []
    further: set[str] = set()
    skipped: list[Failure] = []
    for listing in listings:
        if listing.key not in unlisted:
            listed = read_summary(part_path(job.candidates, listing.key))
            ranges += cut(listing, listed.rows, item_size)
            further |= set(listed.columns) - set(PLACE)
            skipped += listed.failures
    return ranges, sorted(further), skipped


def _write_lists(
    job: JobFolder,
    listings: Sequence[Listing],
    unlisted: Mapping[str, str],
    ranges: Sequence[CandidateRange],
    result: JobResult,
) -> None:
    write_failures(job.path / FAILED, result.failures)
    if job.identity["skip_bad"]:
        write_failures(job.path / "skipped.csv", result.skipped)
    asked: Counter[str] = Counter()
    for item in ranges:
        asked[item.listing.row.slide_id] += item.size
    failed = Counter(failure.slide for failure in result.failures if failure.patch_id)
    rows: list[list[str | int]] = []
    for listing in listings:
        name = listing.row.slide_id
        counts: list[str | int] = [asked[name], asked[name] - failed[name], failed[name]]
        if listing.key in unlisted:  # how many candidates it has is not known
            counts = ["", 0, ""]
        rows.append([name, listing.row.patient, *counts])
    columns = ["slide", "patient_id", "candidates", "answered", "failed"]
    text = pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n")
    write_text(job.path / "slides.csv", text)


def _write_csv(
    csv: Path,
    job: JobFolder,
    listings: Sequence[Listing],
    unlisted: Mapping[str, str],
    ranges: Sequence[CandidateRange],
    lost: Mapping[str, str],
    failures: Sequence[Failure],
) -> None:
    failed = Counter(failure.slide for failure in failures if failure.patch_id)
    files: dict[str, list[Path]] = {
        listing.row.slide_id: [] for listing in listings if listing.key not in unlisted
    }
    for item in ranges:
        if item.key not in lost:
            files[item.listing.row.slide_id].append(part_path(job.parts, item.key))
    every = [file for of_slide in files.values() for file in of_slide]
    columns = columns_of(every) or in_order((*REQUIRED_COLUMNS, "slide", *PLACE_COLUMNS))
    # A table without rows says that nothing was found; of these nothing is known.
    unknown = [
        slide_id for slide_id, of_slide in files.items() if failed[slide_id] and not of_slide
    ]
    partly = [slide_id for slide_id, of_slide in files.items() if failed[slide_id] and of_slide]
    if unknown:
        log.warning(
            "%s: %d slides have candidates but no answer, and so no table and no density: %s",
            csv,
            len(unknown),
            _some(unknown),
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
        write_answers(csv, every, columns)
        nothing = sum(not of_slide for of_slide in files.values()) - len(unknown)
        if nothing:
            log.warning(
                "%s: %d slides have no figure and so no row. For the biomarker, where they count, "
                "give --csv a folder: a table per slide.",
                csv,
                nothing,
            )
        return
    for slide_id, of_slide in files.items():
        if slide_id in unknown:
            (csv / f"{slide_id}.csv").unlink(missing_ok=True)  # of an earlier run
        else:
            write_answers(csv / f"{slide_id}.csv", of_slide, columns)


def _some(names: Sequence[str]) -> str:
    more = len(names) - 10
    return ", ".join(names[:10]) + (f" and {more} more" if more > 0 else "")
