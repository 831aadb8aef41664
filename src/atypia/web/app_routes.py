"""The addresses of the app: from HTTP to :class:`atypia.web.site.Site` and back.

They work in threads (plain functions), and are no part of the API that ``/openapi.json`` describes.
"""

# No `from __future__ import annotations`, as in atypia.server.api_routes.

import asyncio
import io
import json
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.core.labels import N_SUBTYPES
from atypia.evaluation.predictions import AGREED
from atypia.server.api_routes import unless_gone
from atypia.server.guard import ServerLimits
from atypia.server.refusals import RefusalError
from atypia.web.pictures import no_picture
from atypia.web.review import agreement, export_cohort, export_geojson, export_places
from atypia.web.site import Site

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI, Response

KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
PAGE: Final = "index.html"

HEADERS: Final = {
    # No script, style, picture or connection from elsewhere, and none inside the page. Pictures
    # of files that were dropped, and of tiles, are blobs of the page's own.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
"""Of everything that the app answers."""

_HEAVY, _PICTURES = 2, 8
"""Requests that are worked on at once: heat maps and what is measured; pictures. The threads that
are left are for labels."""

_FOR: Final = (230, 159, 0)
_AGAINST: Final = (0, 114, 178)
"""Of heat maps, as in those of ``atypia explain``."""


class Joining(BaseModel, extra="forbid"):
    """A reviewer begins or comes back."""

    name: Annotated[str, Field(max_length=1000)]
    blind: bool


class Label(BaseModel, extra="forbid"):
    """A key press."""

    number: Annotated[int, Field(ge=0)]
    subtype: Annotated[int, Field(ge=0, lt=N_SUBTYPES)] | None


def mount(app: "FastAPI", site: Site, limits: ServerLimits) -> None:
    """Put the app beside the API, whose limits the drop zone checks before it sends."""
    from fastapi import Request, Response

    for router in (page_router(site, limits), figure_router(site), review_router(site)):
        app.include_router(router)

    @app.exception_handler(AtypiaError)
    async def failed(_: Request, error: AtypiaError) -> Response:
        return RefusalError(500, str(error)).response()

    @app.exception_handler(InputError)
    async def wrong(_: Request, error: InputError) -> Response:
        return RefusalError(422, [str(problem) for problem in error.problems]).response()


def _seats(n: int) -> Any:
    """Make a dependency that works on `n` requests at once, and drops those whose client left."""
    from fastapi import Depends, Request

    free = asyncio.Semaphore(n)

    async def seat(request: Request) -> AsyncIterator[None]:
        await unless_gone(request, free.acquire())
        try:
            yield
        finally:
            free.release()

    return Depends(seat)


def read_assets() -> dict[str, tuple[bytes, str]]:
    """Read every file of ``static``: path below it to content and media type."""
    folder = Path(str(resources.files("atypia.web"))) / "static"
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), KINDS[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.suffix in KINDS
    }


def page_router(site: Site, limits: ServerLimits) -> "APIRouter":
    """Make the addresses of the page, of what it loads, and of what it asks first."""
    from fastapi import APIRouter, Response

    router = APIRouter(include_in_schema=False)
    assets, pictures = read_assets(), [_seats(_PICTURES)]

    @router.get("/")
    def page() -> Response:
        return _response(*assets[PAGE])

    @router.get("/static/{path:path}")
    def asset(path: str) -> Response:
        if path not in assets:
            raise RefusalError(404, f"There is no file {path[:200]!r}.")
        return _response(*assets[path])

    @router.get("/web/about")
    def about() -> Response:
        return _json({**site.about(), "body_bytes": limits.body_bytes})

    @router.get("/web/tiles/{size}/{number}.jpg", dependencies=pictures)
    def sheet(size: str, number: int) -> Response:
        make = {"large": site.tiles.large, "small": site.tiles.small}.get(size)
        if make is None:
            raise no_picture()
        return _response(make(number), "image/jpeg")

    @router.get("/web/figures/{number}/image.png", dependencies=pictures)
    def image(number: int) -> Response:
        pixels = site.shown.pictures.patch(_known(site, number))
        return _response(_png(pixels), "image/png")

    return router


def figure_router(site: Site) -> "APIRouter":
    """Make the addresses of answers and labels, which blind reviewers do not get."""
    from fastapi import APIRouter, Depends, Response

    def seeing() -> None:
        if site.show.blind:
            raise RefusalError(403, "This server was started blind: it tells no answers.")

    router = APIRouter(prefix="/web", include_in_schema=False, dependencies=[Depends(seeing)])
    figures = site.shown.figures
    heavy, pictures = [_seats(_HEAVY)], [_seats(_PICTURES)]

    @router.get("/figures")
    def table() -> Response:
        return _json(figures.columns())

    @router.get("/figures/{number}")
    def figure(number: int) -> Response:
        record = figures.record(_known(site, number))
        second = None if site.comparison is None else site.comparison.record(number)
        mpp = site.shown.pictures.mpp(number)
        place = None
        if site.shown.found is not None:
            place = site.shown.found.centres_px[number].round(1).tolist()
        can = {
            "neighbours": site.neighbours is not None and bool(figures.labels),
            "reading": site.explanations.read is not None,
            "heat": list(site.explanations.methods.items()),
        }
        return _json({**record, "second": second, "mpp": mpp, "place": place, "can": can})

    @router.get("/figures/{number}/neighbours", dependencies=heavy)
    def neighbours(number: int, label: str) -> Response:
        if site.neighbours is None:
            raise RefusalError(404, "This model gives no features: neighbours are not available.")
        if label not in figures.labels:
            expected = list(figures.labels)
            raise RefusalError(422, f"expected a rater out of {expected} but got {label[:60]!r}.")
        return _json(site.neighbours.near(_known(site, number), figures.labels[label]))

    @router.get("/figures/{number}/reading", dependencies=heavy)
    def reading(number: int) -> Response:
        if site.explanations.read is None:
            raise RefusalError(404, "The reading by rules is not available.")
        shown = site.shown.pictures
        patch = shown.patch(_known(site, number))
        return _json(site.explanations.read(patch, shown.mpp(number)))

    @router.get("/figures/{number}/heat/{method}/{target}.png", dependencies=heavy)
    def heat(number: int, method: str, target: int) -> Response:
        make = site.explanations.heat
        if make is None or method not in site.explanations.methods:
            raise RefusalError(404, "Such heat maps are not available for this model.")
        if not 0 <= target <= N_SUBTYPES:
            raise RefusalError(404, f"There is no subtype {target}.")
        shown = site.shown.pictures
        patch = shown.patch(_known(site, number))
        found = make(patch, shown.mpp(number), target, method)
        return _response(_png(_coloured(found)), "image/png")

    slide, comparison = site.slide, site.comparison
    if slide is not None and not site.show.blind:

        @router.get("/slide")
        def about_slide() -> Response:
            return _json(slide.about())

        @router.get("/slide/density", dependencies=heavy)
        def density() -> Response:
            return _json(slide.density())

        @router.get("/slide/tiles/{level}/{column}_{row}.jpg", dependencies=pictures)
        def tile(level: int, column: int, row: int) -> Response:
            return _response(slide.tile(level, column, row), "image/jpeg")

    if comparison is not None and not site.show.blind:

        @router.get("/comparison")
        def second_table() -> Response:
            return _json(comparison.columns())

        @router.get("/comparison/measures", dependencies=heavy)
        def measures() -> Response:
            return _json(comparison.measures())

    return router


def review_router(site: Site) -> "APIRouter":
    """Make the addresses of reviewers. Those who are blind get pictures and their own labels."""
    from fastapi import APIRouter, Response

    router = APIRouter(prefix="/web/reviews", include_in_schema=False)
    figures, store = site.shown.figures, site.reviews
    reserved = {AGREED, "majority", "soft", *figures.labels}

    def seeing(name: str) -> None:
        if site.show.blind or store.is_blind(name):
            raise RefusalError(403, f"{name[:60]} reviews blind: others are not told.")

    @router.post("")
    def join(asked: Joining) -> Response:
        if site.show.blind and not asked.blind:
            raise RefusalError(403, "This server was started blind: review blind.")
        if asked.name in reserved and asked.name not in store.labels():
            raise InputError(
                Problem(
                    f"{asked.name} is the name of a rater, or of what raters agree on. Their "
                    "labels could not be told from yours: take another name."
                )
            )
        store.join(asked.name, blind=asked.blind)
        return state(asked.name)

    @router.get("/{name}")
    def state(name: str) -> Response:
        labels = _labels_of(site, name)
        blind = store.is_blind(name)
        answer: dict[str, Any] = {
            "name": name,
            "blind": blind,
            "order": site.order(name),
            "labels": labels.tolist(),
        }
        if not blind and not site.show.blind and figures.doubt is not None:
            rank = np.where(figures.doubt.rank > 0, figures.doubt.rank, len(figures) + 1)
            answer["by_doubt"] = np.argsort(rank, kind="stable").tolist()
        return _json(answer)

    @router.post("/{name}/labels")
    def give(name: str, label: Label) -> Response:
        store.give(name, _known(site, label.number), label.subtype)
        return _json({"saved": True})

    @router.post("/{name}/undo")
    def undo(name: str) -> Response:
        number = store.undo(name)
        subtype = None if number is None else int(store.labels()[name][number])
        return _json({"number": number, "subtype": subtype})

    @router.get("/{name}/others/{number}")
    def others(name: str, number: int) -> Response:
        seeing(name)
        record = figures.record(_known(site, number))
        reviewers = {
            other: int(codes[number]) for other, codes in store.labels().items() if other != name
        }
        return _json({**record, "reviewers": reviewers})

    @router.get("/{name}/agreement")
    def agreements(name: str) -> Response:
        seeing(name)
        reviewers = store.labels()
        # A rater of the cohort may be called as a reviewer is.
        raters = {f"{rater} (cohort)": codes for rater, codes in figures.labels.items()}
        if figures.answers is not None:
            raters["model (answers)"] = figures.answers.predicted
        given = {key: codes for key, codes in reviewers.items() if (codes >= 0).any()}
        pairs = [
            pair
            for pair in agreement({**given, **raters})
            if set(pair["raters"]) & set(given)  # type: ignore[call-overload]
        ]
        return _json({"pairs": pairs})

    @router.post("/{name}/cohort")
    def to_cohort(name: str) -> Response:
        labels = _labels_of(site, name)
        if site.shown.cohort is None:
            raise InputError(Problem("A slide is no cohort. Export GeoJSON instead."))
        out = _new_folder(site, f"with-{name}")
        export_cohort(site.shown.cohort, name, labels, out)
        given = int((labels >= 0).sum())
        return _json({"folder": str(out), "column": f"label_{name}", "labels": given})

    @router.post("/{name}/qupath")
    def to_qupath(name: str) -> Response:
        labels = _labels_of(site, name)
        if site.shown.cohort is None:
            raise InputError(Problem("A slide is no cohort. Its GeoJSON is one file."))
        out = _new_folder(site, f"with-{name}-qupath")
        files = export_places(site.shown.cohort, name, labels, out)
        return _json({"folder": str(out), "slides": len(files)})

    @router.get("/{name}/qupath.geojson")
    def to_geojson(name: str) -> Response:
        labels = _labels_of(site, name)
        if site.shown.found is None or site.shown.pool is None:
            raise InputError(Problem("A cohort may be of many slides: it has a file for each."))
        text = export_geojson(site.shown.found, site.shown.pool.info, name, labels)
        answer = _response(text.encode(), "application/geo+json")
        answer.headers["Content-Disposition"] = f'attachment; filename="{name}.geojson"'
        return answer

    return router


def _new_folder(site: Site, what: str) -> "Path":
    """Name a folder beside the labels that is not there yet."""
    folder = site.show.reviews.absolute().parent
    wanted = f"{site.show.source.resolve().name}-{what}"
    number, out = 1, folder / wanted
    while out.exists():
        number += 1
        out = folder / f"{wanted}-{number}"
    return out


def _known(site: Site, number: int) -> int:
    if not 0 <= number < len(site.shown.figures):
        raise RefusalError(404, f"There is no figure {number}.")
    return number


def _labels_of(site: Site, name: str) -> Any:
    labels = site.reviews.labels()
    if name not in labels:
        raise RefusalError(404, f"There is no reviewer {name[:60]!r}.")
    return labels[name]


def _response(content: bytes, kind: str) -> "Response":
    from fastapi import Response

    return Response(content, media_type=kind, headers=HEADERS)


def _json(value: object) -> "Response":
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _response(text.encode(errors="replace"), "application/json")


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _coloured(heat: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Paint a map (H, W) in -1..1 as RGBA; 0 is clear."""
    painted = np.empty((*heat.shape, 4), np.uint8)
    painted[..., :3] = np.where(heat[..., None] > 0, _FOR, _AGAINST)
    painted[..., 3] = np.round(255 * np.clip(np.abs(heat), 0, 1))
    return painted
