"""The command line: verbs to one pipeline function each.

Heavy imports happen inside the verbs, so that ``atypia --help`` answers at once. Errors end here:
a person reads a message and the exit code says whose fault it was (1 the work, 2 the input).
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from atypia import __version__
from atypia.errors import AtypiaError, InputError

if TYPE_CHECKING:
    import pandas as pd
    from rich.progress import Progress

    from atypia.errors import Problem
    from atypia.progress import OnStep

app = typer.Typer(
    help="Subtype mitotic figures in H&E histology. Research use; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out_console = Console()
err_console = Console(stderr=True)

Out = Annotated[Path, typer.Option("--out", help="Where to write.", show_default=False)]
Label = Annotated[str, typer.Option(help="A rater, 'agreed' or 'majority_atypical'.")]
Resamples = Annotated[int, typer.Option(min=100, help="Resamples of patients for intervals.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out bad items; list them.")]


def main() -> None:
    """Entry point of the command ``atypia``."""
    try:
        app(standalone_mode=False)
    except AtypiaError as error:
        _tell(error)
        sys.exit(error.exit_code)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        err_console.print("Stopped. A training goes on with --resume.")
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # of the option parser
            err_console.print(f"[red]Error:[/red] {escape(error.format_message())}")
            sys.exit(2)
        if os.environ.get("ATYPIA_DEBUG"):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        err_console.print(
            f"[red]Error:[/red] {escape(type(error).__name__)}: {escape(str(error))} "
            f"({Path(where.filename).name}:{where.lineno}). This is a fault of Atypia or of a "
            "library; ATYPIA_DEBUG=1 shows where. Please report it.",
            soft_wrap=True,
        )
        sys.exit(1)


def _tell(error: AtypiaError) -> None:
    if isinstance(error, InputError) and len(error.problems) > 1:
        err_console.print(f"[red]Error:[/red] {len(error.problems)} problems")
        for problem in error.problems:
            err_console.print(f"  • {escape(str(problem))}", soft_wrap=True)
    else:
        err_console.print(f"[red]Error:[/red] {escape(str(error))}", soft_wrap=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"atypia {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    logger = logging.getLogger("atypia")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(_log_handler())


def _log_handler() -> logging.Handler:
    if not err_console.is_terminal:  # one line per event, for log files
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        return handler
    from rich.logging import RichHandler

    return RichHandler(console=err_console, show_path=False, show_level=False)


# --- Data -----------------------------------------------------------------------------------------


@app.command()
def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            help="AMi-Br checkout, folder per class, CSV, or CSV of centres + --images."
        ),
    ],
    out: Out,
    name: Annotated[str | None, typer.Option(help="Name of the cohort.")] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per pixel of the patches.")] = None,
    domain: Annotated[str | None, typer.Option(help="Domain where the source names none.")] = None,
    scanner: Annotated[str, typer.Option(help="Scanner where the source names none.")] = "",
    rater: Annotated[str, typer.Option(help="Whose labels class folders are.")] = "expert1",
    file_column: Annotated[str | None, typer.Option(help="Column with the image's path.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column with the patch's id.")] = None,
    patient_column: Annotated[str | None, typer.Option(help="Column with the patient.")] = None,
    domain_column: Annotated[str | None, typer.Option(help="Column with the domain.")] = None,
    scanner_column: Annotated[str | None, typer.Option(help="Column with the scanner.")] = None,
    mpp_column: Annotated[str | None, typer.Option(help="Column with µm per pixel.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column with the source image.")] = None,
    x_column: Annotated[str | None, typer.Option(help="Column with the centre's x.")] = None,
    y_column: Annotated[str | None, typer.Option(help="Column with the centre's y.")] = None,
    majority_column: Annotated[
        str | None, typer.Option(help="Column with the majority of the votes.")
    ] = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option(metavar="RATER=COLUMN", help="Column with a rater's subtypes. Repeatable."),
    ] = None,
    vote_column: Annotated[
        list[str] | None,
        typer.Option(metavar="RATER=COLUMN", help="Column with a rater's votes. Repeatable."),
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(help="CSV with patch_id and patient_id for class folders.")
    ] = None,
    patient_regex: Annotated[
        str | None, typer.Option(help="Finds the patient in a patch's path.")
    ] = None,
    patient_per_patch: Annotated[
        bool, typer.Option("--patient-per-patch", help="Every patch is of another patient.")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="Folder of source images for a table of centres.")
    ] = None,
    field_um: Annotated[float | None, typer.Option(help="Side of the crops, in µm.")] = None,
    centre_unit: Annotated[str, typer.Option(help="Unit of the centres: px or um.")] = "px",
    mixed_sizes: Annotated[
        bool, typer.Option("--mixed-sizes", help="Allow patches of different size at one mpp.")
    ] = False,
    skip_bad: SkipBad = False,
) -> None:
    """Make a cohort folder: patches, manifest, hashes; prints counts."""
    from pydantic import ValidationError

    from atypia.data.prepare import prepare as prepare_cohort
    from atypia.data.sources.options import PrepareOptions
    from atypia.errors import Problem

    columns = {
        "file": file_column,
        "patch_id": id_column,
        "patient": patient_column,
        "domain": domain_column,
        "scanner": scanner_column,
        "mpp": mpp_column,
        "image": image_column,
        "x": x_column,
        "y": y_column,
        "majority": majority_column,
        "labels": _by_rater("--label-column", label_column or []),
        "votes": _by_rater("--vote-column", vote_column or []),
    }
    try:
        options = PrepareOptions.model_validate(
            {
                "name": name,
                "mpp": mpp,
                "domain": domain,
                "scanner": scanner,
                "rater": rater,
                "columns": {key: value for key, value in columns.items() if value is not None},
                "patients": patients,
                "patient_regex": patient_regex,
                "patient_per_patch": patient_per_patch,
                "images": images,
                "field_um": field_um,
                "centre_unit": centre_unit,
                "mixed_sizes": mixed_sizes,
                "skip_bad": skip_bad,
            }
        )
    except ValidationError as error:
        raise InputError(
            [
                Problem(f"--{'.'.join(map(str, e['loc']))}: {e['msg']}, but got {e['input']!r}.")
                for e in error.errors()
            ]
        ) from None
    with _progress() as bar:
        task = bar.add_task("patches", total=None)
        cohort = prepare_cohort(
            source,
            out,
            options,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _show_cohort(cohort)
    ignored = cohort.source.get("ignored_files", [])
    if ignored:
        err_console.print(
            f"[yellow]{len(ignored)} files of the source are no part of it[/yellow]: "
            + escape(", ".join(ignored[:5]) + (" …" if len(ignored) > 5 else ""))
        )
    skipped = int(cohort.source.get("n_skipped", 0))
    if skipped:
        err_console.print(
            f"[yellow]{skipped} skipped[/yellow]; they are listed in {out / 'skipped.csv'}"
        )
    out_console.print(f"Cohort: {escape(str(out))}")


def _by_rater(option: str, assignments: list[str]) -> dict[str, str]:
    columns = {}
    for assignment in assignments:
        rater, equals, column = assignment.partition("=")
        if not equals:
            raise InputError(f"{option}: expected RATER=COLUMN but got {assignment!r}.")
        columns[rater] = column
    return columns


def _show_cohort(cohort: Any) -> None:
    from atypia.data.prepare import summary
    from atypia.labels import DISPLAY_NAMES

    counts = summary(cohort)
    if len(counts.classes.columns):
        table = Table(title=f"{cohort.name}: {len(cohort):,} mitotic figures", title_justify="left")
        table.add_column("subtype")
        for rater in counts.classes.columns:
            table.add_column(rater, justify="right")
            table.add_column("patients", justify="right", style="dim")
        for subtype in counts.classes.index:
            cells = []
            for rater in counts.classes.columns:
                cells += [
                    f"{counts.classes.loc[subtype, rater]:,}",
                    f"{counts.class_patients.loc[subtype, rater]:,}",
                ]
            table.add_row(DISPLAY_NAMES[subtype], *cells)
        out_console.print(table)
    if len(counts.votes.columns):
        _show_frame(counts.votes.T.reset_index(names="vote"), "Votes")
    _show_frame(counts.domains.reset_index(), "Domains")
    size = counts.patients["patches"]
    out_console.print(
        f"{len(size)} patients with {size.min()} to {size.max()} figures each "
        f"(median {size.median():g})."
    )


def _show_frame(frame: pd.DataFrame, title: str) -> None:
    table = Table(title=title, title_justify="left")
    for column in frame.columns:
        table.add_column(str(column), justify="left" if frame[column].dtype == object else "right")
    for row in frame.itertuples(index=False):
        table.add_row(*(escape(str(cell)) for cell in row))
    out_console.print(table)


@app.command()
def download(
    release: Annotated[str, typer.Argument(help="ami-br")],
    out: Out,
    url: Annotated[str | None, typer.Option(help="A mirror; the content is checked alike.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Of the archive, checked first.")] = None,
) -> None:
    """Fetch a public data set with checked content; goes on where it was interrupted."""
    from atypia.data.download import RELEASES
    from atypia.data.download import download as fetch

    if release not in RELEASES:
        raise InputError(f"expected a release out of {sorted(RELEASES)} but got {release!r}.")
    with _progress(transfer=True) as bar:
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


# --- Training and evaluation ----------------------------------------------------------------------


@app.command()
def train(
    cohort: Annotated[Path, typer.Argument(help="Cohort folder, from atypia prepare.")],
    out: Out,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="quick, paper, or a YAML file. [default: quick]")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="table1, benchmark, holdout, cv, or a file.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="A rater, or agreed.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
) -> None:
    """Split by patient, train the members, evaluate the ensemble, write the report."""
    from atypia import pipeline
    from atypia.config import load_config

    overrides = list(settings or [])
    overrides += [f"split.kind={json.dumps(split)}"] * (split is not None)
    overrides += [f"label={json.dumps(label)}"] * (label is not None)
    overrides += [f"seed={seed}"] * (seed is not None)
    chosen = preset is not None or bool(overrides)
    config = load_config(preset or "quick", overrides) if chosen or not resume else None
    with _member_progress() as on_step:
        metrics = pipeline.train(
            cohort, out, config, resume=resume, command=_command_line(), on_step=on_step
        )
    if metrics is not None:
        _show_metrics(metrics)
        out_console.print(f"Report: {escape(str(out / 'report.html'))}")


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="predictions.csv, ours or anyone's.")],
    out: Out,
    label: Label = "expert1",
    resamples: Resamples = 2000,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
) -> None:
    """Measures with patient-level intervals, and figures, from a table of predictions."""
    from atypia import pipeline

    metrics = pipeline.evaluate(predictions, out, label, resamples, seed)
    _show_metrics(metrics)
    out_console.print(f"Report: {escape(str(out / 'report.html'))}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    cohort: Annotated[Path | None, typer.Option(help="Its cohort, for the images.")] = None,
) -> None:
    """Rebuild report.html of a run."""
    from atypia import pipeline
    from atypia.data.cohort import Cohort

    path = pipeline.write_report(run, Cohort.open(cohort) if cohort else None)
    out_console.print(f"Report: {escape(str(path))}")


@app.command()
def compare(
    tables: Annotated[list[Path], typer.Argument(help="Run folders or prediction tables.")],
    label: Label = "expert1",
    resamples: Resamples = 2000,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
    intersection: Annotated[
        bool, typer.Option("--intersection", help="Use only the patches that all tables have.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write this JSON file.")] = None,
) -> None:
    """Paired patient-level differences between two or more models, with intervals."""
    from atypia import pipeline
    from atypia.evaluation.compare import comparison_table
    from atypia.runs import write_json

    result = pipeline.compare(tables, label, resamples, seed, intersection=intersection)
    if out is not None:
        write_json(out, result)
    typer.echo(comparison_table(result))


# --- Prediction -----------------------------------------------------------------------------------


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders, stacks or cohorts.")],
    out: Out,
    model: Annotated[Path, typer.Option(help="Model bundle or run folder.")],
    mpp: Annotated[
        float | None, typer.Option(help="µm per pixel of the images; a cohort knows its own.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    skip_bad: SkipBad = False,
) -> None:
    """Classify patches; writes predictions.csv."""
    from atypia import pipeline

    with _progress() as bar:
        task = bar.add_task("files", total=None)
        table, skipped = pipeline.predict(
            inputs,
            out,
            model,
            mpp=mpp,
            device=device,
            skip_bad=skip_bad,
            on_start=lambda n: bar.update(task, total=n),
            on_done=lambda n: bar.advance(task, n),
        )
    _show_skipped(skipped)
    atypical = int(table["predicted_atypical"].sum())
    out_console.print(f"{len(table):,} figures, {atypical:,} of them atypical: {escape(str(out))}")


def _show_skipped(skipped: list[Problem]) -> None:
    if skipped:
        err_console.print(f"[yellow]{len(skipped)} skipped:[/yellow]")
        for problem in skipped:
            err_console.print(f"  • {escape(str(problem))}", soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Do the whole job on an invented cohort, offline, in minutes."""
    from atypia.demo import REAL_DATA, run_demo

    out_console.print(REAL_DATA, highlight=False, soft_wrap=True)
    with _member_progress() as on_step:
        story = run_demo(out, seed=seed, command=_command_line(), on_step=on_step)
    _show_metrics(story.metrics)
    _show_frame(story.examples, "A few answers on patches the model has never seen")
    out_console.print(f"Report: {escape(str(story.report))}", soft_wrap=True)


@app.command()
def doctor() -> None:
    """Show versions, devices, optional packages and available weights."""
    from atypia.doctor import examine

    table = Table(show_header=False, box=None)
    for name, finding in examine():
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(finding))
    out_console.print(table)


# --- Shown to people ------------------------------------------------------------------------------


def _command_line() -> str:
    return shlex.join(["atypia", *sys.argv[1:]])


def _progress(*, transfer: bool = False) -> Progress:
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


class _member_progress:  # noqa: N801 - used as a function
    """A progress bar with one line per member that is being trained."""

    def __enter__(self) -> OnStep:
        self._bar = _progress()
        self._bar.__enter__()
        tasks: dict[str, Any] = {}

        def on_step(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = self._bar.add_task(name, total=total)
            self._bar.update(tasks[name], completed=done, total=total)

        return on_step

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)  # type: ignore[arg-type]


def _show_metrics(metrics: dict[str, Any]) -> None:
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
