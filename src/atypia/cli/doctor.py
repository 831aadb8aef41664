"""``atypia doctor``: what this machine has, and what a model is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from atypia.cli.app import app, out_console


@app.command()
def doctor(
    model: Annotated[
        str | None,
        typer.Option(
            help="Check a model's files and show its card: 'released', a bundle, or a run folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show versions, devices, optional packages, weights; or what a model is."""
    from atypia import doctor

    table = Table(show_header=False, box=None)
    findings = doctor.examine() if model is None else doctor.examine_model(model)
    for name, finding in findings:
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(finding))
    out_console.print(table)
    if model is not None:
        _show_card(model)


def _show_card(model: str) -> None:
    from rich.markdown import Markdown

    from atypia.bundle import find_bundle, read_card

    card = read_card(find_bundle(model))
    out_console.print(Markdown(card) if card is not None else "This model has no model card.")
