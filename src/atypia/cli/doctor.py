"""``atypia doctor``: what this machine has."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from atypia.cli.app import app, out_console


@app.command()
def doctor() -> None:
    """Show versions, devices, optional packages and available weights."""
    from atypia.doctor import examine

    table = Table(show_header=False, box=None)
    for name, finding in examine():
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(finding))
    out_console.print(table)
