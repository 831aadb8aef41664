"""One patch on its way into a cohort, with everything that is wrong with it."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from atypia.core import labels
from atypia.core.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Characters that some file system refuses, or that would leave the folder of the cohort.
_UNSAFE = re.compile(r'[\x00-\x1f\\:*?"<>|]')


@dataclass(frozen=True)
class ImageRegion:
    """A place in a source image: the centre, in px on level 0 or in µm."""

    image: Path
    x: float
    y: float
    unit: str
    field_um: float
    """Side of the square to crop, µm."""


@dataclass(frozen=True)
class SlidePosition:
    """Where a patch was cut from: its centre in px of the slide's level 0."""

    slide: str
    """The slide's file, with forward slashes."""
    x: float
    y: float
    origin: tuple[int, int] = (0, 0)
    """Where the scanned part begins; QuPath counts from there."""


@dataclass
class Record:
    """One patch of a source. A record with problems does not enter a cohort."""

    file: str
    """The file a problem is reported for: the table, or the image itself."""
    row: int | None = None
    origin: Path | ImageRegion | None = None
    """The image, or the place to crop it from; None where the source does not say it."""
    path_text: str = ""
    """The image's path as the source writes it, with forward slashes."""
    patch_id: str = ""
    patient_id: str = ""
    domain: str = ""
    scanner: str = ""
    mpp: float | None = None
    """µm per pixel; None where only the source image knows it."""
    place: SlidePosition | None = None
    """Known where Atypia cut the patch itself."""
    answers: dict[str, str] = field(default_factory=dict)
    """Cells of the columns ``label_<rater>``, ``atypical_<rater>`` and ``majority_atypical``."""
    unlabelled: bool = False
    """Whether it may come without any label and vote."""
    problems: list[Problem] = field(default_factory=list)

    def fault(self, what: str, column: str | None = None) -> None:
        """Note that something is wrong with this record."""
        self.problems.append(Problem(what, self.file, self.row, column))

    def read_label(self, target: str, text: str, column: str) -> None:
        """Take a subtype as people write it into the answer `target`; empty means none given."""
        subtype = labels.parse_subtype(text) if text else ""
        if subtype is None:
            self.fault(
                f"expected one of {list(labels.SUBTYPES)} or an empty cell but got {text!r}.",
                column,
            )
        self.answers[target] = subtype or ""

    def read_vote(self, target: str, text: str, column: str) -> None:
        """Take an atypical/normal vote into the answer `target`; empty means none given."""
        vote = labels.parse_atypical(text) if text else None
        if text and vote is None:
            self.fault(f"expected True, False or an empty cell but got {text!r}.", column)
        self.answers[target] = "" if vote is None else str(vote)

    def read_number(self, text: str, column: str, unit: str) -> float | None:
        """Read a finite number with a decimal point; notes a problem and returns None else."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return value
        comma = " with a decimal point, not a comma," if re.fullmatch(r"-?\d+,\d+", text) else ""
        self.fault(f"expected a number ({unit}){comma} but got {text!r}.", column)
        return None

    def check(self) -> None:
        """Note what is wrong with the finished record taken by itself."""
        parts = PurePosixPath(self.patch_id).parts
        if not self.patch_id:
            self.fault("expected a patch id but the cell is empty.", "patch_id")
        elif self.patch_id.startswith("/") or ".." in parts or _UNSAFE.search(self.patch_id):
            self.fault(
                "expected an id that can be a file name (no '..', no leading '/', none of "
                f'\\ : * ? " < > |) but got {self.patch_id!r}.',
                "patch_id",
            )
        if not self.problems and not self.unlabelled and not any(self.answers.values()):
            self.fault(
                "expected at least one label or vote but every such cell is empty. Where it is "
                "meant, say --unlabelled."
            )


@dataclass(frozen=True)
class SourceRecords:
    """What a reader found in a source."""

    kind: str
    records: list[Record]
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else to keep in ``cohort.json``: hashes, files that were ignored."""
    name: str | None = None
    """Of the cohort, where it is a public one."""


def mark_duplicates(records: Iterable[Record]) -> None:
    """Note a problem at every record whose id is not its own.

    Ids that differ only in case count as the same: on many disks they are one file. All of them
    are marked, for nothing says which one is right.
    """
    records = [record for record in records if record.patch_id]
    count = Counter(record.patch_id.casefold() for record in records)
    for record in records:
        n = count[record.patch_id.casefold()]
        if n > 1:
            record.fault(
                f"expected a unique id but {record.patch_id!r} stands for {n} patches.", "patch_id"
            )
