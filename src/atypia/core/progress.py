"""Callbacks by which long work reports its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class OnStep(Protocol):
    """Called after each batch of a training."""

    def __call__(self, name: str, done: int, total: int) -> None:
        """Member `name` has done `done` of `total` batches."""


class OnEpoch(Protocol):
    """Called after each epoch of a training, once it can be resumed from there."""

    def __call__(self, name: str, history: Sequence[Mapping[str, float | int | str]]) -> None:
        """Member `name` has done the epochs of `history`; what is raised here ends its training."""


class OnDone(Protocol):
    """Called when items are done."""

    def __call__(self, n: int) -> None:
        """`n` more items are done (or, at the start, are to be done)."""


def silent(*_: object, **__: object) -> None:
    """Report to nobody."""
