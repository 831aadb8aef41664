"""The addresses: from HTTP to :class:`atypia.server.service.Service` and back.

Bodies are read here and not by FastAPI's own parameters: those would hold and parse a body of any
kind on the event loop before a limit or the content type is looked at.
"""

# No `from __future__ import annotations`: FastAPI looks at the annotations of functions that are
# made where FastAPI is imported, and as strings they could not be found.

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

from atypia.server.candidate_requests import read_file, read_list
from atypia.server.guard import HEALTH
from atypia.server.refusal import RefusalError
from atypia.server.schemas import (
    About,
    CandidatesRequest,
    Health,
    PatchAnswers,
    PatchesRequest,
    Refused,
    SlideAnswers,
    Slides,
)
from atypia.server.service import Service
from atypia.server.uploads import copy, parse_mpp, read_as, store_files, store_json

if TYPE_CHECKING:
    from fastapi import APIRouter, Request
    from starlette.datastructures import FormData

T = TypeVar("T")

JSON: Final = "application/json"
FORM: Final = "multipart/form-data"
REQUESTS: Final = (PatchesRequest, CandidatesRequest)
"""Bodies that the OpenAPI document describes although FastAPI does not read them."""

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
_MPP: Final = {"type": "number", "minimum": 0.01, "maximum": 10, "description": "µm per pixel"}
_SKIP_BAD: Final = {
    "type": "boolean",
    "default": False,
    "description": "Answer the good ones and list what is wrong with the others.",
}


def about_router(service: Service) -> "APIRouter":
    """Make the addresses that tell about the server."""
    from fastapi import APIRouter

    router = APIRouter(tags=["about"])

    @router.get(HEALTH)
    async def health() -> Health:
        """Tell that the server is up, and how busy it is. Needs no token."""
        admission = service.admission
        return Health(requests=admission.requests, waiting_patches=admission.patches)

    @router.get("/version", responses=_refused(401, 421))
    async def version() -> About:
        """Tell which package and which model answer."""
        return service.about

    return router


def patch_router(service: Service) -> "APIRouter":
    """Make the address that classifies images."""
    from fastapi import APIRouter, Request

    router = APIRouter(prefix="/v1", tags=["predictions"])
    form = {
        "images": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "minItems": 1,
            "description": "PNG, JPEG, TIFF, BMP or WebP, 8-bit RGB. File names become patch ids.",
        },
        "mpp": {
            "type": "array",
            "items": _MPP,
            "description": "Of all images, or of each in their order; TIFF files may say it.",
        },
        "skip_bad": _SKIP_BAD,
    }

    @router.post(
        "/predict",
        response_model=PatchAnswers,
        response_model_exclude_unset=True,
        responses=_refused(401, 403, 408, 413, 415, 421, 422, 503),
        openapi_extra=_body(PatchesRequest.__name__, form, ["images"]),
    )
    async def predict(request: Request) -> dict[str, Any]:
        """Classify images and multi-page stacks, each patch centred on one mitotic figure."""
        async with service.folder() as folder:
            if _kind(request) == JSON:
                body = await request.body()

                async def answer() -> dict[str, Any]:
                    asked = await service.in_thread(
                        partial(read_as, PatchesRequest, body, service.limits)
                    )
                    uploads = await service.in_thread(partial(store_json, asked, folder))
                    return await service.predict(uploads, skip_bad=asked.skip_bad)

                return await _unless_gone(request, answer())
            async with _form(request, service, {"images"}, {"mpp", "skip_bad"}) as sent:
                mpps = [parse_mpp(text) for text in _texts(sent, "mpp")]
                files = _files(sent, "images")
                skip_bad = _switch(sent, "skip_bad")
                uploads = await service.in_thread(partial(store_files, files, mpps, folder))
            return await _unless_gone(request, service.predict(uploads, skip_bad=skip_bad))

    return router


def slide_router(service: Service) -> "APIRouter":
    """Make the addresses of slides."""
    from fastapi import APIRouter, Request

    router = APIRouter(prefix="/v1", tags=["slides"])
    form = {
        "candidates": {
            "type": "string",
            "format": "binary",
            "description": "GeoJSON of QuPath, MIDOG or COCO JSON, or a CSV of centres.",
        },
        "units": {
            "type": "string",
            "enum": ["px", "um"],
            "description": "Of the coordinates, where the file does not say it.",
        },
        "mpp": _MPP,
        "skip_bad": _SKIP_BAD,
    }

    @router.get("/slides", responses=_refused(401, 421))
    async def slides() -> Slides:
        """List the ids of the slides that the server was started with."""
        return Slides(slides=list(service.slides))

    @router.post(
        "/slides/{slide_id}/predict",
        response_model=SlideAnswers,
        response_model_exclude_unset=True,
        responses=_refused(401, 403, 404, 408, 413, 415, 421, 422, 503),
        openapi_extra=_body(CandidatesRequest.__name__, form, ["candidates"]),
    )
    async def predict_slide(slide_id: str, request: Request) -> dict[str, Any]:
        """Classify the mitotic figures that were found on a slide."""
        async with service.folder() as folder:
            if _kind(request) == JSON:
                body = await request.body()
                asked = await service.in_thread(
                    partial(read_as, CandidatesRequest, body, service.limits)
                )
                names = {str(folder / "candidates.json"): "candidates"}
                work = service.predict_slide(
                    slide_id, lambda slide: read_list(asked, folder, slide), names, mpp=asked.mpp
                )
                return await _unless_gone(request, work)
            fields = {"units", "mpp", "skip_bad"}
            async with _form(request, service, {"candidates"}, fields) as sent:
                files = _files(sent, "candidates")
                units, mpp = _units(sent), _texts(sent, "mpp", most=1)
                skip_bad = _switch(sent, "skip_bad")
                if len(files) > 1:
                    raise RefusalError(422, f"candidates: expected one file but got {len(files)}.")
                name, source = files[0]
                file = await service.in_thread(partial(copy, source, folder / "candidates"))
            work = service.predict_slide(
                slide_id,
                lambda slide: read_file(
                    file, slide, service.limits, units=units, skip_bad=skip_bad
                ),
                {str(file.with_suffix(suffix)): name for suffix in (".json", ".csv", "")},
                mpp=parse_mpp(mpp[0]) if mpp else None,
            )
            return await _unless_gone(request, work)

    return router


def _refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of an address."""
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": Refused, "description": _WHY[status]} for status in statuses
    }
    if 503 in described:
        described[503]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return described


def _body(schema: str, form: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """Describe a body that may be JSON or a form."""
    described = {"type": "object", "properties": form, "required": required}
    content = {
        JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}},
        FORM: {"schema": described},
    }
    return {"requestBody": {"required": True, "content": content}}


async def _unless_gone(request: "Request", work: Awaitable[T]) -> T:
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


def _kind(request: "Request") -> str:
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind not in (JSON, FORM):
        raise RefusalError(
            415, f"expected the content type {JSON} or {FORM} but got {given[:200]!r}."
        )
    return kind


@asynccontextmanager
async def _form(
    request: "Request", service: Service, files: set[str], fields: set[str]
) -> AsyncIterator["FormData"]:
    """Read a form; large files in it go to the disk. They are gone at the end of the block."""
    from starlette.requests import ClientDisconnect

    try:
        sent = await request.form(
            max_files=service.limits.patches, max_fields=service.limits.patches
        )
    except (RefusalError, ClientDisconnect, OSError):
        raise
    except Exception as error:  # on damaged bytes the parser raises more than it documents
        detail = str(getattr(error, "detail", error))
        status = 413 if detail.startswith("Too many") else 422
        raise RefusalError(status, f"expected {FORM} but it cannot be read ({detail}).") from None
    try:
        unknown = [
            f"{key[:100]}: expected a {'file' if key in files else 'text'} but got the other."
            if key in files | fields
            else f"{key[:100]!r}: expected one of the fields {sorted(files | fields)}."
            for key, value in sent.multi_items()
            if key not in (fields if isinstance(value, str) else files)
        ]
        if unknown:
            raise RefusalError(422, unknown[:100])
        yield sent
    finally:
        await sent.close()


def _files(sent: "FormData", key: str) -> list[tuple[str, IO[bytes]]]:
    """Name and content of each file of a field; at least one."""
    files = [upload for upload in sent.getlist(key) if not isinstance(upload, str)]
    if not files:
        raise RefusalError(422, f"{key}: expected at least one file but got none.")
    return [(upload.filename or f"{key}.{i}", upload.file) for i, upload in enumerate(files)]


def _texts(sent: "FormData", key: str, most: int | None = None) -> Sequence[str]:
    texts = [text for text in sent.getlist(key) if isinstance(text, str)]
    if most is not None and len(texts) > most:
        raise RefusalError(422, f"{key}: expected at most {most} but got {len(texts)}.")
    return texts


def _switch(sent: "FormData", key: str) -> bool:
    texts = _texts(sent, key, most=1)
    if texts and texts[0] not in ("true", "false"):
        raise RefusalError(422, f"{key}: expected 'true' or 'false' but got {texts[0][:50]!r}.")
    return texts == ["true"]


def _units(sent: "FormData") -> Any:
    texts = _texts(sent, "units", most=1)
    if texts and texts[0] not in ("px", "um"):
        raise RefusalError(422, f"units: expected 'px' or 'um' but got {texts[0][:50]!r}.")
    return texts[0] if texts else None
