"""Commands that train: train, distill, tune, mil."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from atypia import pipeline
from atypia.cli.app import command_line, out_console
from atypia.cli.options import (
    AllowOverlap,
    CohortFolder,
    DistinctIds,
    Out,
    Resume,
    Settings,
    Split,
    TrainingLabel,
    TrainingSeed,
)
from atypia.cli.show import named_progress, show_metrics, show_path
from atypia.core.errors import InputError


def train(
    cohort: CohortFolder,
    out: Out,
    settings: Settings = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="quick, paper, released, probe, lora, binary-efficientnetv2, binary-densenet, "
            "binary-lite0, mitosis, rules, hybrid (with network=RUN), stack (with "
            "runs=[RUN1,RUN2]), or a YAML file. [default: quick]"
        ),
    ] = None,
    split: Split = None,
    label: TrainingLabel = None,
    seed: TrainingSeed = None,
    resume: Resume = False,
) -> None:
    """Split by patient, train the members, evaluate the ensemble, write the report.

    The preset mitosis learns figures against look-alikes; rules trains nothing; hybrid and stack
    take splits and answers of finished runs.
    """
    from atypia.core.config import load_any_config
    from atypia.models.hardware import keep_freed_memory

    keep_freed_memory()
    overrides = _overrides(settings, split, label, seed)
    chosen = preset is not None or bool(overrides)
    config = load_any_config(preset or "quick", overrides) if chosen or not resume else None
    with named_progress() as on_step:
        metrics = pipeline.train(
            cohort, out, config, resume=resume, command=command_line(), on_step=on_step
        )
    if metrics is not None:
        show_metrics(metrics)
        if (out / "trade.md").is_file():
            show_path("What the rules buy", out / "trade.md")
        show_path("Report", out / "report.html")


def distill(
    run: Annotated[Path, typer.Argument(help="A finished run: the teacher.")],
    out: Out,
    settings: Settings = None,
    quality: Annotated[
        str,
        typer.Option(help="fast: one network. best: as many as the teacher has, for its place."),
    ] = "fast",
    into: Annotated[
        Path | None, typer.Option(help="A bundle or run that gets the student as quality fast.")
    ] = None,
    resume: Resume = False,
) -> None:
    """Train networks on a run's out-of-fold answers: one that is fast, or an ensemble."""
    with named_progress() as on_step:
        metrics = pipeline.distill(
            run,
            out,
            settings or (),
            quality=quality,
            into=into,
            resume=resume,
            command=command_line(),
            on_step=on_step,
        )
    if metrics is not None:
        show_metrics(metrics)
        show_path("Report", out / "report.html")
        if into is not None:
            show_path("Quality fast", into)


def tune(
    cohort: CohortFolder,
    out: Out,
    settings: Settings = None,
    search: Annotated[
        Path | None,
        typer.Option(help="YAML: which settings vary, between what. [default: the preset's]"),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Where the search begins. [default: quick]")
    ] = None,
    split: Split = None,
    outer: Annotated[
        int | None, typer.Option(help="Which test part to leave out, where a split has several.")
    ] = None,
    label: TrainingLabel = None,
    seed: TrainingSeed = None,
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
    resume: Resume = False,
) -> None:
    """Search for better settings by cross-validation inside the training part of a split."""
    from atypia.core.config import load_config
    from atypia.models.hardware import keep_freed_memory
    from atypia.training.search_space import default_space

    keep_freed_memory()
    overrides = _overrides(settings, split, label, seed)
    chosen = preset is not None or bool(overrides)
    config = None
    if chosen or not (resume and (out / "config.yaml").is_file()):
        config = load_config(preset or "quick", overrides)
    if search is None:
        own = out / "search.yaml"
        search = own if resume and own.is_file() else default_space(preset or "quick")
    with named_progress() as on_step:
        study = pipeline.tune(
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
    _show_study(study)
    show_path("Trials", out / "study.html")
    if study["best"] is not None:
        best = escape(str(out / "best.yaml"))
        command = f"atypia train {escape(str(cohort))} --preset {best} --out RUN"
        out_console.print(f"Train it: {command}", soft_wrap=True)


def _show_study(study: dict[str, Any]) -> None:
    done = ", ".join(f"{n} {state}" for state, n in study["done"].items())
    table = Table(title=f"{study['study']}: {done}", title_justify="left")
    table.add_column("")
    table.add_column(f"{study['measure']}, out of fold", justify="right")
    for name, key in (("as it began", "preset"), ("best", "best")):
        trial = study[key]
        if trial is not None and trial["value"] is not None:
            table.add_row(f"{name} (trial {trial['trial']})", f"{trial['value']:.5f}")
    for name, value in (study["best"] or {"settings": {}})["settings"].items():
        table.add_row(
            f"  {escape(name)}", escape(f"{value:.6g}" if isinstance(value, float) else str(value))
        )
    out_console.print(table)


def mil(
    cohort: CohortFolder,
    out: Out,
    settings: Settings = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="CSV with patient_id and a label, or atypical_above_median, or has_SUBTYPE.",
            show_default=False,
        ),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Of the CSV, if it has several.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="A finished run: answer for COHORT with its model.", show_default=False),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            help="Describe figures by a table of out-of-fold predictions instead of features.",
            show_default=False,
        ),
    ] = None,
    allow_overlap: AllowOverlap = False,
    distinct_ids: DistinctIds = False,
    label: TrainingLabel = None,
    seed: TrainingSeed = None,
) -> None:
    """Learn a label of patients from all of their figures (multiple-instance learning)."""
    from atypia.core.config import mil_config

    if (target is None) == (model is None):
        raise InputError("expected --target to learn, or --model to answer with a finished run.")
    table = None if answers is None else str(answers)
    if model is not None:
        if settings or column or label or seed is not None:
            raise InputError("--model: expected no settings: they are those of the run.")
        with named_progress() as on_step:
            predicted = pipeline.mil_predict(
                model,
                cohort,
                out,
                on_step,
                table,
                allow_overlap=allow_overlap,
                distinct_ids=distinct_ids,
            )
        show_path("Patients", predicted)
        return
    if allow_overlap or distinct_ids:
        raise InputError("--allow-overlap, --distinct-ids: expected --model with them.")
    given = {"target": target, "column": column, "label": label, "seed": seed, "answers": table}
    tree: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    with named_progress() as on_step:
        metrics = pipeline.mil(
            cohort,
            out,
            mil_config(settings or [], tree),
            command=command_line(),
            on_step=on_step,
        )
    _show_patients(metrics)
    show_path("Patients", out / "predictions-patients.csv")


def _show_patients(metrics: dict[str, Any]) -> None:
    counts = ", ".join(
        f"{n:,} {escape(str(c))}"
        for c, n in zip(metrics["classes"], metrics["n_of_class"], strict=True)
    )
    table = Table(
        title=f"{escape(metrics['target'])}: {metrics['n_patients']:,} patients ({counts})"
    )
    for heading in ("", "AUC", "95 % interval"):
        table.add_column(heading)
    for group in ("models", "differences"):
        for name, measures in metrics[group].items():
            auc = measures["auc"]
            if auc["value"] is not None:
                interval = f"{auc['low']:.3f} to {auc['high']:.3f}"
                table.add_row(escape(name), f"{auc['value']:.3f}", interval)
    out_console.print(table)


def _overrides(
    settings: list[str] | None, split: str | None, label: str | None, seed: int | None
) -> list[str]:
    """Return settings as KEY=VALUE, those with an option of their own last."""
    options = {"split.kind": split, "label": label, "seed": seed}
    given = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    return [*(settings or []), *given]
