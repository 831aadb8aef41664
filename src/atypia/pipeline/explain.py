"""Show where in a patch a model found what speaks for its answer, and whether to believe it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia._version import __version__
from atypia.classifiers.loading import find_model, load_ensemble
from atypia.core.choices import BALANCED, BEST, RELEASED
from atypia.core.errors import InputError, Problem, collected
from atypia.core.files import write_json
from atypia.core.progress import OnDone, silent
from atypia.inference.patch_predictions import find_items

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.explain import Sanity
    from atypia.explain.explained_patches import ExplainedPatch

    FloatArray = npt.NDArray[np.floating[Any]]

CHECKED: Final = 16
"""Figures on which the way to make maps is checked."""
_CHUNK: Final = 8


def explain(
    inputs: Sequence[Path],
    out: Path,
    model: Path | str = RELEASED,
    *,
    method: str = "gradcam",
    subtype: str = "predicted",
    quality: str = BEST,
    operating_point: str = BALANCED,
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
        inputs: With `mpp`, `skip_bad`, `on_start` and `on_done` as for
            :func:`atypia.pipeline.predict`.
        out: The folder to write to. ``explanations.json`` comes last: with it, all is there.
        model: Of networks; with `quality` to `device` as for :func:`load_ensemble`.
        method: One of :data:`atypia.explain.METHODS`.
        subtype: What is explained: ``predicted``, the subtype that the model gives to each figure;
            a subtype; or ``atypical``, any of the four atypical ones.
        checked: Figures to check the method on, evenly over the inputs; 0 for no check.
        seed: Of the check.

    Returns:
        How many figures were explained, what the check found, and what was skipped.

    Raises:
        InputError: Lists every problem of the options and inputs; nothing is written.
        MissingExtraError: The method needs captum, which is not installed.
    """
    from atypia.classifiers.ensemble import Ensemble
    from atypia.explain import check_method
    from atypia.explain import explain as explain_patches
    from atypia.explain.explained_patches import (
        check_sample,
        group_alike,
        read_explained,
        unreadable_files,
        write_figures,
    )
    from atypia.explain.target import parse_target, target_indices

    problems: list[Problem] = []
    with collected(problems):
        check_method(method)
    with collected(problems):
        subtype = parse_target(subtype)
    with collected(problems):
        folder = find_model(model)
    with collected(problems):
        items = find_items(inputs, mpp)
    if problems:
        raise InputError(problems)
    ensemble = load_ensemble(folder, quality, device=device, operating_point=operating_point)
    if not isinstance(ensemble, Ensemble):
        raise InputError(
            f"--model {model}: expected a bundle of networks, of which gradients can be asked, but "
            "got rules, a hybrid or an ONNX export. Rules and hybrids give reasons of their own "
            "with atypia predict; of a hybrid's bundle the folder 'network' can be explained."
        )
    skipped, n_patches = unreadable_files(items, ensemble)
    if skipped and (not n_patches or not skip_bad):
        raise InputError(skipped)
    bad = {problem.file for problem in skipped}
    good = [item for item in items if str(item.path) not in bad]
    on_start(len(good))

    records: list[tuple[int, dict[str, Any]]] = []
    sample: list[tuple[ExplainedPatch, int, FloatArray]] = []
    every = math.ceil(n_patches / checked) if checked else n_patches + 1
    done = 0
    for start in range(0, len(good), _CHUNK):
        chunk = list(read_explained(good[start : start + _CHUNK], ensemble, done))
        done += len(chunk)
        for patches in group_alike(chunk):
            pixels = np.stack([patch.pixels for patch in patches])
            probabilities = ensemble.predict_proba(pixels, patches[0].mpp)
            targets = target_indices(subtype, ensemble.postprocessing.subtypes(probabilities))
            found = explain_patches(ensemble, pixels, patches[0].mpp, targets, method)
            written = write_figures(out, patches, probabilities, targets, found, ensemble, method)
            records += zip((patch.number for patch in patches), written, strict=True)
            sample += [
                (patch, target, found.maps[i])
                for i, (patch, target) in enumerate(zip(patches, targets, strict=True))
                if checked and patch.number % every == 0
            ]
        on_done(len(good[start : start + _CHUNK]))

    sanity = check_sample(out, ensemble, sample, checked, method, seed) if sample else None
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
