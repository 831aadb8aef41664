"""``atypia audit``: which labels are probably wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from atypia.cli.app import Out, Resamples, app, out_console


@app.command()
def audit(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_PREDICTIONS", help="Run folder, or out-of-fold table.")
    ],
    out: Out,
    cohort: Annotated[Path | None, typer.Option(help="Its cohort, for the images.")] = None,
    label: Annotated[str, typer.Option(help="The label to audit: a rater, or 'agreed'.")] = (
        "expert1"
    ),
    top: Annotated[int, typer.Option(min=1, help="How many patches the page shows.")] = 200,
    resamples: Resamples = 2000,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
) -> None:
    """List the patches whose label is probably wrong, with their images."""
    from atypia import pipeline
    from atypia.data.cohort import Cohort

    opened = Cohort.open(cohort) if cohort else None
    summary = pipeline.audit(source, out, label, top, opened, resamples, seed).summary
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in summary["evidence"].items() if n)
    out_console.print(
        f"{summary['n_issues']:,} of {summary['n']:,} labels of {escape(label)} are in doubt"
        + (f": {kinds}" if kinds else "")
    )
    out_console.print(f"Audit: {escape(str(out / 'audit.html'))}")
