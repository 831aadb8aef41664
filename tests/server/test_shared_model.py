"""One model for many requests: batches, interruptions, failures."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fake_server import FakeModel

from atypia.classifiers.answers import Answers
from atypia.server.shared_model import BATCH, ModelThread, SharedModel, StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def patches(n: int, side: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 255, (n, side, side, 3), dtype=np.uint8)


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    return tmp_path / "hold"


@pytest.fixture
def thread(hold: Path) -> Iterator[ModelThread]:
    with ModelThread(FakeModel(hold)) as running:
        yield running
        hold.unlink(missing_ok=True)


def at_work(thread: ModelThread) -> None:
    """Wait until the second batch, after the one that sets the model up, is at the model."""
    while len(thread.model.batches) < 2:  # type: ignore[attr-defined]
        time.sleep(0.001)


def test_what_waits_goes_to_the_model_together(thread: ModelThread, hold: Path) -> None:
    hold.touch()
    sizes = [1, 5, 3, 64, 2, 7]
    asked = [patches(n, seed=n) for n in sizes]
    answers = [thread.ask(asked[0], 0.25)]
    at_work(thread)
    answers += [thread.ask(part, 0.25) for part in asked[1:]]
    hold.unlink()
    for part, answer in zip(asked, answers, strict=True):
        expected = FakeModel().predict_proba(part, 0.25)
        np.testing.assert_array_equal(answer.result().probabilities, expected)
    assert thread.model.batches == [1, 1, 72, 9]  # type: ignore[attr-defined]


def test_patches_of_another_size_or_resolution_go_apart(thread: ModelThread, hold: Path) -> None:
    hold.touch()
    answers = [thread.ask(patches(1), 0.25)]
    at_work(thread)
    for side, mpp in ((80, 0.25), (82, 0.25), (80, 0.25), (80, 0.3)):
        answers.append(thread.ask(patches(2, side), mpp))
    hold.unlink()
    for answer in answers:
        answer.result()
    assert sorted(thread.model.batches[-3:]) == [2, 2, 4]  # type: ignore[attr-defined]


def test_requests_take_turns(thread: ModelThread) -> None:
    large, small = SharedModel(thread), SharedModel(thread)
    many = patches(5 * BATCH + 3)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(large.predict_proba, many, 0.25)
        for _ in range(20):
            small.predict_proba(many[:1], 0.25)
        np.testing.assert_array_equal(first.result(), FakeModel().predict_proba(many, 0.25))
    assert max(thread.model.batches) <= BATCH + 1  # type: ignore[attr-defined]


def test_what_nobody_wants_any_more_is_not_worked_on(thread: ModelThread, hold: Path) -> None:
    hold.touch()
    first = thread.ask(patches(1), 0.25)
    at_work(thread)
    model = SharedModel(thread)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(model.predict_proba, patches(10), 0.25)
        while thread._jobs.empty():
            time.sleep(0.001)
        model.stop()
        with pytest.raises(StoppedError):
            asked.result()
    hold.unlink()
    first.result()
    thread.ask(patches(2), 0.25).result()
    assert thread.model.batches == [1, 1, 2]  # type: ignore[attr-defined]
    with pytest.raises(StoppedError):
        model.predict_proba(patches(1), 0.25)


def test_a_failure_is_told_to_those_it_concerns(thread: ModelThread) -> None:
    with pytest.raises(RuntimeError, match="thirteen"):
        thread.ask(np.full((1, 80, 80, 3), 13, np.uint8), 0.25).result()
    assert thread.ask(patches(1), 0.25).result().probabilities.shape == (1, 8)


def test_a_batch_for_which_there_is_no_memory_does_not_end_the_thread(
    thread: ModelThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> np.ndarray:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("atypia.server.shared_model.np.concatenate", full)
        with pytest.raises(MemoryError):
            thread.ask(patches(1), 0.25).result(timeout=30)
    assert thread.ask(patches(1), 0.25).result(timeout=30).probabilities.shape == (1, 8)


def test_a_model_that_cannot_answer_fails_at_the_start() -> None:
    class Broken(FakeModel):
        def answer(self, *_: object) -> Answers:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), ModelThread(Broken()):
        pass
    assert threading.active_count() < 50


def test_it_ends_when_all_is_answered(hold: Path) -> None:
    with ModelThread(FakeModel(hold)) as thread:
        answers = [thread.ask(patches(BATCH), 0.25) for _ in range(3)]
    assert all(answer.done() for answer in answers)
