"""``atypia train``: from a cohort to a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from atypia.cli.app import Out, app, command_line, out_console
from atypia.cli.show import member_progress, show_metrics


@app.command()
def train(
    cohort: Annotated[Path, typer.Argument(help="Cohort folder, from atypia prepare.")],
    out: Out,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="quick, paper, released, probe, lora, binary-efficientnetv2, binary-densenet, "
            "binary-lite0, rules, hybrid (with network=RUN), stack (with runs=[RUN1,RUN2]), or a "
            "YAML file. [default: quick]"
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="table1, benchmark, holdout, cv, monte_carlo, all, domains, or a file."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="A rater, or agreed.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
) -> None:
    """Split by patient, train the members, evaluate the ensemble, write the report.

    The preset rules trains nothing; hybrid and stack take splits and answers of finished runs.
    """
    from atypia import pipeline
    from atypia.core.config import load_any_config
    from atypia.models.hardware import keep_freed_memory

    keep_freed_memory()
    overrides = list(settings or [])
    overrides += [f"split.kind={json.dumps(split)}"] * (split is not None)
    overrides += [f"label={json.dumps(label)}"] * (label is not None)
    overrides += [f"seed={seed}"] * (seed is not None)
    chosen = preset is not None or bool(overrides)
    config = load_any_config(preset or "quick", overrides) if chosen or not resume else None
    with member_progress() as on_step:
        metrics = pipeline.train(
            cohort, out, config, resume=resume, command=command_line(), on_step=on_step
        )
    if metrics is not None:
        show_metrics(metrics)
        if (out / "trade.md").is_file():
            out_console.print(f"What the rules buy: {escape(str(out / 'trade.md'))}")
        out_console.print(f"Report: {escape(str(out / 'report.html'))}")
