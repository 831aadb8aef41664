"""``atypia mil``: one answer for each patient from all of their figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from atypia.cli.app import Out, app, command_line, out_console
from atypia.cli.show import member_progress
from atypia.core.errors import InputError


@app.command()
def mil(
    cohort: Annotated[Path, typer.Argument(help="Cohort folder, from atypia prepare.")],
    out: Out,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="CSV with patient_id and a label, or atypical_above_median, or has_SUBTYPE.",
            show_default=False,
        ),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Of the CSV, if it has several.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="A finished run: answer for COHORT with its model.", show_default=False),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            help="Describe figures by a table of out-of-fold predictions instead of features.",
            show_default=False,
        ),
    ] = None,
    allow_overlap: Annotated[
        bool,
        typer.Option(
            "--allow-overlap", help="With --model: answer for patients learned from, too."
        ),
    ] = False,
    distinct_ids: Annotated[
        bool,
        typer.Option(
            "--distinct-ids",
            help="With --model: equal ids are of different people, unless they name a public case.",
        ),
    ] = False,
    label: Annotated[str | None, typer.Option(help="A rater, for a derived target.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
) -> None:
    """Learn what a label of the patient says of their figures (multiple-instance learning)."""
    from atypia import pipeline
    from atypia.core.config import mil_config

    if (target is None) == (model is None):
        raise InputError("expected --target to learn, or --model to answer with a finished run.")
    if model is not None:
        if settings or column or label or seed is not None:
            raise InputError("--model: expected no settings: they are those of the run.")
        with member_progress() as on_step:
            table = pipeline.mil_predict(
                model,
                cohort,
                out,
                on_step,
                None if answers is None else str(answers),
                allow_overlap=allow_overlap,
                distinct_ids=distinct_ids,
            )
        out_console.print(f"Patients: {escape(str(table))}")
        return
    if allow_overlap or distinct_ids:
        raise InputError("--allow-overlap, --distinct-ids: expected --model with them.")
    given = {"target": target, "column": column, "label": label, "seed": seed}
    given["answers"] = None if answers is None else str(answers)
    tree: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    with member_progress() as on_step:
        metrics = pipeline.mil(
            cohort,
            out,
            mil_config(settings or [], tree),
            command=command_line(),
            on_step=on_step,
        )
    _show(metrics)
    out_console.print(f"Patients: {escape(str(out / 'predictions-patients.csv'))}")


def _show(metrics: dict[str, Any]) -> None:
    counts = ", ".join(
        f"{n:,} {escape(str(c))}"
        for c, n in zip(metrics["classes"], metrics["n_of_class"], strict=True)
    )
    table = Table(
        title=f"{escape(metrics['target'])}: {metrics['n_patients']:,} patients ({counts})"
    )
    for heading in ("", "AUC", "95 % interval"):
        table.add_column(heading)
    for group in ("models", "differences"):
        for name, measures in metrics[group].items():
            auc = measures["auc"]
            if auc["value"] is not None:
                interval = f"{auc['low']:.3f} to {auc['high']:.3f}"
                table.add_row(escape(name), f"{auc['value']:.3f}", interval)
    out_console.print(table)
