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
from typing import TYPE_CHECKING, Final, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from atypia.classifiers.conformal import ConformalSets
    from atypia.classifiers.decision import Decision
    from atypia.classifiers.protocol import SubtypeModel
    from atypia.core.config import InputSpec

BATCH: Final = 64
"""Patches that the model sees at once, and most that one request has in the queue: the others
come in between."""

log = logging.getLogger("atypia")


class StoppedError(Exception):
    """Nobody wants the answer any more."""


@dataclass(frozen=True)
class _Job:
    patches: npt.NDArray[np.uint8]
    """(N, H, W, 3)."""
    mpp: float
    answer: Future[npt.NDArray[np.float32]] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[tuple[int, ...], float]:
        """Jobs of one kind can share a batch."""
        return self.patches.shape[1:], self.mpp


class ModelThread:
    """The thread that holds the model. Use it as a context manager.

    Args:
        model: Asked by this thread alone.
    """

    def __init__(self, model: SubtypeModel) -> None:
        self.model = model
        self.seconds_per_patch = 0.0
        """A moving average."""
        # Holds one job of each request at most.
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A daemon, lest a server that is told twice to stop waits for it.
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

    def ask(self, patches: npt.NDArray[np.uint8], mpp: float) -> Future[npt.NDArray[np.float32]]:
        """Queue patches (N, H, W, 3); the answer is that of ``predict_proba``.

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
            probabilities = self.model.predict_proba(patches, jobs[0].mpp, BATCH)
            parts = np.split(probabilities, np.cumsum(sizes)[:-1])
        except Exception as error:  # of these jobs; the thread has others to serve
            log.exception("the model failed on a batch of %d patches", sum(sizes))
            for job in jobs:
                job.answer.set_exception(error)
            return
        for job, part in zip(jobs, parts, strict=True):
            job.answer.set_result(part)
        seconds = (time.perf_counter() - start) / sum(sizes)
        self.seconds_per_patch += 0.2 * (seconds - self.seconds_per_patch)


class SharedModel:
    """The model as one request sees it: a :class:`atypia.classifiers.protocol.SubtypeModel`.

    Args:
        thread: Holds the model.
    """

    def __init__(self, thread: ModelThread) -> None:
        self._thread = thread
        self._lock = threading.Lock()
        self._asked: Future[npt.NDArray[np.float32]] | None = None
        self._stopped = False

    @property
    def decision(self) -> Decision:
        """From probabilities to a subtype."""
        return self._thread.model.decision

    @property
    def threshold(self) -> float:
        """A figure is called atypical from this p_atypical on."""
        return self._thread.model.threshold

    @property
    def conformal(self) -> ConformalSets | None:
        """Sets of subtypes that a figure may have; None where the model makes none."""
        return self._thread.model.conformal

    @property
    def specs(self) -> Sequence[InputSpec]:
        """What the members see."""
        return self._thread.model.specs

    @property
    def field_of_view_um(self) -> float:
        """Side of the square that the members see together, in µm."""
        return self._thread.model.field_of_view_um

    def size_problem(self, side_px: int, mpp: float) -> str | None:
        """Say why patches of this shorter side cannot be classified; None if they can."""
        return self._thread.model.size_problem(side_px, mpp)

    def predict_proba(
        self,
        patches: npt.NDArray[np.uint8],
        mpp: float,
        batch_size: int = BATCH,
    ) -> npt.NDArray[np.float32]:
        """Wait for the answer of the thread, (N, 8).

        Args:
            patches: (N, H, W, 3).
            mpp: µm per pixel.
            batch_size: At most :data:`BATCH`.

        Raises:
            StoppedError: :meth:`stop` was called.
        """
        step = min(batch_size, BATCH)
        starts = range(0, len(patches), step)
        return np.concatenate([self._ask(patches[i : i + step], mpp) for i in starts])

    def _ask(self, patches: npt.NDArray[np.uint8], mpp: float) -> npt.NDArray[np.float32]:
        with self._lock:
            self.go_on()
            self._asked = self._thread.ask(patches, mpp)
        try:
            return self._asked.result()
        except CancelledError:
            raise StoppedError from None

    def go_on(self) -> None:
        """Check that the answer is still wanted.

        Raises:
            StoppedError: It is not.
        """
        if self._stopped:
            raise StoppedError

    def stop(self) -> None:
        """Answer no more: what waits is taken back, and what is asked later fails."""
        with self._lock:
            self._stopped = True
            if self._asked is not None:
                self._asked.cancel()
