"""Requests without an answer: why, in sentences, and with which HTTP status."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastapi import FastAPI, Request, Response

    from atypia.core.errors import Problem


class RefusalError(Exception):
    """Ends a request with an HTTP status, a sentence for each problem, and further headers."""

    def __init__(
        self, status: int, problems: str | Iterable[str], headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.headers = dict(headers or {})
        super().__init__("\n".join(self.problems))

    def response(self) -> Response:
        """JSON of :class:`atypia.server.schemas.Refused`."""
        from fastapi import Response

        body = json.dumps({"problems": self.problems})
        return Response(body, self.status, self.headers, "application/json")


def busy(seconds: int, what: str) -> RefusalError:
    """Make the refusal of a request that may come again in so many seconds."""
    return RefusalError(503, f"{what} Try again in {seconds} s.", {"Retry-After": str(seconds)})


def sentences(problems: Iterable[Problem], names: Mapping[str, str]) -> list[str]:
    """Word problems for a client.

    Args:
        problems: Whose files are those of this machine.
        names: By file, what the client calls it. No other file is named.
    """
    worded = []
    for problem in problems:
        text = str(replace(problem, file=names.get(problem.file or "")))
        for file, name in names.items():  # in a library's message, too
            text = text.replace(file, name)
        worded.append(text.replace("--mpp", "mpp"))  # an option there is a field here
    return worded


def handle_errors(app: FastAPI) -> None:
    """Answer every exception with JSON."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import Response
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    @app.exception_handler(RefusalError)
    async def refused(_: Request, error: RefusalError) -> Response:
        return error.response()

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:  # noqa: ARG001
        return Response(status_code=499)  # nobody reads it; the log has it

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path[:200]}: {error.detail}."
        if error.status_code == 404:
            what += " /openapi.json lists the addresses."
        return RefusalError(error.status_code, what, error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}." for e in error.errors()]
        return RefusalError(422, problems).response()

    @app.exception_handler(OSError)
    async def no_room(_: Request, error: OSError) -> Response:
        what = f"The server could not store the request ({error.strerror}). Try again later."
        return RefusalError(503, what, {"Retry-After": "60"}).response()

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        what = f"The server failed ({type(error).__name__}). Its log says more. Please report it."
        return RefusalError(500, what).response()
