"""``atypia download``: a public data set with checked content."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer
from rich.markup import escape

from atypia.cli.app import Out, app, out_console
from atypia.cli.show import progress
from atypia.core.errors import InputError


@app.command()
def download(
    release: Annotated[str, typer.Argument(help="ami-br")],
    out: Out,
    url: Annotated[str | None, typer.Option(help="A mirror; the content is checked alike.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Of the archive, checked first.")] = None,
) -> None:
    """Fetch a public data set with checked content; goes on where it was interrupted."""
    from atypia.data.archives import RELEASES
    from atypia.data.archives import download as fetch

    if release not in RELEASES:
        raise InputError(f"expected a release out of {sorted(RELEASES)} but got {release!r}.")
    with progress(transfer=True) as bar:
        task = bar.add_task(release, total=None)
        fetch(
            RELEASES[release],
            out,
            url=url,
            sha256=sha256,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    out_console.print(
        f"{escape(str(out))} is complete. Next: atypia prepare {escape(shlex.quote(str(out)))} "
        "--out COHORT"
    )
