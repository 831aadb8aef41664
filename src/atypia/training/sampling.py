"""Which figures an epoch of training shows, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atypia.core.labels import N_ATYPICAL
from atypia.training.patch_store import Epoch, plan_epoch

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.core.config import OptimConfig
    from atypia.training.distributed import World
    from atypia.training.task import MemberTask


def plan(task: MemberTask, optim: OptimConfig, epoch: int, world: World) -> Epoch:
    """Choose what this process shows of an epoch."""
    n, weights = len(task.train_rows), row_weights(task, optim)
    whole = plan_epoch(n, optim.batch_size, optim.batches_per_epoch, task.seed, epoch, weights)
    return share_of(whole, world)


def share_of(whole: Epoch, world: World) -> Epoch:
    """Divide every batch among the processes."""
    mine = slice(world.rank, None, world.size)
    return Epoch(whole.samples[:, mine], whole.passes[:, mine])


def row_weights(task: MemberTask, optim: OptimConfig) -> npt.NDArray[np.float64] | None:
    """How often each row of the training part is drawn, (n,), 1 on average; None: all alike.

    With both kinds of balance, the subtypes, or sides, are balanced within each domain, whose own
    share stays what ``domain_balance`` gives it.
    """
    if not optim.sampling and not optim.domain_balance:
        return None
    rows = task.train_rows
    domains = task.domains[rows] if optim.domain_balance else np.zeros(len(rows), np.int64)
    weights = domain_weights(domains, optim.domain_balance)
    if optim.sampling:
        groups = _sides(task) if optim.sampling_of == "side" else task.labels[rows] + 1
        for domain in np.unique(domains):
            mine = domains == domain
            inside = _share_of_own(groups[mine]) ** -optim.sampling
            weights[mine] *= inside / inside.mean()
    return np.asarray(weights / weights.mean())


def domain_weights(domains: npt.NDArray[np.int64], power: float) -> npt.NDArray[np.float64]:
    """How often each of n rows is drawn for the sake of its domain, (n,)."""
    return np.asarray(_share_of_own(domains) ** -power)


def _sides(task: MemberTask) -> npt.NDArray[np.int64]:
    """(n,) 1 atypical or 2 normal, by most opinions; by the label in a tie; 0 where none is."""
    sides, labels = task.targets.sides[task.train_rows], task.labels[task.train_rows]
    by_label = np.where(labels < 0, 0, np.where(labels < N_ATYPICAL, 1, 2))
    decided = sides[:, 0] != sides[:, 1]
    return np.where(decided, np.where(sides[:, 0] > sides[:, 1], 1, 2), by_label)


def _share_of_own(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(n,) relative size of the group that each of (n,) belongs to."""
    return np.asarray(np.bincount(groups)[groups] / len(groups))
