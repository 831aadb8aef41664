"""``atypia predict``: images to subtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from atypia.cli.app import Out, SkipBad, app, out_console
from atypia.cli.show import progress, show_skipped


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders, stacks or cohorts.")],
    out: Out,
    model: Annotated[Path, typer.Option(help="Model bundle or run folder.")],
    mpp: Annotated[
        float | None, typer.Option(help="µm per pixel of the images; a cohort knows its own.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    skip_bad: SkipBad = False,
) -> None:
    """Classify patches; writes predictions.csv."""
    from atypia import pipeline

    with progress() as bar:
        task = bar.add_task("files", total=None)
        table, skipped = pipeline.predict(
            inputs,
            out,
            model,
            mpp=mpp,
            device=device,
            skip_bad=skip_bad,
            on_start=lambda n: bar.update(task, total=n),
            on_done=lambda n: bar.advance(task, n),
        )
    show_skipped(skipped)
    atypical = int(table["predicted_atypical"].sum())
    out_console.print(f"{len(table):,} figures, {atypical:,} of them atypical: {escape(str(out))}")
