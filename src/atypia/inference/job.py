"""A job: very many images, or candidates of many slides, classified item by item, by any engine.

What a job has done is files, one per item, each there whole or not at all. Whoever dies, a worker,
the machine it runs on, or the process that hands out the work, loses the items it was doing and no
other; the same command does what is missing.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import pandas as pd

from atypia._version import __version__
from atypia.classifiers.bundle import HEADER as BUNDLE_HEADER
from atypia.classifiers.loading import load_ensemble
from atypia.classifiers.onnx_files import HEADER as EXPORT_HEADER
from atypia.classifiers.onnx_files import find_export
from atypia.core.choices import BALANCED
from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.core.files import (
    LOCK,
    atomic_write,
    only_process,
    read_json,
    sha256_file,
    write_json,
    write_text,
)
from atypia.core.progress import OnDone, silent
from atypia.core.tables import csv_text
from atypia.evaluation.predictions import in_order
from atypia.inference.job_parts import (
    Failure,
    hash_of,
    keys_in,
    move_part,
    part_path,
    read_rows,
    read_summary,
)
from atypia.inference.local_engine import LocalEngine, do_all
from atypia.inference.ray_engine import RayEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from atypia.classifiers.protocol import SubtypeModel
    from atypia.inference.job_parts import AnyItem, Worker
    from atypia.inference.local_engine import Engine

ITEM_SIZE: Final = 1024
"""Inputs per item: minutes of a core's time at best quality, which is what a crash may cost."""
RECORD: Final = "job.json"
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
        """Threads of a worker's network."""
        return 1 if self.threads is None and self.name == "ray" else self.threads

    @contextmanager
    def open(self, device: str) -> Iterator[Engine]:
        """Start what does the work.

        Raises:
            InputError: There is no such cluster.
            MissingExtraError: Ray is not installed.
        """
        if self.name == "local":
            yield LocalEngine()
            return
        with RayEngine(
            self.address,
            workers=self.workers,
            threads=self.worker_threads or 1,
            gpus=int(device.startswith("cuda")),
        ) as engine:
            yield engine


@dataclass(frozen=True)
class JobModel:
    """The model of a job, as every worker loads it; see :func:`load_ensemble`."""

    folder: Path
    quality: str
    backend: str
    device: str
    threads: int | None
    operating_point: str = BALANCED

    def load(self) -> SubtypeModel:
        """Load it in the process that works."""
        return load_ensemble(
            self.folder,
            self.quality,
            backend=self.backend,
            device=self.device,
            threads=self.threads,
            operating_point=self.operating_point,
        )

    def check(self, engine: EngineChoice) -> None:
        """Load it once in this process, which need not have the workers' GPU."""
        device = self.device if engine.name == "local" else "cpu"
        load_ensemble(
            self.folder,
            self.quality,
            backend=self.backend,
            device=device,
            operating_point=self.operating_point,
        )

    def identity(self) -> dict[str, str]:
        """Give what predictions depend on; the model's header holds the hashes of its weights."""
        header = self.folder / BUNDLE_HEADER
        if self.backend.startswith("onnx") or not header.is_file():
            header = (find_export(self.folder) or self.folder) / EXPORT_HEADER
        sha256 = sha256_file(header) if header.is_file() else ""
        identity = {"model": sha256, "quality": self.quality, "backend": self.backend}
        if self.operating_point != BALANCED:  # a job of before there were others goes on
            identity["operating_point"] = self.operating_point
        return identity


@dataclass(frozen=True)
class JobResult:
    """What a job has done, now or before."""

    folder: Path
    inputs: int
    """Candidates or images; those of slides whose candidates could not be listed are not in it."""
    answered: int
    rows: int
    atypical: int
    """Rows that are called atypical."""
    failures: Sequence[Failure]
    """What has no prediction; in ``failed.csv``."""
    skipped: Sequence[Failure] = ()
    """Candidates that were left out because they are bad; in ``skipped.csv``."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Key of each item that is done, in their order, to the file with its rows."""
    columns: Sequence[str] = ()
    """Columns that any of the files has, in the order of ``predictions.csv``."""
    not_answered_of: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Key of each item to the number of its rows with each status that is no answer."""

    @property
    def not_answered(self) -> Mapping[str, int]:
        """Rows with each status that is no answer."""
        return sum(map(Counter, self.not_answered_of.values()), Counter())


@dataclass(frozen=True)
class Job:
    """The folder of a job, and the engine that does its items. Made by :func:`open_job`.

    ``job.json`` (what the job is, status, counts), ``parts/`` (predictions, a file per item),
    ``candidates/`` (of each slide, as they were when the job was started), ``failed.csv``.
    """

    path: Path
    identity: Mapping[str, Any]
    """What the predictions depend on: hashes of the inputs and of the model, options."""
    engine: Engine

    @property
    def key(self) -> str:
        """Hash of the identity."""
        return hash_of(dict(self.identity))

    @property
    def parts(self) -> Path:
        """Folder with the predictions."""
        return self.path / "parts"

    @property
    def candidates(self) -> Path:
        """Folder with the candidates of each slide."""
        return self.path / "candidates"

    def note(self, status: str, **counts: int) -> None:
        """Write ``job.json``; ``failed`` is done but for what ``failed.csv`` lists."""
        record = {"status": status, "atypia": __version__, "job": dict(self.identity)}
        write_json(self.path / RECORD, {**record, "counts": counts})

    def run(
        self,
        make: Callable[[], Worker[AnyItem]],
        items: Sequence[AnyItem],
        inputs_of: Callable[[AnyItem], Iterable[tuple[str, str]]],
        on_done: OnDone = silent,
    ) -> JobResult:
        """Do the items that are missing, those with failures again, and count.

        Args:
            make: Makes a worker; can be pickled.
            items: All of them.
            inputs_of: Slide and name of each input of an item.
            on_done: Called with the number of inputs done since the last call; first with those
                that were done before.

        Raises:
            AtypiaError: The work cannot go on; or lists each file that does not hold a prediction
                or a failure for each input of its item, is missing, damaged, or of no item.
        """
        before = keys_in(self.parts)
        lost = do_all(self.engine, make, items, self.parts, on_done)
        self._retry(make, [item for item in items if item.key in before])
        return self._count(items, lost, inputs_of)

    def _retry(self, make: Callable[[], Worker[AnyItem]], items: Sequence[AnyItem]) -> None:
        """Try inputs again that could not be read when their item was done, in an earlier run.

        A damaged slide may have been mended meanwhile, or be gone: the file of an item is replaced
        by a new one only if that answers more inputs.
        """
        answered = {}
        for item in items:
            with suppress(AtypiaError):  # a file is damaged; the count reports it
                part = read_summary(part_path(self.parts, item.key))
                if part.failures:
                    answered[item.key] = part.answered
        if not answered:
            return
        log.info("%d items have inputs that could not be read; they are tried again", len(answered))
        folder = self.path / "retry" / "parts"
        shutil.rmtree(folder.parent, ignore_errors=True)  # of a run that was killed
        do_all(self.engine, make, [item for item in items if item.key in answered], folder)
        for key in keys_in(folder):
            if read_summary(part_path(folder, key)).answered > answered[key]:
                move_part(part_path(folder, key), part_path(self.parts, key))
        shutil.rmtree(folder.parent, ignore_errors=True)

    def _count(
        self,
        items: Sequence[AnyItem],
        lost: Mapping[str, str],
        inputs_of: Callable[[AnyItem], Iterable[tuple[str, str]]],
    ) -> JobResult:
        """Count what went in and what came out; `lost` holds why an item was given up, by key."""
        problems: list[str] = []
        failures: list[Failure] = []
        files: dict[str, Path] = {}
        columns: dict[str, None] = {}
        not_answered: dict[str, Mapping[str, int]] = {}
        answered = rows = atypical = 0
        for item in items:
            if item.key in lost:
                failures += [Failure(*names, lost[item.key]) for names in inputs_of(item)]
                continue
            file = files[item.key] = part_path(self.parts, item.key)
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
            columns |= dict.fromkeys(part.columns)
            answered += part.answered
            rows += part.rows
            atypical += part.atypical
            not_answered[item.key] = part.not_answered
        strays = keys_in(self.parts) - {item.key for item in items}
        problems += [f"{part_path(self.parts, key)} is of no item of this job." for key in strays]
        inputs = sum(item.size for item in items)
        if not problems and answered + len(failures) != inputs:
            problems.append(
                f"expected {inputs:,} answers and failures but got {answered:,} and "
                f"{len(failures):,}."
            )
        if problems:
            raise AtypiaError("\n".join([f"{self.path}: the count is wrong.", *problems]))
        return JobResult(
            self.path,
            inputs,
            answered,
            rows,
            atypical,
            failures,
            files=files,
            columns=in_order(columns),
            not_answered_of=not_answered,
        )


@contextmanager
def open_job(
    path: Path, identity: Mapping[str, Any], engine: EngineChoice, model: JobModel
) -> Iterator[Job]:
    """Begin a job, or go on with one, and keep other processes from handing out its work.

    A model that cannot be loaded is an error now, not when the workers start.

    Raises:
        InputError: The model cannot be loaded; the folder holds something else, or a job with
            another identity: lists every difference; another process is at this job; or there is
            no such cluster.
        MissingExtraError: Ray is not installed.
    """
    model.check(engine)
    path = path.absolute()
    record = path / RECORD
    with engine.open(model.device) as opened:
        if record.is_file():
            started = read_json(record).get("job", {})
            problems = [
                Problem(
                    f"this job was started with {started.get(name)!r} but now got {value!r}. Give "
                    "what it was started with, or another --out.",
                    str(record),
                    column=name,
                )
                for name, value in identity.items()
                if started.get(name) != value
            ]
            if problems:
                raise InputError(problems)
        elif path.exists() and (not path.is_dir() or _holds_anything(path)):
            raise InputError(
                f"{path} already exists and is no job (it has no {RECORD}). Choose another --out."
            )
        busy = (
            f"{path}: another process is at this job. Wait for it, or stop it; the same command "
            "then does what is missing."
        )
        with only_process(path, busy):
            job = Job(path, identity, opened)
            job.note("running")
            try:
                yield job
            except (KeyboardInterrupt, SystemExit):
                job.note("stopped")
                raise


def _holds_anything(folder: Path) -> bool:
    # A job that was killed at once leaves its lock, and a file with a hidden name for its record.
    left = (f".{RECORD}", LOCK)
    return any(not path.name.startswith(left) for path in folder.iterdir())


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write a CSV with ``slide``, ``patch_id`` and ``reason``; it is there even if it is empty."""
    table = pd.DataFrame([asdict(f) for f in failures], columns=["slide", "patch_id", "reason"])
    write_text(path, csv_text(table))


def write_rows(path: Path, files: Iterable[Path], columns: Sequence[str]) -> None:
    """Write the rows of files as one CSV, atomically, a file at a time in memory.

    Columns that a file lacks are empty.
    """
    with atomic_write(path) as stream:
        stream.write(csv_text(pd.DataFrame(columns=list(columns))))
        for file in files:
            rows = read_rows(file).reindex(columns=list(columns))
            stream.write(csv_text(rows, header=False, float_format="%.9g"))
