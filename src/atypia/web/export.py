"""What reviewers' labels become: a column of a cohort, or objects that QuPath opens."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from typing import TYPE_CHECKING

from atypia.data.cohort import Cohort
from atypia.errors import InputError, Problem
from atypia.evaluation.predictions import UNKNOWN
from atypia.inference.geojson import COLOURS, class_name
from atypia.labels import SUBTYPES
from atypia.runs import building_folder

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.data.slides import SlideInfo
    from atypia.evaluation.biomarker import SlideFigures
    from atypia.evaluation.metrics import IntArray


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


def export_geojson(found: SlideFigures, slide: SlideInfo, rater: str, labels: IntArray) -> str:
    """Write a reviewer's labels as points that QuPath opens as annotations.

    Args:
        found: The figures and their places.
        slide: The slide; coordinates count from the corner that QuPath shows.
        rater: Who labelled.
        labels: (N,) subtype indices; figures without one are left out.

    Raises:
        InputError: Nothing is labelled.
    """
    if (labels == UNKNOWN).all():
        raise InputError(Problem(f"{rater} has not labelled a figure yet."))
    features = []
    for number, code in enumerate(labels):
        if code == UNKNOWN:
            continue
        subtype = SUBTYPES[code]
        patch_id = str(found.figures.patch_ids[number])
        x, y = found.centres_px[number]
        name = f"atypia:{rater}:{slide.path.name}:{patch_id}"
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
                "geometry": {
                    "type": "Point",
                    "coordinates": [float(x) - slide.origin[0], float(y) - slide.origin[1]],
                },
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
