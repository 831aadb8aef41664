"""Classify images: in this process, or very many as a job."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atypia.classifiers.loading import find_model, load_ensemble
from atypia.core.choices import BALANCED, BEST, RELEASED
from atypia.core.errors import InputError, Problem, collected
from atypia.core.files import overwriting, wrong_suffix
from atypia.core.progress import OnDone, silent
from atypia.inference.image_work import ClassifyImages, ImageBatch, cut_images
from atypia.inference.job import (
    FAILED,
    ITEM_SIZE,
    EngineChoice,
    JobModel,
    JobResult,
    open_job,
    write_failures,
    write_rows,
)
from atypia.inference.job_parts import hash_of, load_pyarrow
from atypia.inference.patch_predictions import (
    find_items,
    predict_items,
    with_abstained,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd


def predict(
    inputs: Sequence[Path],
    out: Path | None = None,
    model: Path | str = RELEASED,
    *,
    quality: str = BEST,
    operating_point: str = BALANCED,
    mpp: float | None = None,
    min_confidence: float | None = None,
    backend: str = "auto",
    device: str = "auto",
    skip_bad: bool = False,
    on_start: OnDone = silent,
    on_done: OnDone = silent,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Classify images, folders, stacks or cohorts and write ``predictions.csv``.

    Args:
        inputs: What to classify.
        out: The ``.csv`` or ``.json`` to write; None writes nothing.
        model: With `quality` to `device` as for :func:`load_ensemble`.
        mpp: µm per pixel of what is not in a cohort; None where each TIFF file carries its own.
        min_confidence: Adds the column ``abstained``: whether the probability of the predicted
            subtype is below this, 0 to 1.
        skip_bad: Leave out what cannot be read, and return it.
        on_start: With `on_done`, called with numbers of files.

    Returns:
        One row per patch in the columns of ``predictions.csv``, and what was skipped.

    Raises:
        InputError: Lists every problem; nothing is written.
    """
    problems = wrong_suffix("--out", out, ".csv", ".json") + overwriting([out], inputs, "--out")
    with collected(problems):
        folder = find_model(model)
    with collected(problems):
        items = find_items(inputs, mpp)
    if problems:
        raise InputError(problems)
    on_start(len(items))
    ensemble = load_ensemble(
        folder, quality, backend=backend, device=device, operating_point=operating_point
    )
    table, skipped = predict_items(ensemble, items, skip_bad=skip_bad, on_done=on_done)
    if min_confidence is not None:
        table = with_abstained(table, min_confidence)
    if out is not None:
        write_table(out, table)
    return table, skipped


def predict_job(
    inputs: Sequence[Path],
    out: Path,
    model: Path | str = RELEASED,
    *,
    engine: EngineChoice | None = None,
    csv: Path | None = None,
    quality: str = BEST,
    operating_point: str = BALANCED,
    mpp: float | None = None,
    min_confidence: float | None = None,
    backend: str = "auto",
    device: str = "auto",
    item_size: int = ITEM_SIZE,
    on_start: OnDone = silent,
    on_done: OnDone = silent,
) -> JobResult:
    """Classify images as :func:`predict` does, or what such a job has not done yet.

    Leaves in `out`: ``parts/`` (Parquet, the rows of ``predictions.csv``), ``failed.csv`` and
    ``job.json``. An image that cannot be read fails alone. Arguments and errors are those of
    :func:`predict` and :func:`atypia.pipeline.slides`.
    """
    engine = engine or EngineChoice()
    problems = [*engine.problems(), *wrong_suffix("--csv", csv, ".csv")]
    problems += overwriting([csv], inputs, "--csv")
    with collected(problems):
        load_pyarrow()
    with collected(problems):
        folder = find_model(model).absolute()
    with collected(problems):
        images = find_items([path.absolute() for path in inputs], mpp)
    if problems:
        raise InputError(problems)
    job_model = JobModel(folder, quality, backend, device, engine.worker_threads, operating_point)
    identity = {
        "kind": "images",
        "inputs": hash_of([(image.patch_id, str(image.path), image.mpp) for image in images]),
        **job_model.identity(),
        "item_size": item_size,
        **({} if min_confidence is None else {"min_confidence": min_confidence}),
    }
    with open_job(out, identity, engine, job_model) as job:
        on_start(len(images))
        worker = partial(ClassifyImages, job_model, min_confidence)
        batches = cut_images(images, job.key, item_size)
        result = job.run(worker, batches, ImageBatch.inputs, on_done)
        write_failures(job.path / FAILED, result.failures)
        if csv is not None:
            write_rows(csv, result.files.values(), result.columns)
        job.note(
            "failed" if result.failures else "done",
            images=result.inputs,
            answered=result.answered,
            failed=len(result.failures),
            rows=result.rows,
            **result.not_answered,
        )
    return result
