"""``atypia doctor``: what this machine has, and what a model is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from atypia.cli.app import app, out_console
from atypia.core.errors import InputError


@app.command()
def doctor(
    model: Annotated[
        str | None,
        typer.Option(
            help="Check a model's files and show its card: 'released', a bundle, or a run folder; "
            "or tell whether an encoder, such as virchow2, or a backbone of timm can be loaded "
            "here.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show versions, devices, optional packages, weights; or what a model is."""
    from atypia.pipeline import doctor

    if model is None:
        _show(doctor.examine())
    elif (told := doctor.examine_weights(model)) is not None:
        findings, problem = told
        _show(findings)
        if problem is not None:
            raise InputError(problem)
    else:
        _show(doctor.examine_model(model))
        _show_card(model)


def _show(findings: Iterable[tuple[str, str]]) -> None:
    table = Table(show_header=False, box=None)
    for name, finding in findings:
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(finding))
    out_console.print(table)


def _show_card(model: str) -> None:
    from rich.markdown import Markdown

    from atypia.classifiers.bundle import find_bundle, read_card

    card = read_card(find_bundle(model))
    out_console.print(Markdown(card) if card is not None else "This model has no model card.")
