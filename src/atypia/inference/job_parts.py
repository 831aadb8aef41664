"""What a job is cut into, and the file of each item: Parquet, there whole or not at all.

The rows are those of ``predictions.csv``. What failed is in the file's metadata, so that an item is
one file and one rename. The only module that imports pyarrow.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from atypia.core.errors import AtypiaError, InputError, MissingExtraError
from atypia.core.files import write_bytes, write_text
from atypia.core.labels import PROBABILITY_COLUMNS, left_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

log = logging.getLogger("atypia")

EXTRA: Final = "cluster"
SUFFIX: Final = ".parquet"
_KEY: Final = b"atypia"
_FLOAT32: Final = {*PROBABILITY_COLUMNS, "p_atypical", "p_mitosis"}
_FLOAT64: Final = {"x_px", "y_px", "x_um", "y_um"}
_BOOL: Final = {"predicted_atypical"}
_SHOWN: Final = 3


class DamagedPartError(AtypiaError):
    """The file of an item is not as it was written."""


class WorkItem(Protocol):
    """One piece of work, small enough to be done again. It is sent to the worker by pickle."""

    @property
    def key(self) -> str:
        """Names the file with its predictions; the same for the same work."""

    @property
    def size(self) -> int:
        """Number of inputs: candidates, images, or one slide."""


AnyItem = TypeVar("AnyItem", bound=WorkItem)
_Taken = TypeVar("_Taken", bound=WorkItem, contravariant=True)


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


@dataclass(frozen=True, slots=True)
class Failure:
    """A candidate, an image or a whole slide without a prediction."""

    slide: str
    """Empty where images are classified."""
    patch_id: str
    """Empty for a slide whose candidates could not be listed."""
    reason: str


@dataclass(frozen=True)
class FinishedPart:
    """What a worker makes of an item."""

    table: pd.DataFrame
    """The rows; none where every input failed."""
    answered: int
    """Inputs that have a prediction. A stack of images has several rows."""
    failures: Sequence[Failure] = ()
    """One for each input that has none."""
    group_size: int | None = None
    """Rows that can be read without the others; None is all."""


@dataclass(frozen=True)
class PartSummary:
    """What a file holds besides its rows."""

    rows: int
    columns: tuple[str, ...]
    answered: int
    atypical: int
    """Rows that are called atypical."""
    not_answered: Mapping[str, int]
    """Status to the number of its rows; see :data:`atypia.core.labels.STATUSES`."""
    failures: tuple[Failure, ...]


def hash_of(*identity: object) -> str:
    """32 hexadecimal digits of the SHA-256 of values that JSON can hold."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def reason_of(error: BaseException) -> str:
    """Put an error in one line; of many problems the first few."""
    if isinstance(error, InputError):
        lines = [str(problem) for problem in error.problems]
    elif isinstance(error, AtypiaError):
        lines = str(error).splitlines()
    else:
        lines = [f"{type(error).__name__}: {error}"]
    rest = len(lines) - _SHOWN
    shown = [" ".join(line.split()) for line in lines[:_SHOWN]]
    return "; ".join([*shown, f"and {rest:,} more"] if rest > 0 else shown)


def part_path(folder: Path, key: str) -> Path:
    """File of an item."""
    return folder / f"{key}{SUFFIX}"


def _digest_of(path: Path) -> Path:
    """File with the SHA-256 of a Parquet file; not beside it, as others read all of its folder."""
    return path.parent.with_name(f"{path.parent.name}-sha256") / path.stem


def keys_in(folder: Path) -> set[str]:
    """Keys of the items that are done."""
    if not folder.is_dir():
        return set()
    names = (path.name for path in folder.iterdir())
    return {n.removesuffix(SUFFIX) for n in names if n.endswith(SUFFIX) and n[0] != "."}


def load_pyarrow() -> tuple[Any, Any]:
    """Import pyarrow and its Parquet.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingExtraError("pyarrow", EXTRA, "Writing Parquet files") from None
    return pyarrow, pyarrow.parquet


def encode_part(part: FinishedPart) -> bytes:
    """Make a Parquet file.

    Columns have the same type in every file, whatever pandas takes them for: strings but for the
    numbers of a table of predictions.
    """
    arrow, parquet = load_pyarrow()
    schema = arrow.schema([(name, _type(name, arrow)) for name in part.table.columns])
    called = part.table.get("predicted_atypical")
    about = {
        "answered": part.answered,
        "atypical": 0 if called is None else int(called.sum()),
        "not_answered": left_out(part.table.get("status", ())),
        "failures": [asdict(failure) for failure in part.failures],
    }
    content = json.dumps(about, ensure_ascii=False).encode()
    columns = []
    for field in schema:
        cells = part.table[field.name]
        if field.type == arrow.string():
            cells = cells.astype(object).map(str, na_action="ignore")
        columns.append(arrow.array(cells.to_numpy(), field.type, from_pandas=True))
    table = arrow.Table.from_arrays(columns, schema=schema.with_metadata({_KEY: content}))
    buffer = io.BytesIO()
    parquet.write_table(
        table,
        buffer,
        row_group_size=part.group_size,
        compression="zstd",
        write_page_checksum=True,
    )
    return buffer.getvalue()


def write_part(path: Path, part: FinishedPart) -> None:
    """Write the file of an item, after its SHA-256, which every reader compares.

    Raises:
        AtypiaError: It cannot be written.
    """
    content = encode_part(part)
    write_text(_digest_of(path), hashlib.sha256(content).hexdigest() + "\n")
    write_bytes(path, content)


def move_part(path: Path, target: Path) -> None:
    """Move the file of an item over another one."""
    _digest_of(path).replace(_digest_of(target))
    path.replace(target)


def drop_damaged(folder: Path) -> None:
    """Remove the files that are not as they were written; the items are done again."""
    for key in sorted(keys_in(folder)):
        try:
            _open(part_path(folder, key))
        except DamagedPartError as error:
            log.warning("%s It is removed, and its item done again.", error)
            part_path(folder, key).unlink()


def read_summary(path: Path) -> PartSummary:
    """Read what a file holds besides its rows.

    Raises:
        AtypiaError: The file is missing or damaged.
    """
    file = _open(path)
    about = json.loads(file.schema_arrow.metadata[_KEY])
    return PartSummary(
        rows=file.metadata.num_rows,
        columns=tuple(file.schema_arrow.names),
        answered=about["answered"],
        atypical=about["atypical"],
        not_answered=about.get("not_answered", {}),
        failures=tuple(Failure(**failure) for failure in about["failures"]),
    )


def read_rows(
    path: Path, group: int | None = None, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read the rows of a file: one group or all, some columns or all.

    Raises:
        AtypiaError: The file is missing or damaged.
    """
    file = _open(path)
    wanted = None if columns is None else list(columns)
    try:
        table = file.read(wanted) if group is None else file.read_row_group(group, wanted)
    except (OSError, ValueError) as error:  # pyarrow's own are both
        raise _damaged(path, error) from None
    return table.to_pandas()  # type: ignore[no-any-return]


def _open(path: Path) -> Any:
    arrow, parquet = load_pyarrow()
    digest = _digest_of(path)
    try:
        content = path.read_bytes()
        known = digest.read_text("ascii", "replace").strip() if digest.is_file() else ""
        if digest.parent.is_dir() and known != hashlib.sha256(content).hexdigest():
            raise _damaged(path, f"its SHA-256 is not that in {digest}")
        return parquet.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
    except FileNotFoundError:
        raise AtypiaError(f"{path} is missing. The same command makes it again.") from None
    except arrow.ArrowException as error:  # some are of OSError, too
        raise _damaged(path, error) from None
    except OSError as error:
        if error.errno is None:  # pyarrow's own
            raise _damaged(path, error) from None
        raise AtypiaError(f"{path} cannot be read: {error.strerror}.") from None


def _damaged(path: Path, error: Exception | str) -> DamagedPartError:
    return DamagedPartError(
        f"{path}: expected a Parquet file but it cannot be read ({error}). Delete it; the same "
        "command makes it again."
    )


def _type(column: str, arrow: Any) -> Any:
    if column in _FLOAT32:
        return arrow.float32()
    if column in _FLOAT64:
        return arrow.float64()
    return arrow.bool_() if column in _BOOL else arrow.string()
