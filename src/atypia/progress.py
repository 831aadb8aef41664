"""How the stages tell what they are doing, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class OnStep(Protocol):
    """Called after each batch of a training."""

    def __call__(self, name: str, done: int, total: int) -> None:
        """Member `name` has done `done` of `total` batches."""


class OnDone(Protocol):
    """Called when items are done."""

    def __call__(self, n: int) -> None:
        """`n` more items are done (or, at the start, are to be done)."""


def silent(*_: object, **__: object) -> None:
    """Tell nobody."""
