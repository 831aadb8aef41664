"""Listen, answer, and end well."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from atypia.core.errors import InputError, MissingExtraError
from atypia.server.guard import Access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from atypia.server.service import Service

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_BACKLOG: Final = 1024
_KEEP_ALIVE_S: Final = 75
"""Longer than clients keep a connection, lest one asks on it just as it is closed."""
_FAREWELL_S: Final = 300
"""For what was accepted before the signal to stop."""
_SHORTEST_TOKEN: Final = 16
_MOST_CONNECTIONS: Final = 2048

log = logging.getLogger("atypia")


def check_installed() -> None:
    """Raise a MissingExtraError where the extra is not installed."""
    for package in ("fastapi", "uvicorn", "python_multipart"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "serve", "The server")


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Bind a socket, which does not listen yet: clients need not wait for the model.

    Raises:
        InputError: No address of this machine, or not free.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"--host {host}: expected a name or an address of this machine ({error})."
        ) from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            what = f"cannot listen on {host}, port {port} ({error.strerror})."
            raise InputError(f"{what} Choose another --port.") from None
        yield listener


def is_private(listener: socket.socket) -> bool:
    """Whether a socket is bound to an address of this machine alone."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def choose_access(
    listener: socket.socket, host: str, allow_hosts: Iterable[str] = (), token: str | None = None
) -> Access:
    """Decide who may ask a server that listens here; warns where that is not this machine alone.

    Raises:
        InputError: The token is too short, or not ASCII.
    """
    if token is not None and not (token.isascii() and len(token) >= _SHORTEST_TOKEN):
        raise InputError(f"token: expected at least {_SHORTEST_TOKEN} ASCII characters.")
    names = {name.lower() for name in allow_hosts}
    if is_private(listener):
        return Access(_LOOPBACK_NAMES | names | {host.lower()}, token)
    log.warning(
        "listening on %s: who reaches this machine can %s, and the connection is not encrypted",
        host,
        "ask with the token" if token else "use the model and the registered slides",
    )
    return Access(frozenset(names | {host.lower()}) if names else None, token)


def answer(
    service: Service,
    listener: socket.socket,
    access: Access,
    extend: Callable[[Any], None] | None = None,
) -> None:
    """Answer what comes to a bound socket until the process gets SIGINT or SIGTERM.

    Arguments as for :func:`atypia.server.api_routes.make_app`.
    """
    from atypia.server.api_routes import make_app
    from atypia.server.connections import bounded_server

    server = bounded_server(
        make_app(service, access, extend),
        most=_connections(),
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_FAREWELL_S,
    )
    listener.listen(_BACKLOG)
    address, port = listener.getsockname()[:2]
    place = f"[{address}]" if ":" in address else address
    log.info(
        "%s (%s) answers on http://%s:%d", service.about.model, service.about.quality, place, port
    )
    # Uvicorn raises the signal that stopped it again; to end well is no failure.
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in signals}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    left = len(server.server_state.tasks)
    rest = f"{left} accepted requests were not finished." if left else ""
    log.info("Stopped. %s", rest or "All accepted requests were finished.")


def _connections() -> int:
    """How many connections may be open: a half of the files that the process may have open."""
    try:
        import resource
    except ImportError:  # Windows counts its sockets apart
        return _MOST_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MOST_CONNECTIONS
    if hard == resource.RLIM_INFINITY or hard > soft:
        more = max(soft, wanted)
        soft = more if hard == resource.RLIM_INFINITY else min(more, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(_MOST_CONNECTIONS, soft // 2)
