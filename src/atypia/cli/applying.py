"""Commands that apply a model: predict, explain, slide, slides, biomarker, challenge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from atypia import pipeline
from atypia.cli.app import out_console
from atypia.cli.options import (
    Address,
    AllClasses,
    Backend,
    CountAll,
    Device,
    Engine,
    Inputs,
    ItemSize,
    Model,
    Mpp,
    OperatingPoint,
    Out,
    Quality,
    Seed,
    SkipBad,
    Threads,
    TorchModel,
    Workers,
)
from atypia.cli.show import (
    counted,
    show_job,
    show_left_out,
    show_path,
    show_predictions,
    show_sanity,
    show_skipped,
    table_in_words,
)
from atypia.core.choices import BALANCED
from atypia.core.errors import AtypiaError, InputError
from atypia.core.labels import left_out

MOST_PRINTED = 100
"""Files whose predictions are printed instead of written."""


def predict(
    inputs: Inputs,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .csv or .json to write (with --engine a folder); without it, answers are "
            "printed."
        ),
    ] = None,
    model: Model = "released",
    quality: Quality = "best",
    operating_point: OperatingPoint = BALANCED,
    mpp: Mpp = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help='Say "don\'t know" where the subtype is less probable than this.'
        ),
    ] = None,
    backend: Backend = "auto",
    device: Device = "auto",
    skip_bad: SkipBad = False,
    engine: Annotated[
        Engine | None,
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
    if engine is not None:
        from atypia.inference.job import EngineChoice

        if out is None or out.suffix.lower() in (".csv", ".json"):
            raise InputError("--out: with --engine, expected a folder for the job. See --csv.")
        with counted("files") as (on_start, on_done):
            result = pipeline.predict_job(
                inputs,
                out,
                model,
                engine=EngineChoice(engine, address, workers, threads),
                csv=csv,
                quality=quality,
                operating_point=operating_point,
                mpp=mpp,
                min_confidence=min_confidence,
                backend=backend,
                device=device,
                item_size=item_size,
                on_start=on_start,
                on_done=on_done,
            )
        show_job(result, "images")
        return
    with counted("files") as (on_start, on_done):

        def start(n: int) -> None:
            if out is None and n > MOST_PRINTED:
                raise InputError(f"--out: expected a file for the answers on {n:,} images.")
            from atypia.models.hardware import keep_freed_memory

            keep_freed_memory()
            on_start(n)

        table, skipped = pipeline.predict(
            inputs,
            out,
            model,
            quality=quality,
            operating_point=operating_point,
            mpp=mpp,
            min_confidence=min_confidence,
            backend=backend,
            device=device,
            skip_bad=skip_bad,
            on_start=start,
            on_done=on_done,
        )
    show_skipped(skipped)
    if out is None:
        show_predictions(table)
    else:
        line = table_in_words(table)
        if min_confidence is not None:
            line += f", {int(table['abstained'].sum()):,} with too low a confidence"
        show_path(line, out)


def explain(
    inputs: Inputs,
    out: Out,
    model: TorchModel = "released",
    method: Annotated[
        Literal["gradcam", "occlusion", "integrated"],
        typer.Option(help="The last two need the package captum and take ten times as long."),
    ] = "gradcam",
    subtype: Annotated[
        str, typer.Option(help="What is explained: predicted, atypical, or a subtype.")
    ] = "predicted",
    quality: Quality = "best",
    operating_point: OperatingPoint = BALANCED,
    mpp: Mpp = None,
    device: Device = "auto",
    skip_bad: SkipBad = False,
    check: Annotated[
        int, typer.Option(min=0, help="Figures to check the method on; 0 for no check.")
    ] = 16,
    seed: Seed = 0,
) -> None:
    """Show where in a patch the networks found what speaks for their answer."""
    with counted("files") as (on_start, on_done):
        n, sanity, skipped = pipeline.explain(
            inputs,
            out,
            model,
            method=method,
            subtype=subtype,
            quality=quality,
            operating_point=operating_point,
            mpp=mpp,
            device=device,
            skip_bad=skip_bad,
            checked=check,
            seed=seed,
            on_start=on_start,
            on_done=on_done,
        )
    show_skipped(skipped)
    show_path(f"{n:,} figures", out / "explanations.json")
    if sanity is not None:
        show_sanity(sanity)
    out_console.print("Research use; not a medical device.", style="dim")


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
    model: Model = "released",
    quality: Quality = "best",
    operating_point: OperatingPoint = BALANCED,
    mpp: Annotated[
        float | None, typer.Option(help="µm per pixel, where the slide does not say it.")
    ] = None,
    units: Annotated[
        Literal["px", "um"] | None,
        typer.Option(help="Of the candidates' coordinates, where their file does not say it."),
    ] = None,
    backend: Backend = "auto",
    device: Device = "auto",
    skip_bad: SkipBad = False,
    all_classes: AllClasses = False,
    count_all: CountAll = False,
) -> None:
    """Classify the mitotic figures that were found on a slide; QuPath opens the answers."""
    from atypia.reports.words import measures_in_words

    with counted("candidates") as (on_start, on_done):
        answers = pipeline.slide(
            slide,
            candidates,
            out,
            model,
            quality=quality,
            operating_point=operating_point,
            mpp=mpp,
            units=units,
            backend=backend,
            device=device,
            skip_bad=True,  # the good ones are done; what is bad decides how the command ends
            all_classes=all_classes,
            count_all=count_all,
            on_start=on_start,
            on_done=on_done,
        )
    bad = [*answers.found.problems, *answers.unread]
    show_skipped(bad, "a .json that --out names lists all of them")
    line = table_in_words(answers.table)
    out_console.print(f"{line}: {escape(', '.join(map(str, out)))}", soft_wrap=True)
    for line in measures_in_words(answers.biomarkers):
        out_console.print(escape(line), soft_wrap=True)
    if bad and not skip_bad:
        raise AtypiaError(
            f"{len(bad):,} of {len(bad) + len(answers.table):,} candidates are bad or could not be "
            "read, and are listed above; the answers on the others are written. --skip-bad takes "
            "this for good."
        )


def slides(
    table: Annotated[
        Path,
        typer.Argument(
            help="A CSV with slide and candidates; also mpp, units, slide_id, patient_id."
        ),
    ],
    out: Out,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="Also write one .csv, or a folder with one per slide."),
    ] = None,
    model: Model = "released",
    quality: Quality = "best",
    operating_point: OperatingPoint = BALANCED,
    engine: Annotated[Engine, typer.Option(help="In this process, or on a Ray cluster.")] = "local",
    address: Address = None,
    workers: Workers = None,
    threads: Threads = None,
    item_size: ItemSize = 1024,
    backend: Backend = "auto",
    device: Device = "auto",
    skip_bad: SkipBad = False,
    all_classes: AllClasses = False,
    count_all: CountAll = False,
) -> None:
    """Classify the figures found on many slides; the same command goes on where it stopped."""
    from atypia.inference.job import EngineChoice
    from atypia.models.hardware import keep_freed_memory

    keep_freed_memory()
    with counted("candidates") as (on_start, on_done):
        result = pipeline.slides(
            table,
            out,
            model,
            engine=EngineChoice(engine, address, workers, threads),
            csv=csv,
            quality=quality,
            operating_point=operating_point,
            backend=backend,
            device=device,
            skip_bad=skip_bad,
            all_classes=all_classes,
            count_all=count_all,
            item_size=item_size,
            on_start=on_start,
            on_done=on_done,
        )
    show_job(result, "candidates")


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
        str | None,
        typer.Option(
            help="By whose eyes values are corrected: expert1, majority_atypical, latent (the "
            "truth behind three raters), or what else the model has errors by."
        ),
    ] = None,
    slides: Annotated[
        Path | None,
        typer.Option(help="Folder with the slides, for their tissue and images in the pages."),
    ] = None,
    audit: Annotated[
        Path | None,
        typer.Option(help="Figures and fields that people looked at: corrects densities by it."),
    ] = None,
    audit_plan: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Also draw N figures, N of hot-spots, fields: audit.csv."
        ),
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Also write each page as a PDF of one sheet.")
    ] = False,
    count_all: CountAll = False,
) -> None:
    """Densities, atypical fraction and hot-spot, per slide and per patient, with intervals."""
    from atypia.biomarker import HotspotChoice

    with counted("slides") as (on_start, on_done):
        found, by_patient = pipeline.biomarker(
            results,
            out,
            area=_area(area_mm2),
            regions=regions,
            choice=HotspotChoice(hotspot_mm2, hotspot_shape, hotspot_of),
            patients=patients,
            model=model,
            label=label,
            images=slides,
            audit=audit,
            audit_plan_n=audit_plan,
            pdf=pdf,
            count_all=count_all,
            on_start=on_start,
            on_done=on_done,
        )
    show_left_out(left_out(s for slide in found for s in slide.source.left_out.status))
    out_console.print(
        f"{len(found)} slides of {len(by_patient)} patients: {escape(str(out / 'cohort.csv'))}, "
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


def challenge(
    source: Annotated[Path, typer.Option("--input", help="Holds inputs.json and images/.")] = Path(
        "/input"
    ),
    out: Annotated[Path, typer.Option("--output", help="Where to write.")] = Path("/output"),
    model: Annotated[
        str | None,
        typer.Option(help="A bundle, run or ONNX export. [default: /opt/ml/model, else released]"),
    ] = None,
    quality: Quality = "best",
    operating_point: OperatingPoint = BALANCED,
    mpp: Annotated[float, typer.Option(help="µm per pixel of the pages.")] = 0.25,
    backend: Backend = "auto",
    device: Device = "auto",
) -> None:
    """Answer one case of MIDOG 2025, track 2: normal or atypical, for each page of a stack."""
    given = pipeline.challenge(
        source,
        out,
        model,
        quality=quality,
        operating_point=operating_point,
        mpp=mpp,
        backend=backend,
        device=device,
    )
    atypical = sum(answer["class"] == "atypical" for answer in given)
    show_path(f"{len(given)} pages at {mpp:g} µm per pixel, {atypical} of them atypical", out)
