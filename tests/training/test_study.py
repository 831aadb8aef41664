"""A study in its folder: what is drawn, what survives a kill, what is refused."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import study_worker as worker

from atypia.core.config import load_config
from atypia.core.errors import AtypiaError, InputError, TrainingError
from atypia.training.study import ProposedTrial, Trial, local_storage, shared_storage


def drawn(trials: list[Trial]) -> list[tuple[object, ...]]:
    """What must not depend on who ran the trials, nor on stops."""
    return [(t.state, t.value, tuple(t.point.items()), t.steps, t.note) for t in trials]


BASE = load_config("quick", ["optim.epochs=6"])
IN_MEMORY = "sqlite:///:memory:"


def undisturbed(trials: int, storage: str = IN_MEMORY, seed: int = 0) -> list[Trial]:
    study = worker.open_study(storage, seed=seed)
    study.work(worker.value_of, trials)
    return study.trials()


def test_a_seed_draws_the_same_again_and_another_does_not() -> None:
    once = undisturbed(12)
    assert drawn(undisturbed(12)) == drawn(once)
    other = undisturbed(3, seed=1)
    assert drawn(other)[1:] != drawn(once)[1:3]
    assert dict(once[0].point) == dict(other[0].point) == worker.FIRST  # what the search began with
    # Each is another point, and within the space.
    assert len({tuple(t.point.items()) for t in once}) == 12
    for trial in once:
        assert worker.SPACE.point_of(worker.SPACE.configure(BASE, trial.point)) == trial.point
    assert {type(t.point["optim.epochs"]) for t in once} == {int}


def test_after_a_kill_the_trial_is_repeated_and_all_is_as_if_undisturbed(tmp_path: Path) -> None:
    expected = undisturbed(12)
    log, storage = tmp_path / "log", local_storage(tmp_path)
    command = [sys.executable, worker.__file__, storage, "12", str(log), "11"]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 120
        while not log.with_suffix(".hangs").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    begun = log.read_text().splitlines()
    study = worker.open_study(storage)
    study.work(worker.writing(log), 12)
    trials = study.trials()
    assert drawn(trials) == drawn(expected)
    # The trial that hung keeps its number, and with it its folder.
    repeated = log.read_text().splitlines()[len(begun)]
    assert repeated.split()[1:] == begun[-1].split()[1:]
    assert [t.number for t in trials] == [*range(11), 12]


def test_more_trials_later_are_those_that_more_at_once_would_be(tmp_path: Path) -> None:
    expected = undisturbed(5)
    undisturbed(4, local_storage(tmp_path))
    study = worker.open_study(local_storage(tmp_path))
    study.work(worker.value_of, 5)
    assert drawn(study.trials()) == drawn(expected)
    study.work(worker.value_of, 3)  # there are more already
    assert len(study.trials()) == 5


def test_what_an_interruption_stops_is_repeated_first() -> None:
    expected = undisturbed(4)
    study = worker.open_study(IN_MEMORY)
    begun: list[ProposedTrial] = []

    def interrupted(candidate: ProposedTrial) -> float:
        begun.append(candidate)
        if len(begun) == 3:
            candidate.report(1, 5.0)  # of the time before; must not count twice
            raise KeyboardInterrupt
        return worker.value_of(candidate)

    with pytest.raises(KeyboardInterrupt):
        study.work(interrupted, 4)
    study.work(interrupted, 4)
    assert (begun[3].number, begun[3].point) == (begun[2].number, begun[2].point)
    assert drawn(study.trials()) == drawn(expected)


def test_a_fault_ends_the_work_but_a_bad_candidate_does_not() -> None:
    study = worker.open_study(IN_MEMORY)

    def objective(candidate: ProposedTrial) -> float:
        if candidate.number == 1:
            raise TrainingError("the loss is not finite")
        if candidate.number == 2:
            raise InputError("these settings do not fit")
        if candidate.number == 4:
            raise ValueError("a fault of ours")
        return worker.value_of(candidate)

    with pytest.raises(ValueError, match="fault of ours"):
        study.work(objective, 6)
    states = [(t.number, t.state, t.note) for t in study.trials()]
    assert states == [
        (0, "complete", ""),
        (1, "failed", "the loss is not finite"),
        (2, "failed", "these settings do not fit"),
        (3, "complete", ""),
        (4, "waiting", ""),
    ]
    best = study.best()
    assert best is not None
    assert best.value == min(t.value for t in study.trials() if t.value is not None)


def test_what_is_worse_than_the_median_is_stopped() -> None:
    study = worker.open_study(IN_MEMORY)
    ended = []

    def objective(candidate: ProposedTrial) -> float:
        level = 1.0 if candidate.number < 5 or candidate.number == 6 else 2.0
        for step in range(1, 6):
            candidate.report(step, level + 1 / step)
        ended.append(candidate.number)
        return level

    study.work(objective, 8)
    assert ended == [0, 1, 2, 3, 4, 6]
    pruned = [t for t in study.trials() if t.state == "pruned"]
    assert [(t.number, t.steps) for t in pruned] == [(5, 3), (7, 3)]  # not in the first steps
    assert pruned[0].value == pytest.approx(2 + 1 / 3)


def test_large_values_are_best_where_a_measure_is_maximised() -> None:
    study = worker.open_study(IN_MEMORY, minimised=False)

    def objective(candidate: ProposedTrial) -> float:
        if candidate.number == 6:
            candidate.report(3, -1.0)
            raise AssertionError("expected to be stopped")
        candidate.report(3, float(candidate.number))
        return float(candidate.number % 5)

    study.work(objective, 7)
    best = study.best()
    assert best is not None
    assert (best.number, best.value) == (4, 4.0)
    assert study.trials()[6].state == "pruned"


def test_no_trial_begins_after_the_deadline() -> None:
    study = worker.open_study(IN_MEMORY)
    begun = []

    def objective(candidate: ProposedTrial) -> float:
        begun.append(candidate)
        time.sleep(0.3)
        return 0.0

    study.work(objective, 50, deadline=time.monotonic() + 0.2)
    assert len(begun) == 1  # and it is finished
    assert [t.state for t in study.trials()] == ["complete"]
    study.work(objective, 50, deadline=-math.inf)
    assert len(begun) == 1


def test_of_two_workers_that_see_room_for_one_trial_one_gets_it(tmp_path: Path) -> None:
    one, other = (worker.open_study(local_storage(tmp_path)) for _ in range(2))

    def objective(_: ProposedTrial) -> float:
        other._run_next(pytest.fail, 1)  # it has counted the trials before this one began
        return 0.0

    one.work(objective, 1)
    assert [t.state for t in one.trials()] == ["complete"]


def test_a_worker_that_was_taken_for_dead_leaves_its_trial_to_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = worker.open_study(local_storage(tmp_path))
    begun = []

    def objective(candidate: ProposedTrial) -> float:
        begun.append(candidate)
        if len(begun) == 2:  # who opens a study in a folder finds nobody else alive
            worker.open_study(local_storage(tmp_path)).work(worker.value_of, 3)
        if len(begun) == 4:
            worker.open_study(local_storage(tmp_path)).work(worker.value_of, 4)
            candidate.report(1, 0.0)
            pytest.fail("expected to be told that the trial is another's")
        return 0.0

    with caplog.at_level("WARNING", "atypia"):
        one.work(objective, 3)
        begun.append(begun[0])
        one.work(objective, 4)
    assert caplog.text.count("went to another worker") == 2
    expected = undisturbed(4)
    assert [t.point for t in one.trials()] == [t.point for t in expected]
    assert [t.value for t in one.trials()][1:] == [t.value for t in expected][1:]


def test_importances_find_what_matters() -> None:
    study = worker.open_study(IN_MEMORY)
    assert study.importances(0) == {}
    study.work(lambda candidate: float(str(candidate.point["optim.epochs"])), 9)
    shares = study.importances(0)
    assert next(iter(shares)) == "optim.epochs"
    assert shares["optim.epochs"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
    assert study.importances(0) == shares


def test_trials_of_something_else_are_not_mixed_in(tmp_path: Path) -> None:
    study = worker.open_study(local_storage(tmp_path))
    study.work(worker.value_of, 1)
    with pytest.raises(InputError, match="another cohort, another measure"):
        worker.open_study(local_storage(tmp_path), identity={"cohort": "two", "measure": "x"})
    with pytest.raises(InputError, match="--resume"):
        worker.open_study(local_storage(tmp_path), resume=False)
    assert len(worker.open_study(local_storage(tmp_path)).trials()) == 1


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("sqlite:///study.db", "expected postgresql://"),
        ("mysql://me@host/db", "expected postgresql://"),
        ("postgresql://me@host", "expected postgresql://"),
        ("nothing", "expected postgresql://"),
        ("postgresql://me:secret@host/db", "PGPASSWORD"),
        ("postgresql+psycopg://me@host/db?password=secret", "PGPASSWORD"),
    ],
)
def test_storages_that_are_refused(url: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        shared_storage(url)
    assert "secret" not in str(caught.value)


def test_the_driver_is_chosen_and_a_data_base_that_is_away_is_told() -> None:
    url = shared_storage("postgresql://me@127.0.0.1:1/db")
    assert url == "postgresql+psycopg://me@127.0.0.1:1/db"
    with pytest.raises(AtypiaError, match=r"127\.0\.0\.1:1/db: the data base .* does not answer"):
        worker.open_study(url)
