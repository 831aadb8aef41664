"""The application and its addresses: from HTTP to :class:`atypia.server.service.Service` and back.

Bodies are read here and not by FastAPI's own parameters: those would hold and parse a body of any
kind on the event loop before a limit or the content type is looked at.

FastAPI's documentation pages are off: they load scripts from another host, and this server makes
nobody ask another one. ``/openapi.json`` opens in any viewer.
"""

# No `from __future__ import annotations`: FastAPI looks at the annotations of functions that are
# made where FastAPI is imported, and as strings they could not be found.

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from atypia._version import __version__
from atypia.server.guard import HEALTH, Access, Guard
from atypia.server.refusals import RefusalError, handle_errors
from atypia.server.schemas import (
    About,
    CandidatesForm,
    CandidatesRequest,
    Health,
    PatchAnswers,
    PatchesForm,
    PatchesRequest,
    Refused,
    SlideAnswers,
    Slides,
)
from atypia.server.service import Service
from atypia.server.uploads import parse, store_candidates, store_images, stored_candidates

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI, Request

T = TypeVar("T")
J = TypeVar("J", bound=BaseModel)
F = TypeVar("F", bound=BaseModel)

JSON: Final = "application/json"
FORM: Final = "multipart/form-data"

_ABOUT: Final = """\
Subtypes of mitotic figures in H&E histology. Research use; not a medical device.

Answers are those of `atypia predict` and `atypia slide`. Every error is JSON,
`{"problems": [...]}`, with one sentence for each thing that is wrong.
"""
_WHY: Final = {
    401: "The server wants a token.",
    403: "A page of another site asks.",
    404: "There is no such slide.",
    408: "The body took too long.",
    413: "Too many bytes, pixels or patches.",
    415: "Neither JSON nor a form.",
    421: "Addressed by a name that is not the server's.",
    422: "Something is wrong with the content; every problem is listed.",
    503: "Too busy; the header Retry-After says when to try again.",
}


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
        # Whatever the environment asks for: nothing about requests goes to another host.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.include_router(_router(service))
    if extend is not None:
        extend(app)
    app.add_middleware(
        Guard, admission=service.admission, limits=service.limits, access=access or Access()
    )
    handle_errors(app)
    # Bodies, which FastAPI does not read and so does not describe.
    bodies = (PatchesRequest, PatchesForm, CandidatesRequest, CandidatesForm)
    _, described = models_json_schema(
        [(model, "validation") for model in bodies], ref_template="#/components/schemas/{model}"
    )
    app.openapi()["components"]["schemas"] |= described["$defs"]
    return app


def _router(service: Service) -> "APIRouter":
    from fastapi import APIRouter, Request

    router = APIRouter()

    @router.get(HEALTH, tags=["about"])
    async def health() -> Health:
        """Whether the server is up, and how busy it is. Needs no token."""
        held = service.admission.held
        return Health(requests=held["requests"], waiting_patches=held["patches"])

    @router.get("/version", tags=["about"], responses=_refused(401, 421))
    async def version() -> About:
        """Describe the package and the model."""
        return service.about

    @router.post(
        "/v1/predict",
        tags=["predictions"],
        response_model=PatchAnswers,
        response_model_exclude_unset=True,
        responses=_refused(401, 403, 408, 413, 415, 421, 422, 503),
        openapi_extra=_body(PatchesRequest, PatchesForm),
    )
    async def predict(request: Request) -> dict[str, Any]:
        """Classify images and multi-page stacks, each patch centred on one mitotic figure."""
        async with service.folder() as folder:
            async with _sent(request, service, PatchesRequest, PatchesForm) as sent:
                uploads = await service.in_thread(partial(store_images, sent, folder))
            return await unless_gone(request, service.predict(uploads, skip_bad=sent.skip_bad))

    @router.get("/v1/slides", tags=["slides"], responses=_refused(401, 421))
    async def slides() -> Slides:
        """List the ids of the slides that the server was started with."""
        return Slides(slides=list(service.slides))

    @router.post(
        "/v1/slides/{slide_id}/predict",
        tags=["slides"],
        response_model=SlideAnswers,
        response_model_exclude_unset=True,
        responses=_refused(401, 403, 404, 408, 413, 415, 421, 422, 503),
        openapi_extra=_body(CandidatesRequest, CandidatesForm),
    )
    async def predict_slide(slide_id: str, request: Request) -> dict[str, Any]:
        """Classify the mitotic figures that were found on a slide."""
        async with service.folder() as folder:
            async with _sent(request, service, CandidatesRequest, CandidatesForm) as sent:
                names = await service.in_thread(partial(store_candidates, sent, folder))
            read = partial(stored_candidates, sent, folder, service.limits)
            work = service.predict_slide(slide_id, read, names, mpp=sent.mpp)
            return await unless_gone(request, work)

    return router


def _refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of an address."""
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": Refused, "description": _WHY[status]} for status in statuses
    }
    if 503 in described:
        described[503]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return described


def _body(json: type[BaseModel], form: type[BaseModel]) -> dict[str, Any]:
    """Describe a body that may be JSON or a form."""
    content = {
        media: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
        for media, model in ((JSON, json), (FORM, form))
    }
    return {"requestBody": {"required": True, "content": content}}


@asynccontextmanager
async def _sent(
    request: "Request", service: Service, json: type[J], form: type[F]
) -> AsyncIterator[J | F]:
    """Read a body of either type. Files of a form are gone at the end of the block."""
    from starlette.requests import ClientDisconnect

    limits = service.limits
    given = request.headers.get("content-type", "")
    match given.partition(";")[0].strip().lower():
        case "application/json":
            body = await request.body()
            yield await service.in_thread(partial(parse, json, body, limits))
        case "multipart/form-data":
            try:
                fields = await request.form(max_files=limits.patches, max_fields=limits.patches)
            except (RefusalError, ClientDisconnect, OSError):
                raise
            except Exception as error:  # on damaged bytes the parser raises more than it documents
                detail = str(getattr(error, "detail", error))
                status = 413 if detail.startswith("Too many") else 422
                what = f"expected {FORM} but it cannot be read ({detail})."
                raise RefusalError(status, what) from None
            try:
                yield parse(form, {key: fields.getlist(key) for key in fields}, limits)
            finally:
                await fields.close()
        case _:
            what = f"expected the content type {JSON} or {FORM} but got {given[:200]!r}."
            raise RefusalError(415, what)


async def unless_gone(request: "Request", work: Awaitable[T]) -> T:
    """Wait for work, and stop it when the client hangs up."""
    from starlette.requests import ClientDisconnect

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
