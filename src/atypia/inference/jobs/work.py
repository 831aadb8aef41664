"""What a job is cut into, and what comes back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from atypia.core.errors import AtypiaError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

_SHOWN: Final = 3


class WorkItem(Protocol):
    """One piece of work, small enough to be done again. It is sent to the worker by pickle."""

    @property
    def key(self) -> str:
        """Names the file with its answers; the same for the same work."""

    @property
    def size(self) -> int:
        """Number of inputs: candidates, images, or one slide."""


AnyItem = TypeVar("AnyItem", bound=WorkItem)
_Taken = TypeVar("_Taken", bound=WorkItem, contravariant=True)


@dataclass(frozen=True, slots=True)
class Failure:
    """A candidate, an image or a whole slide without an answer."""

    slide: str
    """Empty where images are classified."""
    patch_id: str
    """Empty for a slide whose candidates are not known."""
    reason: str


@dataclass(frozen=True)
class FinishedPart:
    """What a worker makes of an item."""

    table: pd.DataFrame
    """The rows; none where every input failed."""
    answered: int
    """Inputs that have an answer. A stack of images has several rows."""
    failures: Sequence[Failure] = ()
    """One for each input that has none."""
    group_size: int | None = None
    """Rows that can be read without the others; None is all."""


class Worker(Protocol[_Taken]):
    """Does items, one after the other, in one process; keeps what is dear to make, as a model."""

    def __call__(self, item: _Taken) -> FinishedPart:
        """Do an item.

        Raises:
            InputError: The input is wrong; it is not tried again.
            Exception: Whatever else goes wrong; the item is tried again.
        """

    def close(self) -> None:
        """Let go of what it keeps."""


def hash_of(*identity: object) -> str:
    """32 hexadecimal digits of the SHA-256 of values that JSON can hold."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def reason_of(error: BaseException) -> str:
    """Tell an error in one line; of many problems the first few."""
    if isinstance(error, InputError):
        lines = [str(problem) for problem in error.problems]
    elif isinstance(error, AtypiaError):
        lines = str(error).splitlines()
    else:
        lines = [f"{type(error).__name__}: {error}"]
    rest = len(lines) - _SHOWN
    told = [" ".join(line.split()) for line in lines[:_SHOWN]]
    return "; ".join([*told, f"and {rest:,} more"] if rest > 0 else told)
