"""A study: the trials of a search, kept in a data base that several workers may share.

Data base, heartbeats, retries and draws are Optuna's (Akiba et al., KDD 2019). Points are drawn by
a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), and a trial whose best value so
far is worse than the median of the others at the same step is stopped (Golovin et al., KDD 2017).

The outcome must not depend on stops: a trial that was killed is repeated with the values that were
drawn for it, under a new number in the data base, and what is drawn for a trial follows from the
seed, the number of trials before it and their results.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from atypia.core.errors import AtypiaError, InputError, MissingExtraError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path
    from types import ModuleType

    import optuna

    from atypia.training.search_space import Label, SearchSpace

log = logging.getLogger("atypia")

State: TypeAlias = Literal["complete", "pruned", "failed", "running", "waiting"]

RANDOM_TRIALS: Final = 10
"""Trials that are drawn from the whole space before results steer."""
UNPRUNED_TRIALS: Final = 5
"""Trials that must be complete before one is stopped for being worse than their median."""
FIRST_PRUNED_STEP: Final = 3
HEARTBEAT_SECONDS: Final = 30
"""Between two signs of life of a worker in a shared data base. A trial that was silent four times
as long is given to another worker."""

_IDENTITY, _NOTE = "atypia", "note"
_CONNECTIONS: Final = 5


class Pruned(Exception):  # noqa: N818 - not an error
    """A trial need not go on: it is worse than most."""


class _SurplusError(Exception):
    """Two workers saw room for one more trial, and this is the second one."""


@dataclass(frozen=True)
class ProposedTrial:
    """A trial as its objective sees it."""

    number: int
    """The same for a trial and its repetitions after a stop."""
    point: Mapping[str, Label]
    report: Callable[[int, float], None]
    """Takes a step and the value there; raises :class:`Pruned`."""


Objective: TypeAlias = "Callable[[ProposedTrial], float]"


@dataclass(frozen=True)
class Trial:
    """A trial as the study keeps it."""

    number: int
    state: State
    value: float | None
    """Of a pruned trial the last one reported."""
    point: Mapping[str, Label]
    steps: int
    """The last step reported; 0 if none was."""
    started: datetime | None
    seconds: float | None
    note: str
    """Why a trial failed."""


@dataclass
class Study:
    """The trials of a search. Made by :meth:`open`."""

    space: SearchSpace
    minimised: bool
    _study: optuna.Study
    _identity: Mapping[str, str]
    _url: str
    _beat: int | None
    """Of a shared study, in seconds."""
    _blank_since: dict[int, float] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        name: str,
        url: str,
        space: SearchSpace,
        *,
        minimised: bool,
        seed: int,
        identity: Mapping[str, str],
        first: Mapping[str, Label] | None = None,
        resume: bool = False,
        heartbeat_seconds: int = HEARTBEAT_SECONDS,
    ) -> Study:
        """Open a study, or make it where there is none.

        A local data base (:func:`local_storage`) belongs to one worker at a time; the caller keeps
        others away. `identity` is what makes results comparable, such as the hash of the cohort:
        all workers must agree on it. The `first` point is that of the first trial. With `resume`
        the study may be there already.

        Raises:
            InputError: The study is there and is not to be resumed, or is of something else.
            MissingExtraError: The extra ``tune`` is not installed.
            AtypiaError: The data base does not answer.
        """
        optuna = load_optuna()
        beat = heartbeat_seconds if url.startswith("postgresql") else None
        with _answering(url):
            options: dict[str, Any] = {
                "storage": _connected(url, beat),
                "sampler": _sampler(seed),
                "pruner": optuna.pruners.MedianPruner(UNPRUNED_TRIALS, FIRST_PRUNED_STEP),
                "study_name": name,
            }
            try:
                direction = "minimize" if minimised else "maximize"
                study = optuna.create_study(direction=direction, **options)
                study.set_user_attr(_IDENTITY, dict(identity))
                if first is not None:
                    study.enqueue_trial(dict(first))
            except optuna.exceptions.DuplicatedStudyError:
                if not resume:
                    raise InputError(
                        f"{name}: expected no study of this name in the data base but there is "
                        "one. Go on with it, or join it, with --resume; or choose another --out."
                    ) from None
                study = optuna.load_study(**options)
            opened = cls(space, minimised, study, identity, url, beat)
            opened._require_same_identity()
            if beat is None:  # the worker of these trials is gone
                for trial in opened._trials("RUNNING"):
                    opened._retry(trial.number)
        return opened

    def work(
        self,
        objective: Objective,
        trials: int,
        deadline: float = math.inf,
        after_trial: Callable[[], object] = lambda: None,
    ) -> None:
        """Run trials until there are as many as wanted, those of other workers included.

        A worker that finds none left to start waits for those of the others, and takes over those
        of a dead one. Complete, pruned and failed trials count. None begins after `deadline`, of
        :func:`time.monotonic`.

        Where the objective raises :class:`InputError` or :class:`TrainingError` the candidate has
        no value; anything else ends the work, and the trial is repeated when the study goes on.

        Raises:
            InputError: The study has been replaced by one of something else.
            AtypiaError: The data base does not answer any more.
        """
        with _answering(self._url):
            while time.monotonic() < deadline:
                self._require_same_identity()
                self._retry_abandoned()
                states = Counter(trial.state.name for trial in self._trials())
                if states["COMPLETE"] + states["PRUNED"] >= trials:
                    return
                if not states["WAITING"] and states.total() >= trials:
                    pause = (self._beat or 1) / 2
                    time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
                else:
                    self._run_next(objective, trials)
                    after_trial()

    def trials(self) -> list[Trial]:
        """All trials in their order; of one that was stopped and is repeated, the repetition."""
        return sorted((_plain(trial) for trial in self._trials()), key=lambda trial: trial.number)

    def best(self) -> Trial | None:
        """Give the complete trial with the best value, the earlier of equals; None without one."""
        complete = [t for t in self.trials() if t.state == "complete"]
        sign = 1 if self.minimised else -1
        return min(complete, key=lambda t: (sign * (t.value or 0.0), t.number), default=None)

    def importances(self, seed: int) -> dict[str, float]:
        """Share of the variance of the values that each setting explains, the largest first.

        Functional ANOVA of a random forest (Hutter, Hoos and Leyton-Brown, ICML 2014) on the
        complete trials; empty where they are too few or all alike.
        """
        optuna = load_optuna()
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        try:
            found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        except (ValueError, RuntimeError):
            return {}
        return {key: float(value) for key, value in found.items() if math.isfinite(value)}

    def _run_next(self, objective: Objective, trials: int) -> None:
        """Take the next trial and run it."""
        taken: list[int] = []

        def run(trial: optuna.Trial) -> float:
            if sum(other.number < trial.number for other in self._trials()) >= trials:
                raise _SurplusError
            taken.append(trial.number)
            return self._value(trial, objective)

        try:
            self._study.optimize(run, n_trials=1, catch=(_SurplusError,))
        except BaseException as error:
            again = [number for number in taken if not self._retry(number)]
            if not (again and isinstance(error, Exception)):
                raise
            log.warning("trial %d was silent too long and went to another worker", again[0])

    def _value(self, trial: optuna.Trial, objective: Objective) -> float:
        """Run a trial that this worker has taken."""
        optuna = load_optuna()
        point = {key: d.suggest(trial, key) for key, d in self.space.dimensions.items()}
        number = _first_number(self._study.get_trials(deepcopy=False)[trial.number])
        log.info("trial %d: %s", number, ", ".join(f"{key}={v}" for key, v in point.items()))

        def report(step: int, value: float) -> None:
            trial.report(value, step)
            if trial.should_prune():
                raise Pruned

        try:
            value = objective(ProposedTrial(number, point, report))
        except Pruned:
            log.info("trial %d: stopped, worse than most", number)
        except (InputError, TrainingError) as error:
            trial.set_user_attr(_NOTE, str(error))
            log.warning("trial %d failed: %s", number, error)
        else:
            log.info("trial %d: %.5f", number, value)
            return value
        raise optuna.TrialPruned  # the sampler learns from failures, too: it keeps away from there

    def _retry_abandoned(self) -> None:
        """Queue again the trials of dead workers."""
        if self._beat is None:
            return
        load_optuna().storages.fail_stale_trials(self._study)
        # A worker that died between taking a trial and its first beat has left no time.
        now = time.monotonic()
        blank = [trial.number for trial in self._trials("RUNNING") if not trial.params]
        self._blank_since = {n: self._blank_since.get(n, now) for n in blank}
        for number, since in self._blank_since.items():
            if now - since > 4 * self._beat:
                self._retry(number)

    def _retry(self, number: int) -> bool:
        """Queue a stopped trial again, with what was drawn for it; False if another worker has."""
        optuna = load_optuna()
        again = optuna.storages.RetryHeartbeatStaleTrialCallback()
        trials = self._study.get_trials()
        if any(number in again.retry_history(trial) for trial in trials):
            return False
        try:
            if not trials[number].state.is_finished():
                self._study.tell(number, state=optuna.trial.TrialState.FAIL)
        except ValueError:  # another worker has just done so
            return False
        again(self._study, trials[number])
        return True

    def _require_same_identity(self) -> None:
        """Refuse to add to the results of something else."""
        known: Mapping[str, str] = self._study.user_attrs.get(_IDENTITY, {})
        if not known:  # made a moment ago by another worker, which writes the same or stops here
            self._study.set_user_attr(_IDENTITY, known := dict(self._identity))
        others = [k for k in self._identity if known.get(k) != self._identity[k]]
        if others:
            raise InputError(
                f"{self._study.study_name}: this study is of another {', another '.join(others)}; "
                "its trials cannot be compared with new ones. Choose another --out, or give what "
                "the study began with."
            )

    def _trials(self, *states: str) -> list[optuna.trial.FrozenTrial]:
        """Trials in these states; without any, all but those that have failed and are repeated."""
        kinds = load_optuna().trial.TrialState
        wanted = tuple(kinds[s] for s in states or ("COMPLETE", "PRUNED", "RUNNING", "WAITING"))
        with _answering(self._url):
            return self._study.get_trials(deepcopy=False, states=wanted)


def load_optuna() -> ModuleType:
    """Import Optuna, which is optional, and let it log errors alone."""
    try:
        import optuna
        import psycopg  # noqa: F401 - SQLAlchemy's driver; belongs to the same extra
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "tune", "A search") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeat and retries
    return optuna


def local_storage(folder: Path) -> str:
    """URL of the SQLite data base in a study's folder."""
    return f"sqlite:///{folder / 'study.db'}"


def shared_storage(url: str) -> str:
    """Check the URL of a PostgreSQL data base, and name the driver in it.

    Raises:
        InputError: It is none, or holds a password.
        MissingExtraError: The extra ``tune`` is not installed.
    """
    load_optuna()
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.get_backend_name() != "postgresql" or not parsed.database:
        raise InputError(
            "--storage: expected postgresql://USER@HOST/DATABASE but got something else. Without "
            "--storage the study is kept in its folder, for one worker."
        )
    if parsed.password or "password" in parsed.query:
        raise InputError(
            "--storage: expected no password in the URL, where other users of the machine and the "
            "shell's history see it. Put it into ~/.pgpass or the variable PGPASSWORD."
        )
    return str(parsed.set(drivername="postgresql+psycopg"))


@contextmanager
def _answering(url: str) -> Iterator[None]:
    """Raise AtypiaError where the data base does not answer; the URL holds no password."""
    optuna = load_optuna()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        first = str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]
        raise AtypiaError(
            f"{url}: the data base of the study does not answer: {first}. Trials that are done "
            "are in it; go on with --resume."
        ) from error


def _connected(url: str, beat: int | None) -> optuna.storages.RDBStorage:
    """Open a data base, with its tables; workers give a sign of life every `beat` seconds."""
    optuna = load_optuna()
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    for attempt in range(1, _CONNECTIONS + 1):
        try:
            return optuna.storages.RDBStorage(  # type: ignore[no-any-return]
                url,
                # A connection may have been cut while a trial ran for hours.
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=beat,
                grace_period=None if beat is None else 4 * beat,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
            )
        except (IntegrityError, ProgrammingError):  # two workers make the tables at once
            if attempt == _CONNECTIONS:
                raise
            time.sleep(1)
    raise AssertionError


def _sampler(seed: int) -> optuna.samplers.TPESampler:
    """Make a sampler that draws by the order of a trial, not by what its process drew before."""
    optuna = load_optuna()

    class Sampler(optuna.samplers.TPESampler):  # type: ignore[misc, name-defined]
        def before_trial(self, study: Any, trial: Any) -> None:
            others = study.get_trials(deepcopy=False)
            lasting = [t for t in others if t.state != optuna.trial.TrialState.FAIL]
            before = sum(t.number < trial.number for t in lasting)
            drawn = int(np.random.SeedSequence([seed, before]).generate_state(1)[0])
            super().__init__(n_startup_trials=RANDOM_TRIALS, seed=drawn)

    return Sampler(seed=seed)


def _first_number(trial: optuna.trial.FrozenTrial) -> int:
    """Give the number of a trial, or of the one that it repeats."""
    retried = load_optuna().storages.RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if retried is None else int(retried)


def _plain(trial: optuna.trial.FrozenTrial) -> Trial:
    note = str(trial.user_attrs.get(_NOTE, ""))
    state: Any = trial.state.name.lower()
    return Trial(
        number=_first_number(trial),
        state="failed" if note and state == "pruned" else state,
        value=None if note else trial.value,
        point=dict(trial.params),
        steps=trial.last_step or 0,
        started=trial.datetime_start,
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
        note=note,
    )
