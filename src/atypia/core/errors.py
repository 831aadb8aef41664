"""What can go wrong, in words for a person: what was expected, what came, what to do.

Each exception carries the exit code that the command line ends with: 1 when the work failed,
2 when the input or the options are wrong. All problems of an input are collected and raised
together, so that a user mends them in one go.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input, and where."""

    what: str
    """The fault in a sentence: "expected ... but got ...", and what to do about it."""
    file: str | None = None
    row: int | None = None
    """Line of a text file, counted from 1 with the header as line 1."""
    column: str | None = None

    def __str__(self) -> str:
        """Render as ``file, row 7, column 'x': what``."""
        place = [self.file] if self.file else []
        if self.row is not None:
            place.append(f"row {self.row}")
        if self.column is not None:
            place.append(f"column {self.column!r}")
        return f"{', '.join(place)}: {self.what}" if place else self.what


def first_few(names: Sequence[str], most: int = 5) -> str:
    """List names for a message: the first ones, and dots where there are more."""
    shown = ", ".join(names[:most])
    return f"{shown}, ..." if len(names) > most else shown


class AtypiaError(Exception):
    """The work failed; the message names what failed."""

    exit_code = 1


class InputError(AtypiaError):
    """Input or options are wrong. Holds every problem found, not just the first."""

    exit_code = 2

    def __init__(self, problems: str | Problem | Sequence[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems: list[Problem] = (
            [problems] if isinstance(problems, Problem) else list(problems)
        )
        super().__init__("\n".join(str(problem) for problem in self.problems))


@contextmanager
def collected(problems: list[Problem]) -> Iterator[None]:
    """Add the problems of an InputError to `problems` instead of raising it."""
    try:
        yield
    except InputError as error:
        problems += error.problems


class LeakError(InputError):
    """Patients stand on both sides of a boundary that they must not cross."""


class MissingExtraError(InputError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'atypia[{extra}]'"
        )


class TrainingError(AtypiaError):
    """A training could not go on; the last checkpoint is still good."""
