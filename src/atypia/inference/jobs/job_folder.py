"""The folder of a job, and the record by which it is known again."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from atypia._version import __version__
from atypia.core.errors import InputError, Problem
from atypia.core.files import LOCK, only_process, read_json, write_json
from atypia.inference.jobs.work import hash_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

RECORD: Final = "job.json"


@dataclass(frozen=True)
class JobFolder:
    """Where a job leaves its files. Made by :meth:`open`.

    ``job.json`` (what the job is, status, counts), ``parts/`` (answers, a file per item),
    ``candidates/`` (of each slide, as they were when the job was started), ``failed.csv``.
    """

    path: Path
    identity: Mapping[str, Any]
    """What the answers depend on: hashes of the inputs and of the model, options."""

    @classmethod
    @contextmanager
    def open(cls, path: Path, identity: Mapping[str, Any]) -> Iterator[JobFolder]:
        """Begin a job, or go on with one, and keep other processes from handing out its work.

        Raises:
            InputError: The folder holds something else, or a job with another identity: lists
                every difference; or another process is at this job.
        """
        job = cls(path, identity)
        record = path / RECORD
        if record.is_file():
            started = read_json(record).get("job", {})
            problems = [
                Problem(
                    f"this job was started with {started.get(name)!r} but now got {value!r}. Give "
                    "what it was started with, or another --out.",
                    str(record),
                    column=name,
                )
                for name, value in identity.items()
                if started.get(name) != value
            ]
            if problems:
                raise InputError(problems)
        elif path.exists() and (not path.is_dir() or _holds_anything(path)):
            raise InputError(
                f"{path} already exists and is no job (it has no {RECORD}). Choose another --out."
            )
        busy = (
            f"{path}: another process is at this job. Wait for it, or stop it; the same command "
            "then does what is missing."
        )
        with only_process(path, busy):
            job.note("running")
            yield job

    @property
    def key(self) -> str:
        """Hash of the identity."""
        return hash_of(dict(self.identity))

    @property
    def parts(self) -> Path:
        """Folder with the answers."""
        return self.path / "parts"

    @property
    def candidates(self) -> Path:
        """Folder with the candidates of each slide."""
        return self.path / "candidates"

    def note(self, status: str, **counts: int) -> None:
        """Write ``job.json``.

        Args:
            status: ``running``, ``done`` or ``failed``: done but for what ``failed.csv`` lists.
            counts: What there is and what was done.
        """
        record = {"status": status, "atypia": __version__, "job": dict(self.identity)}
        write_json(self.path / RECORD, {**record, "counts": counts})


def _holds_anything(folder: Path) -> bool:
    # A job that was killed at once leaves its lock, and a file with a hidden name for its record.
    left = (f".{RECORD}", LOCK)
    return any(not path.name.startswith(left) for path in folder.iterdir())
