"""``atypia export``: a model as an ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from atypia.cli.app import Label, Out, app, err_console, out_console

if TYPE_CHECKING:
    from collections.abc import Mapping


@app.command()
def export(
    out: Out,
    model: Annotated[
        str, typer.Option(help="'released' (in the package), a bundle, or a run folder.")
    ] = "released",
    quality: Annotated[str, typer.Option(help="best or fast.")] = "best",
    int8: Annotated[
        bool, typer.Option("--int8", help="Also in 8-bit integers; needs --calibration-images.")
    ] = False,
    calibration_images: Annotated[
        Path | None,
        typer.Option(help="A labelled cohort: for the check, the ranges and the loss of --int8."),
    ] = None,
    label: Label = "expert1",
) -> None:
    """Write a model as an ONNX graph that runs without torch, checked against torch."""
    from atypia import pipeline

    with err_console.status("loading the model") as status:
        written = pipeline.export(
            model,
            out,
            quality=quality,
            int8=int8,
            cohort=calibration_images,
            label=label,
            on_stage=status.update,
        )
    worst = max(written.check["largest_difference_by_batch"].values())
    out_console.print(
        f"{escape(str(out / written.fp32.file))}: {written.members} members, within {worst:.1g} of "
        f"torch on {written.check['patches']} patches",
        soft_wrap=True,
    )
    if written.int8 is not None and written.int8_check is not None:
        out_console.print(
            f"{escape(str(out / written.int8.file))}: {_loss(written.int8_check)}", soft_wrap=True
        )


def _loss(check: Mapping[str, Any]) -> str:
    parts = [f"on {check['n']:,} figures of {check['n_patients']:,} other patients"]
    for name, said in (("mean_auc", "mean AUC"), ("binary.auc", "AUC of atypical")):
        before, change = check["fp32"][name], check["int8_minus_fp32"][name]
        if before is None or change is None or change["value"] is None:
            continue
        interval = ""
        if change["low"] is not None:
            interval = f" (95 % {change['low']:+.4f} to {change['high']:+.4f})"
        parts.append(f"{said} {before:.4f} changes by {change['value']:+.4f}{interval}")
    parts.append(f"the same subtype in {check['same_subtype']:.1%}")
    return ", ".join(parts)
