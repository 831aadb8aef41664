"""What one request, and all of them together, may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from atypia.core.errors import InputError, Problem
from atypia.data.images import MAX_PIXELS

BYTES_PER_PIXEL: Final = 8
"""Of a page that is being decoded: four in Pillow's copy, three in the array, and some more."""
MIB: Final = 2**20


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of the server; together they bound its memory.

    Raises:
        InputError: Lists the bounds that contradict each other.
    """

    body_bytes: int = 32 * MIB
    """Of one request."""
    image_pixels: int = MAX_PIXELS
    """Of one image, all its pages together. Counted before anything is decoded."""
    patches: int = 4096
    """In one request; pages of stacks and candidates on a slide count as patches."""
    requests: int = 256
    """At once, from the first byte of a body to the last byte of the answer."""
    buffer_bytes: int = 512 * MIB
    """Of uploads that are held at once; and, as much again, of pixels."""
    seconds: float = 60
    """For a body to arrive, and for the client to take each part of the answer."""

    def __post_init__(self) -> None:
        least = {
            "a body": self.body_bytes,
            "an image": self.image_pixels * BYTES_PER_PIXEL,
        }
        problems = [
            Problem(
                f"expected room for {what} of the largest size that is allowed "
                f"({size / MIB:,.0f} MB) in memory but got {self.buffer_bytes / MIB:,.0f} MB. "
                "Raise --max-memory-mb, or lower the other limit."
            )
            for what, size in least.items()
            if size > self.buffer_bytes
        ]
        if problems:
            raise InputError(problems)

    @property
    def waiting_patches(self) -> int:
        """Accepted but not answered yet, of all requests together."""
        return 2 * self.patches
