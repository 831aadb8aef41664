"""What jobs over slides and over images share: the engine, and the count at the end."""

from __future__ import annotations

import logging
import shutil
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

import pandas as pd

from atypia.classifiers.bundle import HEADER as BUNDLE_HEADER
from atypia.classifiers.onnx_files import HEADER as EXPORT_HEADER
from atypia.classifiers.onnx_files import find_export
from atypia.core.errors import AtypiaError, Problem
from atypia.core.files import atomic_write, sha256_file, write_text
from atypia.evaluation.predictions import in_order
from atypia.inference.jobs.local_engine import LocalEngine, do_all
from atypia.inference.jobs.parts import keys_in, part_path, read_rows, read_summary
from atypia.inference.jobs.work import Failure
from atypia.inference.ray_engine import RayEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from atypia.inference.jobs.job_folder import JobFolder
    from atypia.inference.jobs.local_engine import Engine
    from atypia.inference.jobs.work import AnyItem, Worker

ITEM_SIZE: Final = 1024
"""Inputs per item: minutes of a core's time at best quality, which is what a crash may cost."""
FAILED: Final = "failed.csv"

log = logging.getLogger("atypia")


@dataclass(frozen=True)
class EngineChoice:
    """Where a job is done."""

    name: Literal["local", "ray"] = "local"
    address: str | None = None
    """Of a Ray cluster; None starts one on this machine."""
    workers: int | None = None
    """Actors of Ray; None: as many as there are cores for."""
    threads: int | None = None
    """Cores of one worker's network; None: 1 with Ray, else as the machine has it."""

    def problems(self) -> list[Problem]:
        """Options that do not go together."""
        given = {"--address": self.address, "--workers": self.workers}
        return [
            Problem(f"{option}: is for --engine ray.")
            for option, value in given.items()
            if self.name == "local" and value is not None
        ]

    @property
    def worker_threads(self) -> int | None:
        """Threads that a worker is told to use."""
        return 1 if self.threads is None and self.name == "ray" else self.threads


@dataclass(frozen=True)
class JobResult:
    """What a job has done, now or before."""

    folder: Path
    inputs: int
    """Candidates or images that were asked for; those of slides that failed are not known."""
    answered: int
    rows: int
    atypical: int
    """Rows that are called atypical."""
    failures: Sequence[Failure]
    """What has no answer; in ``failed.csv``."""
    skipped: Sequence[Failure] = ()
    """Candidates that were left out because they are bad; in ``skipped.csv``."""


@contextmanager
def open_engine(choice: EngineChoice, device: str) -> Iterator[Engine]:
    """Start what does the work.

    Raises:
        InputError: There is no such cluster.
        MissingExtraError: Ray is not installed.
    """
    if choice.name == "local":
        yield LocalEngine()
        return
    with RayEngine(
        choice.address,
        workers=choice.workers,
        threads=choice.worker_threads or 1,
        gpus=int(device.startswith("cuda")),
    ) as engine:
        yield engine


def model_hash(folder: Path, backend: str) -> str:
    """Hash of what describes a model, which holds the hashes of its weights."""
    header = folder / BUNDLE_HEADER
    if backend.startswith("onnx") or not header.is_file():
        header = (find_export(folder) or folder) / EXPORT_HEADER
    return sha256_file(header) if header.is_file() else ""


def retry(
    engine: Engine, make: Callable[[], Worker[AnyItem]], items: Sequence[AnyItem], job: JobFolder
) -> None:
    """Try inputs again that could not be read when their item was done, in an earlier run.

    A damaged slide may have been mended meanwhile, or be gone: the file of an item is replaced by
    a new one only if that answers more inputs.

    Args:
        engine: Where.
        make: Makes a worker.
        items: Those that were done before.
        job: The folder.
    """
    answered = {}
    for item in items:
        with suppress(AtypiaError):  # of a file that is damaged; finish_job tells
            part = read_summary(part_path(job.parts, item.key))
            if part.failures:
                answered[item.key] = part.answered
    if not answered:
        return
    log.info("%d items have inputs that could not be read; they are tried again", len(answered))
    folder = job.path / "retry"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    do_all(engine, make, [item for item in items if item.key in answered], folder)
    for key in keys_in(folder):
        if read_summary(part_path(folder, key)).answered > answered[key]:
            part_path(folder, key).replace(part_path(job.parts, key))
    shutil.rmtree(folder, ignore_errors=True)


def finish_job(
    job: JobFolder,
    items: Sequence[AnyItem],
    lost: Mapping[str, str],
    inputs_of: Callable[[AnyItem], Iterable[tuple[str, str]]],
) -> JobResult:
    """Count what went in and what came out.

    Args:
        job: The folder.
        items: All of them.
        lost: Key of an item that was given up, and why.
        inputs_of: Slide and name of each input of an item.

    Raises:
        AtypiaError: Lists each file that does not hold an answer or a failure for each input of
            its item, is missing, damaged, or of no item.
    """
    problems: list[str] = []
    failures: list[Failure] = []
    answered = rows = atypical = 0
    for item in items:
        if item.key in lost:
            failures += [Failure(*names, lost[item.key]) for names in inputs_of(item)]
            continue
        file = part_path(job.parts, item.key)
        try:
            part = read_summary(file)
        except AtypiaError as error:
            problems.append(str(error))
            continue
        if part.answered + len(part.failures) != item.size or part.rows < part.answered:
            problems.append(
                f"{file}: expected {item.size} answers and failures but got {part.rows} rows, "
                f"{part.answered} answers and {len(part.failures)} failures. Delete it."
            )
        failures += part.failures
        answered += part.answered
        rows += part.rows
        atypical += part.atypical
    strays = keys_in(job.parts) - {item.key for item in items}
    problems += [f"{part_path(job.parts, key)} is of no item of this job." for key in strays]
    inputs = sum(item.size for item in items)
    if not problems and answered + len(failures) != inputs:
        problems.append(
            f"expected {inputs:,} answers and failures but got {answered:,} and {len(failures):,}."
        )
    if problems:
        raise AtypiaError("\n".join([f"{job.path}: the count is wrong.", *problems]))
    return JobResult(job.path, inputs, answered, rows, atypical, failures)


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write a CSV with ``slide``, ``patch_id`` and ``reason``; it is there even if it is empty."""
    table = pd.DataFrame([asdict(f) for f in failures], columns=["slide", "patch_id", "reason"])
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def columns_of(files: Iterable[Path]) -> list[str]:
    """Columns that any of the files has, as ``predictions.csv`` has them."""
    return in_order(dict.fromkeys(c for file in files for c in read_summary(file).columns))


def write_answers(path: Path, files: Iterable[Path], columns: Sequence[str]) -> None:
    """Write the rows of files as one CSV, atomically, a file at a time in memory.

    Args:
        path: Of the CSV.
        files: In the order of its rows.
        columns: What a file lacks of them is empty.
    """
    with atomic_write(path) as stream:
        pd.DataFrame(columns=list(columns)).to_csv(stream, index=False, lineterminator="\n")
        for file in files:
            read_rows(file).reindex(columns=list(columns)).to_csv(
                stream, index=False, header=False, float_format="%.9g", lineterminator="\n"
            )


def check_csv(csv: Path | None, *, folder: bool) -> list[Problem]:
    """Tell what is wrong with the name of a CSV, or of a folder for them, that is to be written."""
    if csv is None or csv.suffix.lower() == ".csv" or (folder and not csv.suffix):
        return []
    wanted = "a name that ends in .csv" + (", or a folder" if folder else "")
    return [Problem(f"--csv: expected {wanted}, but got {csv.name!r}.")]
