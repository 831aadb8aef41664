"""Patients who are in two cohorts: by the names of cases, by equal pixels, by pictures alike.

A figure that is trained on and tested on in another cohort is a leak, and so is another figure of
the same patient. Public cohorts share many: see :mod:`atypia.data.patient_names`. An equal id
alone proves nothing: every hospital has a patient 1.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from atypia.core.errors import InputError, LeakError, Problem
from atypia.core.progress import silent
from atypia.data.images import read_patch
from atypia.data.patient_names import public_case, veils

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from atypia.data.cohort import Cohort

Number = TypeVar("Number", bound=np.generic)

log = logging.getLogger("atypia")

WINDOW: Final = 64
"""Side of the part in the centre that is compared, px. Of smaller patches there is less of it."""
SMALLEST: Final = 32
"""Side of the smallest patches whose pictures are compared, px; below it only equal pixels count.
What is left of a smaller one, shifted, is a dark blot like any other."""
BLOCK: Final = 4
"""Side of the squares whose means are compared first, px."""
SHIFT: Final = 3
"""Largest distance between the centres of crops of one figure, px."""
LIKELY: Final = 0.8
"""Correlation of the means from which on two crops are looked at pixel by pixel."""
ALIKE: Final = 0.92
"""Correlation of the pixels from which on two crops of 64 px are the same picture. Of all pairs of
AMi-Br's 3,720 figures the most alike reach 0.904; 600 of them saved as JPEG of quality 30 and
shifted by 2.5 px keep 0.934 or more."""
ALIKE_SMALLEST: Final = 0.97
"""The same for the smallest patches; in between it is interpolated. Less distinguishes the
figures: of a million pairs of AMi-Br's the most alike reach 0.882 at 64 px, 0.920 at 56, 0.935 at
48 and 0.959 at 32, and 600 copies of JPEG quality 80, shifted by 2 px, keep 0.980 at 32."""
_GREY: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_CHUNK: Final = 1024


@dataclass
class Shared:
    """A patient of one cohort who is also in another one."""

    first: str
    """Patient id in the one cohort."""
    second: str
    """Patient id in the other one."""
    same_case: bool = False
    """Whether the two ids name one public case."""
    same_id: bool = False
    """Whether the two ids are equal, and of no public case."""
    same_pixels: list[tuple[str, str]] = field(default_factory=list)
    """Patch ids of figures with equal pixels."""
    alike: list[tuple[str, str]] = field(default_factory=list)
    """Patch ids of figures that are one picture, encoded anew or shifted by a few pixels."""

    @property
    def by_id_alone(self) -> bool:
        """Whether an equal id is the only evidence of one person."""
        return self.same_id and not (self.same_pixels or self.alike)

    def __str__(self) -> str:
        """Render as ``MIDOG21_002 and MIDOG_002: one case, 9 figures with equal pixels``."""
        reasons = ["one case"] * self.same_case + ["an equal id"] * self.same_id
        for pairs, what in ((self.same_pixels, "equal pixels"), (self.alike, "the same picture")):
            if pairs:
                figures = "1 figure" if len(pairs) == 1 else f"{len(pairs)} figures"
                reasons.append(f"{figures} with {what} ({' = '.join(pairs[0])})")
        return f"{self.first} and {self.second}: {', '.join(reasons)}"


def find_overlap(
    first: Cohort, second: Cohort, progress: Callable[[int, int], None] = silent
) -> list[Shared]:
    """Find the patients who are in both cohorts, in the order of their ids.

    Names of one public case count as one patient, and so do equal ids, which are distinguished.
    Pictures are compared on the grid of their pixels: a copy that was scaled or turned is not
    found.

    `progress` is called with (patches read, patches in all).

    Raises:
        InputError: Lists every patch that cannot be read.
    """
    ids, owners = (
        [cohort.manifest[column].tolist() for cohort in (first, second)]
        for column in ("patch_id", "patient_id")
    )
    cases = shared_cases(*(sorted(set(patients)) for patients in owners))
    pairs = {(entry.first, entry.second): entry for entry in cases}

    def pair(i: int, j: int) -> tuple[Shared, tuple[str, str]]:
        a, b = owners[0][i], owners[1][j]
        return pairs.setdefault((a, b), Shared(a, b)), (ids[0][i], ids[1][j])

    total = len(first) + len(second)
    digests, windows = _read(first, lambda done: progress(done, total))
    other_digests, other_windows = _read(second, lambda done: progress(len(first) + done, total))
    equal = _equal(digests, other_digests)
    for i, j in sorted(equal):
        shared, figures = pair(i, j)
        shared.same_pixels.append(figures)
    for i, j in _alike(windows, other_windows):
        if (i, j) not in equal:
            shared, figures = pair(i, j)
            shared.alike.append(figures)
    return [pairs[key] for key in sorted(pairs)]


def shared_cases(first: Sequence[str], second: Sequence[str]) -> list[Shared]:
    """Patients of two cohorts whose ids name one public case, or are equal.

    `first` may also be a model's names for its patients, see
    :func:`atypia.data.patient_names.veiled`.
    """
    named: defaultdict[str, list[str]] = defaultdict(list)
    for patient in second:
        for name in veils(patient):
            named[name].append(patient)
    return [
        Shared(
            b if a in veils(a) and public_case(a) is None else a,  # a hash is of no use
            b,
            same_case=public_case(b) is not None,
            same_id=public_case(b) is None,
        )
        for a in first
        for b in dict.fromkeys(b for name in veils(a) for b in named.get(name, []))
    ]


def refuse(first: str, second: str, shared: Sequence[Shared], remedy: str) -> None:
    """Refuse two cohorts, given by name, that have patients in common; see `remedy` if it is meant.

    Raises:
        LeakError: There are any; lists them all.
    """
    if not shared:
        return
    what = f"expected no patient in both {first} and {second} but got {len(shared)}. {remedy}"
    if alone := sum(entry.by_id_alone for entry in shared):
        what += (
            f" {alone} of them have nothing in common but an equal id, as patients 1, 2, ... of "
            "two hospitals have. If they are different people, say so: --distinct-ids, or prepare "
            "one of the cohorts again with other ids."
        )
    raise LeakError([Problem(what), *(Problem(str(entry)) for entry in shared)])


def _read(
    cohort: Cohort, done: Callable[[int], None]
) -> tuple[list[str], list[NDArray[np.float32]]]:
    """Hash of each patch's pixels, and the grey levels (side, side) in its centre."""
    problems: list[Problem] = []
    digests: list[str] = []
    greys: list[NDArray[np.float32]] = []

    def read(path: Path) -> tuple[str, NDArray[np.float32]] | list[Problem]:
        try:
            pixels = read_patch(path)
        except InputError as error:
            return error.problems
        digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
        return digest, _centre(pixels, WINDOW).astype(np.float32) @ _GREY

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        for i, found in enumerate(pool.map(read, cohort.image_paths()), start=1):
            if isinstance(found, list):
                problems += found
            else:
                digests.append(found[0])
                greys.append(found[1])
            done(i)
    if problems:
        raise InputError(problems)
    windows = [_centre(grey, min(grey.shape) // BLOCK * BLOCK) for grey in greys]
    if small := sum(len(window) < SMALLEST for window in windows):
        log.warning(
            "%s: %d patches are smaller than %d px: only copies of equal pixels are found",
            *(cohort.name, small, SMALLEST),
        )
    return digests, windows


def _centre(image: NDArray[Number], side: int) -> NDArray[Number]:
    """Cut the square in the middle of (H, W, ...), or what there is of it."""
    height, width = min(side, image.shape[0]), min(side, image.shape[1])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _equal(first: list[str], second: list[str]) -> set[tuple[int, int]]:
    where: defaultdict[str, list[int]] = defaultdict(list)
    for j, digest in enumerate(second):
        where[digest].append(j)
    return {(i, j) for i, digest in enumerate(first) for j in where.get(digest, [])}


def _alike(
    first: list[NDArray[np.float32]], second: list[NDArray[np.float32]]
) -> list[tuple[int, int]]:
    """Pairs of windows that show one picture; two of different sides are compared by the smaller.

    One small crop among large ones so takes nothing from the comparison of the others.
    """
    found = []
    for (one, rows), (other, columns) in product(_by_side(first), _by_side(second)):
        pairs = _alike_windows(
            np.stack([_centre(first[i], min(one, other)) for i in rows]),
            np.stack([_centre(second[j], min(one, other)) for j in columns]),
        )
        found += [(rows[i], columns[j]) for i, j in pairs]
    return sorted(found)


def _by_side(windows: list[NDArray[np.float32]]) -> list[tuple[int, list[int]]]:
    """Sides that can be compared, each with the windows that have it."""
    places: defaultdict[int, list[int]] = defaultdict(list)
    for i, window in enumerate(windows):
        if len(window) >= SMALLEST:
            places[len(window)].append(i)
    return sorted(places.items())


def _alike_windows(
    first: NDArray[np.float32], second: NDArray[np.float32]
) -> list[tuple[int, int]]:
    """Pairs of windows, (N, side, side) and (M, side, side), that show one picture."""
    side = first.shape[1]
    alike = np.interp(side, (SMALLEST, WINDOW), (ALIKE_SMALLEST, ALIKE))
    # A margin on one side, so that it can be shifted over the other.
    inner = (side - 2 * SHIFT) // BLOCK * BLOCK
    first = np.stack([_centre(grey, inner + 2 * SHIFT) for grey in first])
    second = np.stack([_centre(grey, inner) for grey in second])
    # Means of squares bear a shift of a pixel, so that every third place finds all.
    places = list(product((0, SHIFT, 2 * SHIFT), repeat=2))
    means = _means(second)
    candidates: set[tuple[int, int]] = set()
    for top, left in places:
        shifted = _means(first[:, top : top + inner, left : left + inner])
        for start in range(0, len(shifted), _CHUNK):
            likeness = shifted[start : start + _CHUNK] @ means.T
            i, j = np.nonzero(likeness >= LIKELY)
            candidates |= set(zip((i + start).tolist(), j.tolist(), strict=True))
    return [(i, j) for i, j in sorted(candidates) if _correlation(first[i], second[j]) >= alike]


def _means(greys: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, blocks) means of squares, of mean 0 and length 1, so that a product is a correlation."""
    n, side, _ = greys.shape
    blocks = (
        greys.reshape(n, side // BLOCK, BLOCK, side // BLOCK, BLOCK).mean((2, 4)).reshape(n, -1)
    )
    return _unit(blocks)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6))


def _correlation(wide: NDArray[np.float32], narrow: NDArray[np.float32]) -> float:
    """Best correlation of the pixels over all places of the narrow window in the wide one."""
    views = np.lib.stride_tricks.sliding_window_view(wide, narrow.shape).reshape(-1, narrow.size)
    return float((_unit(views) @ _unit(narrow.reshape(1, -1))[0]).max())
