"""One model for all requests: a thread holds it and answers what waits in one batch.

Nothing waits for a batch to fill up: while the model is at work, the next batch gathers.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from atypia._version import __version__
from atypia.classifiers.answers import Answers, joined
from atypia.classifiers.bundle import BundleHeader, read_any_header, read_kind
from atypia.classifiers.loading import find_model, load_ensemble
from atypia.classifiers.onnx_classifier import OnnxEnsemble
from atypia.classifiers.onnx_files import find_export, read_export
from atypia.classifiers.postprocessing import Postprocessed
from atypia.core.choices import BALANCED, RELEASED
from atypia.core.files import sha256_file
from atypia.core.labels import SUBTYPES
from atypia.server.schemas import About

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from atypia.classifiers.protocol import SubtypeModel

BATCH: Final = 64
"""Patches that the model sees at once, and most that one request has in the queue: the others
come in between."""

log = logging.getLogger("atypia")


def load_described(
    model: Path | str,
    quality: str,
    backend: str,
    device: str,
    operating_point: str = BALANCED,
) -> tuple[SubtypeModel, About]:
    """Load a model, as :func:`atypia.classifiers.loading.load_ensemble` does, and describe it."""
    folder = find_model(model)
    loaded = load_ensemble(
        folder, quality, backend=backend, device=device, operating_point=operating_point
    )
    if isinstance(loaded, OnnxEnsemble):
        export = find_export(folder)
        assert export is not None
        exported = read_export(export)
        made, use = exported.created_with, exported.intended_use
        offered = exported.qualities[quality]
        int8 = offered.int8 if backend == "onnx-int8" else None
        graph = int8 or offered.fp32
        files, conformal = {graph.file: graph.sha256}, offered.conformal
        runs_on = "onnx-int8" if int8 else "onnx"
    else:
        header = read_any_header(folder)
        made, use = header.created_with, header.intended_use
        if isinstance(header, BundleHeader):
            bundled = header.qualities[quality]
            files = {member.file: member.sha256 for member in bundled.members}
            conformal, runs_on = bundled.conformal, "torch"
        else:
            kept = sorted(f for f in folder.rglob("*") if f.suffix in {".json", ".safetensors"})
            files = {str(file.relative_to(folder)): sha256_file(file) for file in kept}
            conformal, runs_on = header.conformal, read_kind(folder)
    return loaded, About(
        atypia=__version__,
        # Where it lies is nobody's business.
        model=RELEASED if str(model) == RELEASED else Path(model).resolve().name,
        quality=quality,
        backend=runs_on,
        created_with=made,
        files=files,
        classes=list(SUBTYPES),
        operating_point=operating_point,
        thresholds={"atypical": loaded.threshold},
        conformal=conformal,
        field_of_view_um=loaded.field_of_view_um,
        intended_use=use,
    )


class StoppedError(Exception):
    """Nobody wants the answer any more."""


@dataclass(frozen=True)
class _Job:
    patches: npt.NDArray[np.uint8]
    """(N, H, W, 3)."""
    mpp: float
    answer: Future[Answers] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[tuple[int, ...], float]:
        """Jobs of one kind can share a batch."""
        return self.patches.shape[1:], self.mpp


class ModelThread:
    """The thread that alone asks the model. Use it as a context manager."""

    def __init__(self, model: SubtypeModel) -> None:
        self.model = model
        self.seconds_per_patch = 0.0
        """A moving average."""
        # Holds one job of each request at most.
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A daemon, lest a server that gets a second signal to stop waits for it.
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        mpp = 0.25
        side = math.ceil(self.model.field_of_view_um / mpp)
        # What is set up with the first batch is set up now; and a model that fails, fails now.
        self.ask(np.zeros((1, side, side, 3), np.uint8), mpp).result()
        return self

    def __exit__(self, *error: object) -> None:
        self._jobs.put(None)
        self._thread.join()

    def ask(self, patches: npt.NDArray[np.uint8], mpp: float) -> Future[Answers]:
        """Queue patches (N, H, W, 3); the answer is that of the model.

        A job whose answer is cancelled before the model comes to it costs nothing.
        """
        job = _Job(patches, mpp)
        self._jobs.put(job)
        return job.answer

    def _work(self) -> None:
        stopping = False
        while not stopping:
            taken = [self._jobs.get()]
            while sum(len(job.patches) for job in taken if job) < BATCH and not self._jobs.empty():
                taken.append(self._jobs.get())  # nobody else takes, so there is one
            stopping = None in taken
            groups: dict[object, list[_Job]] = {}
            for job in taken:
                if job is not None and job.answer.set_running_or_notify_cancel():
                    groups.setdefault(job.kind, []).append(job)
            for jobs in groups.values():
                self._answer(jobs)

    def _answer(self, jobs: Sequence[_Job]) -> None:
        start = time.perf_counter()
        sizes = [len(job.patches) for job in jobs]
        try:
            patches = np.concatenate([job.patches for job in jobs])
            answers = self.model.answer(patches, jobs[0].mpp, BATCH)
            ends = np.cumsum(sizes)
            parts = [
                answers.take(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)
            ]
        except Exception as error:  # of these jobs; the thread has others to serve
            log.exception("the model failed on a batch of %d patches", sum(sizes))
            for job in jobs:
                job.answer.set_exception(error)
            return
        for job, part in zip(jobs, parts, strict=True):
            job.answer.set_result(part)
        seconds = (time.perf_counter() - start) / sum(sizes)
        self.seconds_per_patch += 0.2 * (seconds - self.seconds_per_patch)


class SharedModel(Postprocessed):
    """The model as one request sees it: a :class:`atypia.classifiers.protocol.SubtypeModel`."""

    def __init__(self, thread: ModelThread) -> None:
        self.postprocessing, self.specs = thread.model.postprocessing, thread.model.specs
        self._thread = thread
        self._lock = threading.Lock()
        self._asked: Future[Answers] | None = None
        self._stopped = False

    def answer(
        self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = BATCH
    ) -> Answers:
        """Wait for the answers of the thread on patches (N, H, W, 3).

        Raises:
            StoppedError: :meth:`stop` was called.
        """
        step = min(batch_size, BATCH)
        starts = range(0, len(patches), step)
        return joined([self._ask(patches[i : i + step], mpp) for i in starts])

    def _ask(self, patches: npt.NDArray[np.uint8], mpp: float) -> Answers:
        with self._lock:
            self.go_on()
            self._asked = self._thread.ask(patches, mpp)
        try:
            return self._asked.result()
        except CancelledError:
            raise StoppedError from None

    def go_on(self) -> None:
        """Raise a StoppedError where the answer is no longer wanted."""
        if self._stopped:
            raise StoppedError

    def stop(self) -> None:
        """Answer no more: what waits is taken back, and what is asked later fails."""
        with self._lock:
            self._stopped = True
            if self._asked is not None:
                self._asked.cancel()
