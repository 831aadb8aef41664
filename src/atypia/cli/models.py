"""Commands around a model: adapt, export, serve; and around the installation: demo, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from atypia import pipeline
from atypia.cli.app import command_line, err_console, out_console
from atypia.cli.options import (
    AllowOverlap,
    Backend,
    CountAll,
    Device,
    DistinctIds,
    Label,
    OperatingPoint,
    Out,
    Quality,
    Seed,
    TorchModel,
)
from atypia.cli.show import (
    counted,
    named_progress,
    show_frame,
    show_metrics,
    show_path,
)
from atypia.core.choices import BALANCED
from atypia.core.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.evaluation.sampling_plan import Conclusion

_MIB = 2**20


def adapt(
    model: Annotated[
        str, typer.Argument(help="'released' (in the package), 'rules', a bundle or a run folder.")
    ],
    cohort: Annotated[
        Path | None,
        typer.Argument(help="Figures of the site, labelled; with --plan any, or predictions.csv."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The new bundle; with --plan a .csv.", show_default=False)
    ] = None,
    label: Label = "expert1",
    plan: Annotated[
        bool, typer.Option("--plan", help="Which figures to label, and what they will show.")
    ] = False,
    figures: Annotated[int, typer.Option(min=1, help="With --plan: how many to label.")] = 100,
    seed: Seed = 0,
    sampled: Annotated[
        Path | None, typer.Option(help="The plan by which figures were chosen, for its weights.")
    ] = None,
    allow_overlap: AllowOverlap = False,
    distinct_ids: DistinctIds = False,
) -> None:
    """Refit temperature, thresholds and sets on a new site's labels; no network is trained."""
    from rich.markdown import Markdown

    from atypia.training.site_adaptation import adapted_markdown

    if plan:
        with counted("patches") as (on_start, on_done):
            found = pipeline.adapt_plan(
                model, cohort, out, figures, seed, on_start=on_start, on_done=on_done
            )
        _show_plan(found)
    elif cohort is None or out is None:
        raise InputError("expected a COHORT of labelled figures and --out BUNDLE, or --plan.")
    else:
        with counted("patches") as (on_start, on_done):
            record = pipeline.adapt(
                model,
                cohort,
                out,
                label,
                sampled=sampled,
                allow_overlap=allow_overlap,
                distinct_ids=distinct_ids,
                on_start=on_start,
                on_done=on_done,
            )
        out_console.print(Markdown(adapted_markdown(record)))
    if out is not None:
        show_path("Figures to label" if plan else "Bundle", out)


def _show_plan(found: Mapping[int, tuple[Conclusion, Conclusion]]) -> None:
    title = "What labels will show of the model: 95 % intervals, if it is as elsewhere"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0))  # 80 columns hold it
    headings = "figures", "drawn", "patients", "atypical"
    for name in (*headings, "sensitivity", "specificity", "PPV", "threshold"):
        table.add_column(name, no_wrap=True)
    for n, ways in found.items():
        for way, found_by in zip(("random", "planned"), ways, strict=True):
            shares = (found_by.sensitivity, found_by.specificity, found_by.ppv, found_by.threshold)
            intervals = [f"{low:.2f}–{high:.2f}" for low, high in shares]
            counts = f"{n:,}", way, f"{found_by.patients:,}", f"{found_by.atypical:.0f}"
            table.add_row(*counts, *intervals)
    out_console.print(table)


def export(
    out: Out,
    model: TorchModel = "released",
    quality: Quality = "best",
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
        loss = _loss(written.int8_check)
        out_console.print(f"{escape(str(out / written.int8.file))}: {loss}", soft_wrap=True)


def _loss(check: Mapping[str, Any]) -> str:
    parts = [f"on {check['n']:,} figures of {check['n_patients']:,} other patients"]
    for name, heading in (("mean_auc", "mean AUC"), ("binary.auc", "AUC of atypical")):
        before, change = check["fp32"][name], check["int8_minus_fp32"][name]
        if before is None or change is None or change["value"] is None:
            continue
        interval = ""
        if change["low"] is not None:
            interval = f" (95 % {change['low']:+.4f} to {change['high']:+.4f})"
        parts.append(f"{heading} {before:.4f} changes by {change['value']:+.4f}{interval}")
    parts.append(f"the same subtype in {check['same_subtype']:.1%}")
    return ", ".join(parts)


def serve(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN|COHORT|SLIDE]", help="What the web app shows; without it: the API alone."
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Of a slide: CSV of 'atypia slide'. Of a cohort: predictions.csv."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="A second run, or a table, to compare with.")
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option(help="Of a run, where it is not where it was.")
    ] = None,
    reviews: Annotated[
        Path | None,
        typer.Option(help="Where reviewers' labels are saved; atypia-reviews.sqlite by default."),
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Tell nobody what the model or other raters say.")
    ] = False,
    mpp: Annotated[
        float | None, typer.Option(min=0.01, max=10, help="Of a slide that does not say it.")
    ] = None,
    count_all: CountAll = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="'released' (in the package), a bundle, run or ONNX export. By default that of "
            "RUN, else 'released'.",
            show_default=False,
        ),
    ] = None,
    quality: Quality = "best",
    operating_point: OperatingPoint = BALANCED,
    slides: Annotated[
        Path | None, typer.Option(help="A folder: each slide in it, by the name of its file.")
    ] = None,
    register: Annotated[
        list[str] | None, typer.Option(metavar="ID=PATH", help="A slide, by an id. Repeatable.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; this machine alone by default.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name by which clients may address the server. Repeatable."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Holds a token that clients must send; so does ATYPIA_TOKEN."),
    ] = None,
    max_body_mb: Annotated[int, typer.Option(min=1, help="Of one request.")] = 32,
    max_megapixels: Annotated[
        float, typer.Option(min=0.001, help="Of one image, all its pages together.")
    ] = 16.8,
    max_patches: Annotated[
        int,
        typer.Option(min=1, help="In one request; twice as many may wait for an answer."),
    ] = 4096,
    max_requests: Annotated[
        int | None,
        typer.Option(min=1, help="At once; others get 503. By default 256, beside the app 24."),
    ] = None,
    max_memory_mb: Annotated[
        int, typer.Option(min=1, help="For uploads, and as much again for pixels.")
    ] = 512,
    backend: Backend = "auto",
    device: Device = "auto",
) -> None:
    """Show figures and answers in the browser; answer programs over HTTP (/openapi.json)."""
    from atypia.pipeline.serve import serve as run
    from atypia.server.guard import ServerLimits, usual_requests
    from atypia.web.site import Show

    of_app = {
        "results": results,
        "against": against,
        "cohort": cohort,
        "reviews": reviews,
        "blind": blind or None,
        "mpp": mpp,
        "count_all": count_all or None,
    }
    given = {name: value for name, value in of_app.items() if value is not None}
    if source is None and given:
        what = "belongs to the app. Say what it shows: atypia serve RUN|COHORT|SLIDE"
        raise InputError([Problem(f"--{name.replace('_', '-')} {what}") for name in given])
    run(
        None if source is None else Show(source, **given),  # type: ignore[arg-type]
        model,
        quality=quality,
        operating_point=operating_point,
        backend=backend,
        device=device,
        slides=slides,
        register=_named(register or []),
        host=host,
        port=port,
        allow_hosts=allow_host or (),
        token_file=token_file,
        limits=ServerLimits(
            body_bytes=max_body_mb * _MIB,
            image_pixels=round(max_megapixels * 1e6),
            patches=max_patches,
            requests=max_requests or usual_requests(beside_app=source is not None),
            buffer_bytes=max_memory_mb * _MIB,
        ),
    )


def _named(registered: list[str]) -> list[tuple[str, Path]]:
    wrong = [text for text in registered if not all(text.partition("="))]
    if wrong:
        raise InputError(
            [Problem(f"--register: expected ID=PATH but got {text!r}.") for text in wrong]
        )
    return [(text.partition("=")[0], Path(text.partition("=")[2])) for text in registered]


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")] = Path("demo"),
    seed: Seed = 0,
) -> None:
    """Do the whole job on an invented cohort, offline, in minutes."""
    from atypia.pipeline.demo import REAL_DATA

    out_console.print(REAL_DATA, highlight=False, soft_wrap=True)
    with named_progress() as on_step:
        done = pipeline.demo(out, seed=seed, command=command_line(), on_step=on_step)
    show_metrics(done.metrics)
    show_frame(done.examples, "A few answers on patches the model has never seen")
    show_path("Report", done.report)


def doctor(
    model: Annotated[
        str | None,
        typer.Option(
            help="Check a model's files and show its card: 'released', a bundle, or a run folder; "
            "or tell whether an encoder, such as virchow2, or a backbone of timm can be loaded "
            "here.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show versions, devices, optional packages, weights; or what a model is."""
    from rich.markdown import Markdown

    found = pipeline.doctor(model)
    table = Table(show_header=False, box=None)
    for name, finding in found.findings:
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(finding))
    out_console.print(table)
    if found.problem is not None:
        raise InputError(found.problem)
    if found.card is not None:
        out_console.print(Markdown(found.card))
