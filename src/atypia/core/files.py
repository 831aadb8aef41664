"""The run folder, and writes that are there whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import os
import platform
import re
import reprlib
import shutil
import subprocess
import tempfile
import time
import zlib
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from atypia._version import __version__
from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.core.found_files import refuse_special
from atypia.core.parsing import parse_json, parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


Model = TypeVar("Model", bound=BaseModel)

LOCK: Final = ".lock"
"""Held by the process that works in a folder."""


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it to `path` once it is complete.

    A reader, or a run that was killed, sees the old content or the new one, never a part.

    Raises:
        AtypiaError: The folder cannot be written or the disk is full. The old file is untouched.
    """
    binary = "b" in mode
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(
            descriptor, mode, encoding=None if binary else "utf-8", newline=None if binary else ""
        ) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
        temporary = None
    except OSError as error:
        raise AtypiaError(
            f"{path} could not be written: {error.strerror or error}. "
            "Check free space and permissions of the folder; what was there before is intact."
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as stream:
        stream.write(text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path, "wb") as stream:
        stream.write(content)


def write_json(path: Path, value: object, *, compact: bool = False) -> None:
    """Write strict JSON (no NaN) atomically, with a newline at the end; indented or compact."""
    layout: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
    write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False, **layout) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: The file is missing or is not JSON.
    """
    return parse_json(_content(path), str(path))


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        InputError: The file is missing or is not YAML.
    """
    return parse_yaml(_content(path), str(path))


def _content(path: Path) -> bytes:
    refuse_special(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None


STAMP: Final = "content_sha256"
"""Entry of a stamped JSON file: the SHA-256 of all the others, however they are laid out."""

_LARGEST_STAMPED: Final = 32 << 20
"""A hundred times the header of a large model; more would only keep a reader busy."""


def stamped(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Give the content of a JSON file its stamp, which :func:`read_stamped` checks."""
    return {**tree, STAMP: _sha256_of(tree)}


def _sha256_of(tree: Mapping[str, Any]) -> str:
    content = json.loads(json.dumps({k: v for k, v in tree.items() if k != STAMP}))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_stamped(path: Path) -> Any:
    """Read a JSON file and check its stamp; one of an earlier version has none.

    Raises:
        InputError: The file is missing, is not JSON, or was changed since it was written.
    """
    if path.is_file() and (size := path.stat().st_size) > _LARGEST_STAMPED:
        what = f"expected at most {_LARGEST_STAMPED >> 20} MB but got {size >> 20} MB"
        raise InputError(f"{path}: {what}. Copy the folder again.")
    tree = read_json(path)
    try:
        changed = isinstance(tree, dict) and STAMP in tree and tree[STAMP] != _sha256_of(tree)
    except RecursionError:
        raise InputError(f"{path}: expected JSON but it nests too deeply.") from None
    if changed:
        raise InputError(
            f"{path}: expected the content that its {STAMP} was written for, but it was changed or "
            f"damaged since. Copy the folder again. (Changed on purpose? Remove the entry {STAMP}.)"
        )
    return tree


def wrong_suffix(option: str, path: Path | None, *suffixes: str) -> list[Problem]:
    """One problem where the name of a file to write ends in none of these; ``""`` is a folder."""
    if path is None or path.suffix.lower() in suffixes:
        return []
    files = [suffix for suffix in suffixes if suffix]
    wanted = ("one of " if len(files) > 1 else "") + ", ".join(files)
    folder = ", or a folder," if "" in suffixes else ""
    what = f"{option}: expected a name that ends in {wanted}{folder} but got {path.name!r}."
    return [Problem(what)]


_RECORDS: Final = {
    "cohort.json": r"cohort\.json|(manifest|skipped)\.csv|patches/.*",
    "model.json": r"[^/]*\.(json|safetensors|md)",
    "onnx.json": r"[^/]*\.(json|onnx)",
    "run.json": r"(run|splits|metrics.*)\.json|config\.yaml|predictions-.*|report\.html|train\.log",
    "job.json": r"job\.json|slides\.csv",
}
"""Files that make a folder one of ours, and which others beside them belong to it."""


def overwriting(outs: Iterable[Path | None], inputs: Iterable[Path], option: str) -> list[Problem]:
    """One problem for each file to write that is an input, or belongs to a cohort, model or run."""
    problems = []
    read = [path for path in inputs if path.exists()]
    for out in outs:
        if out is None or not out.exists() or out.is_dir():
            continue
        of = [path for path in read if out.samefile(path)]
        of += [
            folder
            for folder in out.resolve().parents
            for record, names in _RECORDS.items()
            if (folder / record).is_file()
            and re.fullmatch(names, out.resolve().relative_to(folder).as_posix())
        ]
        if of:
            what = f"{option}: expected a file of its own but {out} would overwrite {of[0]}."
            problems.append(Problem(f"{what} Choose another name."))
    return problems


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def gunzip(data: bytes) -> bytes:
    """Unpack gzip, which text fills some tenfold: up to forty times its size, and half a gigabyte.

    Raises:
        ValueError: It unpacks to more, or is damaged.
    """
    return _unpacked(gzip.GzipFile(fileobj=io.BytesIO(data)), len(data))


def bunzip(data: bytes) -> bytes:
    """Unpack bzip2, with the bounds of :func:`gunzip`."""
    return _unpacked(bz2.BZ2File(io.BytesIO(data)), len(data))


def _unpacked(stream: gzip.GzipFile | bz2.BZ2File, size: int) -> bytes:
    most = min(max(64 << 20, 40 * size), 512 << 20)
    try:
        with stream:
            unpacked = stream.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"its packing is damaged: {error}") from None
    if len(unpacked) > most:
        raise ValueError(f"it unpacks to more than {most >> 20} MB")
    return unpacked


def damaged(file: Path, sha256: str | None, record: Path, remedy: str) -> list[Problem]:
    """One problem where a file is missing or its SHA-256 is not that in `record`; else none."""
    if file.is_file() and sha256_file(file) == sha256:
        return []
    state = "differs" if file.is_file() else "is missing"
    what = f"expected the SHA-256 that {record} gives, but the file {state}. {remedy}"
    return [Problem(what, str(file))]


@contextmanager
def building_folder(out: Path) -> Iterator[Path]:
    """Fill a hidden folder beside `out` and rename it to `out` when the block ends well.

    What a process that was killed has left of the same folder is removed.

    Raises:
        InputError: `out` exists and is not an empty folder, or another process is making it.
    """
    partial: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.iterdir():
            ours = re.fullmatch(re.escape(f".{out.name}.") + "[a-z0-9_]{8}", left.name)
            if ours and (left / LOCK).is_file():
                with only_process(left, f"{out} is being made by another process."):
                    shutil.rmtree(left)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out} already exists. Choose another --out, or remove it first.")
        partial = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        with only_process(partial, f"{out} is being made by another process."):
            whole = partial / out.name
            whole.mkdir()
            yield whole
            if out.exists():
                out.rmdir()
            whole.rename(out)
    except OSError as error:
        raise AtypiaError(
            f"{out} could not be written: {error.strerror or error}. "
            "Check free space and permissions of the folder."
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def only_process(folder: Path, otherwise: str) -> Iterator[None]:
    """Hold a folder that one process at a time may work in; a dead one holds nothing.

    The folder is made if it is missing, and gets a file ``.lock``, in which the holder's process is
    named.

    Raises:
        InputError: Another process is there; the message is `otherwise`, with that process.
        AtypiaError: The folder cannot be made or written.
    """
    from filelock import FileLock, Timeout

    file = folder / LOCK
    lock, holder = FileLock(file), ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        holder = file.read_text("utf-8") if file.is_file() else ""
        lock.acquire(timeout=0)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write_text(f"process {os.getpid()} on {platform.node()}, since {now}", "utf-8")
    except Timeout:  # an OSError, too: before the others
        with suppress(OSError):
            file.write_text(holder, "utf-8")  # to try for the lock has emptied it
        raise InputError(f"{otherwise} ({holder or 'process unknown'})") from None
    except OSError as error:
        raise AtypiaError(
            f"{folder} cannot be worked in: {error.strerror or error}. Check that it is a folder "
            "and its permissions."
        ) from error
    try:
        yield
    finally:
        lock.release()


def versions() -> dict[str, str]:
    """Versions of Python, Atypia and, where it is installed, what its numbers depend on."""
    found = {"atypia": __version__, "python": platform.python_version()}
    for name in (
        *("torch", "torchvision", "timm", "onnxruntime"),
        *("numpy", "pandas", "scikit-learn", "scipy", "Pillow"),
    ):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def source_commit() -> str | None:
    """Commit of the checkout that this package runs from; None where it is installed.

    A ``+`` at the end means that files of the checkout differ from the commit.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", here, *arguments], capture_output=True, text=True, check=True
        ).stdout

    here = str(Path(__file__).parent)
    try:
        # A package that is installed below somebody's own repository is not of its commits.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = git("rev-parse", "HEAD").strip()
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + "+" * bool(changed)


def describe_machine() -> dict[str, str | int | None]:
    """Processor, number of cores and operating system; nothing that names the host."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", errors="replace") if info.is_file() else ""
    named = re.search(r"^model name.*?:(.*)", lines, re.MULTILINE)
    return named[1].strip() if named else platform.processor()


def read_as(kind: type[Model], file: Path) -> Model:
    """Read a JSON file, with its stamp checked, as a pydantic model.

    Raises:
        InputError: Lists every entry that is missing or wrong.
    """
    try:
        return kind.model_validate(read_stamped(file))
    except RecursionError:
        raise InputError(f"{file}: expected JSON but it nests too deeply.") from None
    except ValidationError as error:
        short = reprlib.Repr()
        short.maxstring = short.maxother = 200
        raise InputError(
            [
                Problem(
                    f"{fault['msg']}, but got {short.repr(fault['input'])}.",
                    str(file),
                    column=".".join(map(str, fault["loc"])) or None,
                )
                for fault in error.errors()
            ]
        ) from None
