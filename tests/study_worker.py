"""A worker of a study whose trials cost nothing: ``python study_worker.py STORAGE TRIALS LOG``.

Each trial that is begun is a line in LOG. With a fourth argument N, the Nth one never ends, and
LOG.hangs tells so.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from atypia.training.search_space import Choices, NumberRange, SearchSpace
from atypia.training.study import Objective, ProposedTrial, Study

SPACE = SearchSpace(
    {
        "optim.learning_rate": NumberRange(low=1e-4, high=1.0, log=True),
        "optim.epochs": NumberRange(low=2, high=10, step=2),
        "augment.flip": Choices((True, False)),
    }
)
FIRST = {"optim.learning_rate": 0.1, "optim.epochs": 4, "augment.flip": True}
IDENTITY = {"cohort": "one", "measure": "log_loss"}


def open_study(storage: str, *, seed: int = 0, **options: object) -> Study:
    known = {"minimised": True, "identity": IDENTITY, "first": FIRST, "resume": True}
    return Study.open("s", storage, SPACE, seed=seed, **(known | options))  # type: ignore[arg-type]


def value_of(candidate: ProposedTrial) -> float:
    rate, epochs = candidate.point["optim.learning_rate"], candidate.point["optim.epochs"]
    assert isinstance(rate, float)
    assert isinstance(epochs, int)
    candidate.report(1, rate)
    return abs(rate - 0.02) + 0.01 * epochs + 0.05 * bool(candidate.point["augment.flip"])


def writing(log: Path, hang_at: int = 0, pause: float = 0.0) -> Objective:
    """An objective that writes down what it begins, and may never end."""
    begun = 0

    def objective(candidate: ProposedTrial) -> float:
        nonlocal begun
        begun += 1
        with log.open("a") as stream:
            stream.write(f"{os.getpid()} {candidate.number} {dict(candidate.point)}\n")
        if begun == hang_at:
            log.with_suffix(".hangs").touch()
            time.sleep(600)
        time.sleep(pause)
        return value_of(candidate)

    return objective


if __name__ == "__main__":
    storage, trials, log_file, *hang = sys.argv[1:]
    study = open_study(storage, heartbeat_seconds=1)
    study.work(writing(Path(log_file), *map(int, hang), pause=0.1), int(trials))
