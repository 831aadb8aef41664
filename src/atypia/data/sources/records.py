"""One patch on its way into a cohort, with all that is wrong with it, and what a user can add."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from atypia.core import labels
from atypia.core.errors import InputError, Problem
from atypia.core.files import sha256_file
from atypia.data.cohort import MAJORITY_COLUMN
from atypia.data.patient_names import spellings, two_spellings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atypia.core.tables import Row, Table

RaterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")]


class Columns(BaseModel):
    """Names of a table's columns; the defaults are those of a cohort's own manifest.

    A column that is named here explicitly must exist. Of the defaults, only what the kind of
    source cannot do without must.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = "file"
    """Path of the image, absolute or below the folder of the table."""
    patch_id: str = "patch_id"
    patient: str = "patient_id"
    domain: str = "domain"
    scanner: str = "scanner"
    mpp: str = "mpp"
    image: str = "image"
    """File name of the source image, in a table of centres."""
    x: str = "x"
    y: str = "y"
    labels: dict[RaterName, str] = {}
    """Rater → column of subtypes; where empty, every column ``label_<rater>`` is taken."""
    votes: dict[RaterName, str] = {}
    """Rater → column of atypical/normal votes; where empty, every ``atypical_<rater>``."""
    majority: str = "majority_atypical"


class PrepareOptions(BaseModel):
    """Options of :func:`atypia.pipeline.prepare`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    """Name of the cohort; the name of the output folder by default."""
    mpp: float | None = Field(None, ge=0.01, le=10)
    """µm per pixel, where the source lacks it or has it wrong."""
    domain: str | None = None
    """Domain of patches for which the source names none; the cohort's name by default."""
    scanner: str = ""
    """Scanner of patches for which the source names none."""
    rater: RaterName = "expert1"
    """Whose labels the class folders are."""
    columns: Columns = Columns()
    patients: Path | None = None
    """CSV with the columns ``patch_id`` and ``patient_id``; a patch may also be named by its path
    or its file name."""
    patient_regex: str | None = None
    """Finds the patient in the path of a patch: the group ``patient``, else the first group, else
    the whole match."""
    patient_per_patch: bool = False
    """State that every patch is of another patient."""
    images: Path | None = None
    """Folder of the source images that a table of centres refers to."""
    field_um: float | None = Field(None, gt=0, le=1000)
    """Side of the square to crop from source images, µm."""
    centre_unit: Literal["px", "um"] = "px"
    """Unit of the centres: px on level 0, or µm from the top left corner."""
    mixed_sizes: bool = False
    """Accept patches of different sizes at one resolution; else they are taken for a mistake."""
    unlabelled: bool = False
    """Accept patches without any label and vote, to learn from or to predict."""
    skip_bad: bool = False
    """Leave out what is wrong, count it and list it in ``skipped.csv``, instead of refusing."""

    @property
    def gives_patients(self) -> bool:
        """Whether one of the options that name the patients is given."""
        return bool(self.patients or self.patient_regex or self.patient_per_patch)


def field_of(options: PrepareOptions) -> float:
    """Side of the square to crop from source images, µm.

    Raises:
        InputError: It is not given.
    """
    if options.field_um is None:
        raise InputError(
            "--images: expected the field of view to crop, too. Give --field-um "
            "(the crops of the AMi-Br release are 32 µm wide)."
        )
    return options.field_um


# Characters that some file system refuses, or that would leave the folder of the cohort.
_LONGEST_NAME: Final = 200
"""File systems take 255 bytes, an extension and what a file is called while it is written in it."""
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
    """The image, or the place to crop it from; None where the source lacks it."""
    path_text: str = ""
    """The image's path as the source writes it, with forward slashes."""
    patch_id: str = ""
    patient_id: str = ""
    domain: str = ""
    scanner: str = ""
    mpp: float | None = None
    """µm per pixel; None where only the source image has it."""
    place: SlidePosition | None = None
    """Known where Atypia cut the patch itself."""
    answers: dict[str, str] = field(default_factory=dict)
    """Cells of the columns ``label_<rater>``, ``atypical_<rater>`` and ``majority_atypical``."""
    unlabelled: bool = False
    """Whether it may come without any label and vote."""
    picture: str | None = None
    """Hash of the pixels, once they are read; None for a picture of one colour."""
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of_row(cls, table: Table, row: Row, **fields: Any) -> Record:
        """Begin the record of a table's row; a wrong number of cells is its first problem."""
        problems = [row.problem] if row.problem else []
        return cls(file=str(table.path), row=row.line, problems=problems, **fields)

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

    def check_majority(self, column: str) -> None:
        """Note a problem where most votes contradict the majority, read from `column`."""
        majority = self.answers.get(MAJORITY_COLUMN)
        votes = Counter(v for c, v in self.answers.items() if v and c.startswith("atypical_"))
        called = 2 * votes["True"] - votes.total()
        if majority and called and votes.total() > 1 and majority != str(called > 0):
            n = max(votes["True"], votes["False"])
            what = f"expected the majority of the votes, {called > 0} by {n} of {votes.total()}"
            self.fault(f"{what}, but got {majority}.", column)

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

    def read_centre(
        self,
        image: Path,
        cells: Mapping[str, str],
        columns: tuple[str, str],
        options: PrepareOptions,
        unit: str = "px",
    ) -> None:
        """Take the place to crop from: a source image, and a centre in the cells of two columns."""
        x, y = (self.read_number(cells[column], column, unit) for column in columns)
        if x is not None and y is not None:
            self.origin = ImageRegion(image, x, y, unit, field_of(options))

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
        elif max(len(part.encode()) for part in parts) > _LONGEST_NAME:
            what = (
                f"expected an id of at most {_LONGEST_NAME} bytes but got {self.patch_id[:40]!r}..."
            )
            self.fault(f"{what}.", "patch_id")
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


def table_facts(table: Path) -> dict[str, Any]:
    """Name and hash of a source's table, for ``cohort.json``."""
    return {"table": table.name, "table_sha256": sha256_file(table)}


def resolution_problems(options: PrepareOptions, of: str) -> list[Problem]:
    """One problem where the user must give the resolution, but does not."""
    if options.mpp is not None:
        return []
    return [Problem(f"expected the resolution of the {of}. Give --mpp, µm per pixel.")]


def mark_duplicates(records: Iterable[Record]) -> None:
    """Note a problem at every record whose id is not its own.

    Ids that differ only in case count as the same: on many disks they are one file. All of them
    are marked, for none is evidently right.
    """
    records = [record for record in records if record.patch_id]
    count = Counter(record.patch_id.casefold() for record in records)
    for record in records:
        if (n := count[record.patch_id.casefold()]) > 1:
            record.fault(
                f"expected a unique id but {record.patch_id!r} stands for {n} patches.", "patch_id"
            )


def mark_spellings(records: Iterable[Record]) -> None:
    """Note a problem at every sound record whose patient is spelt in another way elsewhere."""
    records = [record for record in records if record.patient_id and not record.problems]
    ways_of = {
        patient: ways
        for ways in spellings(record.patient_id for record in records)
        for patient in ways
    }
    for record in records:
        if ways := ways_of.get(record.patient_id):
            record.fault(two_spellings(ways))


def without_repeats(records: Iterable[Record]) -> list[Record]:
    """Keep one of several rows that are alike in all; rows that differ are left to a check."""
    first: dict[str, Record] = {}
    kept = []
    for record in records:
        known = first.setdefault(record.patch_id, record)
        if known is record or replace(record, row=known.row) != known:
            kept.append(record)
    return kept


def mark_same_pictures(records: Iterable[Record]) -> None:
    """Note a problem at every record whose picture stands for another patient or label elsewhere.

    One person's figure would be learned from and tested on; and none of the labels is evidently
    right.
    """
    shown: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.picture is not None:
            shown[record.picture].append(record)
    for same in shown.values():
        answers: defaultdict[str, set[str]] = defaultdict(set)
        for record in same:
            for column, answer in record.answers.items():
                answers[column] |= {answer} - {""}
        several = [column for column, given in answers.items() if len(given) > 1]
        if len({record.patient_id for record in same}) > 1:
            several.append("patient_id")
        if not several:
            continue
        places = [f"row {r.row}" if r.row else r.path_text or r.patch_id for r in same]
        for record in same:
            record.fault(
                f"expected each picture once, or with one {', one '.join(several)}, but got it in "
                f"{' and '.join(places)}."
            )
