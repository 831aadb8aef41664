"""Show where in a patch a model found what speaks for its answer, and whether to believe it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia._version import __version__
from atypia.classifiers.loading import find_model, load_ensemble
from atypia.core.choices import BEST, RELEASED
from atypia.core.errors import InputError, Problem, collected
from atypia.core.files import atomic_write, write_json
from atypia.core.labels import SUBTYPES, parse_subtype, subtype_index
from atypia.core.progress import OnDone, silent
from atypia.data.images import read_pages
from atypia.inference.patch_predictions import find_items

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.classifiers.ensemble import Ensemble
    from atypia.explain import Evidence, Sanity
    from atypia.inference.patch_predictions import PatchFile

    FloatArray = npt.NDArray[np.floating[Any]]

PREDICTED: Final = "predicted"
ATYPICAL: Final = "atypical"
CHECKED: Final = 16
"""Figures on which the way to make maps is checked."""
_CHUNK: Final = 8


@dataclass(frozen=True)
class _ExplainedPatch:
    number: int
    """Among all that are explained, from 0."""
    patch_id: str
    pixels: npt.NDArray[np.uint8]
    """(H, W, 3), at most twice as wide as the field of view."""
    mpp: float


def explain(
    inputs: Sequence[Path],
    out: Path,
    model: Path | str = RELEASED,
    *,
    method: str = "gradcam",
    subtype: str = PREDICTED,
    quality: str = BEST,
    mpp: float | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    checked: int = CHECKED,
    seed: int = 0,
    on_start: OnDone = silent,
    on_done: OnDone = silent,
) -> tuple[int, Sanity | None, list[Problem]]:
    """Explain a model's answers: a PNG per figure, ``explanations.json``, ``sanity.json`` and PNG.

    Args:
        inputs: Images, folders, stacks or cohorts.
        out: The folder to write to. ``explanations.json`` comes last: with it, all is there.
        model: ``released``, a bundle of networks or a run folder.
        method: One of :data:`atypia.explain.METHODS`.
        subtype: What is explained: ``predicted``, the subtype that the model gives to each figure;
            a subtype; or ``atypical``, any of the four atypical ones.
        quality: ``best``, or ``fast`` where the model has it.
        mpp: µm per pixel of what is not in a cohort; None where each TIFF file carries its own.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        skip_bad: Leave out what cannot be read, and return it.
        checked: Figures to check the method on, evenly over the inputs; 0 for no check.
        seed: Of the check.
        on_start: Called with the number of files.
        on_done: Called with the number of files done since the last call.

    Returns:
        How many figures were explained, what the check found, and what was skipped.

    Raises:
        InputError: Lists every problem of the options and inputs; nothing is written.
        MissingExtraError: The method needs captum, which is not installed.
    """
    from atypia.classifiers.ensemble import Ensemble
    from atypia.explain import check, check_method, maps_by
    from atypia.explain import explain as explain_patches
    from atypia.explain.picture import curves_png

    problems: list[Problem] = []
    with collected(problems):
        check_method(method)
    with collected(problems):
        subtype = _parse(subtype)
    with collected(problems):
        folder = find_model(model)
    with collected(problems):
        items = find_items(inputs, mpp)
    if problems:
        raise InputError(problems)
    ensemble = load_ensemble(folder, quality, device=device)
    if not isinstance(ensemble, Ensemble):
        raise InputError(
            f"--model {model}: expected a bundle of networks, of which gradients can be asked, but "
            "got rules, a hybrid or an ONNX export. Rules and hybrids give reasons of their own "
            "with atypia predict; of a hybrid's bundle the folder 'network' can be explained."
        )
    skipped, n_patches = _unreadable(items, ensemble)
    if skipped and (not n_patches or not skip_bad):
        raise InputError(skipped)
    bad = {problem.file for problem in skipped}
    good = [item for item in items if str(item.path) not in bad]
    on_start(len(good))

    records: list[tuple[int, dict[str, Any]]] = []
    sample: list[tuple[_ExplainedPatch, int, FloatArray]] = []
    every = math.ceil(n_patches / checked) if checked else n_patches + 1
    done = 0
    for start in range(0, len(good), _CHUNK):
        chunk = list(_read(good[start : start + _CHUNK], ensemble, done))
        done += len(chunk)
        for patches in _alike(chunk):
            pixels = np.stack([patch.pixels for patch in patches])
            probabilities = ensemble.predict_proba(pixels, patches[0].mpp)
            targets = _targets(subtype, ensemble.decision.subtypes(probabilities))
            found = explain_patches(ensemble, pixels, patches[0].mpp, targets, method)
            told = _write_figures(out, patches, probabilities, targets, found, ensemble, method)
            records += zip((patch.number for patch in patches), told, strict=True)
            sample += [
                (patch, target, found.maps[i])
                for i, (patch, target) in enumerate(zip(patches, targets, strict=True))
                if checked and patch.number % every == 0
            ]
        on_done(len(good[start : start + _CHUNK]))

    sanity = None
    if sample:
        first = sample[0][0]
        sample = [
            entry
            for entry in sample
            if (entry[0].pixels.shape, entry[0].mpp) == (first.pixels.shape, first.mpp)
        ][:checked]
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
        write_json(
            out / "sanity.json",
            {"method": method, "seed": seed, "figures": names} | sanity.to_json(),
        )
        with atomic_write(out / "sanity.png", "wb") as stream:
            stream.write(curves_png(sanity))
    header = {
        "format": 1,
        "created_with": f"atypia {__version__}",
        "model": str(model),
        "method": method,
        "explained": subtype,
        "field_of_view_um": ensemble.field_of_view_um,
        "members": len(ensemble.members),
    }
    figures = [record for _, record in sorted(records, key=lambda entry: entry[0])]
    write_json(out / "explanations.json", header | {"figures": figures})
    return len(figures), sanity, skipped


def _parse(subtype: str) -> str:
    """Canonical name of what is to be explained."""
    name = subtype if subtype in (PREDICTED, ATYPICAL) else parse_subtype(subtype)
    if name is None:
        raise InputError(
            f"--subtype: expected {PREDICTED}, {ATYPICAL} or one of {', '.join(SUBTYPES)} but got "
            f"{subtype!r}."
        )
    return name


def _targets(subtype: str, predicted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    from atypia.explain import ANY_ATYPICAL

    if subtype == PREDICTED:
        return predicted
    return np.full(len(predicted), ANY_ATYPICAL if subtype == ATYPICAL else subtype_index(subtype))


def _unreadable(items: Sequence[PatchFile], ensemble: Ensemble) -> tuple[list[Problem], int]:
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


def _read(items: Iterable[PatchFile], ensemble: Ensemble, first: int) -> Iterator[_ExplainedPatch]:
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
            yield _ExplainedPatch(number, name, np.ascontiguousarray(central), item.mpp)
            number += 1


def _alike(patches: Iterable[_ExplainedPatch]) -> Iterator[list[_ExplainedPatch]]:
    """Group patches of one shape and resolution, which go through the networks together."""
    groups: dict[tuple[tuple[int, ...], float], list[_ExplainedPatch]] = {}
    for patch in patches:
        groups.setdefault((patch.pixels.shape, patch.mpp), []).append(patch)
    yield from groups.values()


def _write_figures(
    out: Path,
    patches: Sequence[_ExplainedPatch],
    probabilities: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int64],
    found: Evidence,
    ensemble: Ensemble,
    method: str,
) -> list[dict[str, Any]]:
    """Write the PNG of each figure; gives the records for the JSON."""
    from atypia.explain import ANY_ATYPICAL, target_name
    from atypia.explain.evidence import shown
    from atypia.explain.faithful import CELL_UM, Grid
    from atypia.explain.picture import figure_png
    from atypia.explain.target import target_probability

    n_networks = len(ensemble.members)
    networks = "one network" if n_networks == 1 else f"{n_networks} networks"
    mpp = patches[0].mpp
    field_um = ensemble.field_of_view_um
    cells = Grid.of(found.maps.shape[1:], mpp, field_um).mean(found.maps)
    for_eyes = shown(found.maps, mpp)
    predicted = ensemble.decision.subtypes(probabilities)
    probability = target_probability(probabilities, targets)
    records = []
    for i, patch in enumerate(patches):
        every = targets[i] == ANY_ATYPICAL
        explained = ATYPICAL if every else SUBTYPES[targets[i]]
        said = target_name(int(targets[i]))
        file = f"{patch.number + 1:04d}-{_file_stem(patch.patch_id)}.png"
        png = figure_png(
            patch.pixels,
            for_eyes[i],
            mpp,
            field_um=field_um,
            title=patch.patch_id,
            subtitle=f"What speaks for “{said}” ({probability[i]:.2f}), by {method}, mean of "
            f"{networks} and eight views",
            probabilities=probabilities[i],
            highlighted=[s for s in SUBTYPES if s.startswith("amf_")] if every else [explained],
        )
        with atomic_write(out / file, "wb") as stream:
            stream.write(png)
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
