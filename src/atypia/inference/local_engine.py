"""Do all items of a job: in this process, or wherever another engine takes them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Protocol

from atypia.core.errors import AtypiaError, InputError
from atypia.core.progress import OnDone, silent
from atypia.inference.job_parts import (
    AnyItem,
    drop_damaged,
    keys_in,
    part_path,
    reason_of,
    write_part,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from atypia.inference.job_parts import Worker

MOST_ATTEMPTS: Final = 3
"""How often an item is begun before it is given up."""

log = logging.getLogger("atypia")


@dataclass(frozen=True)
class Outcome:
    """What became of an item."""

    key: str
    failure: str | None = None
    """Why there are no answers."""
    final: bool = False
    """Another attempt would fail alike."""
    stop: AtypiaError | None = None
    """Every other item would fail alike: no model, a full disk."""


class Engine(Protocol):
    """Where work is done."""

    def run(
        self, make: Callable[[], Worker[AnyItem]], items: Sequence[AnyItem], folder: Path
    ) -> Iterator[Outcome]:
        """Do items, in any order, each perhaps more than once; each leaves its file in `folder`.

        An item of which nothing is heard counts as failed unless its file is there. `make` makes a
        worker in the process that is to work; it can be pickled.
        """


class LocalEngine:
    """Does items in this process, one after the other."""

    def run(
        self, make: Callable[[], Worker[AnyItem]], items: Sequence[AnyItem], folder: Path
    ) -> Iterator[Outcome]:
        """See :meth:`Engine.run`."""
        station = Station(make, folder)
        try:
            for item in items:
                yield station(item)
        finally:
            station.close()


class Station(Generic[AnyItem]):
    """A worker and the folder its answers go to, in the process that works.

    An attempt is noted in a file before it is made: a process that dies takes its memory along,
    and whoever starts it again, as Ray does, would hand it the same item for ever.
    """

    def __init__(self, make: Callable[[], Worker[AnyItem]], folder: Path) -> None:
        self._make, self._folder = make, folder
        self._worker: Worker[AnyItem] | None = None

    def __call__(self, item: AnyItem) -> Outcome:
        """Do an item and write its file."""
        path = part_path(self._folder, item.key)
        if path.exists():  # whoever did it died before it could report it
            return Outcome(item.key)
        attempts = _attempts_path(self._folder, item.key)
        try:
            if self._worker is None:
                self._worker = self._make()
            if _begin(attempts) > MOST_ATTEMPTS:
                what = f"the process that worked on it died, in each of {MOST_ATTEMPTS} attempts"
                return Outcome(item.key, what, final=True)
        except (AtypiaError, OSError) as error:
            return Outcome(item.key, stop=_plain(error))
        try:
            part = self._worker(item)
        except (Exception, SystemExit) as error:  # whatever a library raises costs this item only
            return Outcome(item.key, reason_of(error), final=isinstance(error, InputError))
        try:
            write_part(path, part)
        except AtypiaError as error:
            return Outcome(item.key, stop=_plain(error))
        attempts.unlink(missing_ok=True)
        return Outcome(item.key)

    def close(self) -> None:
        """Let go of what the worker keeps."""
        if self._worker is not None:
            self._worker.close()


def do_all(
    engine: Engine,
    make: Callable[[], Worker[AnyItem]],
    items: Sequence[AnyItem],
    folder: Path,
    on_done: OnDone = silent,
) -> dict[str, str]:
    """Do the items that have no file yet; try those again that fail.

    `on_done` is called with the number of inputs done since the last call; first with those that
    were done before.

    Returns:
        Key to reason for each item that failed :data:`MOST_ATTEMPTS` times, or whose input is
        wrong.

    Raises:
        AtypiaError: Something that every item needs is missing: a model, space on the disk.
    """
    drop_damaged(folder)
    done = keys_in(folder)
    open_items = [item for item in items if item.key not in done]
    on_done(sum(item.size for item in items if item.key in done))
    for item in open_items:  # of a job that was killed
        _attempts_path(folder, item.key).unlink(missing_ok=True)
    reasons: dict[str, str] = {}
    again = open_items
    for attempt in range(MOST_ATTEMPTS):
        if not again:
            break
        if attempt:
            log.warning("%d items failed and are tried again", len(again))
        size_of = {item.key: item.size for item in again}
        final: set[str] = set()
        for outcome in engine.run(make, again, folder):
            if outcome.stop is not None:
                raise outcome.stop
            if outcome.failure is None:
                on_done(size_of.pop(outcome.key, 0))  # 0 when it is reported twice
            else:
                reasons[outcome.key] = outcome.failure
                if outcome.final:
                    final.add(outcome.key)
        done = keys_in(folder)
        again = [item for item in again if item.key not in done and item.key not in final]
    for left in folder.glob(".*"):  # by workers that died
        left.unlink(missing_ok=True)
    died = "the process that worked on it died"
    return {i.key: reasons.get(i.key, died) for i in open_items if i.key not in done}


def _attempts_path(folder: Path, key: str) -> Path:
    return folder / f".{key}.attempts"


def _begin(attempts: Path) -> int:
    """Note an attempt; how many there are with it."""
    attempts.parent.mkdir(parents=True, exist_ok=True)
    with attempts.open("ab") as stream:
        stream.write(b".")
    return attempts.stat().st_size


def _plain(error: AtypiaError | OSError) -> AtypiaError:
    """Make the same error of a class that survives being sent to another process."""
    kind = InputError if isinstance(error, InputError) else AtypiaError
    return kind(str(error))
