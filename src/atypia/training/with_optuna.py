"""What a study needs of Optuna: its import, data bases, and how points are drawn."""

from __future__ import annotations

import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.errors import AtypiaError, InputError, MissingExtraError
from atypia.training.search_space import Choices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    import optuna
    from optuna.storages import RDBStorage

    from atypia.training.search_space import Dimension, Label

RANDOM_TRIALS: Final = 10
"""Trials that are drawn from the whole space before results steer."""

_ATTEMPTS: Final = 5


def load_optuna() -> ModuleType:
    """Import Optuna, which is optional; of what it would log, we tell ourselves."""
    try:
        import optuna
        import psycopg  # noqa: F401 - SQLAlchemy's driver; belongs to the same extra
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "tune", "A search") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextmanager
def answering(storage: str) -> Iterator[None]:
    """Tell in plain words that a data base does not answer; the URL holds no password."""
    optuna = load_optuna()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        first = str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]
        raise AtypiaError(
            f"{storage}: the data base of the study does not answer: {first}. Trials that are done "
            "are in it; go on with --resume."
        ) from error


def connect(storage: str, beat: int | None, on_stale: Callable[[Any, Any], None]) -> RDBStorage:
    """Open a data base and make its tables where there are none.

    Args:
        storage: Its URL.
        beat: Seconds between signs of life of a worker; None: it gives none.
        on_stale: Called with the study and a trial whose worker was silent four times as long.
    """
    optuna = load_optuna()
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    for attempt in range(_ATTEMPTS):
        try:
            backend: RDBStorage = optuna.storages.RDBStorage(
                storage,
                # A connection may have been cut while a trial ran for hours.
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=beat,
                grace_period=None if beat is None else 4 * beat,
                heartbeat_stale_trial_callback=on_stale,
            )
            return backend
        except (IntegrityError, ProgrammingError):  # two workers make the tables at once
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(1)
    raise AssertionError


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


def sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Make a sampler that draws by the order of a trial, not by what its process drew before."""
    optuna = load_optuna()

    class Sampler(optuna.samplers.BaseSampler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.inner = optuna.samplers.TPESampler(seed=seed)

        def before_trial(self, study: Any, trial: Any) -> None:
            failed = optuna.trial.TrialState.FAIL
            others = study.get_trials(deepcopy=False)
            before = sum(t.number < trial.number and t.state != failed for t in others)
            drawn = int(np.random.SeedSequence([seed, before]).generate_state(1)[0])
            self.inner = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=drawn)

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return self.inner.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            return self.inner.sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, name: Any, kind: Any) -> Any:
            return self.inner.sample_independent(study, trial, name, kind)

        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            self.inner.after_trial(study, trial, state, values)

    return Sampler()


def suggest(trial: optuna.Trial, key: str, dimension: Dimension) -> Label:
    """Draw one value, or give the one that was drawn before the trial was stopped."""
    if isinstance(dimension, Choices):
        return trial.suggest_categorical(key, dimension.labels)
    low, high, step = dimension.low, dimension.high, dimension.step
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, step=int(step or 1), log=dimension.log)
    return trial.suggest_float(key, low, high, step=step, log=dimension.log)
