"""What one member learns from, and where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.training.distributed import World
    from atypia.training.targets import Targets


@dataclass(frozen=True)
class MemberTask:
    """One member's share of the data."""

    name: str
    train_rows: npt.NDArray[np.int64]
    """Rows of the store to learn from."""
    valid_rows: npt.NDArray[np.int64]
    """Rows of other patients, to watch and to stop by."""
    targets: Targets
    """For every row of the store: what is learned."""
    labels: npt.NDArray[np.int64]
    """(N,) subtype index for every row of the store: what is scored."""
    seed: int
    silent_rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows of the training patients that teach nothing; a warm-up without labels sees them, too."""
    domains: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """(N,) number of the domain of every row of the store."""

    @property
    def seen_rows(self) -> npt.NDArray[np.int64]:
        """Every row of the training patients once, whether it has a label or not."""
        return np.union1d(self.train_rows, self.silent_rows)

    @property
    def unlabelled_rows(self) -> npt.NDArray[np.int64]:
        """Rows of the training patients without a subtype to learn, once each."""
        rows = self.seen_rows
        return rows[~self.targets.subtypes[rows].any(axis=(1, 2))]


@dataclass(frozen=True)
class ComputePlace:
    """Where a training runs."""

    device: torch.device
    precision: torch.dtype
    world: World
    layout: torch.memory_format = torch.channels_last
    """Of images and kernels in memory; most networks are faster with channels last."""
