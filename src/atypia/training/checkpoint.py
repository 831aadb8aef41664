"""The state of one member's training on disk: whole, recent, and free of code."""

from __future__ import annotations

import hashlib
import io
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import pandas as pd
import torch

from atypia.core.errors import TrainingError
from atypia.core.files import atomic_write, write_text

if TYPE_CHECKING:
    from pathlib import Path


log = logging.getLogger("atypia")

_MARK: Final = b"sha256:"
_TAIL: Final = -len(_MARK) - hashlib.sha256().digest_size


@dataclass
class Progress:
    """How far a training has come, besides weights and optimiser."""

    epoch: int = 0
    """Epochs done."""
    best_loss: float = math.inf
    phase: str = ""
    phase_best_loss: float = math.inf
    phase_best_epoch: int = 0
    history: list[dict[str, float | int | str]] = field(default_factory=list)
    best_sha256: str = ""
    """Of the file with the best weights so far."""


def save_checkpoint(file: Path, progress: Progress, tensors: dict[str, Any]) -> None:
    """Replace the checkpoint atomically; the one before stays beside it, in case this is damaged.

    Behind the content is its SHA-256.
    """
    content = io.BytesIO()  # torch hides the cause when it writes to a full disk itself
    torch.save({"progress": vars(progress), **tensors}, content)
    digest = hashlib.sha256(content.getbuffer()).digest()
    if file.is_file():
        file.replace(_before(file))
    with atomic_write(file, "wb") as stream:
        stream.write(content.getbuffer())
        stream.write(_MARK + digest)


def load_checkpoint(file: Path) -> tuple[Progress, dict[str, Any]] | None:
    """Read the last checkpoint that is sound, tensors and plain values only; None without any.

    Raises:
        TrainingError: There is none that is sound.
    """
    faults = []
    for candidate in (file, _before(file)):
        if not candidate.is_file():
            continue
        try:
            data = candidate.read_bytes()
            content, digest = data[:_TAIL], data[_TAIL:]
            if digest != _MARK + hashlib.sha256(content).digest():
                raise ValueError("its SHA-256 differs")
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # pickle and zip raise many kinds
            faults.append(f"{candidate}: expected a checkpoint but it is damaged ({error}).")
            continue
        for fault in faults:
            log.warning("%s The one before it is taken.", fault)
        return Progress(**loaded.pop("progress")), loaded
    if faults:
        again = f"Remove {file.parent} to train the member again from its start."
        raise TrainingError(" ".join([*faults, again]))
    return None


def remove_checkpoint(file: Path) -> None:
    """Remove a checkpoint and the one before it."""
    file.unlink(missing_ok=True)
    _before(file).unlink(missing_ok=True)


def _before(file: Path) -> Path:
    return file.with_name(f"{file.stem}-before{file.suffix}")


def write_history(file: Path, progress: Progress) -> None:
    """Write ``history.csv``, one row per epoch."""
    write_text(file, pd.DataFrame(progress.history).to_csv(index=False, lineterminator="\n"))


def read_history(file: Path) -> list[dict[str, float | str]]:
    """Read ``history.csv``, one entry per epoch, with the very numbers that were written.

    A member that was fitted in one step has none: the list is empty. What is not defined is NaN.
    """
    if not file.is_file():
        return []
    table = pd.read_csv(file, dtype={"phase": str}, float_precision="round_trip")
    return cast("list[dict[str, float | str]]", table.to_dict("records"))
