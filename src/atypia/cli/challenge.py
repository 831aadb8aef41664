"""``atypia challenge``: the entry point of a container for MIDOG 2025, track 2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from atypia.cli.app import Backend, app, out_console


@app.command()
def challenge(
    source: Annotated[Path, typer.Option("--input", help="Holds inputs.json and images/.")] = Path(
        "/input"
    ),
    out: Annotated[Path, typer.Option("--output", help="Where to write.")] = Path("/output"),
    model: Annotated[
        str | None,
        typer.Option(help="A bundle, run or ONNX export. [default: /opt/ml/model, else released]"),
    ] = None,
    quality: Annotated[str, typer.Option(help="best or fast.")] = "best",
    mpp: Annotated[float, typer.Option(help="µm per pixel of the pages.")] = 0.25,
    backend: Backend = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Answer one case of MIDOG 2025, track 2: normal or atypical, for each page of a stack."""
    from atypia import pipeline

    given = pipeline.challenge(
        source, out, model, quality=quality, mpp=mpp, backend=backend, device=device
    )
    atypical = sum(answer["class"] == "atypical" for answer in given)
    out_console.print(
        f"{len(given)} pages at {mpp:g} µm per pixel, {atypical} of them atypical: "
        f"{escape(str(out))}",
        soft_wrap=True,
    )
