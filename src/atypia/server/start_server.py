"""Listen, answer, and end well."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from atypia.classifiers.bundle import BEST, RELEASED
from atypia.core.errors import InputError, MissingExtraError
from atypia.server.guard import Access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from atypia.server.limits import ServerLimits
    from atypia.server.service import Service

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_BACKLOG: Final = 1024
_KEEP_ALIVE_S: Final = 75
"""Longer than clients keep a connection, lest one asks on it just as it is closed."""
_FAREWELL_S: Final = 300
"""When the server is told to stop, what was accepted is answered for so long."""
_SHORTEST_TOKEN: Final = 16

log = logging.getLogger("atypia")


def serve(
    model: Path | str = RELEASED,
    *,
    quality: str = BEST,
    backend: str = "auto",
    device: str = "auto",
    slides: Mapping[str, Path] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_hosts: Iterable[str] = (),
    token: str | None = None,
    limits: ServerLimits | None = None,
) -> None:
    """Answer requests until the process is told to stop (SIGINT, SIGTERM).

    Args:
        model: ``released`` for the model in the package, a bundle, a run folder, or an export.
        quality: ``best``, or ``fast`` where the model has it.
        backend: ``auto``, ``torch``, ``onnx`` or ``onnx-int8``.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        slides: By id; see :func:`atypia.server.registry.register_slides`.
        host: Name or address to listen on.
        port: 0 is any that is free.
        allow_hosts: Further names by which clients may address the server.
        token: Clients must send it; None: nobody must.
        limits: The bounds.

    Raises:
        InputError: No such model, an address that is not free, a token that is too short.
        MissingExtraError: The extra ``serve`` is not installed.
    """
    check_installed()
    with bound(host, port) as listener:
        access = choose_access(listener, host, allow_hosts, token)
        # Only now, with torch: errors above need not wait for it.
        from atypia.server.about import load
        from atypia.server.service import Service

        loaded, about = load(model, quality, backend, device)
        with Service(loaded, about, slides, limits) as service:
            answer(service, listener, access)


def check_installed() -> None:
    """Check that the extra is installed.

    Raises:
        MissingExtraError: It is not.
    """
    for package in ("fastapi", "uvicorn", "python_multipart"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "serve", "The server")


def choose_access(
    listener: socket.socket, host: str, allow_hosts: Iterable[str] = (), token: str | None = None
) -> Access:
    """Tell who may ask a server that listens here; warns where that is not this machine alone.

    Raises:
        InputError: The token is too short, or not ASCII.
    """
    if token is not None and not (token.isascii() and len(token) >= _SHORTEST_TOKEN):
        raise InputError(f"token: expected at least {_SHORTEST_TOKEN} ASCII characters.")
    names = {name.lower() for name in allow_hosts}
    if ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
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
    """Answer what comes to a bound socket until the process is told to stop.

    Args:
        service: Open.
        listener: Bound.
        access: Who may ask.
        extend: Adds further addresses to the application, a ``fastapi.FastAPI``.
    """
    import uvicorn

    from atypia.server.api_app import make_app

    config = uvicorn.Config(
        make_app(service, access, extend),
        # The same on every machine, whatever faster ones are installed: the model takes the time.
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_FAREWELL_S,
    )
    listener.listen(_BACKLOG)
    address, port = listener.getsockname()[:2]
    place = f"[{address}]" if ":" in address else address
    log.info(
        "%s (%s) answers on http://%s:%d", service.about.model, service.about.quality, place, port
    )
    with _unharmed_by_signals():
        uvicorn.Server(config).run(sockets=[listener])
    log.info("stopped; what was accepted is answered")


@contextmanager
def _unharmed_by_signals() -> Iterator[None]:
    """Uvicorn raises the signal that stopped it again; to end well is no failure."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Bind a socket, which does not listen yet."""
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
            what = (
                f"cannot listen on {host}, port {port} ({error.strerror}). Choose another --port."
            )
            raise InputError(what) from None
        yield listener
