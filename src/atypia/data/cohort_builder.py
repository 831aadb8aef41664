"""Patches and manifest of a cohort that is being made, and its counts once it is."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

import pandas as pd

from atypia.core.errors import InputError, MissingExtraError, Problem
from atypia.core.labels import SUBTYPES
from atypia.core.tables import csv_text
from atypia.data.cohort import PLACE_COLUMNS, REQUIRED_COLUMNS, Cohort, column_order
from atypia.data.images import export_png, read_patch, write_png
from atypia.data.sources.records import (
    ImageRegion,
    PrepareOptions,
    Record,
    SlidePosition,
    mark_same_pictures,
)
from atypia.slides import Slide, open_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

SKIPPED_FILE: Final = "skipped.csv"

_Size = tuple[int, int]


def write_patches(
    records: list[Record],
    folder: Path,
    options: PrepareOptions,
    progress: Callable[[int, int], None],
) -> None:
    """Write the patch of every sound record, and note what is wrong with any image.

    Threads are enough: Pillow and OpenSlide let go of the interpreter while they work.
    """
    folder.mkdir()
    numbers = count(1)

    def advance() -> None:
        progress(next(numbers), len(records))

    files: list[tuple[Record, Path]] = []
    regions: defaultdict[Path, list[tuple[Record, ImageRegion]]] = defaultdict(list)
    for record in records:
        if isinstance(record.origin, ImageRegion):
            regions[record.origin.image].append((record, record.origin))
        elif record.origin is not None:
            files.append((record, record.origin))
        else:
            advance()

    sizes: list[tuple[Record, _Size]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda task: _export(task[0], task[1], folder), files)
        for (record, _), size in zip(files, found, strict=True):
            if size is not None:
                sizes.append((record, size))
            advance()
        # One source image at a time: a plain TIFF may fill the memory.
        for path, wanted in regions.items():
            for _ in _crop_all(path, wanted, folder, pool):
                advance()
    if not options.mixed_sizes:
        _mark_odd_sizes(sizes)
    mark_same_pictures(records)
    for record in records:
        if record.picture is not None and record.problems:
            _target(folder, record).unlink(missing_ok=True)


def _target(folder: Path, record: Record) -> Path:
    # Not with_suffix: an id may have dots of its own.
    return folder / f"{record.patch_id}.png"


def _export(record: Record, path: Path, folder: Path) -> _Size | None:
    """Copy one image; decode it even if its record is bad, to report all problems at once."""
    try:
        if record.problems:
            read_patch(path)
            return None
        pixels = export_png(path, _target(folder, record))
    except InputError as error:
        _note(record, error)
        return None
    record.picture = _hash(pixels)
    return pixels.shape[1], pixels.shape[0]


def _hash(pixels: NDArray[np.uint8]) -> str | None:
    return None if (pixels == pixels[0, 0]).all() else hashlib.sha256(pixels.tobytes()).hexdigest()


def _note(record: Record, error: InputError) -> None:
    """Note an image's problems with its record, and the row of the table that leads to it."""
    for problem in error.problems:
        if record.row is None or problem.file is None:
            record.problems.append(problem)
        else:
            record.fault(f"{problem.file}: {problem.what}")


def _crop_all(
    path: Path,
    wanted: list[tuple[Record, ImageRegion]],
    folder: Path,
    pool: ThreadPoolExecutor,
) -> list[None]:
    """Crop all regions of one source image; what is wrong is noted with the records."""

    def crop(task: tuple[Record, ImageRegion]) -> None:
        try:
            _crop(slide, *task, folder)
        except InputError as error:
            _note(task[0], error)

    try:
        with open_slide(path) as slide:
            return list(pool.map(crop, wanted))
    except MissingExtraError:
        raise
    except InputError as error:
        for record, _ in wanted:
            _note(record, error)
        return [None] * len(wanted)


def _crop(slide: Slide, record: Record, region: ImageRegion, folder: Path) -> None:
    info = slide.info
    mpp = record.mpp or info.mpp
    if mpp is None:
        record.fault(f"{info.path}: the file does not say its µm per pixel. Give --mpp.")
        return
    if record.mpp is None and info.aspect != 1:
        width, height = info.um_per_px
        what = f"expected square pixels but got {width:g} × {height:g} µm. Give --mpp."
        record.fault(f"{info.path}: {what}")
        return
    scale = 1 / mpp if region.unit == "um" else 1.0
    x, y = region.x * scale, region.y * scale
    if not (0 <= x < info.width and 0 <= y < info.height):
        record.fault(
            f"expected a centre inside {info.path.name} ({info.width} × {info.height} px) "
            f"but got x = {x:g}, y = {y:g} px."
        )
        return
    side = round(region.field_um / mpp)
    record.mpp = mpp
    record.place = SlidePosition(info.path.as_posix(), x, y, info.origin)
    pixels = slide.crop(x, y, side)
    if not record.problems:
        target = _target(folder, record)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_png(target, pixels)
        record.picture = _hash(pixels)


def _mark_odd_sizes(sizes: list[tuple[Record, _Size]]) -> None:
    """Note every patch whose size differs from the usual one at its resolution."""
    by_mpp: defaultdict[float | None, Counter[_Size]] = defaultdict(Counter)
    for record, size in sizes:
        by_mpp[record.mpp][size] += 1
    usual = {mpp: counts.most_common(1)[0] for mpp, counts in by_mpp.items()}
    for record, size in sizes:
        (width, height), n = usual[record.mpp]
        if size != (width, height):
            record.fault(
                f"expected {width} × {height} px like {n} other patches at {record.mpp} µm per "
                f"pixel but got {size[0]} × {size[1]} px in {record.path_text or record.origin}. "
                "Crop them alike, or say that it is meant (--mixed-sizes)."
            )


def manifest_of(records: list[Record], name: str) -> pd.DataFrame:
    """Make the manifest of sound records; `name` is the domain of those without one."""
    answers = {column for record in records for column in record.answers}
    names = _short({record.place.slide for record in records if record.place is not None})
    places = [_place(record.place, names) for record in records]
    where = [column for column in PLACE_COLUMNS if any(place.get(column) for place in places)]
    rows = [
        {
            "patch_id": record.patch_id,
            "file": f"patches/{record.patch_id}.png",
            "patient_id": record.patient_id,
            "domain": record.domain or name,
            "scanner": record.scanner,
            "mpp": record.mpp,
            **{column: record.answers.get(column, "") for column in answers},
            **{column: place.get(column, "") for column in where},
        }
        for record, place in zip(records, places, strict=True)
    ]
    columns = [*REQUIRED_COLUMNS, *sorted(answers, key=column_order), *where]
    return pd.DataFrame(rows, columns=columns)


def _short(paths: set[str]) -> dict[str, str]:
    """Shortest ends of paths that distinguish them: the name alone, or folders before it."""
    parts = {path: PurePosixPath(path).parts for path in paths}
    names: dict[str, str] = {}
    for depth in range(1, 1 + max(map(len, parts.values()), default=0)):
        ends = {path: "/".join(parts[path][-depth:]) for path in paths - set(names)}
        times = Counter(ends.values())
        names |= {path: end for path, end in ends.items() if times[end] == 1}
    return names


def _place(place: SlidePosition | None, names: Mapping[str, str]) -> dict[str, str]:
    """Cells of a place; the origin only where it is not the corner."""
    if place is None:
        return {}
    cells = [names[place.slide], f"{place.x:.10g}", f"{place.y:.10g}"]
    if any(place.origin):
        cells += map(str, place.origin)
    return dict(zip(PLACE_COLUMNS, cells, strict=False))


def problem_table(problems: list[Problem]) -> str:
    """Render problems as CSV."""
    rows = [(p.file or "", p.row or "", p.column or "", p.what) for p in problems]
    table = pd.DataFrame(rows, columns=["file", "row", "column", "what"])
    return csv_text(table)


@dataclass(frozen=True)
class CohortSummary:
    """Counts of a cohort, as tables to print."""

    classes: pd.DataFrame
    """Subtype × rater: number of patches, the subtypes in their fixed order."""
    class_patients: pd.DataFrame
    """Subtype × rater: number of patients with at least one such patch."""
    votes: pd.DataFrame
    """``atypical``, ``normal``, ``none`` × vote column: number of patches."""
    domains: pd.DataFrame
    """(domain, scanner) × ``patches``, ``patients``."""
    patients: pd.DataFrame
    """Patient × ``domain``, ``patches``; the patients with most patches first."""


def summary(cohort: Cohort) -> CohortSummary:
    """Count a cohort's patches per class, patient and domain."""
    table = cohort.manifest
    subtypes = pd.Index(SUBTYPES, name="subtype")
    by_rater = {rater: table.groupby(f"label_{rater}")["patient_id"] for rater in cohort.raters}
    by_domain = table.groupby(["domain", "scanner"])
    by_patient = table.groupby("patient_id")
    patients = pd.DataFrame({"domain": by_patient["domain"].first(), "patches": by_patient.size()})
    return CohortSummary(
        classes=pd.DataFrame(
            {r: g.size().reindex(subtypes, fill_value=0) for r, g in by_rater.items()}, subtypes
        ),
        class_patients=pd.DataFrame(
            {r: g.nunique().reindex(subtypes, fill_value=0) for r, g in by_rater.items()}, subtypes
        ),
        votes=pd.DataFrame(
            {
                c: [int((table[c] == v).sum()) for v in ("True", "False", "")]
                for c in cohort.vote_columns
            },
            index=pd.Index(["atypical", "normal", "none"], name="vote"),
        ),
        domains=pd.DataFrame(
            {"patches": by_domain.size(), "patients": by_domain["patient_id"].nunique()}
        ),
        patients=patients.sort_values("patches", ascending=False, kind="stable"),
    )
