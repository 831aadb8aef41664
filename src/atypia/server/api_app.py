"""The application: routers, errors as JSON, the OpenAPI document.

Its documentation pages are off: FastAPI's load scripts from another host, and this server makes
nobody ask another one. ``/openapi.json`` opens in any viewer.
"""

# No `from __future__ import annotations`, as in .routes.

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from atypia._version import __version__
from atypia.server.api_routes import REQUESTS, about_router, patch_router, slide_router
from atypia.server.guard import Access, Guard
from atypia.server.refusal import RefusalError
from atypia.server.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

_ABOUT = """Subtypes of mitotic figures in H&E histology. Research use; not a medical device.

Answers are those of `atypia predict` and `atypia slide`. Every error is JSON,
`{"problems": [...]}`, with one sentence for each thing that is wrong.
"""


def make_app(
    service: Service,
    access: Access | None = None,
    extend: "Callable[[FastAPI], None] | None" = None,
) -> "FastAPI":
    """Make the application.

    Args:
        service: Open, and open as long as the application answers.
        access: Who may ask; None: everybody.
        extend: Adds further addresses.
    """
    from fastapi import FastAPI

    app = FastAPI(
        title="Atypia",
        version=__version__,
        description=_ABOUT,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Whatever the environment says: nothing about requests goes to another host.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    for make_router in (about_router, patch_router, slide_router):
        app.include_router(make_router(service))
    if extend is not None:
        extend(app)
    app.add_middleware(
        Guard,
        admission=service.admission,
        limits=service.limits,
        access=access or Access(),
    )
    _tell_errors(app)
    _describe_requests(app)
    return app


def _tell_errors(app: "FastAPI") -> None:
    from fastapi import Request, Response
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    def told(refusal: RefusalError) -> Response:
        return Response(refusal.body, refusal.status, refusal.headers, "application/json")

    @app.exception_handler(RefusalError)
    async def refused(_: Request, error: RefusalError) -> Response:
        return told(error)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:  # noqa: ARG001
        return Response(status_code=499)  # nobody reads it; the log has it

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path[:200]}: {error.detail}."
        if error.status_code == 404:
            what += " /openapi.json lists the addresses."
        return told(RefusalError(error.status_code, what, error.headers))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}." for e in error.errors()]
        return told(RefusalError(422, problems))

    @app.exception_handler(OSError)
    async def no_room(_: Request, error: OSError) -> Response:
        what = f"The server could not store the request ({error.strerror}). Try again later."
        return told(RefusalError(503, what, {"Retry-After": "60"}))

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        what = f"The server failed ({type(error).__name__}). Its log says more. Please report it."
        return told(RefusalError(500, what))


def _describe_requests(app: "FastAPI") -> None:
    """Add the bodies that are read without FastAPI to the OpenAPI document."""
    document = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = document()
            _, described = models_json_schema(
                [(model, "validation") for model in REQUESTS],
                ref_template="#/components/schemas/{model}",
            )
            schema["components"]["schemas"] |= described["$defs"]
        return document()

    app.openapi = openapi  # type: ignore[method-assign]
