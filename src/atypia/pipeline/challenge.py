"""Answer one case of the MIDOG 2025 challenge, track 2."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atypia.classifiers.loading import load_ensemble
from atypia.core.choices import BALANCED, BEST, RELEASED
from atypia.core.errors import InputError, Problem
from atypia.core.files import write_json
from atypia.core.labels import in_words, left_out
from atypia.inference.challenge_stacks import (
    ANSWER_FILE,
    MODEL_FOLDER,
    MPP,
    answers,
    find_stack,
    read_stack,
)
from atypia.inference.patch_predictions import predict_arrays

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("atypia")


def challenge(
    source: Path,
    out: Path,
    model: Path | str | None = None,
    *,
    quality: str = BEST,
    operating_point: str = BALANCED,
    mpp: float = MPP,
    backend: str = "auto",
    device: str = "auto",
) -> list[dict[str, str | float]]:
    """Classify the stack below `source` and write the answer, one per page, into `out`.

    Args:
        source: ``/input`` of the container; only read.
        out: ``/output`` of the container.
        model: With `quality` to `operating_point` as for :func:`load_ensemble`. None: what is
            in ``/opt/ml/model``, else the model in the package.
        mpp: µm per pixel of the pages.

    Raises:
        InputError: The case is not one of this challenge, or there is no model; nothing is
            written.
        MissingExtraError: What the stack's format or the backend needs is not installed.
    """
    if model is None:
        mounted = MODEL_FOLDER.is_dir() and any(MODEL_FOLDER.iterdir())
        model = MODEL_FOLDER if mounted else RELEASED
    stack = find_stack(source)
    pages = read_stack(stack)
    ensemble = load_ensemble(
        model, quality, backend=backend, device=device, operating_point=operating_point
    )
    try:
        table = predict_arrays(ensemble, pages, mpp)
    except InputError as error:
        raise InputError([Problem(p.what, str(stack)) for p in error.problems]) from None
    if without := left_out(table.get("status", ())):
        log.warning("%s: answered all the same, as the challenge asks for it", in_words(without))
    given = answers(table["p_atypical"].to_numpy(), ensemble.threshold)
    write_json(out / ANSWER_FILE, given)
    return given
