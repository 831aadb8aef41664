"""What reviewers' labels become: a column of a cohort, or objects that QuPath opens."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from typing import TYPE_CHECKING

import numpy as np

from atypia.core.errors import InputError, Problem
from atypia.core.files import building_folder, write_text
from atypia.core.labels import SUBTYPES
from atypia.data.cohort import PLACE_COLUMNS, Cohort
from atypia.evaluation.predictions import UNKNOWN
from atypia.slides.geojson_writer import COLOURS, class_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from atypia.biomarker import SlideFigures
    from atypia.evaluation.metrics import FloatArray, IntArray
    from atypia.slides import SlideInfo


def export_cohort(cohort: Cohort, rater: str, labels: IntArray, out: Path) -> Path:
    """Write a cohort with one more rater. The cohort itself is not touched.

    Args:
        cohort: What was reviewed.
        rater: Name of the column, ``label_<rater>``.
        labels: (N,) subtype indices.
        out: A folder that does not exist; patches are linked where the file system can.

    Raises:
        InputError: The rater is there already, nothing is labelled, or `out` exists.
        AtypiaError: It could not be written.
    """
    if rater in cohort.raters:
        what = f"the cohort has a rater {rater!r} already. Review under another name."
        raise InputError(Problem(what, str(cohort.path)))
    if (labels == UNKNOWN).all():
        raise InputError(Problem(f"{rater} has not labelled a figure yet."))
    manifest = cohort.manifest.copy()
    raters = [column for column in manifest.columns if column.startswith("label_")]
    after = manifest.columns.get_loc(raters[-1] if raters else "mpp")
    assert isinstance(after, int)
    column = [SUBTYPES[code] if code != UNKNOWN else "" for code in labels]
    manifest.insert(after + 1, f"label_{rater}", column)
    with building_folder(out) as folder:
        for name in manifest["file"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(cohort.path / name, folder / name)
            except OSError:  # another file system, or one without links
                shutil.copyfile(cohort.path / name, folder / name)
        source = {**cohort.source, "reviewed": {"of": cohort.sha256, "rater": rater}}
        Cohort.write(folder, cohort.name, manifest, source)
    return out


def has_places(cohort: Cohort) -> bool:
    """Whether the cohort tells of a patch where it was cut from."""
    return set(PLACE_COLUMNS[:3]) <= set(cohort.manifest.columns)


def export_places(cohort: Cohort, rater: str, labels: IntArray, out: Path) -> list[Path]:
    """Write labels of a cohort as one GeoJSON per slide that its patches were cut from.

    Args:
        cohort: What was reviewed.
        rater: Who labelled.
        labels: (N,) subtype indices; patches without one, or without a place, are left out.
        out: A folder that does not exist.

    Returns:
        The files, named as QuPath's image with ``.geojson`` behind.

    Raises:
        InputError: No patch with a place is labelled, or `out` exists.
        AtypiaError: It could not be written.
    """
    if not has_places(cohort):
        what = "The cohort does not tell where its figures lie on a slide."
        raise InputError(Problem(f"{what} Review the slide: atypia serve SLIDE --results"))
    # It becomes the name of a file; two slides of one name have their folders in it.
    slides = cohort.manifest["slide"].str.replace(r"[\\/]+", "_", regex=True)
    table = cohort.manifest.assign(code=labels, slide=slides)
    table = table[(table["code"] != UNKNOWN) & (table[list(PLACE_COLUMNS[:3])] != "").all(axis=1)]
    if table.empty:
        raise InputError(Problem(f"{rater} has not labelled a figure with a place yet."))
    origins = [c for c in PLACE_COLUMNS[3:] if c in table.columns]
    names = []
    with building_folder(out) as folder:
        for slide, rows in table.groupby("slide"):
            centres = rows[["x_px", "y_px"]].to_numpy(dtype=np.float64)
            if origins:
                centres = centres - rows[origins].replace("", "0").to_numpy(dtype=np.float64)
            text = geojson_of(str(slide), rows["patch_id"].tolist(), centres, rater, rows["code"])
            names.append(f"{slide}.geojson")
            write_text(folder / names[-1], text)
    return [out / name for name in names]


def export_geojson(found: SlideFigures, slide: SlideInfo, rater: str, labels: IntArray) -> str:
    """Write a reviewer's labels on a slide; see :func:`geojson_of`.

    Args:
        found: The figures and their places.
        slide: The slide; coordinates count from the corner that QuPath shows.
        rater: Who labelled.
        labels: (N,) subtype indices; figures without one are left out.

    Raises:
        InputError: Nothing is labelled.
    """
    given = np.flatnonzero(labels != UNKNOWN)
    if not len(given):
        raise InputError(Problem(f"{rater} has not labelled a figure yet."))
    ids = [str(found.figures.patch_ids[number]) for number in given]
    centres = found.centres_px[given] - np.array(slide.origin)
    return geojson_of(slide.path.name, ids, centres, rater, labels[given])


def geojson_of(
    slide: str, patch_ids: Sequence[str], centres: FloatArray, rater: str, codes: Iterable[int]
) -> str:
    """Write labels as points that QuPath opens as annotations.

    Args:
        slide: Name of the image.
        patch_ids: Of N figures.
        centres: (N, 2) px, as QuPath counts.
        rater: Who labelled.
        codes: N subtype indices.
    """
    features = []
    for patch_id, (x, y), code in zip(patch_ids, centres, codes, strict=True):
        subtype = SUBTYPES[code]
        name = f"atypia:{rater}:{slide}:{patch_id}"
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
                "geometry": {"type": "Point", "coordinates": [float(x), float(y)]},
                "properties": {
                    "objectType": "annotation",
                    "name": patch_id,
                    "classification": {
                        "name": class_name(subtype),
                        "color": list(COLOURS[subtype]),
                    },
                    "metadata": {"patch_id": patch_id, "subtype": subtype, "rater": rater},
                },
            }
        )
    return json.dumps(
        {"type": "FeatureCollection", "features": features}, ensure_ascii=False, allow_nan=False
    )
