"""A study's folder: what is fixed from its start, and what is written as trials come in."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, get_args

import pandas as pd

from atypia.core.errors import InputError, Problem
from atypia.core.files import only_process, write_text
from atypia.core.tables import csv_text
from atypia.data.splits import PUBLISHED
from atypia.reports.search_page import StudyInput, history_svg, importance_svg, render_study
from atypia.training.search_space import MINIMISED, Measure, default_measure
from atypia.training.study import Study

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from atypia.core.config import TrainConfig
    from atypia.data.splits import Splits
    from atypia.training.run_folder import Run
    from atypia.training.search_space import SearchSpace
    from atypia.training.study import Trial

log = logging.getLogger("atypia")

STEPS_PER_FOLD: Final = 10
"""A step of a trial is a tenth of a training, so that those with more and with fewer epochs are
compared at the same point of their schedules."""
_OF_ONE_TEST_PART: Final = {*PUBLISHED, "holdout", "all"}


def checked_options(
    measure: Measure | None,
    folds: int | None,
    trials: int,
    config: TrainConfig,
    recorded: Mapping[str, Any],
) -> tuple[Measure, int]:
    """Give measure and number of folds: as asked for, as recorded in ``tune.json``, or as usual.

    Raises:
        InputError: Lists all options that are out of range.
    """
    measure = measure or recorded.get("measure") or default_measure(config)
    members = config.ensemble.members
    folds = recorded.get("folds", members) if folds is None else folds
    problems = []
    if measure not in get_args(Measure):
        what = f"--measure: expected one of {list(get_args(Measure))} but got {measure!r}."
        problems.append(Problem(what))
    if not 1 <= folds <= members:
        problems.append(
            Problem(f"--folds: expected 1 to {members}, the inner folds, but got {folds}.")
        )
    if trials < 1:
        problems.append(Problem(f"--trials: expected at least 1 but got {trials}."))
    if problems:
        raise InputError(problems)
    return measure, folds


def one_outer(splits: Splits, number: int | None) -> Splits:
    """Keep the one outer split that the search is nested in.

    Raises:
        InputError: There are several and it is not given which, or there is no such one.
    """
    n = len(splits.outer)
    if n > 1 and number is None:
        raise InputError(
            f"--outer: expected 0 to {n - 1}, since the split {splits.kind!r} has {n} test parts "
            "and a search may learn from the training part of only one. For nested "
            "cross-validation make a study for each."
        )
    if n > 1 and number is not None and not 0 <= number < n:
        raise InputError(f"--outer: expected 0 to {n - 1} but got {number}.")
    return replace(splits, outer=(splits.outer[number or 0 if n > 1 else 0],))


@dataclass(frozen=True)
class StudyFolder:
    """What a study is about, and where."""

    run: Run[TrainConfig]
    """Of one outer split; its configuration is where the search begins."""
    space: SearchSpace
    measure: Measure
    folds: int

    @property
    def path(self) -> Path:
        """Of the folder."""
        return self.run.folder

    @property
    def name(self) -> str:
        """Of the study."""
        return self.path.resolve().name

    @property
    def minimised(self) -> bool:
        """Whether small values are good ones."""
        return self.measure in MINIMISED

    def identity(self) -> dict[str, str]:
        """Hash everything that two trials must share so that their values can be compared."""
        elsewhere = {"runtime", "resamples", "split"}
        parts = {
            "cohort": self.run.cohort.sha256,
            "split": [[outer.test, outer.inner] for outer in self.run.splits.outer],
            "configuration": self.run.config.model_dump(mode="json", exclude=elsewhere),
            "search space": self.space.to_yaml(),
            "measure": self.measure,
            "number of folds": self.folds,
        }
        return {k: hashlib.sha256(json.dumps(v).encode()).hexdigest() for k, v in parts.items()}

    def describe(self) -> dict[str, Any]:
        """Describe the study in ``tune.json``."""
        cohort = self.run.cohort
        return {
            "study": self.name,
            "measure": self.measure,
            "folds": self.folds,
            "seed": self.run.config.seed,
            "cohort": {"name": cohort.name, "n": len(cohort), "sha256": cohort.sha256},
            "split": self.run.splits.kind,
            "identity": self.identity(),
        }

    def open_study(self, url: str, resume: bool, heartbeat_seconds: int) -> Study:
        """Open the study in its data base; see :meth:`Study.open`."""
        first = self.space.point_of(self.run.config)
        if first is None:
            log.warning("The configuration itself lies outside the space: no trial measures it.")
        return Study.open(
            self.name,
            url,
            self.space,
            minimised=self.minimised,
            seed=self.run.config.seed,
            identity=self.identity(),
            first=first,
            resume=resume,
            heartbeat_seconds=heartbeat_seconds,
        )

    def write_start(self) -> None:
        """Write ``config.yaml``, ``search.yaml`` and ``splits.json``."""
        write_text(self.path / "config.yaml", self.run.config.to_yaml())
        write_text(self.path / "search.yaml", self.space.to_yaml())
        self.run.splits.write(self.path / "splits.json")

    def write_results(self, study: Study) -> dict[str, Any]:
        """Write ``trials.csv`` and, of the best trial, ``best.yaml``.

        Returns:
            The part of ``tune.json`` on them: how many trials there are in each state, the value
            of the configuration that the search began with, and the best trial.
        """
        trials, start = study.trials(), self._start(study)
        table = csv_text(self._table(study))
        write_text(self.path / "trials.csv", table)
        results: dict[str, Any] = {
            "done": dict(Counter(trial.state for trial in trials)),
            "preset": None if start is None else {"trial": start.number, "value": start.value},
            "best": None,
        }
        best = study.best()
        if best is None or best.value is None:
            return results
        config = self.space.configure(self.run.config, best.point)
        split = config.split
        if split.kind not in _OF_ONE_TEST_PART and not split.kind.endswith(".csv"):
            # The other test parts of such a split hold patients that the search has used.
            split = split.model_copy(update={"kind": str((self.path / "splits.json").resolve())})
        write_text(
            self.path / "best.yaml",
            f"# Trial {best.number} of the study {self.name}: {self.measure} {best.value:.5f} out "
            f"of fold, the best of {results['done']['complete']}.\n"
            + config.model_copy(update={"split": split}).to_yaml(),
        )
        settings = self.space.values(best.point)
        return results | {"best": {"trial": best.number, "value": best.value, "settings": settings}}

    def write_page(self, study: Study, importances: Mapping[str, float]) -> None:
        """Write ``study.html``, ``history.svg`` and ``importance.svg``."""
        best, start = study.best(), self._start(study)
        page = StudyInput(
            title=self.name,
            cohort=self.run.cohort.name,
            split=self.run.splits.kind,
            measure=self.measure,
            minimised=self.minimised,
            folds=self.folds,
            trials=self._table(study),
            preset=self.space.values_in(self.run.config),
            best=None if best is None else self.space.values(best.point),
            values=(
                None if start is None else start.value,
                None if best is None else best.value,
            ),
            importances=importances,
        )
        write_text(self.path / "study.html", render_study(page))
        for name, svg in (("history", history_svg(page)), ("importance", importance_svg(page))):
            if svg is not None:
                write_text(self.path / f"{name}.svg", svg)

    def _start(self, study: Study) -> Trial | None:
        """Find the trial of the configuration that the search began with."""
        point = self.space.point_of(self.run.config)
        return next((t for t in study.trials() if point and dict(t.point) == point), None)

    def _table(self, study: Study) -> pd.DataFrame:
        rows = [
            {
                "trial": trial.number,
                "state": trial.state,
                "value": trial.value,
                **{key: trial.point.get(key) for key in self.space.dimensions},
                "share_done": round(trial.steps / (STEPS_PER_FOLD * self.folds), 3),
                "seconds": trial.seconds,
                "started": "" if trial.started is None else str(trial.started)[:19],
                "note": trial.note,
            }
            for trial in study.trials()
        ]
        names = ["trial", "state", "value", *self.space.dimensions]
        return pd.DataFrame(rows, columns=[*names, "share_done", "seconds", "started", "note"])


def only_worker(folder: Path) -> AbstractContextManager[None]:
    """Keep other workers away from the SQLite data base of a folder; a dead one is no obstacle.

    Raises:
        InputError: Another worker is there.
    """
    return only_process(
        folder,
        f"{folder}: another worker is at this study, and SQLite is for one. Wait for it, or "
        "begin a study with --storage postgresql://USER@HOST/DATABASE for several.",
    )
