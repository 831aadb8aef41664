"""``atypia biomarker``: densities, atypical fraction and hot-spot of slides and patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from atypia.cli.app import Out, app, out_console
from atypia.cli.show import progress
from atypia.core.errors import InputError


@app.command()
def biomarker(
    results: Annotated[list[Path], typer.Argument(help="Tables that atypia slide wrote.")],
    out: Out,
    area_mm2: Annotated[
        str | None,
        typer.Option(
            metavar="MM2|FILE.csv",
            help="Area searched for figures: of every slide, or columns slide and area_mm2.",
        ),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(help="Annotated regions: GeoJSON, or a folder with one per slide."),
    ] = None,
    hotspot_mm2: Annotated[float, typer.Option(help="Area of the hot-spot.")] = 2.37,
    hotspot_shape: Annotated[
        Literal["circle", "rectangle"], typer.Option(help="A rectangle is upright, 4 to 3.")
    ] = "circle",
    hotspot_of: Annotated[
        Literal["all", "atypical"], typer.Option(help="Most figures, or most atypical ones.")
    ] = "all",
    patients: Annotated[Path | None, typer.Option(help="CSV with slide and patient_id.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model that classified them (run folder or bundle, its out-of-fold table or "
            "errors.json): values are corrected for its errors."
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="What the model's errors are counted against.")
    ] = None,
    slides: Annotated[
        Path | None, typer.Option(help="Folder with the slides, for images in the pages.")
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Also write each page as a PDF of one sheet.")
    ] = False,
) -> None:
    """Densities, atypical fraction and hot-spot, per slide and per patient, with intervals."""
    from atypia import pipeline
    from atypia.biomarker import HotspotChoice

    with progress() as bar:
        task = bar.add_task("slides", total=None)
        found, joined = pipeline.biomarker(
            results,
            out,
            area=_area(area_mm2),
            regions=regions,
            choice=HotspotChoice(hotspot_mm2, hotspot_shape, hotspot_of),
            patients=patients,
            model=model,
            label=label,
            images=slides,
            pdf=pdf,
            on_start=lambda n: bar.update(task, total=n),
            on_done=lambda n: bar.advance(task, n),
        )
    out_console.print(
        f"{len(found)} slides of {len(joined)} patients: {escape(str(out / 'cohort.csv'))}, "
        f"pages in {escape(str(out / 'slides'))}",
        soft_wrap=True,
    )


def _area(text: str | None) -> float | Path | None:
    """Take a number as mm², anything that ends in .csv as a table."""
    if text is None or text.lower().endswith(".csv"):
        return None if text is None else Path(text)
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"--area-mm2: expected a number of mm² or a .csv file but got {text!r}."
        ) from None
