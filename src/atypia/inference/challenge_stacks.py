"""The interface of MIDOG 2025, track 2 (atypical mitoses), on Grand Challenge.

One run classifies one stack. Below the input folder, ``inputs.json`` names the socket
``stacked-histopathology-roi-cropouts`` and the stack lies in the folder of that name below
``images``: a TIFF with one page, or an MHA with one slice, per figure (up to 16). The answer is one
object per page, in their order, in ``multiple-mitotic-figure-classification.json``.

Pages are crops of 128 x 128 px at 0.25 µm per pixel, as in the challenge's training sets. The
resolution in a file is not used: the platform sets it to anything.

Sources: github.com/DeepMicroscopy/MIDOG25_T2_reference_docker (interface; "the model confidence is
expected to be the confidence for the class atypical") and grand-challenge.org/documentation.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.errors import InputError, MissingExtraError, Problem
from atypia.core.files import read_json
from atypia.core.found_files import entries_in
from atypia.data.images import read_pages

if TYPE_CHECKING:
    import numpy.typing as npt

SOCKET: Final = "stacked-histopathology-roi-cropouts"
ANSWER_FILE: Final = "multiple-mitotic-figure-classification.json"
MODEL_FOLDER: Final = Path("/opt/ml/model")
"""Where the platform unpacks the model that was uploaded apart from the container."""
MPP: Final = 0.25
STACK_SUFFIXES: Final = (".tif", ".tiff", ".mha")


def find_stack(folder: Path) -> Path:
    """Find the one stack of a run below ``/input`` of the container.

    Raises:
        InputError: No ``inputs.json``, another socket, or not exactly one stack.
    """
    sockets = read_json(folder / "inputs.json")
    names = _slugs(sockets)
    if names is None:
        raise InputError(
            f"{folder / 'inputs.json'}: expected a list of sockets, each with a slug, but got "
            f"{str(sockets)[:200]}."
        )
    if names != [SOCKET]:
        raise InputError(
            f"{folder / 'inputs.json'}: expected the one socket {SOCKET!r} but got {names}."
        )
    place = folder / "images" / SOCKET
    found = entries_in(place) if place.is_dir() else []
    stacks = [file for file in found if file.suffix.lower() in STACK_SUFFIXES]
    if len(stacks) != 1:
        got = ", ".join(file.name for file in found) or "nothing"
        raise InputError(
            f"{place}: expected one stack ({', '.join(STACK_SUFFIXES)}) but got {got}."
        )
    return stacks[0]


def _slugs(sockets: Any) -> list[Any] | None:
    """Slugs of ``inputs.json``; the platform calls the same entry ``interface`` or ``socket``."""
    try:
        return [(entry.get("socket") or entry["interface"])["slug"] for entry in sockets]
    except (TypeError, KeyError, AttributeError):
        return None


def read_stack(path: Path) -> list[npt.NDArray[np.uint8]]:
    """Read a TIFF or MHA: one RGB ``uint8`` array (H, W, 3) per page, in the order of the file.

    Raises:
        InputError: Damaged, or not 8-bit RGB.
        MissingExtraError: For MHA, where the extra ``challenge`` is not installed.
    """
    if path.suffix.lower() != ".mha":
        return read_pages(path)
    try:
        import SimpleITK
    except ModuleNotFoundError:
        raise MissingExtraError("SimpleITK", "challenge", f"Reading {path}") from None
    try:
        volume = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), imageIO="MetaImageIO"))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        what = f"expected an MHA image but it cannot be read ({reason})."
        raise InputError(Problem(what, str(path))) from None
    if volume.ndim == 3 and volume.shape[-1] == 3:
        volume = volume[None]  # a single page, (H, W, 3)
    if volume.ndim != 4 or volume.shape[-1] != 3 or volume.dtype != np.uint8 or not volume.size:
        what = (
            "expected 8-bit RGB pages, an array of shape (pages, height, width, 3), but got "
            f"{volume.dtype} of shape {volume.shape}."
        )
        raise InputError(Problem(what, str(path)))
    return list(volume)


def answers(
    p_atypical: npt.NDArray[np.floating[Any]], threshold: float
) -> list[dict[str, str | float]]:
    """Make the answer: the call at the model's threshold; the confidence is P(atypical), (N,)."""
    return [
        {"class": "atypical" if p >= threshold else "normal", "confidence": float(p)}
        for p in p_atypical
    ]
