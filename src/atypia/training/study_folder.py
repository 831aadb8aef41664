"""A study's folder: what is fixed from its start, and what is written as trials come in."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from atypia.core.files import only_process, write_text
from atypia.data.splits import PUBLISHED
from atypia.reports.search_page import StudyInput, history_svg, importance_svg, render_study
from atypia.training.measure import MINIMISED
from atypia.training.search_space import Choices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from atypia.core.config import TrainConfig
    from atypia.training.measure import Measure
    from atypia.training.run_folder import Run
    from atypia.training.search_space import Label, SearchSpace
    from atypia.training.study import Study, Trial

log = logging.getLogger("atypia")

STEPS_PER_FOLD: Final = 10
_OF_ONE_TEST_PART: Final = {*PUBLISHED, "holdout", "all"}


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

    def write_start(self) -> None:
        """Write ``config.yaml``, ``search.yaml`` and ``splits.json``."""
        write_text(self.path / "config.yaml", self.run.config.to_yaml())
        write_text(self.path / "search.yaml", self.space.to_yaml())
        self.run.splits.write(self.path / "splits.json")

    def write_results(self, study: Study) -> dict[str, Any]:
        """Write ``trials.csv`` and, of the best trial, ``best.yaml``.

        Returns:
            What ``tune.json`` tells of them: how many trials there are in each state, the value
            of the configuration that the search began with, and the best trial.
        """
        trials, start = study.trials(), self._start(study)
        table = self._table(study).to_csv(index=False, lineterminator="\n")
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
            # The other test parts of such a split hold patients that the search has learned from.
            split = split.model_copy(update={"kind": str((self.path / "splits.json").resolve())})
        write_text(
            self.path / "best.yaml",
            f"# Trial {best.number} of the study {self.name}: {self.measure} {best.value:.5f} out "
            f"of fold, the best of {results['done']['complete']}.\n"
            + config.model_copy(update={"split": split}).to_yaml(),
        )
        settings = self._values(best.point)
        return results | {"best": {"trial": best.number, "value": best.value, "settings": settings}}

    def write_page(self, study: Study, importances: Mapping[str, float]) -> None:
        """Write ``study.html``, ``history.svg`` and ``importance.svg``."""
        best, start = study.best(), self._start(study)
        tree = self.run.config.model_dump(mode="json")
        began = {}
        for key in self.space.dimensions:
            value: Any = tree
            for part in key.split("."):
                value = value[part]
            began[key] = value
        page = StudyInput(
            title=self.name,
            cohort=self.run.cohort.name,
            split=self.run.splits.kind,
            measure=self.measure,
            minimised=self.minimised,
            folds=self.folds,
            trials=self._table(study),
            preset=began,
            best=None if best is None else self._values(best.point),
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

    def _values(self, point: Mapping[str, Label]) -> dict[str, Any]:
        """Give the values that a point stands for."""
        values: dict[str, Any] = {}
        for key, dimension in self.space.dimensions.items():
            label = point[key]
            if isinstance(dimension, Choices):
                values[key] = dimension.values[dimension.labels.index(label)]
            else:
                values[key] = label
        return values

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

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Keep what is logged in ``tune.log``."""
        handler = logging.FileHandler(self.path / "tune.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
            handler.close()


def only_worker(folder: Path) -> AbstractContextManager[None]:
    """Keep other workers away from the SQLite data base of a folder; a dead one keeps nobody away.

    Raises:
        InputError: Another worker is there.
    """
    return only_process(
        folder,
        f"{folder}: another worker is at this study, and SQLite is for one. Wait for it, or "
        "begin a study with --storage postgresql://USER@HOST/DATABASE for several.",
    )
