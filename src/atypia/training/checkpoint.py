"""The state of one member's training on disk: whole, recent, and free of code."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import torch

from atypia.core.errors import TrainingError
from atypia.core.files import atomic_write, write_text

if TYPE_CHECKING:
    from pathlib import Path


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


def save_checkpoint(file: Path, progress: Progress, tensors: dict[str, Any]) -> None:
    """Replace the checkpoint atomically: a kill or a full disk leaves the one before."""
    content = io.BytesIO()  # torch hides the cause when it writes to a full disk itself
    torch.save({"progress": vars(progress), **tensors}, content)
    with atomic_write(file, "wb") as stream:
        stream.write(content.getbuffer())


def load_checkpoint(file: Path) -> tuple[Progress, dict[str, Any]]:
    """Read a checkpoint, tensors and plain values only.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle and zip raise many kinds
        raise TrainingError(
            f"{file}: expected a checkpoint but it cannot be read ({error}). "
            "Remove this file to train the member again from its start."
        ) from None
    return Progress(**content.pop("progress")), content


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
