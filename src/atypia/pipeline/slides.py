"""Classify the candidates of many slides, on one machine or on many."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from atypia.classifiers.loading import find_model
from atypia.core.choices import BALANCED, BEST, RELEASED
from atypia.core.errors import InputError, collected
from atypia.core.files import overwriting, sha256_file, wrong_suffix
from atypia.core.progress import OnDone, silent
from atypia.inference.job import ITEM_SIZE, EngineChoice, JobModel, JobResult, open_job
from atypia.inference.job_parts import load_pyarrow
from atypia.inference.slide_list import read_slide_table
from atypia.inference.slide_work import ClassifyCandidates, list_slides, write_counts, write_csv

if TYPE_CHECKING:
    from pathlib import Path


def slides(
    table: Path,
    out: Path,
    model: Path | str = RELEASED,
    *,
    engine: EngineChoice | None = None,
    csv: Path | None = None,
    quality: str = BEST,
    operating_point: str = BALANCED,
    backend: str = "auto",
    device: str = "auto",
    skip_bad: bool = False,
    all_classes: bool = False,
    count_all: bool = False,
    item_size: int = ITEM_SIZE,
    on_start: OnDone = silent,
    on_done: OnDone = silent,
) -> JobResult:
    """Classify the candidates of the slides in a table, or what a job like it has not done yet.

    Leaves in `out`: ``parts/`` (Parquet, the rows of ``predictions.csv`` with the place of each
    figure), ``slides.csv`` (a row per slide: how many candidates, answers, failures),
    ``failed.csv`` and, with `skip_bad`, ``skipped.csv``; ``job.json``.

    Args:
        table: See :func:`atypia.inference.slide_list.read_slide_table`.
        out: Folder of the job; if it holds this job, it goes on.
        model: With `quality` to `device` as for
            :func:`atypia.classifiers.loading.load_ensemble`; with ``cuda`` each worker of Ray has
            a GPU.
        engine: Where the work is done; None is in this process.
        csv: Also write the rows as one ``.csv``, or into this folder as one per slide, which is
            what :func:`atypia.pipeline.biomarker` reads.
        skip_bad: Leave out candidates that are bad (outside their slide, twice) and list them,
            instead of failing their slide.
        all_classes: As for :func:`atypia.slides.read_candidates.read_candidates`.
        count_all: Call and count what the model does not answer for, too.
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
    engine = engine or EngineChoice()
    problems = [*engine.problems(), *wrong_suffix("--csv", csv, ".csv", "")]
    problems += overwriting([csv], [table], "--csv")
    with collected(problems):
        load_pyarrow()
    with collected(problems):
        rows = read_slide_table(table)
    with collected(problems):
        folder = find_model(model).absolute()
    if problems:
        raise InputError(problems)
    job_model = JobModel(folder, quality, backend, device, engine.worker_threads, operating_point)
    identity = {
        "kind": "slides",
        "table": sha256_file(table),
        **job_model.identity(),
        "skip_bad": skip_bad,
        "item_size": item_size,
        **({"all_classes": True} if all_classes else {}),
        **({"count_all": True} if count_all else {}),
    }
    with open_job(out, identity, engine, job_model) as job:
        listed = list_slides(job, rows, item_size, skip_bad=skip_bad, all_classes=all_classes)
        on_start(sum(item.size for item in listed.ranges))
        worker = partial(
            ClassifyCandidates, job_model, job.candidates, listed.further, count_all=count_all
        )
        done = job.run(worker, listed.ranges, lambda item: item.inputs(job.candidates), on_done)
        result = replace(done, failures=[*listed.failures, *done.failures], skipped=listed.skipped)
        write_counts(job, listed, result)
        if csv is not None:
            write_csv(csv, listed, result)
        job.note(
            "failed" if result.failures else "done",
            slides=len(rows),
            slides_failed=len(listed.failures),
            candidates=result.inputs,
            answered=result.answered - sum(result.not_answered.values()),
            failed=result.inputs - result.answered,
            **result.not_answered,
        )
    return result
