"""Commands that judge predictions and labels: evaluate, report, compare, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from atypia import pipeline
from atypia.cli.app import out_console
from atypia.cli.options import (
    AllowOverlap,
    DistinctIds,
    ImagesOf,
    Label,
    Out,
    Resamples,
    Seed,
)
from atypia.cli.show import show_left_out, show_metrics, show_path
from atypia.core.errors import InputError
from atypia.core.files import overwriting


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="predictions.csv, ours or anyone's.")],
    out: Out,
    label: Label = "expert1",
    resamples: Resamples = 2000,
    seed: Seed = 0,
    trained_on: Annotated[
        str | None,
        typer.Option(
            help="What the model has learned from: its run or bundle, 'released', or a cohort. "
            "Refuse its patients.",
            show_default=False,
        ),
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option(help="Of the table: compare pictures with --trained-on, too.")
    ] = None,
    allow_overlap: AllowOverlap = False,
    distinct_ids: DistinctIds = False,
) -> None:
    """Measures with patient-level intervals, and figures, from a table of predictions."""
    metrics = pipeline.evaluate(
        predictions,
        out,
        label,
        resamples,
        seed,
        trained_on=trained_on,
        cohort=cohort,
        allow_overlap=allow_overlap,
        distinct_ids=distinct_ids,
    )
    show_left_out(metrics["left_out"])
    show_metrics(metrics)
    show_path("Report", out / "report.html")


def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")], cohort: ImagesOf = None
) -> None:
    """Rebuild report.html of a run."""
    from atypia.data.cohort import Cohort

    path = pipeline.report(run, Cohort.open(cohort) if cohort else None)
    show_path("Report", path)


def compare(
    tables: Annotated[list[Path], typer.Argument(help="Run folders or prediction tables.")],
    label: Label = "expert1",
    resamples: Resamples = 2000,
    seed: Seed = 0,
    intersection: Annotated[
        bool, typer.Option("--intersection", help="Use only the patches that all tables have.")
    ] = False,
    average_repeats: Annotated[
        bool,
        typer.Option(
            "--average-repeats", help="Join the answers to patches that a table has several times."
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write this JSON file.")] = None,
) -> None:
    """Paired patient-level differences between two or more models, with intervals."""
    from atypia.core.files import write_json
    from atypia.evaluation.comparison import comparison_table

    if problems := overwriting([out], tables, "--out"):
        raise InputError(problems)
    result = pipeline.compare(
        tables,
        label,
        resamples,
        seed,
        intersection=intersection,
        average_repeats=average_repeats,
    )
    if out is not None:
        write_json(out, result)
    typer.echo(comparison_table(result))


def audit(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_PREDICTIONS", help="Run folder, or out-of-fold table.")
    ],
    out: Out,
    cohort: ImagesOf = None,
    label: Label = "expert1",
    top: Annotated[int, typer.Option(min=1, help="How many patches the page shows.")] = 200,
    resamples: Resamples = 2000,
    seed: Seed = 0,
) -> None:
    """List the patches whose label is probably wrong, with their images."""
    from atypia.data.cohort import Cohort

    opened = Cohort.open(cohort) if cohort else None
    summary = pipeline.audit(source, out, label, top, opened, resamples, seed).summary
    show_left_out(summary["left_out"])
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in summary["evidence"].items() if n)
    out_console.print(
        f"{summary['n_issues']:,} of {summary['n']:,} labels of {escape(label)} are in doubt"
        + (f": {kinds}" if kinds else "")
    )
    show_path("Audit", out / "audit.html")
