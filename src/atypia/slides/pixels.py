"""What a format gives: the levels of an image, and rectangles of their pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

Colour = tuple[int, int, int]
"""RGB, 0..255."""


class Level(NamedTuple):
    """One level of a pyramid."""

    width: int
    height: int
    downsample: float
    """Pixels of level 0 to one of this level, in x and in y."""


class Pixels(Protocol):
    """What a format gives. Safe to use from several threads at once."""

    @property
    def levels(self) -> Sequence[Level]:
        """Finest first."""

    @property
    def mpp(self) -> tuple[float, float] | None:
        """µm per pixel of level 0 in x and y, None where the file does not say it."""

    @property
    def background(self) -> Colour | None:
        """Colour of empty glass, None where the file does not say it."""

    @property
    def origin(self) -> tuple[int, int]:
        """Where the scanned part begins, px on level 0."""

    def read(
        self, level: int, left: int, top: int, width: int, height: int, empty: Colour
    ) -> NDArray[np.uint8]:
        """RGB (height, width, 3) of a rectangle inside a level, in px of that level.

        What the scanner stored no pixels for is `empty`.
        """

    def close(self) -> None:
        """Close the file."""
