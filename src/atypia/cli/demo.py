"""``atypia demo``: the whole job on an invented cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from atypia.cli.app import app, command_line, out_console
from atypia.cli.show import member_progress, show_frame, show_metrics


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Do the whole job on an invented cohort, offline, in minutes."""
    from atypia.pipeline.demo import REAL_DATA, run_demo

    out_console.print(REAL_DATA, highlight=False, soft_wrap=True)
    with member_progress() as on_step:
        story = run_demo(out, seed=seed, command=command_line(), on_step=on_step)
    show_metrics(story.metrics)
    show_frame(story.examples, "A few answers on patches the model has never seen")
    out_console.print(f"Report: {escape(str(story.report))}", soft_wrap=True)
