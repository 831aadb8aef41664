"""Fields read in other processes; a process that dies costs one field."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from slide_files import noise, spoil_tile, write_pyramid, write_tiff

from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.slides import open_slide
from atypia.slides.slide_pool import SlidePool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIXELS = noise(150, 200)
CENTRES = np.array([(20.0 + 10 * i, 40.0 + 5 * i) for i in range(12)])


class Deadly:
    """A slide on which two places kill the process that reads them."""

    def __init__(self, slide: Any) -> None:
        self.info, self._slide = slide.info, slide

    def read_field(self, x: float, y: float, field_um: float, out_mpp: float) -> np.ndarray:
        if x == CENTRES[3, 0]:
            os._exit(7)
        if x == CENTRES[8, 0]:
            os.kill(os.getpid(), signal.SIGSEGV)
        return self._slide.read_field(x, y, field_um, out_mpp)


@contextmanager
def open_deadly(path: Path, **options: Any) -> Iterator[Deadly]:
    with open_slide(path, **options) as slide:
        yield Deadly(slide)


class Stuck(Deadly):
    """A slide on which one place never answers."""

    def read_field(self, x: float, y: float, field_um: float, out_mpp: float) -> np.ndarray:
        if x == CENTRES[3, 0]:
            time.sleep(3600)
        return self._slide.read_field(x, y, field_um, out_mpp)


@contextmanager
def open_stuck(path: Path, **options: Any) -> Iterator[Stuck]:
    with open_slide(path, **options) as slide:
        yield Stuck(slide)


def never_open(*_: Any, **__: Any) -> None:
    time.sleep(3600)


def die_at_once(*_: Any, **__: Any) -> None:
    os._exit(1)


def test_a_process_that_dies_costs_one_field_and_the_rest_goes_on(tmp_path):
    path = write_tiff(tmp_path / "a.tif", PIXELS, 0.5)
    with open_slide(path) as slide, SlidePool(path, readers=1, opener=open_deadly) as pool:
        assert pool.info == slide.info
        answers = pool.read(CENTRES, 8.0, 0.5)
        for i, (answer, centre) in enumerate(zip(answers, CENTRES, strict=True)):
            if i in (3, 8):
                assert isinstance(answer, Problem)
                assert f"exit code {7 if i == 3 else -signal.SIGSEGV}" in answer.what
            else:
                np.testing.assert_array_equal(answer, slide.read_field(*centre, 8.0, 0.5))


def test_a_process_that_hangs_is_killed_and_costs_one_field(tmp_path):
    path = write_tiff(tmp_path / "a.tif", PIXELS, 0.5)
    with (
        open_slide(path) as slide,
        SlidePool(path, readers=1, opener=open_stuck, patience_s=10) as pool,
    ):
        answers = pool.read(CENTRES[:6], 8.0, 0.5)
        for i, (answer, centre) in enumerate(zip(answers, CENTRES[:6], strict=True)):
            if i == 3:
                assert isinstance(answer, Problem)
                assert "no answer within 10 s" in answer.what
            else:
                np.testing.assert_array_equal(answer, slide.read_field(*centre, 8.0, 0.5))
    assert not multiprocessing.active_children()


@contextmanager
def open_once(path: Path, **options: Any) -> Iterator[Stuck]:
    """A slide whose share goes away while it is read."""
    mark = path.with_suffix(".opened")
    if mark.exists():
        time.sleep(3600)
    mark.touch()
    with open_slide(path, **options) as slide:
        yield Stuck(slide)


def test_a_share_that_goes_away_costs_what_is_left(tmp_path):
    path = write_tiff(tmp_path / "a.tif", PIXELS, 0.5)
    with SlidePool(path, readers=1, opener=open_once, patience_s=10) as pool:
        answers = pool.read(CENTRES[:6], 8.0, 0.5)
        assert [isinstance(answer, Problem) for answer in answers] == [False] * 3 + [True] * 3
        assert "no answer within 10 s" in answers[3].what
        assert "cannot be read any more" in answers[5].what
        (again,) = pool.read(CENTRES[:1], 8.0, 0.5)  # at once: nobody waits a second time
        assert isinstance(again, Problem)
        assert "not open within 10 s" in str(pool.lost)
        # The share comes back.
        path.with_suffix(".opened").unlink()
        pool._lost_at -= 10
        (back,) = pool.read(CENTRES[:1], 8.0, 0.5)
        np.testing.assert_array_equal(back, answers[0])
        assert pool.lost is None
    assert not multiprocessing.active_children()


@contextmanager
def open_for_one(path: Path, **options: Any) -> Iterator[Any]:
    """A machine that has memory for one reader."""
    mark = path.with_suffix(".opened")
    if mark.exists():
        os._exit(1)
    mark.touch()
    with open_slide(path, **options) as slide:
        yield slide


def test_a_reader_that_cannot_start_leaves_its_work_to_the_others(tmp_path):
    path = write_tiff(tmp_path / "a.tif", PIXELS, 0.5)
    with SlidePool(path, readers=3, opener=open_for_one) as pool, ThreadPoolExecutor(3) as threads:
        parts = list(threads.map(lambda c: pool.read(c[None], 8.0, 0.5), CENTRES))
        assert pool.lost is None
    assert not any(isinstance(answer, Problem) for part in parts for answer in part)
    assert not multiprocessing.active_children()


def test_a_slide_that_never_opens_is_an_error(tmp_path):
    with pytest.raises(AtypiaError, match="not open within 1 s"):
        SlidePool(tmp_path, opener=never_open, patience_s=1)
    assert not multiprocessing.active_children()


def test_damaged_places_and_faults_of_a_slide_are_told_across_processes(tmp_path):
    path = write_pyramid(tmp_path / "a.tif", PIXELS, 0.5)
    spoil_tile(path, 5)
    with SlidePool(path, readers=1) as pool:
        bad, good = pool.read(np.array([(96.0, 96.0), (30.0, 30.0)]), 8.0, 0.5)
    assert isinstance(bad, Problem)
    assert "cannot be read" in bad.what
    np.testing.assert_array_equal(good, PIXELS[22:38, 22:38])
    with pytest.raises(InputError, match="no such file"):
        SlidePool(tmp_path / "gone.tif")


def test_a_reader_that_never_starts_is_an_error(tmp_path):
    with pytest.raises(AtypiaError, match=r"ended at once \(exit code 1\)"):
        SlidePool(tmp_path, opener=die_at_once)


def test_the_main_script_is_not_run_again(tmp_path):
    """A script without a guard works, and what it imports does not slow the readers down."""
    path = write_tiff(tmp_path / "a.tif", PIXELS, 0.5)
    script = tmp_path / "script.py"
    script.write_text(
        "print('run')\n"
        "import sys\n"
        "from pathlib import Path\n"
        "from atypia.slides.slide_pool import SlidePool\n"
        f"with SlidePool(Path({str(path)!r}), readers=1) as pool:\n"
        "    print(pool.info.width)\n"
        "print(Path(sys.modules['__main__'].__file__).name)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["run", "200", "script.py"]


def test_answers_that_nobody_took_are_not_taken_for_the_next_ones(tmp_path, monkeypatch):
    with SlidePool(write_tiff(tmp_path / "a.tif", PIXELS, 0.5), readers=1) as pool:
        receive = Connection.recv
        received: list[Any] = []

        def short_of_memory(connection: Connection) -> Any:
            received.append(receive(connection))
            if len(received) == 3:
                raise MemoryError
            return received[-1]

        monkeypatch.setattr(Connection, "recv", short_of_memory)
        with pytest.raises(MemoryError):
            pool.read(CENTRES, 8.0, 0.5)
        (field,) = pool.read(CENTRES[:1], 8.0, 0.5)
        np.testing.assert_array_equal(field, received[0])
