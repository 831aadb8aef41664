"""``atypia serve``: the HTTP API, and the web app beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atypia.cli.app import Backend, app
from atypia.core.errors import InputError, Problem

_MIB = 2**20


@app.command()
def serve(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN|COHORT|SLIDE]", help="What the web app shows; without it: the API alone."
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Of a slide: CSV of 'atypia slide'. Of a cohort: predictions.csv."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="A second run, or a table, to compare with.")
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option(help="Of a run, where it is not where it was.")
    ] = None,
    reviews: Annotated[
        Path | None,
        typer.Option(help="Where reviewers' labels are saved; atypia-reviews.sqlite by default."),
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Tell nobody what the model or other raters say.")
    ] = False,
    mpp: Annotated[
        float | None, typer.Option(min=0.01, max=10, help="Of a slide that does not say it.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="'released' (in the package), a bundle, run or ONNX export. By default that of "
            "RUN, else 'released'.",
            show_default=False,
        ),
    ] = None,
    quality: Annotated[str, typer.Option(help="best or fast.")] = "best",
    slides: Annotated[
        Path | None, typer.Option(help="A folder: each slide in it, by the name of its file.")
    ] = None,
    register: Annotated[
        list[str] | None, typer.Option(metavar="ID=PATH", help="A slide, by an id. Repeatable.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; this machine alone by default.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name by which clients may address the server. Repeatable."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Holds a token that clients must send; so does ATYPIA_TOKEN."),
    ] = None,
    max_body_mb: Annotated[int, typer.Option(min=1, help="Of one request.")] = 32,
    max_megapixels: Annotated[
        float, typer.Option(min=0.001, help="Of one image, all its pages together.")
    ] = 16.8,
    max_patches: Annotated[
        int,
        typer.Option(min=1, help="In one request; twice as many may wait for an answer."),
    ] = 4096,
    max_requests: Annotated[int, typer.Option(min=1, help="At once; others get 503.")] = 256,
    max_memory_mb: Annotated[
        int, typer.Option(min=1, help="For uploads, and as much again for pixels.")
    ] = 512,
    backend: Backend = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
) -> None:
    """Show figures and answers in the browser; answer programs over HTTP (/openapi.json)."""
    from atypia.pipeline.serve import serve as run
    from atypia.server.guard import ServerLimits
    from atypia.web.site import Show

    of_app = {
        "results": results,
        "against": against,
        "cohort": cohort,
        "reviews": reviews,
        "blind": blind or None,
        "mpp": mpp,
    }
    given = {name: value for name, value in of_app.items() if value is not None}
    if source is None and given:
        what = "belongs to the app. Say what it shows: atypia serve RUN|COHORT|SLIDE"
        raise InputError([Problem(f"--{name} {what}") for name in given])
    run(
        None if source is None else Show(source, **given),  # type: ignore[arg-type]
        model,
        quality=quality,
        backend=backend,
        device=device,
        slides=slides,
        register=_named(register or []),
        host=host,
        port=port,
        allow_hosts=allow_host or (),
        token_file=token_file,
        limits=ServerLimits(
            body_bytes=max_body_mb * _MIB,
            image_pixels=round(max_megapixels * 1e6),
            patches=max_patches,
            requests=max_requests,
            buffer_bytes=max_memory_mb * _MIB,
        ),
    )


def _named(registered: list[str]) -> list[tuple[str, Path]]:
    wrong = [text for text in registered if not all(text.partition("="))]
    if wrong:
        raise InputError(
            [Problem(f"--register: expected ID=PATH but got {text!r}.") for text in wrong]
        )
    return [(text.partition("=")[0], Path(text.partition("=")[2])) for text in registered]
