"""What commands print: progress, tables, measures, predictions, what was skipped."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from atypia.cli.app import err_console, list_problems, out_console
from atypia.core.errors import AtypiaError
from atypia.core.labels import DISPLAY_NAMES, STATUS_NAMES, SUBTYPES, in_words, left_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd
    from rich.progress import Progress, TaskID

    from atypia.core.errors import Problem
    from atypia.core.progress import OnDone, OnStep
    from atypia.explain import Sanity
    from atypia.explain.sanity import MeanInterval
    from atypia.inference.job import JobResult

MOST_FAILURES = 10
"""Failures of a job that are printed; all are in its folder."""


def _progress(*, transfer: bool = False) -> Progress:
    """Make a progress bar that stays silent where the output is no terminal."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if transfer else MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err_console,
        disable=not err_console.is_terminal,
    )


@contextmanager
def named_progress(*, transfer: bool = False) -> Iterator[OnStep]:
    """Show a progress bar with one line per name, such as that of a member being trained."""
    with _progress(transfer=transfer) as bar:
        tasks: dict[str, TaskID] = {}

        def on_step(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(escape(name), total=total)
            bar.update(tasks[name], completed=done, total=total)

        yield on_step


@contextmanager
def counted(what: str) -> Iterator[tuple[OnDone, OnDone]]:
    """Show how many items are done: yields calls for the number of all, and for more done."""
    with _progress() as bar:
        task = bar.add_task(what, total=None)
        yield lambda n: bar.update(task, total=n), lambda n: bar.advance(task, n)


def show_path(what: str, path: Path) -> None:
    """Print where something was written."""
    out_console.print(f"{what}: {escape(str(path))}", soft_wrap=True)


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
    if metrics.get("kind") == "mitosis":
        _show_mitoses(metrics)
        return
    table = Table(
        title=f"{metrics['n']:,} figures of {metrics['n_patients']} patients, scored against "
        f"{metrics['label']}; 95 % intervals over patients",
        title_justify="left",
    )
    raters = metrics.get("raters", {})
    table.add_column("measure")
    table.add_column("model", justify="right")
    for rater in raters:
        table.add_column(rater, justify="right")
    for name, measure in metrics["overall"].items():
        others = [r.get("overall", {}).get(name) for r in raters.values()]
        table.add_row(name, _measure(measure), *(_measure(other) for other in others))
    for label, binary in metrics["binary"]["against"].items():
        point = binary["at_operating_point"]
        for name in ("auc", "sensitivity", "specificity", "balanced_accuracy"):
            table.add_row(
                f"{name}, atypical by {label}", _measure(binary.get(name, point.get(name)))
            )
    for entry in metrics.get("among_raters", []):
        if entry["against"] == metrics["label"]:
            row = (
                f"balanced_accuracy minus that of {entry['rater']}, atypical by {entry['against']}"
            )
            table.add_row(row, _measure(entry["model_minus_rater"]["balanced_accuracy"]))
    out_console.print(table)


def _show_mitoses(metrics: dict[str, Any]) -> None:
    figures = metrics["n"] - metrics["n_look_alikes"]
    table = Table(
        title=f"{figures:,} mitotic figures and {metrics['n_look_alikes']:,} look-alikes of "
        f"{metrics['n_patients']} patients, {metrics['part']}; 95 % intervals over patients",
        title_justify="left",
    )
    table.add_column("measure")
    table.add_column("model", justify="right")
    at = metrics["at_threshold"]
    table.add_row("AUC", _measure(metrics["auc"]))
    table.add_row("figures falsely rejected, at the threshold", _measure(at["false_rejection"]))
    table.add_row("look-alikes rejected, at the threshold", _measure(at["rejected"]))
    for rate, rejected in metrics["rejected_at"].items():
        name = f"look-alikes rejected, at {float(rate):.1%} false rejection"
        table.add_row(name, _measure(rejected))
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


def answers_in_words(n: int, atypical: int, others: Mapping[str, int]) -> str:
    """Write how many of `n` candidates are called atypical, and what is not answered, by status."""
    if not others:
        return f"{n:,} figures, {atypical:,} of them atypical"
    answered = f"{n - sum(others.values()):,} of {n:,} candidates answered"
    return f"{answered}; {in_words(others)}; {atypical:,} called atypical"


def table_in_words(table: pd.DataFrame) -> str:
    """Write what a table of predictions answers."""
    atypical = int(table["predicted_atypical"].sum())
    line = answers_in_words(len(table), atypical, left_out(table.get("status", ())))
    return f"{line}; {_point_in_words(table)}"


def _point_in_words(table: pd.DataFrame) -> str:
    return f"threshold {table.attrs['threshold']:.2g} ({table.attrs['operating_point']})"


def show_left_out(counts: Mapping[str, int]) -> None:
    """Print how many rows of a table have no call, and so no part in the measures."""
    if counts:
        text = f"{sum(counts.values()):,} left out, as they have no call:"
        err_console.print(f"[yellow]{text}[/yellow] {in_words(counts)}", soft_wrap=True)


def show_job(result: JobResult, inputs: str) -> None:
    """Print what a job on `inputs` (candidates, images) has done.

    Raises:
        AtypiaError: Something has no answer; the first few are listed.
    """
    if result.skipped:
        err_console.print(
            f"[yellow]{len(result.skipped):,} skipped:[/yellow] "
            f"{escape(str(result.folder / 'skipped.csv'))}",
            soft_wrap=True,
        )
    done = answers_in_words(result.rows, result.atypical, result.not_answered)
    show_path(done, result.folder / "parts")
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
    if more := len(result.failures) - len(shown):
        shown.append(f"  ... and {more:,} more")
    what = (
        f"{' and '.join(failed)} failed and are listed in {result.folder / 'failed.csv'}; the "
        "others are done. The same command tries them again."
    )
    raise AtypiaError("\n".join([what, *shown]))


def show_predictions(frame: pd.DataFrame) -> None:
    """Print one row per figure; of a single figure every subtype's probability, too."""
    table = Table(box=None)
    for heading in ("figure", "p_atypical", "call", "subtype", "p"):
        number = heading in ("p_atypical", "p")
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    if "conformal_set" in frame:
        table.add_column("prediction set", overflow="fold")
    rows = frame.to_dict("records")
    for row in rows:
        table.add_row(*(escape(cell) for cell in _prediction_cells(row)))
    out_console.print(table)
    if len(rows) == 1 and rows[0]["predicted_subtype"]:
        every = Table(box=None, show_header=False)
        for subtype in sorted(SUBTYPES, key=lambda s: -rows[0][f"p_{s}"]):
            p = rows[0][f"p_{subtype}"]
            every.add_row(DISPLAY_NAMES[subtype], f"{p:.3f}", "█" * round(30 * p))
        out_console.print(every)
    out_console.print(f"Atypical or normal at {_point_in_words(frame)}.", style="dim")
    out_console.print("Research use; not a medical device.", style="dim")


def _prediction_cells(row: Mapping[Any, Any]) -> list[str]:
    subtype = row["predicted_subtype"]
    if not subtype:
        return [str(row["patch_id"]), "", f"not answered: {STATUS_NAMES[row['status']]}"]
    name = DISPLAY_NAMES[subtype]
    cells = [
        str(row["patch_id"]),
        f"{row['p_atypical']:.2f}",
        "atypical" if row["predicted_atypical"] else "normal",
        f"don't know ({name}?)" if row.get("abstained") else name,
        f"{row[f'p_{subtype}']:.2f}",
    ]
    if "conformal_set" in row:
        inside = [DISPLAY_NAMES[s] for s in str(row["conformal_set"]).split("|") if s]
        cells.append(", ".join(inside) or "no subtype fits")
    return cells


def show_sanity(sanity: Sanity) -> None:
    """Print what the check found, and what follows from it."""
    table = Table(title=f"Check on {sanity.n} figures", title_justify="left", box=None)
    for heading in ("", "this map", "darkest places", "middle", "random places"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, area in (
        ("deletion (low is good)", sanity.deletion),
        ("insertion (high is good)", sanity.insertion),
    ):
        areas = (area.map, area.dark, area.middle, area.random)
        table.add_row(name, *(f"{e.value:.3f}" for e in areas))
    out_console.print(table)
    last = sanity.randomisation[-1]
    out_console.print(
        f"Rank correlation with maps of shuffled networks: {_in_words(last.signed)}, of the "
        f"strength alone {_in_words(last.magnitude)}",
        soft_wrap=True,
    )
    if not sanity.judged:
        out_console.print("Too few figures for a verdict on the method: give at least 8.")
        return
    if not sanity.depends_on_weights:
        out_console.print(
            "[yellow]These maps are much the same when all weights are shuffled: they show the "
            "image, not what the networks learned.[/yellow]"
        )
    if not sanity.points_at_what_matters:
        out_console.print(
            "[yellow]Hiding or showing the places that these maps point at changes the answers no "
            "more than random places: do not trust them.[/yellow]"
        )
    if sanity.passed:
        out_console.print("The maps depend on the weights, and point at what matters.")


def _in_words(estimate: MeanInterval) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
