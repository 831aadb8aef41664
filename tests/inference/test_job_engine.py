"""Items: every one is done once or listed, whatever dies; what is done is not done again."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from atypia.core.errors import AtypiaError, InputError, MissingExtraError, Problem
from atypia.inference.job_parts import FinishedPart, hash_of, keys_in, read_rows, reason_of
from atypia.inference.local_engine import MOST_ATTEMPTS, LocalEngine, Station, do_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Numbered:
    number: int
    size: int = 2

    @property
    def key(self) -> str:
        return hash_of(self.number)


@dataclass
class Scripted:
    """A worker that notes what it was asked and does as it is told."""

    act: Callable[[int], object] = lambda _: None
    asked: list[int] = field(default_factory=list)
    closed: bool = False

    def __call__(self, item: Numbered) -> FinishedPart:
        self.asked.append(item.number)
        self.act(item.number)
        return FinishedPart(pd.DataFrame({"patch_id": [f"{item.number}/{i}" for i in range(2)]}), 2)

    def close(self) -> None:
        self.closed = True


def fail(*numbers: int, error: type[Exception] = OSError) -> Callable[[int], None]:
    def act(number: int) -> None:
        if number in numbers:
            raise error(f"number {number}")

    return act


ITEMS = [Numbered(i) for i in range(6)]


def do(worker: Scripted, folder: Path, **options: object) -> dict[str, str]:
    return do_all(LocalEngine(), lambda: worker, ITEMS, folder, **options)  # type: ignore[arg-type]


def test_every_item_leaves_a_file_and_nothing_else(tmp_path):
    worker, told = Scripted(), []
    assert do(worker, tmp_path, on_done=told.append) == {}
    assert {path.name for path in tmp_path.iterdir()} == {f"{i.key}.parquet" for i in ITEMS}
    assert worker.asked == list(range(6))
    assert worker.closed
    assert sum(told) == 12


def test_what_is_done_is_not_done_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        do(Scripted(fail(3, error=KeyboardInterrupt)), tmp_path)  # type: ignore[arg-type]
    done = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    worker, told = Scripted(), []
    assert do(worker, tmp_path, on_done=told.append) == {}
    assert worker.asked == [3, 4, 5]
    assert told == [6, 2, 2, 2]
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in done} == done


def test_a_failing_item_is_tried_three_times_and_listed_and_the_others_are_done(tmp_path):
    worker = Scripted(fail(1, 4))
    lost = do(worker, tmp_path)
    assert lost == {ITEMS[1].key: "OSError: number 1", ITEMS[4].key: "OSError: number 4"}
    assert worker.asked == [0, 1, 2, 3, 4, 5, 1, 4, 1, 4]
    assert keys_in(tmp_path) == {i.key for i in ITEMS} - set(lost)
    again = Scripted()
    assert do(again, tmp_path) == {}
    assert again.asked == [1, 4]


def test_an_item_that_fails_once_is_done_at_the_second_attempt(tmp_path):
    seen: list[int] = []

    def act(number: int) -> None:
        seen.append(number)
        if number == 2 and seen.count(2) == 1:
            raise SystemExit(3)

    assert do(Scripted(act), tmp_path) == {}
    assert seen == [0, 1, 2, 3, 4, 5, 2]


def test_wrong_input_is_not_tried_again(tmp_path):
    worker = Scripted(fail(0, error=InputError))
    assert list(do(worker, tmp_path).values()) == ["number 0"]
    assert worker.asked == [0, 1, 2, 3, 4, 5]


def test_a_worker_that_cannot_be_made_stops_the_job(tmp_path):
    def make() -> Scripted:
        raise MissingExtraError("onnxruntime", "onnx", "Running it")

    with pytest.raises(InputError, match=r"atypia\[onnx\]"):
        do_all(LocalEngine(), make, ITEMS, tmp_path)


def test_a_full_disk_stops_the_job_and_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    worker = Scripted()
    sync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 4:  # of each item two files
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AtypiaError, match="No space left on device"):
        do(worker, tmp_path)
    assert worker.asked == [0, 1, 2]
    assert keys_in(tmp_path) == {ITEMS[0].key, ITEMS[1].key}
    monkeypatch.undo()
    assert do(Scripted(), tmp_path) == {}
    assert not list(tmp_path.glob(".*"))


def test_an_item_whose_worker_dies_each_time_is_given_up(tmp_path):
    """As Ray does it: the item comes back to a worker that knows nothing."""

    class Killed(BaseException):
        pass

    def act(number: int) -> None:
        if number == 0:
            raise Killed

    for _ in range(MOST_ATTEMPTS):
        with pytest.raises(Killed):
            Station(lambda: Scripted(act), tmp_path)(ITEMS[0])
    outcome = Station(lambda: Scripted(act), tmp_path)(ITEMS[0])
    assert outcome.final
    assert outcome.failure == "the process that worked on it died, in each of 3 attempts"


def test_an_item_that_comes_again_after_it_was_done_is_not_done_again(tmp_path):
    first, second = Scripted(), Scripted()
    Station(lambda: first, tmp_path)(ITEMS[0])
    assert Station(lambda: second, tmp_path)(ITEMS[0]).failure is None
    assert second.asked == []


class Deaf:
    """An engine that tells of nothing, and loses every other item at the first round."""

    rounds = 0

    def run(self, make, items, folder):  # type: ignore[no-untyped-def]
        self.rounds += 1
        station = Station(make, folder)
        for item in items[:: 2 if self.rounds == 1 else 1]:
            station(item)
        yield from ()


def test_what_an_engine_does_not_tell_of_is_looked_for(tmp_path):
    engine, worker = Deaf(), Scripted()
    assert do_all(engine, lambda: worker, ITEMS, tmp_path) == {}
    assert worker.asked == [0, 2, 4, 1, 3, 5]
    names = [name for key in keys_in(tmp_path) for name in _names(tmp_path, key)]
    assert sorted(names) == [f"{n}/{i}" for n in range(6) for i in range(2)]


def _names(folder: Path, key: str) -> list[str]:
    return list(read_rows(folder / f"{key}.parquet")["patch_id"])


def test_reasons_are_one_line():
    many = InputError([Problem(f"p{i}", "f.csv", i) for i in range(5)])
    assert reason_of(many) == "f.csv, row 0: p0; f.csv, row 1: p1; f.csv, row 2: p2; and 2 more"
    assert reason_of(AtypiaError("a\nb  c")) == "a; b c"
    assert reason_of(ValueError("x\ny")) == "ValueError: x y"
