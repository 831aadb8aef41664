"""Items done on a Ray cluster by actors that hold the model; the only module that imports Ray.

Ray Data hands one item to each free actor. An actor that dies is started again by Ray, on another
machine if need be, and is given its item again. Predictions go to files on a file system that all
machines share; through Ray go only items and outcomes.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Final, Self

from atypia.core.errors import AtypiaError, InputError, MissingExtraError
from atypia.inference.job_parts import EXTRA
from atypia.inference.local_engine import Outcome, Station
from atypia.models.hardware import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from atypia.inference.job_parts import AnyItem, Worker

_MOST_AT_ONCE: Final = 10_000
"""Items that Ray holds at a time, so that this process does not grow with the job."""
_OBJECT_STORE_BYTES: Final = 2**28
"""Shared memory of a cluster of our own. Items and outcomes are small."""
_PATIENCE_S: Final = 10
"""How long a cluster may take to accept a connection."""


class RayEngine:
    """A Ray cluster, as a context manager; see :class:`atypia.inference.local_engine.Engine`.

    Args:
        address: ``auto`` or ``HOST:PORT``; None starts one here and ends it with the block.
        workers: Actors; None: as many as the cluster has cores for.
        threads: Cores of each actor.
        gpus: GPUs of each actor.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: There is no such cluster, or it has no room for a single actor.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        threads: int = 1,
        gpus: int = 0,
    ) -> None:
        # Reports of usage leave the machine unless switched off. Warnings of the C++ part are
        # about its own choices.
        for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_BACKEND_LOG_LEVEL", "fatal")):
            os.environ.setdefault(name, value)
        try:
            import ray
            import ray.data
        except ModuleNotFoundError:
            raise MissingExtraError("ray", EXTRA, "--engine ray") from None
        self._ray = ray
        self._address, self._threads, self._gpus = address, threads, gpus
        self._workers = workers or 0

    def __enter__(self) -> Self:
        ray = self._ray
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address is None:
            cores = (self._workers or (os.cpu_count() or 1)) * self._threads
            options |= {
                "address": "local",
                "num_cpus": cores,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
            }
        else:
            options["address"] = self._address
        try:
            _check_reachable(self._address)
            before = signal.getsignal(signal.SIGTERM)
            ray.init(**options)  # which takes the signal for itself
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            where = f"--address {self._address}" if self._address else "--engine ray"
            raise InputError(f"{where}: expected a Ray cluster but got: {error}") from None
        has = ray.cluster_resources()
        room = int(has.get("CPU", 0)) // self._threads
        if self._gpus:  # Ray would wait for one for ever, in silence
            room = min(room, int(has.get("GPU", 0)) // self._gpus)
        if room < 1:
            ray.shutdown()
            gpus = f", {self._gpus} GPU" if self._gpus else ""
            raise InputError(
                f"expected a cluster with {self._threads} cores{gpus} for one worker but it has "
                f"{has.get('CPU', 0):g} cores, {has.get('GPU', 0):g} GPU."
            )
        self._workers = self._workers or room
        return self

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    def run(
        self, make: Callable[[], Worker[AnyItem]], items: Sequence[AnyItem], folder: Path
    ) -> Iterator[Outcome]:
        """See :meth:`atypia.inference.local_engine.Engine.run`.

        Raises:
            AtypiaError: Ray gave up: the cluster is gone, or its machines have no Atypia.
        """
        for start in range(0, len(items), _MOST_AT_ONCE):
            yield from self._run(make, items[start : start + _MOST_AT_ONCE], folder)

    def _run(
        self, make: Callable[[], Worker[AnyItem]], items: Sequence[AnyItem], folder: Path
    ) -> Iterator[Outcome]:
        data = self._ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # An item of which nothing is heard is missed, and tried again, by whoever asked for it.
        context.max_errored_blocks = -1
        for name in ("ray.data", "ray"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        outcomes = data.from_items(
            [{"item": pickle.dumps(item)} for item in items], override_num_blocks=len(items)
        ).map_batches(
            _Actor,
            fn_constructor_args=(pickle.dumps((make, folder.absolute())),),
            batch_size=1,
            num_cpus=self._threads,
            num_gpus=self._gpus or None,
            compute=data.ActorPoolStrategy(
                size=min(self._workers, len(items)), max_tasks_in_flight_per_actor=1
            ),
        )
        try:
            for row in outcomes.iter_rows():
                yield pickle.loads(row["outcome"])
        except self._ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise AtypiaError(
                f"Ray gave up ({lines[-1]}). What is done is kept; the same command goes on."
            ) from error


def _check_reachable(address: str | None) -> None:
    """Raise an OSError where nobody listens; Ray itself would wait for many minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        with socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S):
            pass


class _Actor:
    """A station in a process of Ray."""

    def __init__(self, station: bytes) -> None:
        keep_freed_memory()
        make, folder = pickle.loads(station)
        self._station = Station(make, folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        outcomes: list[Outcome] = [self._station(pickle.loads(item)) for item in batch["item"]]
        return {"outcome": [pickle.dumps(outcome) for outcome in outcomes]}
