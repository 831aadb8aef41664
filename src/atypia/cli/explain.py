"""``atypia explain``: where a model found what speaks for its answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from atypia.cli.app import Out, SkipBad, app, out_console
from atypia.cli.show import progress, show_skipped

if TYPE_CHECKING:
    from atypia.explain import Sanity
    from atypia.explain.sanity import MeanInterval


@app.command()
def explain(
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders, stacks or cohorts.")],
    out: Out,
    model: Annotated[
        str, typer.Option(help="'released' (in the package), a bundle or a run.")
    ] = "released",
    method: Annotated[
        Literal["gradcam", "occlusion", "integrated"],
        typer.Option(help="The last two need the package captum and take ten times as long."),
    ] = "gradcam",
    subtype: Annotated[
        str, typer.Option(help="What is explained: predicted, atypical, or a subtype.")
    ] = "predicted",
    quality: Annotated[str, typer.Option(help="best or fast.")] = "best",
    mpp: Annotated[
        float | None,
        typer.Option(help="µm per pixel; cohorts and some TIFF files carry their own."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    skip_bad: SkipBad = False,
    check: Annotated[
        int, typer.Option(min=0, help="Figures to check the method on; 0 for no check.")
    ] = 16,
    seed: Annotated[int, typer.Option(help="Of the check.")] = 0,
) -> None:
    """Show where in a patch the networks found what speaks for their answer."""
    from atypia import pipeline

    with progress() as bar:
        task = bar.add_task("files", total=None)
        n, sanity, skipped = pipeline.explain(
            inputs,
            out,
            model,
            method=method,
            subtype=subtype,
            quality=quality,
            mpp=mpp,
            device=device,
            skip_bad=skip_bad,
            checked=check,
            seed=seed,
            on_start=lambda n: bar.update(task, total=n),
            on_done=lambda n: bar.advance(task, n),
        )
    show_skipped(skipped)
    out_console.print(f"{n:,} figures: {escape(str(out / 'explanations.json'))}", soft_wrap=True)
    if sanity is not None:
        _show(sanity)
    out_console.print("Research use; not a medical device.", style="dim")


def _show(sanity: Sanity) -> None:
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
        f"Rank correlation with maps of shuffled networks: {_told(last.signed)}, of the strength "
        f"alone {_told(last.magnitude)}",
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


def _told(estimate: MeanInterval) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
