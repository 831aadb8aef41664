"""Classify patches from files, folders, multi-page stacks and cohorts.

Patches are decoded in threads and classified in chunks, so memory does not grow with their number.
"""

from __future__ import annotations

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from atypia.data.cohort import Cohort
from atypia.data.images import IMAGE_SUFFIXES, read_pages
from atypia.errors import InputError, Problem
from atypia.labels import PROBABILITY_COLUMNS, SUBTYPES
from atypia.progress import OnDone, silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.ensemble import Decision, Ensemble

CHUNK = 256

log = logging.getLogger("atypia")


@dataclass(frozen=True)
class Item:
    """One image file to classify; a stack gives one patch per page."""

    patch_id: str
    path: Path
    mpp: float
    about: dict[str, Any]
    """Further cells of its row: patient, domain, labels."""


def find_items(inputs: Sequence[Path], mpp: float | None) -> list[Item]:
    """List what to classify.

    Args:
        inputs: Images, stacks, folders (read recursively) or cohort folders.
        mpp: µm per pixel of everything that is not in a cohort; None if all is.

    Raises:
        InputError: Lists every input that does not exist or holds no image, and every patch id
            that occurs twice.
    """
    items: list[Item] = []
    problems: list[Problem] = []
    if mpp is not None and not 0.01 <= mpp <= 10:
        problems.append(Problem(f"--mpp: expected µm per pixel (0.01 to 10) but got {mpp:g}."))
    for path in inputs:
        if (path / "cohort.json").is_file():
            items += _cohort_items(Cohort.open(path))
        elif not path.exists():
            problems.append(Problem("does not exist.", str(path)))
        elif mpp is None:
            what = "does not tell its µm per pixel, which a model must know. Give --mpp."
            problems.append(Problem(what, str(path)))
        elif path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
            found = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
            if len(found) < len(files):
                log.warning("%s: %d files are no images", path, len(files) - len(found))
            if not found:
                problems.append(
                    Problem("expected images in this folder but found none.", str(path))
                )
            names = [file.relative_to(path).with_suffix("").as_posix() for file in found]
            items += [_item(name, file, mpp) for name, file in zip(names, found, strict=True)]
        else:
            items.append(_item(path.stem, path, mpp))
    first: dict[str, Path] = {}
    for item in items:
        if item.patch_id in first:
            problems.append(
                Problem(
                    f"has the patch id {item.patch_id!r}, like {first[item.patch_id]}. Rename one, "
                    "or give the folder above both.",
                    str(item.path),
                )
            )
        first.setdefault(item.patch_id, item.path)
    if problems:
        raise InputError(problems)
    return items


def _item(patch_id: str, path: Path, mpp: float) -> Item:
    return Item(patch_id, path, mpp, {"patient_id": "", "domain": ""})


def _cohort_items(cohort: Cohort) -> Iterator[Item]:
    columns = [c for c in cohort.manifest.columns if c not in ("patch_id", "file", "mpp")]
    for row, path in zip(cohort.manifest.to_dict("records"), cohort.image_paths(), strict=True):
        yield Item(row["patch_id"], path, row["mpp"], {c: row[c] for c in columns})


def predict_items(
    model: Ensemble,
    items: Sequence[Item],
    *,
    skip_bad: bool = False,
    batch_size: int = 64,
    on_done: OnDone = silent,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Classify items.

    Args:
        model: The ensemble.
        items: From :func:`find_items`.
        skip_bad: Leave out what cannot be read instead of raising, and report it.
        batch_size: Patches per step.
        on_done: Called with the number of items done since the last call.

    Returns:
        A table with one row per patch in the columns of ``predictions.csv``, and what was skipped.

    Raises:
        InputError: Lists every image that cannot be read or is smaller than the field of view.
    """
    tables: list[pd.DataFrame] = []
    problems: list[Problem] = []
    with ThreadPoolExecutor() as pool:
        remaining = iter(items)
        chunk = list(islice(remaining, CHUNK))
        waiting = [pool.submit(_decode, item, model) for item in chunk]
        while chunk:
            following = list(islice(remaining, CHUNK))
            # The next chunk is decoded while the network works on this one.
            next_waiting = [pool.submit(_decode, item, model) for item in following]
            decoded = [future.result() for future in waiting]
            problems += [p for _, faults in decoded for p in faults]
            if not problems or skip_bad:
                tables += _classify(model, zip(chunk, decoded, strict=True), batch_size)
            on_done(len(chunk))
            chunk, waiting = following, next_waiting
    if problems and not skip_bad:
        raise InputError(problems)
    if not tables:
        raise InputError([*problems, Problem("Nothing is left to classify.")])
    return pd.concat(tables, ignore_index=True), problems


def _decode(item: Item, model: Ensemble) -> tuple[list[npt.NDArray[np.uint8]], list[Problem]]:
    """Pages of one file, each large enough for the model, or what is wrong with them."""
    try:
        pages = read_pages(item.path)
    except InputError as error:
        return [], error.problems
    needed = model.spec.field_of_view_um
    small = [min(p.shape[:2]) for p in pages if min(p.shape[:2]) * item.mpp < needed * 0.999]
    if small:
        what = (
            f"expected at least {needed:g} µm, the model's field of view, but got {small[0]} px at "
            f"{item.mpp:g} µm per pixel. Is the resolution (--mpp) right?"
        )
        return [], [Problem(what, str(item.path))]
    side = math.ceil(needed / item.mpp)
    return [_central_part(page, side) for page in pages], []


def _central_part(page: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Cut a page much larger than the field of view down to twice the field; saves memory."""
    height, width, _ = page.shape
    top, left = max(0, height // 2 - side), max(0, width // 2 - side)
    return np.ascontiguousarray(page[top : height - top, left : width - left])


def _classify(
    model: Ensemble,
    decoded: Iterable[tuple[Item, tuple[list[npt.NDArray[np.uint8]], list[Problem]]]],
    batch_size: int,
) -> Iterator[pd.DataFrame]:
    rows: list[dict[str, Any]] = []
    patches: list[npt.NDArray[np.uint8]] = []
    mpps: list[float] = []
    for item, (pages, _) in decoded:
        for number, page in enumerate(pages):
            name = item.patch_id if len(pages) == 1 else f"{item.patch_id}/{number}"
            rows.append({"patch_id": name, **item.about})
            patches.append(page)
            mpps.append(item.mpp)
    if not rows:
        return
    probabilities = np.empty((len(rows), len(SUBTYPES)), np.float32)
    # Patches of one shape and resolution go through the network together.
    groups: dict[tuple[tuple[int, ...], float], list[int]] = {}
    for i, (patch, mpp) in enumerate(zip(patches, mpps, strict=True)):
        groups.setdefault((patch.shape, mpp), []).append(i)
    for (_, mpp), members in groups.items():
        stack = np.stack([patches[i] for i in members])
        probabilities[members] = model.predict_proba(stack, mpp, batch_size)
    yield prediction_table(pd.DataFrame(rows), probabilities, model.decision, model.threshold)


def prediction_table(
    about: pd.DataFrame,
    probabilities: npt.NDArray[np.float32],
    decision: Decision,
    threshold: float,
    fold: Any = "",
) -> pd.DataFrame:
    """Join what is known of patches with their probabilities, as ``predictions.csv`` has them.

    Args:
        about: (N rows) at least ``patch_id``; labels and votes are kept.
        probabilities: (N, 8).
        decision: From probabilities to a subtype.
        threshold: A figure is called atypical from this p_atypical on.
        fold: Of each row, or of all.
    """
    table = about.drop(columns=["file", "mpp"], errors="ignore").reset_index(drop=True)
    table["fold"] = fold
    table[list(PROBABILITY_COLUMNS)] = probabilities
    atypical = probabilities[:, [c.startswith("p_amf") for c in PROBABILITY_COLUMNS]].sum(axis=1)
    table["p_atypical"] = np.minimum(atypical, 1)
    table["predicted_subtype"] = np.array(SUBTYPES)[decision.subtypes(probabilities)]
    table["predicted_atypical"] = table["p_atypical"] >= threshold
    return table
