"""Answers as GeoJSON that QuPath (0.5 and later) opens as detections.

Each figure is one Feature with its class and colour, and its probabilities as measurements
(QuPath's ``QuPathTypeAdapters``). Coordinates count from the corner that QuPath shows.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, Final

from atypia.core.files import atomic_write
from atypia.core.labels import DISPLAY_NAMES, PROBABILITY_COLUMNS, STATUS_NAMES, is_atypical
from atypia.slides.candidates import NOT_ANSWERED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from atypia.slides import SlideInfo
    from atypia.slides.candidates import Candidate

MEASUREMENTS: Final = (*PROBABILITY_COLUMNS, "p_atypical", "threshold", "p_mitosis")

COLOURS: Final = {
    "amf_bipolar": (213, 94, 0),
    "amf_multipolar": (204, 0, 40),
    "amf_segregation": (204, 121, 167),
    "amf_other": (230, 159, 0),
    "nmf_anaphase_telophase": (0, 114, 178),
    "nmf_metaphase": (86, 180, 233),
    "nmf_prometaphase": (0, 158, 115),
    "nmf_ring": (120, 94, 190),
}
"""Atypical figures warm, normal ones cool; most of them are Okabe and Ito's (2008)."""
GREY: Final = (150, 150, 150)
"""Of what has no call."""


def class_name(answer: str) -> str:
    """Name an answer for a pathologist: ``AMF multipolar``, ``Not answered: no tissue``.

    It is a subtype, or a status that is no answer.
    """
    if answer in STATUS_NAMES:
        return NOT_ANSWERED + STATUS_NAMES[answer]
    return f"{'AMF' if is_atypical(answer) else 'NMF'} {DISPLAY_NAMES[answer].lower()}"


def write_geojson(
    path: Path,
    table: pd.DataFrame,
    candidates: Sequence[Candidate],
    slide: SlideInfo,
    field_um: float,
) -> None:
    """Write one detection per figure, atomically.

    Outlines of the `candidates` are kept; one without gets a square of `field_um`.
    """
    by_id = {candidate.id: candidate for candidate in candidates}
    with atomic_write(path) as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for row in table.to_dict("records"):
            feature = _feature(row | dict(table.attrs), by_id[row["patch_id"]], slide, field_um)
            stream.write(separator + json.dumps(feature, ensure_ascii=False, allow_nan=False))
            separator = ",\n"
        stream.write("\n]}\n")


def _feature(
    row: Mapping[Any, Any], candidate: Candidate, slide: SlideInfo, field_um: float
) -> dict[str, Any]:
    answer = row["predicted_subtype"] or row["status"]
    known = {name: row[name] for name in MEASUREMENTS if name in row and row[name] == row[name]}
    words = ("operating_point", "predicted_subtype", "status")
    metadata = {"patch_id": candidate.id} | {name: row[name] for name in words if name in row}
    return {
        "type": "Feature",
        # The same figure of the same slide has the same id each time.
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"atypia:{slide.path.name}:{candidate.id}")),
        "geometry": candidate.geometry or _square(candidate, slide, field_um),
        "properties": {
            "objectType": "detection",
            "name": candidate.id,
            "classification": {
                "name": class_name(answer),
                "color": list(COLOURS.get(answer, GREY)),
            },
            "measurements": {name: float(f"{value:.6g}") for name, value in known.items()},
            "metadata": metadata,
        },
    }


def _square(candidate: Candidate, slide: SlideInfo, field_um: float) -> dict[str, Any]:
    a, b = (field_um / um / 2 for um in slide.um_per_px)
    x, y = candidate.x - slide.origin[0], candidate.y - slide.origin[1]
    corners = [(-a, -b), (a, -b), (a, b), (-a, b), (-a, -b)]
    return {"type": "Polygon", "coordinates": [[[x + dx, y + dy] for dx, dy in corners]]}
