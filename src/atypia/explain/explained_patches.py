"""Patches as they are explained, and the picture and the record of each."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.core.errors import InputError, Problem
from atypia.core.files import write_bytes, write_json
from atypia.core.labels import SUBTYPES
from atypia.data.images import read_pages
from atypia.explain.evidence import maps_by, shown
from atypia.explain.faithful import CELL_UM, Grid
from atypia.explain.picture import curves_png, figure_png
from atypia.explain.sanity import Sanity, check
from atypia.explain.target import ANY_ATYPICAL, target_name, target_probability

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.classifiers.ensemble import Ensemble
    from atypia.explain.evidence import Evidence
    from atypia.inference.patch_predictions import PatchFile

    FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ExplainedPatch:
    """The central part of a patch."""

    number: int
    """Among all that are explained, from 0."""
    patch_id: str
    pixels: npt.NDArray[np.uint8]
    """(H, W, 3), at most twice as wide as the field of view."""
    mpp: float


def unreadable_files(items: Sequence[PatchFile], ensemble: Ensemble) -> tuple[list[Problem], int]:
    """List what is wrong with each file, and count the patches of the others."""
    problems: list[Problem] = []
    n_patches = 0
    for item in items:
        try:
            pages = read_pages(item.path)
        except InputError as error:
            problems += error.problems
            continue
        faults = (ensemble.size_problem(min(page.shape[:2]), item.mpp) for page in pages)
        fault = next(filter(None, faults), None)
        if fault is not None:
            problems.append(Problem(fault, str(item.path)))
        else:
            n_patches += len(pages)
    return problems, n_patches


def read_explained(
    items: Iterable[PatchFile], ensemble: Ensemble, first: int
) -> Iterator[ExplainedPatch]:
    """Read patches and cut out their centres; `first` is the number of the first one."""
    number = first
    for item in items:
        pages = read_pages(item.path)
        for i, page in enumerate(pages):
            name = item.patch_id if len(pages) == 1 else f"{item.patch_id}/{i}"
            height, width, _ = page.shape
            side = math.ceil(2 * ensemble.field_of_view_um / item.mpp)
            # An odd rest stays: the centre must not move.
            top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
            central = page[top : height - top, left : width - left]
            yield ExplainedPatch(number, name, np.ascontiguousarray(central), item.mpp)
            number += 1


def group_alike(patches: Iterable[ExplainedPatch]) -> Iterator[list[ExplainedPatch]]:
    """Group patches of one shape and resolution, which go through the networks together."""
    groups: dict[tuple[tuple[int, ...], float], list[ExplainedPatch]] = {}
    for patch in patches:
        groups.setdefault((patch.pixels.shape, patch.mpp), []).append(patch)
    yield from groups.values()


def write_figures(
    out: Path,
    patches: Sequence[ExplainedPatch],
    probabilities: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int64],
    found: Evidence,
    ensemble: Ensemble,
    method: str,
) -> list[dict[str, Any]]:
    """Write the PNG of each figure; gives the records for the JSON."""
    n_networks = len(ensemble.members)
    networks = "one network" if n_networks == 1 else f"{n_networks} networks"
    mpp = patches[0].mpp
    field_um = ensemble.field_of_view_um
    cells = Grid.of(found.maps.shape[1:], mpp, field_um).mean(found.maps)
    for_eyes = shown(found.maps, mpp)
    predicted = ensemble.postprocessing.subtypes(probabilities)
    probability = target_probability(probabilities, targets)
    records = []
    for i, patch in enumerate(patches):
        every = targets[i] == ANY_ATYPICAL
        explained = "atypical" if every else SUBTYPES[targets[i]]
        name = target_name(int(targets[i]))
        file = f"{patch.number + 1:04d}-{_file_stem(patch.patch_id)}.png"
        png = figure_png(
            patch.pixels,
            for_eyes[i],
            mpp,
            field_um=field_um,
            title=patch.patch_id,
            subtitle=f"What speaks for “{name}” ({probability[i]:.2f}), by {method}, mean of "
            f"{networks} and eight views",
            probabilities=probabilities[i],
            highlighted=[s for s in SUBTYPES if s.startswith("amf_")] if every else [explained],
        )
        write_bytes(out / file, png)
        records.append(
            {
                "patch_id": patch.patch_id,
                "file": file,
                "mpp": mpp,
                "explained": explained,
                "probability": _rounded(probability[i]),
                "predicted_subtype": SUBTYPES[predicted[i]],
                "probabilities": {
                    s: _rounded(p) for s, p in zip(SUBTYPES, probabilities[i], strict=True)
                },
                "log_odds": _rounded(found.scores[i]),
                "log_odds_of_flat_field": _rounded(found.flat_scores[i]),
                "map_total": _rounded(found.totals[i]),
                "strongest_um": _strongest(cells[i], CELL_UM),
                "cell_um": CELL_UM,
                "cells": [[_rounded(value, 3) for value in row] for row in cells[i]],
            }
        )
    return records


def _strongest(cells: FloatArray, cell_um: float) -> list[float]:
    """Where the strongest cell lies: µm to the right of the centre, and below it."""
    row, column = np.unravel_index(int(cells.argmax()), cells.shape)
    middle = (len(cells) - 1) / 2
    return [_rounded((int(place) - middle) * cell_um) for place in (column, row)]


def _file_stem(patch_id: str) -> str:
    """Part of a file's name that every system takes."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", patch_id).strip("._")[:80] or "figure"


def _rounded(value: float, digits: int = 6) -> float:
    return float(f"{value:.{digits}g}")


def check_sample(
    out: Path,
    ensemble: Ensemble,
    sample: Sequence[tuple[ExplainedPatch, int, FloatArray]],
    most: int,
    method: str,
    seed: int,
) -> Sanity:
    """Check the method on patches, their targets and maps; write ``sanity.json`` and its picture.

    Those of the first one's size and resolution are taken, `most` at most.
    """
    first = sample[0][0]
    alike = (first.pixels.shape, first.mpp)
    sample = [entry for entry in sample if (entry[0].pixels.shape, entry[0].mpp) == alike][:most]
    sanity = check(
        ensemble,
        np.stack([patch.pixels for patch, _, _ in sample]),
        first.mpp,
        np.array([target for _, target, _ in sample]),
        maps_by(method),
        maps=np.stack([map_ for _, _, map_ in sample]),
        seed=seed,
    )
    names = [patch.patch_id for patch, _, _ in sample]
    about = {"method": method, "seed": seed, "figures": names}
    write_json(out / "sanity.json", about | sanity.to_json())
    write_bytes(out / "sanity.png", curves_png(sanity))
    return sanity
