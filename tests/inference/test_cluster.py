"""A real Ray cluster on this machine: workers and drivers are killed, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from slide_jobs import answers, write_slide_table
from untrained import untrained_ensemble

from atypia import pipeline
from atypia.core.errors import InputError
from atypia.core.labels import PROBABILITY_COLUMNS
from atypia.inference.job import EngineChoice
from atypia.inference.job_parts import FinishedPart, hash_of, keys_in
from atypia.inference.local_engine import do_all
from atypia.inference.ray_engine import RayEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("ray")

ITEM = 8
COUNTS = [150, 300, 6]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    untrained_ensemble().save(folder)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Path, pd.DataFrame]:
    """A table of slides, and the answers on them without Ray."""
    folder = tmp_path_factory.mktemp("study")
    table = write_slide_table(folder, COUNTS)
    pipeline.slides(table, folder / "local", model, item_size=ITEM, engine=EngineChoice(threads=1))
    return table, answers(folder / "local")


def start(table: Path, out: Path, model: Path) -> subprocess.Popen[bytes]:
    """``atypia slides`` on a cluster of two workers, in a process of its own."""
    command = [sys.executable, "-m", "atypia", "slides", table, "--out", out, "--model", model]
    command += ["--engine", "ray", "--workers", "2", "--item-size", ITEM]
    log = out.with_suffix(".log").open("ab")
    return subprocess.Popen([*map(str, command)], stdout=log, stderr=log)


def wait_for_parts(process: subprocess.Popen[bytes], out: Path, n: int) -> None:
    while len(keys_in(out / "parts")) < n:
        assert process.poll() is None, out.with_suffix(".log").read_text()
        time.sleep(0.01)


def actors(driver: int) -> list[int]:
    """Processes below the driver in which Ray's actors work, by their title."""
    parent, title = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            title[int(folder.name)] = (folder / "cmdline").read_bytes()
            parent[int(folder.name)] = int(status[1])
        except (FileNotFoundError, ProcessLookupError):
            continue

    def above(pid: int) -> Iterator[int]:
        while pid in parent:
            pid = parent[pid]
            yield pid

    return [p for p in parent if title[p].startswith(b"ray::MapWorker") and driver in above(p)]


def check(out: Path, expected: pd.DataFrame) -> None:
    """No candidate is lost, none is there twice, and the answers are those without Ray."""
    found = answers(out)
    assert list(found["patch_id"]) == list(expected["patch_id"])
    columns = [*PROBABILITY_COLUMNS, "p_atypical", "x_px", "y_um"]
    pd.testing.assert_frame_equal(found[columns], expected[columns], atol=1e-5)
    assert list(found["predicted_subtype"]) == list(expected["predicted_subtype"])
    assert (out / "failed.csv").read_text() == "slide,patch_id,reason\n"
    assert not list((out / "parts").glob(".*"))


@pytest.mark.slow
def test_a_worker_is_killed_and_nothing_is_lost(tmp_path, study, model):
    table, expected = study
    out = tmp_path / "out"
    process = start(table, out, model)
    wait_for_parts(process, out, 4)
    working = actors(process.pid)
    assert len(working) == 2
    os.kill(working[0], signal.SIGKILL)
    before = len(keys_in(out / "parts"))
    assert process.wait(300) == 0, out.with_suffix(".log").read_text()
    assert before < len(keys_in(out / "parts"))  # it was in the middle
    check(out, expected)


@pytest.mark.slow
def test_the_driver_is_killed_and_the_same_command_goes_on(tmp_path, study, model):
    table, expected = study
    out = tmp_path / "out"
    process = start(table, out, model)
    wait_for_parts(process, out, 6)
    workers = actors(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for _ in range(3000):  # Ray's own watchman ends the workers
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            break
        time.sleep(0.01)
    parts = out / "parts"
    before = {key: (parts / f"{key}.parquet").stat().st_mtime_ns for key in keys_in(parts)}
    assert 6 <= len(before) < sum(-(-n // ITEM) for n in COUNTS)
    assert start(table, out, model).wait(300) == 0, out.with_suffix(".log").read_text()
    after = {key: (parts / f"{key}.parquet").stat().st_mtime_ns for key in before}
    assert after == before
    check(out, expected)


@dataclass(frozen=True)
class Numbered:
    number: int
    size: int = 1

    @property
    def key(self) -> str:
        return hash_of(self.number)


class Deadly:
    """A worker that is killed by one item each time, and by another one once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, item: Numbered) -> FinishedPart:
        once = self.folder / "once"
        if item.number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if item.number == 5 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if item.number == 7:
            raise OSError("the share is away")
        return FinishedPart(pd.DataFrame({"patch_id": [str(item.number)]}), 1)

    def close(self) -> None:
        pass


@pytest.mark.slow
def test_an_item_that_kills_its_worker_is_given_up_and_the_others_are_done(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the workers import this file
    items = [Numbered(i) for i in range(12)]
    with RayEngine(workers=2) as engine:
        lost = do_all(engine, partial(Deadly, tmp_path), items, tmp_path / "parts")
    assert lost == {
        items[3].key: "the process that worked on it died, in each of 3 attempts",
        items[7].key: "OSError: the share is away",
    }
    assert keys_in(tmp_path / "parts") == {i.key for i in items} - set(lost)


@pytest.mark.parametrize(
    ("has", "gpus", "told"),
    [
        ({"CPU": 4.0}, 1, "2 cores, 1 GPU for one worker but it has 4 cores, 0 GPU"),
        ({"CPU": 1.0, "GPU": 8.0}, 1, "but it has 1 cores, 8 GPU"),
        ({"CPU": 1.0}, 0, "2 cores for one worker"),
        ({"CPU": 4.0, "GPU": 1.0}, 1, None),
        ({"CPU": 4.0}, 0, None),
    ],
)
def test_a_cluster_without_room_for_one_worker_is_refused_and_not_waited_for(has, gpus, told):
    engine = RayEngine(threads=2, gpus=gpus)
    ended: list[bool] = []
    engine._ray = SimpleNamespace(
        init=lambda **_: None,
        cluster_resources=lambda: has,
        shutdown=lambda: ended.append(True),
        exceptions=engine._ray.exceptions,
    )
    if told is None:
        with engine:
            assert engine._workers == (1 if gpus else 2)
    else:
        with pytest.raises(InputError, match=told):
            engine.__enter__()
    assert ended == [True]


def test_a_cluster_that_is_not_there_is_told():
    with pytest.raises(InputError, match=r"--address 127\.0\.0\.1:1: expected a Ray cluster"):
        RayEngine("127.0.0.1:1").__enter__()
