"""``atypia merge``: one cohort of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from atypia.cli.app import Out, app, out_console
from atypia.cli.prepare import show_cohort
from atypia.cli.show import progress


@app.command()
def merge(
    cohorts: Annotated[list[Path], typer.Argument(help="Two or more cohort folders.")],
    out: Out,
    name: Annotated[str | None, typer.Option(help="Name of the new cohort.")] = None,
    allow_overlap: Annotated[
        bool,
        typer.Option(
            "--allow-overlap",
            help="Take patients who are in several as one each, and figures once.",
        ),
    ] = False,
    distinct_ids: Annotated[
        bool,
        typer.Option(
            "--distinct-ids",
            help="Equal ids are of different people: put the cohort's name before them. Names of "
            "public cases stay.",
        ),
    ] = False,
) -> None:
    """Make one cohort of several, and refuse patients who are in two of them."""
    from atypia.data.merged_cohort import merge as merge_cohorts

    with progress() as bar:
        task = bar.add_task("", total=None)
        cohort = merge_cohorts(
            cohorts,
            out,
            name,
            allow_overlap=allow_overlap,
            distinct_ids=distinct_ids,
            progress=lambda what, done, total: bar.update(
                task, description=escape(what), completed=done, total=total
            ),
        )
    show_cohort(cohort)
    out_console.print(f"Cohort: {escape(str(out))}")
