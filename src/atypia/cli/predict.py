"""``atypia predict``: images to subtypes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from atypia.cli.app import Address, Backend, ItemSize, SkipBad, Threads, Workers, app, out_console
from atypia.cli.show import progress, show_job, show_skipped
from atypia.core.errors import InputError
from atypia.core.labels import DISPLAY_NAMES, SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import pandas as pd

MOST_SHOWN = 100
"""Files whose answers are printed instead of written."""


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders, stacks or cohorts.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .csv or .json to write (with --engine a folder); without it, answers are "
            "printed."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="'released' (in the package), a bundle, run or ONNX export.")
    ] = "released",
    quality: Annotated[str, typer.Option(help="best or fast.")] = "best",
    mpp: Annotated[
        float | None,
        typer.Option(help="µm per pixel; cohorts and some TIFF files carry their own."),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help='Say "don\'t know" where the subtype is less probable than this.'
        ),
    ] = None,
    backend: Backend = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    skip_bad: SkipBad = False,
    engine: Annotated[
        Literal["local", "ray"] | None,
        typer.Option(help="As a job that can be stopped: here, or on a Ray cluster."),
    ] = None,
    address: Address = None,
    workers: Workers = None,
    threads: Threads = None,
    item_size: ItemSize = 1024,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="With --engine: also write one .csv.")
    ] = None,
) -> None:
    """Classify patches, each centred on one mitotic figure."""
    from atypia import pipeline

    if engine is not None:
        from atypia.inference.jobs.job import EngineChoice

        if out is None or out.suffix.lower() in (".csv", ".json"):
            raise InputError("--out: with --engine, expected a folder for the job. See --csv.")
        with progress() as bar:
            task = bar.add_task("files", total=None)
            result = pipeline.predict_job(
                inputs,
                out,
                model,
                engine=EngineChoice(engine, address, workers, threads),
                csv=csv,
                quality=quality,
                mpp=mpp,
                min_confidence=min_confidence,
                backend=backend,
                device=device,
                item_size=item_size,
                on_start=lambda n: bar.update(task, total=n),
                on_done=lambda n: bar.advance(task, n),
            )
        show_job(result, "images")
        return
    with progress() as bar:
        task = bar.add_task("files", total=None)

        def start(n: int) -> None:
            if out is None and n > MOST_SHOWN:
                raise InputError(f"--out: expected a file for the answers on {n:,} images.")
            from atypia.models.hardware import keep_freed_memory

            keep_freed_memory()
            bar.update(task, total=n)

        table, skipped = pipeline.predict(
            inputs,
            out,
            model,
            quality=quality,
            mpp=mpp,
            min_confidence=min_confidence,
            backend=backend,
            device=device,
            skip_bad=skip_bad,
            on_start=start,
            on_done=lambda n: bar.advance(task, n),
        )
    show_skipped(skipped)
    if out is None:
        _show(table)
    else:
        atypical = int(table["predicted_atypical"].sum())
        told = f"{len(table):,} figures, {atypical:,} of them atypical"
        if min_confidence is not None:
            told += f", {int(table['abstained'].sum()):,} with too low a confidence"
        out_console.print(f"{told}: {escape(str(out))}", soft_wrap=True)


def _show(frame: pd.DataFrame) -> None:
    """Print one row per figure; of a single figure every subtype's probability, too."""
    table = Table(box=None)
    for heading in ("figure", "subtype", "probability", "atypical?"):
        table.add_column(heading, justify="right" if heading == "probability" else "left")
    if "conformal_set" in frame:
        table.add_column("may be")
    rows = frame.to_dict("records")
    for row in rows:
        table.add_row(*(escape(cell) for cell in _cells(row)))
    out_console.print(table)
    if len(rows) == 1:
        every = Table(box=None, show_header=False)
        for subtype in sorted(SUBTYPES, key=lambda s: -rows[0][f"p_{s}"]):
            p = rows[0][f"p_{subtype}"]
            every.add_row(DISPLAY_NAMES[subtype], f"{p:.3f}", "█" * round(30 * p))
        out_console.print(every)
    out_console.print("Research use; not a medical device.", style="dim")


def _cells(row: Mapping[Any, Any]) -> list[str]:
    subtype = row["predicted_subtype"]
    name = DISPLAY_NAMES[subtype]
    atypical = "atypical" if row["predicted_atypical"] else "normal"
    cells = [
        str(row["patch_id"]),
        f"don't know ({name}?)" if row.get("abstained") else name,
        f"{row[f'p_{subtype}']:.2f}",
        f"{atypical} ({row['p_atypical']:.2f})",
    ]
    if "conformal_set" in row:
        names = str(row["conformal_set"]).split("|")
        inside = [DISPLAY_NAMES[s] for s in SUBTYPES if s in names]
        cells.append(", ".join(inside) or "no subtype fits")
    return cells
