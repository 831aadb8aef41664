"""``atypia tune``: from a cohort to a better configuration."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from atypia.cli.app import Out, app, command_line, out_console
from atypia.cli.show import member_progress


@app.command()
def tune(
    cohort: Annotated[Path, typer.Argument(help="Cohort folder, from atypia prepare.")],
    out: Out,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, alike in all trials."),
    ] = None,
    search: Annotated[
        Path | None,
        typer.Option(help="YAML: which settings vary, between what. [default: the preset's]"),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Where the search begins. [default: quick]")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="table1, benchmark, holdout, cv, monte_carlo, all, domains, or a file."),
    ] = None,
    outer: Annotated[
        int | None, typer.Option(help="Which test part to leave out, where a split has several.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="A rater, or agreed.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    measure: Annotated[
        Literal["log_loss", "calibrated_log_loss", "mean_auc", "balanced_accuracy", "binary_auc"]
        | None,
        typer.Option(
            help="Of the out-of-fold answers; calibrated_log_loss: after a temperature; "
            "binary_auc: of atypical or normal, by the majority of the votes with loss.of=sides, "
            "else by the label. [default: calibrated_log_loss with "
            "ensemble.calibration=temperature, else log_loss]"
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Inner folds that a trial is trained on. [default: all]")
    ] = None,
    trials: Annotated[int, typer.Option(help="In all, those of other workers included.")] = 50,
    hours: Annotated[float | None, typer.Option(help="Begin no trial later than that.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="postgresql://USER@HOST/DATABASE, for several workers on any hosts."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a study, or join it.")
    ] = False,
) -> None:
    """Search for better settings by cross-validation inside the training part of a split."""
    from atypia import pipeline
    from atypia.core.config import load_config
    from atypia.models.hardware import keep_freed_memory
    from atypia.training.search_space import default_space

    keep_freed_memory()
    overrides = list(settings or [])
    overrides += [f"split.kind={json.dumps(split)}"] * (split is not None)
    overrides += [f"label={json.dumps(label)}"] * (label is not None)
    overrides += [f"seed={seed}"] * (seed is not None)
    chosen = preset is not None or bool(overrides)
    config = None
    if chosen or not (resume and (out / "config.yaml").is_file()):
        config = load_config(preset or "quick", overrides)
    if search is None:
        own = out / "search.yaml"
        search = own if resume and own.is_file() else default_space(preset or "quick")
    with member_progress() as on_step:
        told = pipeline.tune(
            cohort,
            out,
            config,
            search,
            measure=measure,
            folds=folds,
            outer=outer,
            trials=trials,
            hours=math.inf if hours is None else hours,
            storage=storage,
            resume=resume,
            command=command_line(),
            on_step=on_step,
        )
    _show(told)
    out_console.print(f"Trials: {escape(str(out / 'study.html'))}", soft_wrap=True)
    if told["best"] is not None:
        best = escape(str(out / "best.yaml"))
        command = f"atypia train {escape(str(cohort))} --preset {best} --out RUN"
        out_console.print(f"Train it: {command}", soft_wrap=True)


def _show(told: dict[str, Any]) -> None:
    """Print what came out."""
    done = ", ".join(f"{n} {state}" for state, n in told["done"].items())
    table = Table(title=f"{told['study']}: {done}", title_justify="left")
    table.add_column("")
    table.add_column(f"{told['measure']}, out of fold", justify="right")
    for name, key in (("as it began", "preset"), ("best", "best")):
        trial = told[key]
        if trial is not None and trial["value"] is not None:
            table.add_row(f"{name} (trial {trial['trial']})", f"{trial['value']:.5f}")
    for name, value in (told["best"] or {"settings": {}})["settings"].items():
        table.add_row(
            f"  {escape(name)}", escape(f"{value:.6g}" if isinstance(value, float) else str(value))
        )
    out_console.print(table)
