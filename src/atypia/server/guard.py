"""Who may ask, and how much at once: checks around every request, before its body is read.

Starlette's and uvicorn's own checks do not fit: they answer in plain text without ``Retry-After``,
count connections instead of requests, and bound neither a body's size nor the time it takes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from atypia.core.errors import InputError, Problem
from atypia.data.images import MAX_PIXELS
from atypia.server.refusals import RefusalError, busy

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterator,
        Mapping,
        MutableMapping,
    )
    from contextlib import AbstractContextManager

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH: Final = "/health"
APP: Final = "/web/"
"""Where the addresses of the app begin."""
_SHORT_BODY: Final = 2**16
"""Bytes of a request of the app, at most."""
BYTES_PER_PIXEL: Final = 8
"""Of a page that is being decoded: four in Pillow's copy, three in the array, and some more."""
MIB: Final = 2**20
_HEADERS: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_LONGEST_WAIT_S: Final = 120
"""In ``Retry-After``."""
_FULL: Final = {
    "requests": "{:,} requests are under way already.",
    "app_requests": "{:,} requests of the app are under way already.",
    "upload_bytes": "Too much is being uploaded at once.",
    "patches": "{:,} patches are waiting already.",
}

log = logging.getLogger("atypia")


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of one request and of all together; they bound the server's memory.

    Raises:
        InputError: Lists the bounds that contradict each other.
    """

    body_bytes: int = 32 * MIB
    """Of one request."""
    image_pixels: int = MAX_PIXELS
    """Of one image, all its pages together. Counted before anything is decoded."""
    patches: int = 4096
    """In one request; pages of stacks and candidates on a slide count as patches. Of all requests
    together twice as many may wait for an answer."""
    requests: int = 256
    """At once, from the first byte of a body to the last byte of the answer."""
    app_requests: int = 64
    """The same, for requests of the app: no other one keeps a label from being saved."""
    buffer_bytes: int = 512 * MIB
    """Of uploads that are held at once; and, as much again, of pixels."""
    seconds: float = 60
    """For a body to arrive, and for the client to take each part of the answer."""
    app_seconds: float = 10
    """For a body to arrive that the app sends, a line or so."""

    def __post_init__(self) -> None:
        least = {"a body": self.body_bytes, "an image": self.image_pixels * BYTES_PER_PIXEL}
        problems = [
            Problem(
                f"expected room for {what} of the largest size that is allowed "
                f"({size / MIB:,.0f} MB) in memory but got {self.buffer_bytes / MIB:,.0f} MB. "
                "Raise --max-memory-mb, or lower the other limit."
            )
            for what, size in least.items()
            if size > self.buffer_bytes
        ]
        if problems:
            raise InputError(problems)


def usual_requests(*, beside_app: bool) -> int:
    """Bound of requests where none is given: beside the app fewer, which keep labels waiting."""
    return 24 if beside_app else ServerLimits.requests


class Admission:
    """Counters of what all requests hold, each with a bound.

    `seconds_per_patch` is called when a request is refused, for ``Retry-After``.
    """

    def __init__(self, limits: ServerLimits, seconds_per_patch: Callable[[], float]) -> None:
        self.held: Counter[str] = Counter()
        """Requests, bytes of uploads, and patches without an answer yet."""
        self._most = {
            "requests": limits.requests,
            "app_requests": limits.app_requests,
            "upload_bytes": limits.buffer_bytes,
            "patches": 2 * limits.patches,
        }
        self._seconds_per_patch = seconds_per_patch
        self._lock = threading.Lock()  # patches are counted in threads
        self._pixel_bytes = 0
        self._most_pixel_bytes = limits.buffer_bytes
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @contextmanager
    def hold(self, **wanted: int) -> Iterator[None]:
        """Count what a request takes, by the names of :attr:`held`, until the block ends.

        Raises:
            RefusalError: 503; there is no room for one of them.
        """
        with self._lock:
            for what, n in wanted.items():
                if self.held[what] + n > self._most[what]:
                    seconds = math.ceil(self.held["patches"] * self._seconds_per_patch())
                    wait = min(max(seconds, 1), _LONGEST_WAIT_S)
                    raise busy(wait, _FULL[what].format(self.held[what]))
            self.held.update(wanted)
        try:
            yield
        finally:
            with self._lock:
                self.held.subtract(wanted)

    @asynccontextmanager
    async def pixels(self, n_bytes: int) -> AsyncIterator[None]:
        """Wait until there is room for decoded pixels; more than all of it counts as all of it."""
        n_bytes = min(n_bytes, self._most_pixel_bytes)
        async with self._turn:  # those behind do not overtake a large one
            while self._pixel_bytes + n_bytes > self._most_pixel_bytes:
                self._freed.clear()
                await self._freed.wait()
            self._pixel_bytes += n_bytes
        try:
            yield
        finally:
            self._pixel_bytes -= n_bytes
            self._freed.set()


@dataclass(frozen=True)
class Access:
    """Who may ask."""

    hosts: frozenset[str] | None = None
    """Names by which clients may address the server; None: any. A page of the web that has its
    own name resolved to this machine (DNS rebinding) sends that name."""
    token: str | None = None
    """Clients must send it as a bearer token; None: nobody must."""


class Guard:
    """An ASGI middleware that checks requests and counts those with a body."""

    def __init__(
        self, app: App, admission: Admission, limits: ServerLimits, access: Access
    ) -> None:
        self._app = app
        self._admission = admission
        self._limits = limits
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
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
            limited = self._limited(scope, receive)
            if scope["path"].startswith(APP) and not _is_safe(scope):
                limited = await self._whole(limited, headers)
            with self._admitted(scope, headers):
                await self._app(scope, limited, send_and_note)
        except RefusalError as refusal:
            await refusal.response()(scope, receive, send_and_note)
        # The path as it came, where nothing can break a line of the log.
        path = scope.get("raw_path", b"").decode("latin-1")[:200]
        milliseconds = 1000 * (time.perf_counter() - start)
        log.info("%s %s %d %.0f ms", scope["method"], path, status, milliseconds)

    def _check(self, scope: Scope, headers: Mapping[bytes, str]) -> None:
        host = headers.get(b"host", "")
        name, _ = _name_and_place(f"//{host}")
        if self._access.hosts is not None and name not in self._access.hosts:
            expected = ", ".join(sorted(self._access.hosts))
            what = f"expected a host name among {expected} but got {host[:200]!r}."
            raise RefusalError(421, f"{what} Start the server with --allow-host to add one.")
        # Browsers name the site of a page that writes; nothing else sends this header.
        origin = headers.get(b"origin")
        if origin is not None and not _is_safe(scope):
            _, place = _name_and_place(origin)
            if not place or place != host.lower():
                raise RefusalError(403, f"Pages of {origin[:200]!r} may not ask this server.")
        # Browsers mark what a page of another site asks for; only a link may lead here.
        site, mode = (headers.get(name, "") for name in (b"sec-fetch-site", b"sec-fetch-mode"))
        link = mode == "navigate" and scope["path"] == "/" and _is_safe(scope)
        if site in ("cross-site", "same-site") and not link:
            raise RefusalError(403, "Pages of other sites may not ask this server.")
        token = self._access.token
        if token is not None and scope["path"] != HEALTH:
            scheme, _, given = headers.get(b"authorization", "").partition(" ")
            same = secrets.compare_digest(given.strip().encode(), token.encode())
            if not same or scheme.lower() != "bearer":
                what = "expected the header 'Authorization: Bearer TOKEN' with the server's token."
                raise RefusalError(401, what, {"WWW-Authenticate": "Bearer"})

    def _admitted(self, scope: Scope, headers: Mapping[bytes, str]) -> AbstractContextManager[None]:
        """Count a request with a body, by the bytes that it announces, if it does."""
        if _is_safe(scope):
            return nullcontext()
        if headers.get(b"content-encoding", "identity").strip().lower() != "identity":
            raise RefusalError(415, "expected a body as it is but got a compressed one.")
        # Digits, or it would not be HTTP.
        n_bytes = int(headers.get(b"content-length", self._limits.body_bytes))
        if n_bytes > self._limits.body_bytes:
            raise self._too_large()
        kind = "app_requests" if scope["path"].startswith(APP) else "requests"
        return self._admission.hold(**{kind: 1}, upload_bytes=n_bytes)

    async def _whole(self, receive: Receive, headers: Mapping[bytes, str]) -> Receive:
        """Wait for a short body before it takes a seat, lest slow ones take them all."""
        if int(headers.get(b"content-length", 0)) > _SHORT_BODY:
            raise self._too_large()
        messages, got = [await receive()], 0
        while messages[-1].get("more_body"):
            got += len(messages[-1].get("body", b""))
            if got > _SHORT_BODY:
                raise self._too_large()
            messages.append(await receive())

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        return again

    def _too_large(self) -> RefusalError:
        what = f"expected a body of at most {self._limits.body_bytes:,} bytes but got more."
        return RefusalError(413, f"{what} Send several requests.")

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Let a body through as far as the limits go; to read on then raises a RefusalError."""
        of_app = scope["path"].startswith(APP)
        patience = self._limits.app_seconds if of_app else self._limits.seconds
        deadline = asyncio.get_running_loop().time() + patience
        got, whole = 0, False

        async def limited() -> Message:
            nonlocal got, whole
            if whole:  # now it waits for the client to hang up
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                what = f"expected the whole request within {patience:g} s."
                raise RefusalError(408, what) from None
            got += len(message.get("body", b""))
            if got > self._limits.body_bytes:
                raise self._too_large()
            whole = not message.get("more_body", False)
            return message

        return limited


def _is_safe(scope: Scope) -> bool:
    return scope["method"] in ("GET", "HEAD")


def _name_and_place(url: str) -> tuple[str, str]:
    """Host name, and ``name:port``, of a URL in lower case; both empty where it is none."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.netloc.lower()
    except ValueError:
        return "", ""
