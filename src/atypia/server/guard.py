"""Who may ask, and how much: checks around every request, before anything reads its body."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from atypia.server.refusal import RefusalError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from atypia.server.admission import Admission
    from atypia.server.limits import ServerLimits

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH: Final = "/health"
_HEADERS: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))

log = logging.getLogger("atypia")


@dataclass(frozen=True)
class Access:
    """Who may ask."""

    hosts: frozenset[str] | None = None
    """Names by which clients may address the server; None: any. A page of the web that has its
    own name resolved to this machine (DNS rebinding) sends that name."""
    token: str | None = None
    """Clients must send it as a bearer token; None: nobody must."""


class Guard:
    """An ASGI middleware.

    Args:
        app: What answers.
        admission: Counts requests with a body.
        limits: Of bodies, in bytes and seconds.
        access: Who may ask.
    """

    def __init__(
        self, app: App, admission: Admission, limits: ServerLimits, access: Access
    ) -> None:
        self._app = app
        self._admission = admission
        self._limits = limits
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            # A client that does not take its answer must not keep its place.
            async with asyncio.timeout(self._limits.seconds):
                await send(message)

        try:
            headers = {key: value.decode("latin-1") for key, value in scope["headers"]}
            self._check(scope, headers)
            with (
                nullcontext()
                if _is_safe(scope)
                else self._admission.request(self._body_bytes(headers))
            ):
                await self._app(scope, self._limited(receive), send_and_note)
        except RefusalError as refusal:
            await _send(refusal, send_and_note)
        # The path as it came, where nothing can break a line of the log.
        path = scope.get("raw_path", b"").decode("latin-1")[:200]
        milliseconds = 1000 * (time.perf_counter() - start)
        log.info("%s %s %d %.0f ms", scope["method"], path, status, milliseconds)

    def _check(self, scope: Scope, headers: Mapping[bytes, str]) -> None:
        host = headers.get(b"host", "")
        if self._access.hosts is not None and _name(host) not in self._access.hosts:
            expected = ", ".join(sorted(self._access.hosts))
            what = f"expected a host name among {expected} but got {host[:200]!r}."
            raise RefusalError(421, f"{what} Start the server with --allow-host to add one.")
        # Browsers say where a page that writes comes from; nothing else sends this header.
        origin = headers.get(b"origin")
        if origin is not None and not _is_safe(scope) and _place(origin) != host.lower():
            raise RefusalError(403, f"Pages of {origin[:200]!r} may not ask this server.")
        token = self._access.token
        if token is not None and scope["path"] != HEALTH and not _holds(headers, token):
            what = "expected the header 'Authorization: Bearer TOKEN' with the server's token."
            raise RefusalError(401, what, {"WWW-Authenticate": "Bearer"})

    def _body_bytes(self, headers: Mapping[bytes, str]) -> int:
        """Bytes that a body may have: as many as are announced, if any are."""
        if headers.get(b"content-encoding", "identity").strip().lower() != "identity":
            raise RefusalError(415, "expected a body as it is but got a compressed one.")
        announced = headers.get(b"content-length")
        if announced is None:
            return self._limits.body_bytes
        if int(announced) > self._limits.body_bytes:  # digits, or it would not be HTTP
            raise self._too_large()
        return int(announced)

    def _too_large(self) -> RefusalError:
        what = f"expected a body of at most {self._limits.body_bytes:,} bytes but got more."
        return RefusalError(413, f"{what} Send several requests.")

    def _limited(self, receive: Receive) -> Receive:
        """Let a body through as far as the limits go; to read on then raises a RefusalError."""
        deadline = asyncio.get_running_loop().time() + self._limits.seconds
        got, whole = 0, False

        async def limited() -> Message:
            nonlocal got, whole
            if whole:  # now it waits for the client to hang up
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                seconds = f"{self._limits.seconds:g} s"
                raise RefusalError(408, f"expected the whole request within {seconds}.") from None
            got += len(message.get("body", b""))
            if got > self._limits.body_bytes:
                raise self._too_large()
            whole = not message.get("more_body", False)
            return message

        return limited


def _is_safe(scope: Scope) -> bool:
    return scope["method"] in ("GET", "HEAD")


def _holds(headers: Mapping[bytes, str], token: str) -> bool:
    scheme, _, given = headers.get(b"authorization", "").partition(" ")
    same = secrets.compare_digest(given.strip().encode(), token.encode())
    return scheme.lower() == "bearer" and same


def _name(host: str) -> str | None:
    """Tell the name in ``name:port``, in lower case."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _place(origin: str) -> str | None:
    """Tell ``name:port`` of an origin."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


async def _send(refusal: RefusalError, send: Send) -> None:
    headers = {"content-type": "application/json", "content-length": str(len(refusal.body))}
    pairs = [(k.lower().encode(), v.encode()) for k, v in (headers | refusal.headers).items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
    await send({"type": "http.response.body", "body": refusal.body})
