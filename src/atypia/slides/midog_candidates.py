"""Candidates from the JSON of the MIDOG challenges, or COCO's: images, and boxes on them."""

from __future__ import annotations

import math
from collections.abc import Hashable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.errors import InputError, Problem
from atypia.slides.candidates import LARGEST_UM, Candidate, CandidateList

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from atypia.slides import SlideInfo

_MITOTIC: Final = "mitotic figure"
"""MIDOG's name for figures; its other category are look-alikes."""


def is_midog(content: Any) -> bool:
    """Whether parsed JSON has images and annotations."""
    return isinstance(content, dict) and all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    )


def read_midog(
    content: dict[str, Any], path: Path, slide: SlideInfo, units: str | None
) -> CandidateList:
    """Read the boxes of one slide; see :func:`atypia.slides.read_candidates.read_candidates`.

    Where the file has a category "mitotic figure", the others are left out and counted.
    """
    if units == "um":
        raise InputError(Problem("its boxes are in px; leave out --units um.", str(path)))
    image_id = _image(content["images"], path, slide)
    names = _categories(content.get("categories"))
    wanted = {key for key, name in names.items() if name.strip().lower() == _MITOTIC} or None
    found = CandidateList()
    boxes: list[list[float]] = []
    entries: list[tuple[str, str, str]] = []
    for number, annotation in enumerate(content["annotations"], 1):
        place = f"annotation {number}"
        if not isinstance(annotation, dict):
            found.problems.append(Problem(f"{place}: expected an object.", str(path)))
            continue
        if annotation.get("image_id") != image_id:
            continue  # of another image
        category = annotation.get("category_id")
        name = names.get(category, "") if isinstance(category, Hashable) else ""
        if wanted is not None and (name == "" or category not in wanted):
            reason = f"category {name or category!r}"
            found.left_out[reason] = found.left_out.get(reason, 0) + 1
            continue
        box = _box(annotation.get("bbox"))
        if box is None:
            what = f"{place}: expected a bbox of four numbers but got {annotation.get('bbox')!r}."
            found.problems.append(Problem(what, str(path)))
            continue
        boxes.append(box)
        entries.append((str(annotation.get("id", number)), place, name))
    if boxes:
        corners = _corners(np.array(boxes), path, slide)
        for (own_id, place, name), (x0, y0, x1, y1) in zip(entries, corners.tolist(), strict=True):
            found.candidates.append(
                Candidate(
                    own_id,
                    (x0 + x1) / 2,
                    (y0 + y1) / 2,
                    place,
                    about={"candidate_class": name} if name else {},
                )
            )
    return found


def _categories(listed: Any) -> dict[Any, str]:
    """Name of each category by its id; what is no category names nothing."""
    return {
        c.get("id"): str(c.get("name", ""))
        for c in (listed if isinstance(listed, list) else [])
        if isinstance(c, dict) and isinstance(c.get("id"), Hashable)
    }


def _box(value: Any) -> list[float] | None:
    try:
        box = [float(v) for v in value]
    except (TypeError, ValueError, OverflowError):
        return None
    return box if len(box) == 4 and all(map(math.isfinite, box)) else None


def _image(images: list[Any], path: Path, slide: SlideInfo) -> Any:
    """Find the id of the image that has the slide's name."""
    named = [i for i in images if isinstance(i, dict) and isinstance(i.get("file_name"), str)]
    for same in (
        [i for i in named if PurePosixPath(i["file_name"]).name == slide.path.name],
        [i for i in named if PurePosixPath(i["file_name"]).stem == slide.path.stem],
    ):
        if len(same) == 1:
            size = same[0].get("width", slide.width), same[0].get("height", slide.height)
            if size != (slide.width, slide.height):
                what = (
                    f"expected a slide of {size[0]} × {size[1]} px but {slide.path.name} has "
                    f"{slide.width} × {slide.height}. Is it another one, or shrunk?"
                )
                raise InputError(Problem(what, str(path)))
            return same[0].get("id")
        if same:
            break
    names = [i["file_name"] for i in named]
    what = (
        f"expected one image named {slide.path.name!r} but got {names[:10]} ({len(names)} names)."
    )
    raise InputError(Problem(what, str(path)))


def _corners(
    boxes: npt.NDArray[np.float64], path: Path, slide: SlideInfo
) -> npt.NDArray[np.float64]:
    """(N, 4) left, top, right, bottom of boxes: two corners (MIDOG), or a corner and a size (COCO).

    No figure is larger than ``LARGEST_UM``, so that the numbers decide.
    """
    assert slide.mpp is not None
    most = LARGEST_UM / slide.mpp

    def plausible(sizes: npt.NDArray[np.float64]) -> bool:
        return bool(((sizes >= 0) & (sizes <= most)).all())

    midog, coco = plausible(boxes[:, 2:] - boxes[:, :2]), plausible(boxes[:, 2:])
    if midog == coco:
        what = (
            "expected boxes as two corners (MIDOG) or as a corner and a size (COCO), each up to "
            f"{LARGEST_UM:g} µm, but the numbers fit {'both' if midog else 'neither'}. "
            "Give a CSV of centres (x_px, y_px)."
        )
        raise InputError(Problem(what, str(path)))
    if midog:
        return boxes
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
