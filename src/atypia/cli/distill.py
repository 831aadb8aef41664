"""``atypia distill``: from a run to its students."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from atypia.cli.app import Out, app, command_line, out_console
from atypia.cli.show import member_progress, show_metrics


@app.command()
def distill(
    run: Annotated[Path, typer.Argument(help="A finished run: the teacher.")],
    out: Out,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the preset fast to change."),
    ] = None,
    quality: Annotated[
        str,
        typer.Option(help="fast: one network. best: as many as the teacher has, for its place."),
    ] = "fast",
    into: Annotated[
        Path | None, typer.Option(help="A bundle or run that gets the student as quality fast.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped student.")] = False,
) -> None:
    """Train networks on a run's out-of-fold answers: one that is fast, or an ensemble."""
    from atypia import pipeline

    with member_progress() as on_step:
        metrics = pipeline.distill(
            run,
            out,
            settings or (),
            quality=quality,
            into=into,
            resume=resume,
            command=command_line(),
            on_step=on_step,
        )
    if metrics is not None:
        show_metrics(metrics)
        out_console.print(f"Report: {escape(str(out / 'report.html'))}")
        if into is not None:
            out_console.print(f"Quality fast: {escape(str(into))}")
