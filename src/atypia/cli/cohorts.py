"""Commands that make cohorts: prepare, merge, download."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from atypia import pipeline
from atypia.cli.app import err_console, out_console
from atypia.cli.options import AllowOverlap, DistinctIds, Out, SkipBad
from atypia.cli.show import named_progress, show_frame, show_path
from atypia.core.errors import InputError


def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            help="AMi-Br, MIDOG25, AtNorM, OMG-Octo or MIDOG++ as published; folder per class; "
            "CSV; CSV of centres with --images."
        ),
    ],
    out: Out,
    name: Annotated[str | None, typer.Option(help="Name of the cohort.")] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per pixel of the patches.")] = None,
    domain: Annotated[str | None, typer.Option(help="Domain where the source names none.")] = None,
    scanner: Annotated[str, typer.Option(help="Scanner where the source names none.")] = "",
    rater: Annotated[str, typer.Option(help="Whose labels class folders are.")] = "expert1",
    file_column: Annotated[str | None, typer.Option(help="Column with the image's path.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column with the patch's id.")] = None,
    patient_column: Annotated[str | None, typer.Option(help="Column with the patient.")] = None,
    domain_column: Annotated[str | None, typer.Option(help="Column with the domain.")] = None,
    scanner_column: Annotated[str | None, typer.Option(help="Column with the scanner.")] = None,
    mpp_column: Annotated[str | None, typer.Option(help="Column with µm per pixel.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column with the source image.")] = None,
    x_column: Annotated[str | None, typer.Option(help="Column with the centre's x.")] = None,
    y_column: Annotated[str | None, typer.Option(help="Column with the centre's y.")] = None,
    majority_column: Annotated[
        str | None, typer.Option(help="Column with the majority of the votes.")
    ] = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option(metavar="RATER=COLUMN", help="Column with a rater's subtypes. Repeatable."),
    ] = None,
    vote_column: Annotated[
        list[str] | None,
        typer.Option(metavar="RATER=COLUMN", help="Column with a rater's votes. Repeatable."),
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(help="CSV with patch_id and patient_id for class folders.")
    ] = None,
    patient_regex: Annotated[
        str | None, typer.Option(help="Finds the patient in a patch's path.")
    ] = None,
    patient_per_patch: Annotated[
        bool, typer.Option("--patient-per-patch", help="Every patch is of another patient.")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="Folder of source images for a table of centres.")
    ] = None,
    field_um: Annotated[float | None, typer.Option(help="Side of the crops, in µm.")] = None,
    centre_unit: Annotated[str, typer.Option(help="Unit of the centres: px or um.")] = "px",
    mixed_sizes: Annotated[
        bool, typer.Option("--mixed-sizes", help="Allow patches of different size at one mpp.")
    ] = False,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Allow patches without any label or vote.")
    ] = False,
    skip_bad: SkipBad = False,
) -> None:
    """Make a cohort folder: patches, manifest, hashes; prints counts."""
    from pydantic import ValidationError

    from atypia.core.errors import Problem
    from atypia.data.sources import PrepareOptions

    columns = {
        "file": file_column,
        "patch_id": id_column,
        "patient": patient_column,
        "domain": domain_column,
        "scanner": scanner_column,
        "mpp": mpp_column,
        "image": image_column,
        "x": x_column,
        "y": y_column,
        "majority": majority_column,
        "labels": _by_rater("--label-column", label_column or []),
        "votes": _by_rater("--vote-column", vote_column or []),
    }
    try:
        options = PrepareOptions.model_validate(
            {
                "name": name,
                "mpp": mpp,
                "domain": domain,
                "scanner": scanner,
                "rater": rater,
                "columns": {key: value for key, value in columns.items() if value},
                "patients": patients,
                "patient_regex": patient_regex,
                "patient_per_patch": patient_per_patch,
                "images": images,
                "field_um": field_um,
                "centre_unit": centre_unit,
                "mixed_sizes": mixed_sizes,
                "unlabelled": unlabelled,
                "skip_bad": skip_bad,
            }
        )
    except ValidationError as error:
        raise InputError(
            [
                Problem(f"--{'.'.join(map(str, e['loc']))}: {e['msg']}, but got {e['input']!r}.")
                for e in error.errors()
            ]
        ) from None
    with named_progress() as on_step:
        cohort = pipeline.prepare(source, out, options, progress=partial(on_step, "patches"))
    show_cohort(cohort)
    ignored = cohort.source.get("ignored_files", [])
    if ignored:
        err_console.print(
            f"[yellow]{len(ignored)} files of the source are no part of it[/yellow]: "
            + escape(", ".join(ignored[:5]) + (" …" if len(ignored) > 5 else ""))
        )
    if others := int(cohort.source.get("n_not_mitotic", 0)):
        err_console.print(
            f"[yellow]{others:,} look-alikes[/yellow], no mitotic figures: only atypia train "
            "--preset mitosis uses them"
        )
    skipped = int(cohort.source.get("n_skipped", 0))
    if skipped:
        err_console.print(
            f"[yellow]{skipped} skipped[/yellow]; they are listed in {out / 'skipped.csv'}"
        )
    show_path("Cohort", out)


def merge(
    cohorts: Annotated[list[Path], typer.Argument(help="Two or more cohort folders.")],
    out: Out,
    name: Annotated[str | None, typer.Option(help="Name of the new cohort.")] = None,
    allow_overlap: AllowOverlap = False,
    distinct_ids: DistinctIds = False,
    same_raters: Annotated[
        bool | None,
        typer.Option(
            "--same-raters/--distinct-raters",
            help="Raters of one name in two cohorts are one person, or several.",
        ),
    ] = None,
) -> None:
    """Make one cohort of several, and refuse patients who are in two of them."""
    with named_progress() as on_step:
        cohort = pipeline.merge(
            cohorts,
            out,
            name,
            allow_overlap=allow_overlap,
            distinct_ids=distinct_ids,
            same_raters=same_raters,
            progress=on_step,
        )
    show_cohort(cohort)
    show_path("Cohort", out)


def download(
    release: Annotated[str, typer.Argument(help="ami-br")],
    out: Out,
    url: Annotated[str | None, typer.Option(help="A mirror; the content is checked alike.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Of the archive, checked first.")] = None,
) -> None:
    """Fetch a public data set with checked content; goes on where it was interrupted."""
    from atypia.data.archives import RELEASES

    if release not in RELEASES:
        raise InputError(f"expected a release out of {sorted(RELEASES)} but got {release!r}.")
    with named_progress(transfer=True) as on_step:
        pipeline.download(
            RELEASES[release], out, url=url, sha256=sha256, progress=partial(on_step, release)
        )
    out_console.print(
        f"{escape(str(out))} is complete. Next: atypia prepare {escape(shlex.quote(str(out)))} "
        "--out COHORT"
    )


def _by_rater(option: str, assignments: list[str]) -> dict[str, str]:
    columns = {}
    for assignment in assignments:
        rater, equals, column = assignment.partition("=")
        if not equals:
            raise InputError(f"{option}: expected RATER=COLUMN but got {assignment!r}.")
        columns[rater] = column
    return columns


def show_cohort(cohort: Any) -> None:
    """Print the counts of a cohort per class, vote, domain and patient."""
    from atypia.core.labels import DISPLAY_NAMES
    from atypia.data.cohort_builder import summary

    counts = summary(cohort)
    if len(counts.classes.columns):
        table = Table(title=f"{cohort.name}: {len(cohort):,} mitotic figures", title_justify="left")
        table.add_column("subtype")
        for rater in counts.classes.columns:
            table.add_column(rater, justify="right")
            table.add_column("patients", justify="right", style="dim")
        for subtype in counts.classes.index:
            row = zip(counts.classes.loc[subtype], counts.class_patients.loc[subtype], strict=True)
            table.add_row(DISPLAY_NAMES[subtype], *(f"{n:,}" for pair in row for n in pair))
        out_console.print(table)
    if len(counts.votes.columns):
        show_frame(counts.votes.T.reset_index(names="vote"), "Votes")
    show_frame(counts.domains.reset_index(), "Domains")
    size = counts.patients["patches"]
    out_console.print(
        f"{len(size)} patients with {size.min()} to {size.max()} figures each "
        f"(median {size.median():g})."
    )
