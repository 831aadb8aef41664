"""What verbs show to people: progress, tables, measures, what was skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from atypia.cli.app import err_console, list_problems, out_console
from atypia.core.errors import AtypiaError

if TYPE_CHECKING:
    import pandas as pd
    from rich.progress import Progress

    from atypia.core.errors import Problem
    from atypia.core.progress import OnStep
    from atypia.inference.jobs.job import JobResult

MOST_FAILURES = 10
"""Failures of a job that are told; all are in its folder."""


def progress(*, transfer: bool = False) -> Progress:
    """Make a progress bar; it stays silent where the output is no terminal."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = DownloadColumn() if transfer else MofNCompleteColumn()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        amount,
        TimeRemainingColumn(),
        console=err_console,
        disable=not err_console.is_terminal,
    )


class member_progress:  # noqa: N801 - used as a function
    """A progress bar with one line per member that is being trained."""

    def __enter__(self) -> OnStep:
        self._bar = progress()
        self._bar.__enter__()
        tasks: dict[str, Any] = {}

        def on_step(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = self._bar.add_task(name, total=total)
            self._bar.update(tasks[name], completed=done, total=total)

        return on_step

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)  # type: ignore[arg-type]


def show_frame(frame: pd.DataFrame, title: str) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for column in frame.columns:
        table.add_column(str(column), justify="left" if frame[column].dtype == object else "right")
    for row in frame.itertuples(index=False):
        table.add_row(*(escape(str(cell)) for cell in row))
    out_console.print(table)


def show_metrics(metrics: dict[str, Any]) -> None:
    """Print the main measures, the second rater's beside them."""
    table = Table(
        title=f"{metrics['n']:,} figures of {metrics['n_patients']} patients, scored against "
        f"{metrics['label']}; 95 % intervals from resampling patients",
        title_justify="left",
    )
    raters = metrics.get("raters", {})
    table.add_column("measure")
    table.add_column("model", justify="right")
    for rater in raters:
        table.add_column(rater, justify="right")
    rows = [(name, metrics["overall"].get(name)) for name in metrics["overall"]]
    for name, measure in rows:
        others = [r.get("overall", {}).get(name) for r in raters.values()]
        table.add_row(name, _measure(measure), *(_measure(other) for other in others))
    out_console.print(table)


def _measure(measure: dict[str, float | None] | None) -> str:
    if measure is None or measure.get("value") is None:
        return "–"
    if measure.get("low") is None:
        return f"{measure['value']:.3f}"
    return f"{measure['value']:.3f} ({measure['low']:.3f}–{measure['high']:.3f})"


def show_skipped(skipped: list[Problem], rest: str = "") -> None:
    """List what was left out, and why; see :func:`atypia.cli.app.list_problems`."""
    if skipped:
        err_console.print(f"[yellow]{len(skipped):,} skipped:[/yellow]")
        list_problems(skipped, rest)


def show_job(result: JobResult, inputs: str) -> None:
    """Tell what a job has done.

    Args:
        result: Of the job.
        inputs: What it was asked for: candidates, images.

    Raises:
        AtypiaError: Something has no answer; the first few are listed.
    """
    if result.skipped:
        err_console.print(
            f"[yellow]{len(result.skipped):,} skipped:[/yellow] "
            f"{escape(str(result.folder / 'skipped.csv'))}",
            soft_wrap=True,
        )
    out_console.print(
        f"{result.rows:,} figures, {result.atypical:,} of them atypical: "
        f"{escape(str(result.folder / 'parts'))}",
        soft_wrap=True,
    )
    if not result.failures:
        return
    slides = sum(not failure.patch_id for failure in result.failures)
    failed = [f"{slides:,} slides"] if slides else []
    if len(result.failures) > slides:
        failed.append(f"{len(result.failures) - slides:,} of {result.inputs:,} {inputs}")
    shown = [
        f"  {failure.patch_id or failure.slide}: {failure.reason}"
        for failure in result.failures[:MOST_FAILURES]
    ]
    more = len(result.failures) - len(shown)
    raise AtypiaError(
        "\n".join(
            [
                f"{' and '.join(failed)} failed and are listed in {result.folder / 'failed.csv'}; "
                "the others are done. The same command tries them again.",
                *shown,
                *([f"  ... and {more:,} more"] if more else []),
            ]
        )
    )
