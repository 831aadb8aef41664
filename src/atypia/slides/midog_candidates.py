"""Candidates from the JSON of the MIDOG challenges, or COCO's: images, and boxes on them.

And the points that Grand Challenge stores, in mm.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.core.errors import InputError, Problem
from atypia.slides.candidates import (
    LARGEST_UM,
    NOTHING,
    Candidate,
    CandidateList,
    is_figure,
    wanted_classes,
    with_own_ids,
)
from atypia.slides.slide_names import of_slide

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from atypia.slides import SlideInfo


def is_midog(content: Any) -> bool:
    """Whether parsed JSON has images and annotations."""
    return isinstance(content, dict) and all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    )


def read_midog(
    content: dict[str, Any],
    path: Path,
    slide: SlideInfo,
    units: str | None,
    *,
    all_classes: bool = False,
) -> CandidateList:
    """Read the boxes of one slide; see :func:`atypia.slides.read_candidates.read_candidates`.

    Ids are compared as text. Categories that are no figures are left out and counted.
    """
    if units == "um":
        raise InputError(Problem("its boxes are in px; leave out --units um.", str(path)))
    image_id, known = _image(content["images"], path, slide)
    names = _categories(content.get("categories"))
    wanted = set(names.values()) | {""} if all_classes else _wanted(names, path)
    found = CandidateList()
    boxes: list[list[float]] = []
    entries: list[tuple[str, str, str]] = []
    dangling = 0
    for number, annotation in enumerate(content["annotations"], 1):
        place = f"annotation {number}"
        if not isinstance(annotation, dict):
            found.problems.append(Problem(f"{place}: expected an object.", str(path)))
            continue
        image, category = _key(annotation.get("image_id")), _key(annotation.get("category_id"))
        dangling += image not in known
        if image != image_id:
            if image in known:
                found.leave_out("of another slide")
            continue
        if names and not all_classes and category not in names:
            what = f"{place}: expected a category out of {sorted(names)} but got {category!r}."
            found.problems.append(Problem(what, str(path)))
            continue
        name = names.get(category, "")
        if name not in wanted:
            found.leave_out(f"category {name!r}")
            continue
        box = _box(annotation.get("bbox"))
        if box is None:
            what = f"{place}: expected a bbox of four numbers but got {annotation.get('bbox')!r}."
            found.problems.append(Problem(what, str(path)))
            continue
        boxes.append(box)
        own_id = _key(annotation.get("id"))
        entries.append((own_id or f"{slide.path.stem}/{number}", place, name))
    if dangling:
        what = f"expected an image_id out of 'images' but {dangling} annotations have another."
        found.problems.append(Problem(what, str(path)))
    if boxes:
        corners = _corners(np.array(boxes), path, slide)
        found.candidates = [
            Candidate(
                own_id,
                (x0 + x1) / 2,
                (y0 + y1) / 2,
                place,
                about={"candidate_class": name} if name else NOTHING,
            )
            for (own_id, place, name), (x0, y0, x1, y1) in zip(
                entries, corners.tolist(), strict=True
            )
        ]
    found.candidates = with_own_ids(found.candidates, slide.path.stem)
    return found


def is_grand_challenge(content: Any) -> bool:
    """Whether parsed JSON holds the points of Grand Challenge."""
    return isinstance(content, dict) and (
        (content.get("type") == "Multiple points" and isinstance(content.get("points"), list))
        or (content.get("type") == "Point" and isinstance(content.get("point"), list))
    )


def read_grand_challenge(
    content: dict[str, Any], path: Path, slide: SlideInfo, *, all_classes: bool = False
) -> CandidateList:
    """Read points in mm; see :func:`atypia.slides.read_candidates.read_candidates`."""
    assert slide.mpp is not None
    found = CandidateList()
    points = content.get("points", [content])
    names = [str(p.get("name") or "") if isinstance(p, dict) else "" for p in points]
    wanted = set(names) if all_classes else wanted_classes(names)
    for number, (entry, name) in enumerate(zip(points, names, strict=True), 1):
        place = f"point {number}"
        point = entry.get("point") if isinstance(entry, dict) else None
        mm = _numbers(point[:2]) if isinstance(point, list) else []
        if len(mm) != 2:
            what = f"{place}: expected a point in mm, two numbers or three, but got {point!r}."
            found.problems.append(Problem(what, str(path)))
        elif name not in wanted:
            found.leave_out(f"name {name!r}")
        else:
            x, y = (1000 * v / um for v, um in zip(mm, slide.um_per_px, strict=True))
            about = {"candidate_class": name} if name else NOTHING
            own_id = f"{slide.path.stem}/{number}"
            found.candidates.append(Candidate(own_id, x, y, place, about=about))
    return found


def _key(value: Any) -> str:
    """Id as text: 1, 1.0 and "1" are one."""
    if value is None or isinstance(value, bool | list | dict):
        return ""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value).strip()


def _categories(listed: Any) -> dict[str, str]:
    """Name of each category by its id; what is no category names nothing."""
    return {
        _key(c.get("id")): str(c.get("name") or "").strip()
        for c in (listed if isinstance(listed, list) else [])
        if isinstance(c, dict) and _key(c.get("id"))
    }


def _wanted(names: dict[str, str], path: Path) -> set[str]:
    """Categories that are figures; one alone is taken, whatever its name."""
    wanted = wanted_classes(names.values())
    if len(set(names.values())) > 1 and not any(is_figure(name) for name in wanted):
        what = (
            f"expected a category 'mitotic figure' but got {sorted(set(names.values()))[:10]}. "
            "Name it so, or take all categories with --all-classes."
        )
        raise InputError(Problem(what, str(path)))
    return wanted


def _box(value: Any) -> list[float] | None:
    box = _numbers(value) if isinstance(value, list) else []
    return box if len(box) == 4 else None


def _numbers(values: list[Any]) -> list[float]:
    """Finite numbers, given as such or as text; none where one of them is not."""
    try:
        numbers = [float(v) for v in values]
    except (TypeError, ValueError, OverflowError):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _image(images: list[Any], path: Path, slide: SlideInfo) -> tuple[str, set[str]]:
    """Find the id of the image that has the slide's name, and the ids of all images."""
    listed = [i for i in images if isinstance(i, dict)]
    ids = Counter(_key(i.get("id")) for i in listed)
    repeated = sorted(key for key, n in ids.items() if n > 1)
    if repeated or len(listed) < len(images) or "" in ids:
        what = (
            f"expected images with an id each, every one once, but got {repeated[:10]} repeatedly."
            if repeated
            else "expected images with an id each but some have none."
        )
        raise InputError(Problem(what, str(path)))
    named = [i for i in listed if isinstance(i.get("file_name"), str)]
    names = [i["file_name"] for i in named]
    same = [i for i, ours in zip(named, of_slide(names, slide.path), strict=True) if ours]
    if len(same) != 1:
        what = (
            f"expected one image named {slide.path.name!r} but got {names[:10]} "
            f"({len(names)} names)."
        )
        raise InputError(Problem(what, str(path)))
    size = [_numbers([same[0].get(side) or 0]) for side in ("width", "height")]
    expected = [int(n[0]) if n and n[0] else own for n, own in zip(size, _size(slide), strict=True)]
    if expected != _size(slide):
        what = (
            f"expected a slide of {expected[0]} × {expected[1]} px but {slide.path.name} has "
            f"{slide.width} × {slide.height}. Is it another one, or shrunk?"
        )
        raise InputError(Problem(what, str(path)))
    return _key(same[0]["id"]), set(ids)


def _size(slide: SlideInfo) -> list[int]:
    return [slide.width, slide.height]


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
