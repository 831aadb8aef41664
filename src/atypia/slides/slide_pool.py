"""Processes that read fields of one slide, so that a crash of a native library costs one field.

The process that asks never opens the slide itself. A reader that dies or hangs is replaced, the
field it was reading is reported, and the rest goes on. Where no reader can open the slide again, as
when its share has gone away, each field that is left is reported, and what was read is kept.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.slides.reader import SlideInfo, open_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from atypia.slides.reader import Colour, Slide

    Opener = Callable[..., AbstractContextManager[Slide]]

MOST_READERS = 4
READING_S = 300
"""How long a reader may take for one field, or to open the slide."""
_ENDING_S = 5
"""How long a reader may take to end when it is asked to."""
_MAIN = threading.Lock()
"""Readers are started by several threads."""


class SlidePool:
    """Several processes with the same slide open, to be used as a context manager.

    :meth:`read` may be called from as many threads at once as there are readers.

    Args:
        path: See :func:`atypia.slides.open_slide`.
        mpp: As there.
        readers: Processes; by default one per core, at most :data:`MOST_READERS`.
        opener: Opens the slide in the reader; importable by name, as processes are spawned, and
            not from the main script.
        patience_s: Seconds that a reader may take for one field, or to open the slide; one that
            takes longer (a share that has gone away, a decoder in a loop) is killed.

    Raises:
        InputError: The slide cannot be opened.
        AtypiaError: A reader ended before it had opened the slide, or took too long to.
    """

    info: SlideInfo

    def __init__(
        self,
        path: Path,
        *,
        mpp: float | None = None,
        readers: int | None = None,
        opener: Opener = open_slide,
        patience_s: float = READING_S,
    ) -> None:
        self.readers = readers or min(MOST_READERS, os.cpu_count() or 1)
        self._path, self._mpp, self._opener = path, mpp, opener
        self._patience_s = patience_s
        self._background: Colour | None = None
        self.lost: str | None = None
        """Why no reader could open the slide again; tried anew after the time a reader has."""
        self._lost_at = 0.0
        self._changing = threading.Lock()
        self._places = self.readers
        """Places of readers in the queue or in use; one whose reader cannot start is given up."""
        first = self._start()
        self.info = first.info
        self._background = first.info.background  # measured once
        self._idle: queue.SimpleQueue[_Reader | _Lost | None] = queue.SimpleQueue()
        for _ in range(self.readers - 1):
            self._idle.put(None)  # started when it is needed
        self._idle.put(first)

    def read(
        self, centres: NDArray[np.float64], field_um: float, out_mpp: float
    ) -> list[NDArray[np.uint8] | Problem]:
        """Read fields around centres (N, 2), px on level 0, one by one in one of the processes.

        Returns:
            For each centre RGB ``uint8`` (S, S, 3), see :meth:`atypia.slides.Slide.read_field`, or
            what is wrong there.
        """
        answers: list[NDArray[np.uint8] | Problem] = []
        reader = self._take()
        try:
            while len(answers) < len(centres):
                if reader is not None and not reader.alive:
                    reader = self._start_again()
                if reader is None:
                    what = f"the slide cannot be read any more: {self.lost}"
                    left = len(centres) - len(answers)
                    answers += [Problem(what, str(self._path))] * left
                    break
                try:
                    rest = centres[len(answers) :]
                    for answer in reader.read(rest, field_um, out_mpp):
                        answers.append(answer)
                except TimeoutError:  # an OSError, too: before the others
                    reader.kill()
                    what = (
                        f"the slide cannot be read here: no answer within {self._patience_s:g} s."
                    )
                    answers.append(Problem(what, str(self._path)))
                except (EOFError, OSError):
                    code = reader.stop()
                    what = f"the process that reads the slide died here (exit code {code})."
                    answers.append(Problem(what, str(self._path)))
        except BaseException:
            if reader is not None:  # what it was asked for would be taken for the next answers
                reader.stop()
            raise
        finally:
            if reader is not None:
                self._idle.put(reader if reader.alive else None)
        return answers

    def _start(self) -> _Reader:
        return _Reader(self._opener, self._path, self._mpp, self._background, self._patience_s)

    def _take(self) -> _Reader | None:
        """Wait for a reader; None where none can open the slide at the moment."""
        place = self._idle.get()
        if not isinstance(place, _Lost):
            return place if place is not None else self._start_again()
        if time.monotonic() - self._lost_at >= self._patience_s:
            with suppress(AtypiaError):
                reader = self._start()
                with self._changing:
                    self._places, self.lost = 1, None
                return reader
            self._lost_at = time.monotonic()
        self._idle.put(place)  # for the others who wait
        return None

    def _start_again(self) -> _Reader | None:
        """Start a reader in a place, or give the place up and wait for another reader."""
        try:
            return self._start()
        except AtypiaError as error:
            with self._changing:
                self._places -= 1
                if not self._places:
                    self.lost, self._lost_at = str(error), time.monotonic()
                    self._idle.put(_Lost())
        return self._take()

    def close(self) -> None:
        """End all readers."""
        for _ in range(self._places):
            reader = self._idle.get()
            if isinstance(reader, _Reader):
                reader.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Lost:
    """Stands in the queue, by itself, where there is no place of a reader any more."""


class _Reader:
    """One process, seen from outside."""

    def __init__(
        self,
        opener: Opener,
        path: Path,
        mpp: float | None,
        background: Colour | None,
        patience_s: float,
    ) -> None:
        self._patience_s = patience_s
        # Spawned, not forked: neither torch's threads nor an open slide survive a fork.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, opener, path, mpp, background), daemon=True
        )
        with _main_is_not_run_again():
            self._process.start()
        theirs.close()
        try:
            answer = self._receive()
        except TimeoutError:
            self.kill()
            raise AtypiaError(
                f"{path}: not open within {patience_s:g} s. Is its disk or share there?"
            ) from None
        except (EOFError, OSError):
            raise AtypiaError(
                f"{path}: the process that reads the slide ended at once (exit code "
                f"{self.stop()}). Is the file damaged?"
            ) from None
        if isinstance(answer, list):
            self.stop()
            raise InputError(answer)
        self.info: SlideInfo = answer

    @property
    def alive(self) -> bool:
        return not self._connection.closed and self._process.is_alive()

    def read(
        self, centres: NDArray[np.float64], field_um: float, out_mpp: float
    ) -> Iterator[NDArray[np.uint8] | Problem]:
        self._connection.send((centres, field_um, out_mpp))
        for _ in range(len(centres)):
            yield self._receive()

    def _receive(self) -> Any:
        if not self._connection.poll(self._patience_s):
            raise TimeoutError
        return self._connection.recv()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self.stop()

    def stop(self) -> int | None:
        """End the process; its exit code."""
        self._connection.close()
        self._process.join(_ENDING_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_ENDING_S)  # one that waits for a dead disk cannot even be killed
        return self._process.exitcode


@contextmanager
def _main_is_not_run_again() -> Iterator[None]:
    """Hide the main script from a process that is spawned, which would run it again.

    A reader needs none of its objects; what the script imports, such as torch, takes longer than
    all else, and one without ``if __name__ == "__main__":`` would start without end.
    """
    main = vars(sys.modules["__main__"])
    with _MAIN:
        names = [name for name in ("__file__", "__spec__") if name in main]
        hidden: dict[str, Any] = {name: main.pop(name) for name in names}
        main["__spec__"] = None
        try:
            yield
        finally:
            main.update(hidden)


def _serve(
    connection: Connection,
    opener: Opener,
    path: Path,
    mpp: float | None,
    background: Colour | None,
) -> None:
    """Answer requests until the other side hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    with suppress(EOFError, OSError):
        try:
            with opener(path, mpp=mpp, background=background) as slide:
                connection.send(slide.info)
                while True:
                    centres, field_um, out_mpp = connection.recv()
                    for x, y in centres:
                        connection.send(_answer(slide, x, y, field_um, out_mpp))
        except InputError as error:
            connection.send(error.problems)


def _answer(
    slide: Slide, x: float, y: float, field_um: float, out_mpp: float
) -> NDArray[np.uint8] | Problem:
    try:
        return slide.read_field(x, y, field_um, out_mpp)
    except InputError as error:
        return error.problems[0]
