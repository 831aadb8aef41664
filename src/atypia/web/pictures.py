"""Pixels of figures: from the files of a cohort, or from their places on a slide."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from atypia.data.images import read_patch
from atypia.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from atypia.data.cohort import Cohort
    from atypia.data.slides.pool import SlidePool
    from atypia.evaluation.metrics import FloatArray

FIELD_UM: Final = 32.0
"""Side of a figure's picture on a slide, as wide as AMi-Br's patches."""
SLIDE_MPP: Final = 0.25
"""µm per pixel of it: a coarser scan is enlarged, as it is for the model."""


class Pictures(Protocol):
    """Pixels of N figures."""

    @property
    def key(self) -> str:
        """Hash of what is shown: equal keys, equal pixels."""

    @property
    def subject(self) -> str:
        """Whose labels a review's are: the patches, or the slide, whatever else is said of them."""

    def __len__(self) -> int: ...

    def patch(self, number: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of a figure, which is in its middle.

        Raises:
            InputError: The picture cannot be read.
        """

    def mpp(self, number: int) -> float:
        """µm per pixel of :meth:`patch`."""


class CohortPictures:
    """The patches of a cohort.

    Args:
        cohort: Opened.
    """

    def __init__(self, cohort: Cohort) -> None:
        self.key = cohort.sha256
        self.subject = cohort.patches_sha256
        self._paths = cohort.image_paths()
        self._mpps: Sequence[float] = cohort.manifest["mpp"].tolist()

    def __len__(self) -> int:
        return len(self._paths)

    def patch(self, number: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of a patch."""
        return read_patch(self._paths[number])

    def mpp(self, number: int) -> float:
        """µm per pixel of a patch."""
        return float(self._mpps[number])


class SlidePictures:
    """Squares of :data:`FIELD_UM` around places on a slide.

    Args:
        pool: The open slide; it must outlive this.
        centres_px: (N, 2) on level 0.
    """

    def __init__(self, pool: SlidePool, centres_px: FloatArray) -> None:
        self._pool = pool
        self._centres = np.asarray(centres_px, dtype=np.float64)
        self.key = hashlib.sha256(
            slide_key(pool.info.path).encode() + self._centres.tobytes()
        ).hexdigest()
        # Neither where the file lies nor which candidates are shown; labels go by their ids.
        self.subject = f"{pool.info.path.name} {pool.info.path.stat().st_size}"

    def __len__(self) -> int:
        return len(self._centres)

    def patch(self, number: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of the square around a place."""
        (answer,) = self._pool.read(self._centres[number : number + 1], FIELD_UM, SLIDE_MPP)
        if isinstance(answer, np.ndarray):
            return answer
        raise InputError(answer)

    def mpp(self, number: int) -> float:  # noqa: ARG002
        """µm per pixel of a square."""
        return SLIDE_MPP


def slide_key(path: Path) -> str:
    """Tell one state of a slide's file from another without reading all of it."""
    state = path.stat()
    return f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
