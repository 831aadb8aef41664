"""``atypia slides``: the candidates of many slides to subtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from atypia.cli.app import Address, Backend, ItemSize, Out, SkipBad, Threads, Workers, app
from atypia.cli.show import progress, show_job


@app.command()
def slides(
    table: Annotated[
        Path,
        typer.Argument(
            help="A CSV with slide and candidates; also mpp, units, slide_id, patient_id."
        ),
    ],
    out: Out,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="Also write one .csv, or a folder with one per slide."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="'released' (in the package), a bundle, run or ONNX export.")
    ] = "released",
    quality: Annotated[str, typer.Option(help="best or fast.")] = "best",
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="In this process, or on a Ray cluster.")
    ] = "local",
    address: Address = None,
    workers: Workers = None,
    threads: Threads = None,
    item_size: ItemSize = 1024,
    backend: Backend = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    skip_bad: SkipBad = False,
) -> None:
    """Classify the figures found on many slides; the same command goes on where it stopped."""
    from atypia import pipeline
    from atypia.inference.jobs.job import EngineChoice
    from atypia.models.hardware import keep_freed_memory

    keep_freed_memory()
    with progress() as bar:
        task = bar.add_task("candidates", total=None)
        result = pipeline.slides(
            table,
            out,
            model,
            engine=EngineChoice(engine, address, workers, threads),
            csv=csv,
            quality=quality,
            backend=backend,
            device=device,
            skip_bad=skip_bad,
            item_size=item_size,
            on_start=lambda n: bar.update(task, total=n),
            on_done=lambda n: bar.advance(task, n),
        )
    show_job(result, "candidates")
