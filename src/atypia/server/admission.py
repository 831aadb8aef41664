"""Who is let in: counters of what all requests hold, each with a bound.

What cannot be had now is refused with 503 where a client can come again, and waited for, in order,
where the request is already half done.
"""

from __future__ import annotations

import asyncio
import math
import threading
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from atypia.server.refusal import busy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from atypia.server.limits import ServerLimits

_LONGEST_S: Final = 120
"""No client is told to stay away for longer."""


class Admission:
    """What requests hold at the moment.

    Args:
        limits: The bounds.
        seconds_per_patch: Asked when a client has to be told how long to wait.
    """

    def __init__(self, limits: ServerLimits, seconds_per_patch: Callable[[], float]) -> None:
        self.requests = 0
        self.patches = 0
        """Accepted and not answered yet."""
        self._limits = limits
        self._seconds_per_patch = seconds_per_patch
        self._lock = threading.Lock()  # patches are counted in threads
        self._upload_bytes = 0
        self._pixel_bytes = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @contextmanager
    def request(self, body_bytes: int) -> Iterator[None]:
        """Let a request in, before its body is read.

        Raises:
            RefusalError: 503; too many are under way, or too much is being uploaded.
        """
        with self._lock:
            if self.requests >= self._limits.requests:
                raise busy(self._wait(), f"{self.requests} requests are under way already.")
            if self._upload_bytes + body_bytes > self._limits.buffer_bytes:
                raise busy(self._wait(), "Too much is being uploaded at once.")
            self.requests += 1
            self._upload_bytes += body_bytes
        try:
            yield
        finally:
            with self._lock:
                self.requests -= 1
                self._upload_bytes -= body_bytes

    @contextmanager
    def waiting(self, patches: int) -> Iterator[None]:
        """Put patches into the queue for the model.

        Raises:
            RefusalError: 503; the queue is full.
        """
        with self._lock:
            if self.patches + patches > self._limits.waiting_patches:
                raise busy(self._wait(), f"{self.patches:,} patches are waiting already.")
            self.patches += patches
        try:
            yield
        finally:
            with self._lock:
                self.patches -= patches

    @asynccontextmanager
    async def pixels(self, n_bytes: int) -> AsyncIterator[None]:
        """Wait until there is room for decoded pixels; more than all of it counts as all of it."""
        n_bytes = min(n_bytes, self._limits.buffer_bytes)
        async with self._turn:  # those behind do not overtake a large one
            while self._pixel_bytes + n_bytes > self._limits.buffer_bytes:
                self._freed.clear()
                await self._freed.wait()
            self._pixel_bytes += n_bytes
        try:
            yield
        finally:
            self._pixel_bytes -= n_bytes
            self._freed.set()

    def _wait(self) -> int:
        """Seconds until the patches that wait now will be answered; at least one."""
        seconds = math.ceil(self.patches * self._seconds_per_patch())
        return min(max(seconds, 1), _LONGEST_S)
