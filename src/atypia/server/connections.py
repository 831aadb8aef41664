"""Connections of clients, bounded in number and in the time that a request line may take."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import socket

HEADERS_S: Final = 10
"""For the headers of a request to arrive, from its first byte or the connection's beginning on."""
ACCEPTED_AT_ONCE: Final = 16
"""Connections that asyncio accepts before it lets any of them be counted."""
_SILENT_S: Final = 60
"""Between two lines of the log on one kind of fault of the event loop."""

log = logging.getLogger("atypia")


def bounded_server(app: Any, most: int, backlog: int, **settings: Any) -> Any:
    """Make uvicorn's server for at most so many connections, with a log that cannot be flooded.

    asyncio takes the length of the backlog for the number of connections to accept in one go; that
    of the listening socket is set apart. `settings` are further ones of ``uvicorn.Config``.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        http=bounded_protocol(most),
        backlog=ACCEPTED_AT_ONCE,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        **settings,
    )

    last: dict[str, float] = {}

    def note(_: Any, fault: dict[str, Any]) -> None:
        what, now = f"{fault.get('message')}: {fault.get('exception')!r}", time.monotonic()
        if now - last.get(what, -_SILENT_S) >= _SILENT_S:
            last[what] = now
            log.error("%s (logged once a minute, however often it occurs)", what)

    class BoundedServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            asyncio.get_running_loop().set_exception_handler(note)
            await super().startup(sockets)
            for listener in sockets or []:
                listener.listen(backlog)

    return BoundedServer(config)


def bounded_protocol(most: int, headers_s: float = HEADERS_S) -> type[asyncio.Protocol]:
    """Make uvicorn's protocol (h11) for at most so many connections.

    Where one more comes, the one that has waited longest without a whole request is closed; so is
    every connection whose headers are not there in time. The handles of files never run out, so
    that nothing is logged but the requests.
    """
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    waiting: dict[Any, None] = {}
    """Connections without a whole request, those that never had one first in time first."""
    idle: dict[Any, None] = {}
    """Connections that have had one, and wait for the next."""
    sending: dict[Any, None] = {}
    """Connections whose body is on its way: the last to be closed."""

    class BoundedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            waiting[self] = None
            self._arm()
            if len(self.connections) > most:
                others = waiting if len(waiting) > 1 else idle or sending or waiting
                oldest = next(iter(others))
                oldest.end()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self._arm()  # a part of the headers, at most
                return
            self._disarm()
            self._forget()
            if self.conn.their_state is h11.SEND_BODY:
                sending[self] = None

        def on_response_complete(self) -> None:
            if self.conn.their_state is h11.SEND_BODY:
                # Refused before its body had come: to close at once would take the answer along.
                self.loop.call_later(headers_s, self.end)
            super().on_response_complete()
            if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
                idle[self] = None

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            self._forget()
            super().connection_lost(exc)

        def end(self) -> None:
            self._forget()
            self.transport.abort()

        def _forget(self) -> None:
            for kept in (waiting, idle, sending):
                kept.pop(self, None)

        def _arm(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(headers_s, self.end)

        def _disarm(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return BoundedProtocol
