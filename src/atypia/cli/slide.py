"""``atypia slide``: the candidates of a slide to subtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from atypia.cli.app import Backend, SkipBad, app, out_console
from atypia.cli.show import progress, show_skipped
from atypia.core.errors import AtypiaError


@app.command()
def slide(
    slide: Annotated[Path, typer.Argument(help="A slide, a TIFF image, or a DICOM slide.")],
    candidates: Annotated[
        Path,
        typer.Option(
            help="Figures found: GeoJSON (QuPath), MIDOG JSON, a CSV of centres, a cohort."
        ),
    ],
    out: Annotated[
        list[Path],
        typer.Option(
            help="A .geojson (QuPath), .csv, .json, .dcm, or a page (.html, .pdf). Repeatable."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="'released' (in the package), a bundle, run or ONNX export.")
    ] = "released",
    quality: Annotated[str, typer.Option(help="best or fast.")] = "best",
    mpp: Annotated[
        float | None, typer.Option(help="µm per pixel, where the slide does not say it.")
    ] = None,
    units: Annotated[
        Literal["px", "um"] | None,
        typer.Option(help="Of the candidates' coordinates, where their file does not say it."),
    ] = None,
    backend: Backend = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    skip_bad: SkipBad = False,
) -> None:
    """Classify the mitotic figures that were found on a slide; QuPath opens the answers."""
    from atypia import pipeline
    from atypia.reports.biomarker_words import measures_in_words

    with progress() as bar:
        task = bar.add_task("candidates", total=None)
        answers = pipeline.slide(
            slide,
            candidates,
            out,
            model,
            quality=quality,
            mpp=mpp,
            units=units,
            backend=backend,
            device=device,
            skip_bad=True,  # the good ones are done; what is bad decides how the command ends
            on_start=lambda n: bar.update(task, total=n),
            on_done=lambda n: bar.advance(task, n),
        )
    bad = [*answers.found.problems, *answers.unread]
    show_skipped(bad, "a .json that --out names lists all of them")
    atypical = int(answers.table["predicted_atypical"].sum())
    told = f"{len(answers.table):,} figures, {atypical:,} of them atypical"
    out_console.print(f"{told}: {escape(', '.join(map(str, out)))}", soft_wrap=True)
    for line in measures_in_words(answers.biomarkers):
        out_console.print(escape(line), soft_wrap=True)
    if bad and not skip_bad:
        raise AtypiaError(
            f"{len(bad):,} of {len(bad) + len(answers.table):,} candidates are bad or could not be "
            "read, and are listed above; the answers on the others are written. --skip-bad takes "
            "this for good."
        )
