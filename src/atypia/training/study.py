"""A study: the trials of a search, kept in a data base that several workers may share.

The data base and the draws are Optuna's (Akiba et al., KDD 2019). Points are drawn by a
tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), and a trial whose best value so
far is worse than the median of the others at the same step is stopped (Golovin et al., KDD 2017).

What comes out must not depend on stops: a trial that was killed is repeated with the values that
were drawn for it, under a new number in the data base, and what is drawn for a trial follows from
the seed, the number of trials before it and their results.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from atypia.core.errors import InputError, TrainingError
from atypia.training.with_optuna import answering, connect, load_optuna, sampler, suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    import optuna

    from atypia.training.search_space import Label, SearchSpace

log = logging.getLogger("atypia")

State: TypeAlias = Literal["complete", "pruned", "failed", "running", "waiting"]

UNPRUNED_TRIALS: Final = 5
"""Trials that must be complete before one is stopped for being worse than their median."""
FIRST_PRUNED_STEP: Final = 3
HEARTBEAT_SECONDS: Final = 30
"""How often a worker tells a shared data base that it lives. A trial that was silent four times as
long is given to another worker."""

_IDENTITY, _ORIGIN, _NOTE = "atypia", "origin", "note"
_ATTEMPTS: Final = 5


class Pruned(Exception):  # noqa: N818 - not an error
    """A trial need not go on: it is worse than most."""


class _SurplusError(Exception):
    """Two workers saw room for one more trial, and this is the second one."""


class _TakenError(Exception):
    """The trial was given to another worker."""


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
    _storage: str
    _beat: int | None
    """Of a shared study, in seconds."""
    _mine: int | None = None
    """The trial that this worker has taken last."""
    _fault: BaseException | None = None
    """What the objective raised there."""
    _blank_since: dict[int, float] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        name: str,
        storage: str,
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

        Args:
            name: Of the study within its data base.
            storage: From :func:`atypia.training.with_optuna.local_storage` or
                :func:`~atypia.training.with_optuna.shared_storage`. A local one belongs to
                one worker at a time; the caller keeps others away.
            space: What is searched.
            minimised: Whether small values are good ones.
            seed: Of all that is drawn.
            identity: What makes results comparable, such as the hash of the cohort. All workers of
                a study must agree on it.
            first: The point of the first trial.
            resume: Whether the study may be there already.
            heartbeat_seconds: Of a shared study; see :data:`HEARTBEAT_SECONDS`.

        Raises:
            InputError: The study is there and is not to be resumed, or is of something else.
            MissingExtraError: The extra ``tune`` is not installed.
            AtypiaError: The data base does not answer.
        """
        optuna = load_optuna()
        beat = heartbeat_seconds if storage.startswith("postgresql") else None
        with answering(storage):
            options: dict[str, Any] = {
                "storage": connect(storage, beat, _queue_again),
                "sampler": sampler(seed),
                "pruner": optuna.pruners.MedianPruner(UNPRUNED_TRIALS, FIRST_PRUNED_STEP),
                "study_name": name,
            }
            try:
                study = optuna.create_study(
                    direction="minimize" if minimised else "maximize", **options
                )
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
            opened = cls(space, minimised, study, identity, storage, beat)
            opened._require_same_identity()
            if beat is None:  # whoever was at these trials is gone
                for trial in opened._trials("RUNNING"):
                    opened._repeat(trial)
        return opened

    def work(
        self,
        objective: Objective,
        trials: int,
        deadline: float = math.inf,
        after_trial: Callable[[], None] = lambda: None,
    ) -> None:
        """Run trials until there are as many as wanted, those of other workers included.

        A worker that finds none left to start waits for those of the others, and takes over what
        a dead one leaves.

        Args:
            objective: Tells what a candidate is worth. :class:`InputError` and
                :class:`TrainingError` mean that this candidate is worth nothing; anything else
                ends the work, and the trial is repeated when the study goes on.
            trials: Complete, pruned and failed ones together.
            deadline: Of :func:`time.monotonic`; no trial begins later.
            after_trial: Called after each one.

        Raises:
            InputError: The study has been replaced by one of something else.
            AtypiaError: The data base does not answer any more.
        """
        with answering(self._storage):
            while time.monotonic() < deadline:
                self._require_same_identity()
                self._take_over()
                states = Counter(trial.state.name for trial in self._trials())
                if states["COMPLETE"] + states["PRUNED"] >= trials:
                    return
                if not states["WAITING"] and states.total() >= trials:
                    pause = (self._beat or 1) / 2
                    time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
                else:
                    self._take_one(objective, trials)
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

    def _take_one(self, objective: Objective, trials: int) -> None:
        """Take the next trial and run it."""
        self._mine = self._fault = None
        try:
            self._study.optimize(
                lambda trial: self._run(trial, objective, trials),
                n_trials=1,
                catch=(_SurplusError,),
            )
        except BaseException as error:
            stopped = [t for t in self._trials("RUNNING", "FAIL") if t.number == self._mine]
            failed = [t for t in stopped if t.state.is_finished()]
            if isinstance(error, Exception) and self._fault is None and failed:
                # Nothing is wrong with it: another worker took it for dead and repeats it.
                log.warning("trial %d was silent too long and went to another worker", self._mine)
                return
            for trial in stopped:
                self._repeat(trial)
            raise

    def _run(self, trial: optuna.Trial, objective: Objective, trials: int) -> float:
        """Run a trial that this worker has taken."""
        optuna = load_optuna()
        before = sum(other.number < trial.number for other in self._trials())
        if before >= trials:
            raise _SurplusError
        self._mine = trial.number
        point = {key: suggest(trial, key, d) for key, d in self.space.dimensions.items()}
        origin = int(trial.user_attrs.get(_ORIGIN, trial.number))
        log.info("trial %d: %s", origin, ", ".join(f"{key}={v}" for key, v in point.items()))

        def report(step: int, value: float) -> None:
            try:
                trial.report(value, step)
            except optuna.exceptions.UpdateFinishedTrialError:
                raise _TakenError from None
            if trial.should_prune():
                raise Pruned

        try:
            value = objective(ProposedTrial(origin, point, report))
        except Pruned:
            log.info("trial %d: stopped, worse than most", origin)
        except (InputError, TrainingError) as error:
            trial.set_user_attr(_NOTE, str(error))
            log.warning("trial %d failed: %s", origin, error)
        except BaseException as error:
            self._fault = None if isinstance(error, _TakenError) else error
            raise
        else:
            log.info("trial %d: %.5f", origin, value)
            return value
        raise optuna.TrialPruned  # the sampler learns from failures, too: it keeps away from there

    def _take_over(self) -> None:
        """Queue again what workers that are gone have left behind."""
        if self._beat is None:
            return
        optuna = load_optuna()
        optuna.storages.fail_stale_trials(self._study)  # and _queue_again
        # A worker that died between taking a trial and its first beat has left no time.
        blank = {trial.number: trial for trial in self._trials("RUNNING") if not trial.params}
        now = time.monotonic()
        self._blank_since = {n: self._blank_since.get(n, now) for n in blank}
        for number, since in self._blank_since.items():
            if now - since > 4 * self._beat:
                self._repeat(blank[number])

    def _repeat(self, trial: optuna.trial.FrozenTrial) -> None:
        """Mark a trial as failed and queue it again."""
        optuna = load_optuna()
        if not trial.state.is_finished():
            try:
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            except ValueError:  # another worker has just done so
                return
        _queue_again(self._study, trial)

    def _require_same_identity(self) -> None:
        """Refuse to add to the results of something else."""
        for _ in range(_ATTEMPTS):  # who makes a study writes a moment later what it is of
            known: Mapping[str, str] = self._study.user_attrs.get(_IDENTITY, {})
            if known:
                break
            time.sleep(1)
        else:
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
        with answering(self._storage):
            return self._study.get_trials(deepcopy=False, states=wanted)


def _queue_again(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """Let a trial that was stopped be run once more, with what was drawn for it."""
    optuna = load_optuna()
    study.add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={_ORIGIN: trial.number, **trial.user_attrs},
            system_attrs=trial.system_attrs,
        )
    )


def _plain(trial: optuna.trial.FrozenTrial) -> Trial:
    note = str(trial.user_attrs.get(_NOTE, ""))
    state: Any = trial.state.name.lower()
    seconds = None if trial.duration is None else trial.duration.total_seconds()
    return Trial(
        number=int(trial.user_attrs.get(_ORIGIN, trial.number)),
        state="failed" if note and state == "pruned" else state,
        value=None if note else trial.value,
        point=dict(trial.params),
        steps=trial.last_step or 0,
        started=trial.datetime_start,
        seconds=seconds,
        note=note,
    )
