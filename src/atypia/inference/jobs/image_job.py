"""Classify very many images, on one machine or on many."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atypia.classifiers.loading import find_model, load_ensemble
from atypia.core.choices import BEST, RELEASED
from atypia.core.errors import InputError, collected
from atypia.core.progress import OnDone, silent
from atypia.inference.jobs.image_work import ClassifyImages, cut
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
from atypia.inference.jobs.parts import check_pyarrow, keys_in, part_path
from atypia.inference.jobs.work import hash_of
from atypia.inference.patch_predictions import find_items

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def predict_job(
    inputs: Sequence[Path],
    out: Path,
    model: Path | str = RELEASED,
    *,
    engine: EngineChoice | None = None,
    csv: Path | None = None,
    quality: str = BEST,
    mpp: float | None = None,
    min_confidence: float | None = None,
    backend: str = "auto",
    device: str = "auto",
    item_size: int = ITEM_SIZE,
    on_start: OnDone = silent,
    on_done: OnDone = silent,
) -> JobResult:
    """Classify images as :func:`atypia.pipeline.predict` does, or what such a job has not done yet.

    Leaves in `out`: ``parts/`` (Parquet, the rows of ``predictions.csv``), ``failed.csv`` and
    ``job.json``. An image that cannot be read fails alone.

    Args:
        inputs: What to classify.
        out: Folder of the job; if it holds this job, it goes on.
        model: ``released`` for the model in the package, a bundle, a run folder, or an export.
        engine: Where the work is done; None is in this process.
        csv: Also write the answers as one ``.csv``.
        quality: ``best``, or ``fast`` where the model has it.
        mpp: µm per pixel of what is not in a cohort; None where each TIFF file carries its own.
        min_confidence: Adds the column ``abstained``, see :func:`atypia.pipeline.predict`.
        backend: See :func:`atypia.classifiers.loading.load_ensemble`.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``; with ``cuda`` each worker of Ray has a GPU.
        item_size: Most images that one worker does at a time.
        on_start: Called with the number of images.
        on_done: Called with the number of images done since the last call; first with those that
            were done before.

    Raises:
        InputError: Lists every problem of the inputs and of the options, or what differs from the
            job in `out`.
        MissingExtraError: The extra ``cluster`` is not installed.
        AtypiaError: The work cannot go on, or the count at the end is wrong.
    """
    choice = engine or EngineChoice()
    problems = [*choice.problems(), *check_csv(csv, folder=False)]
    with collected(problems):
        check_pyarrow()
    with collected(problems):
        folder = find_model(model).absolute()
    with collected(problems):
        images = find_items([path.absolute() for path in inputs], mpp)
    if problems:
        raise InputError(problems)
    load_ensemble(
        folder, quality, backend=backend, device=device if choice.name == "local" else "cpu"
    )
    identity = {
        "kind": "images",
        "inputs": hash_of([(image.patch_id, str(image.path), image.mpp) for image in images]),
        "model": model_hash(folder, backend),
        "quality": quality,
        "backend": backend,
        "item_size": item_size,
    }
    if min_confidence is not None:
        identity["min_confidence"] = min_confidence
    with (
        open_engine(choice, device) as place,
        JobFolder.open(out.absolute(), identity) as job,
    ):
        batches = cut(images, job.key, item_size)
        on_start(len(images))
        threads = choice.worker_threads
        make = partial(ClassifyImages, folder, quality, backend, device, threads, min_confidence)
        before = keys_in(job.parts)
        lost = do_all(place, make, batches, job.parts, on_done)
        retry(place, make, [batch for batch in batches if batch.key in before], job)
        result = finish_job(
            job, batches, lost, lambda batch: (("", i.patch_id) for i in batch.images)
        )
        write_failures(job.path / FAILED, result.failures)
        if csv is not None:
            files = [part_path(job.parts, b.key) for b in batches if b.key not in lost]
            write_answers(csv, files, columns_of(files))
        job.note(
            "failed" if result.failures else "done",
            images=result.inputs,
            answered=result.answered,
            failed=len(result.failures),
            rows=result.rows,
        )
    return result
