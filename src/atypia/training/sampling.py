"""Which figures an epoch of training shows, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atypia.data.loader import Epoch, plan_epoch
from atypia.labels import N_ATYPICAL

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.config import OptimConfig
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
    """How often each row of the training part is drawn, (n,); None draws all alike."""
    if not optim.sampling and not optim.domain_balance:
        return None
    weights = np.ones(len(task.train_rows))
    if optim.sampling:  # -1 where a figure has no subtype: a class of its own
        groups = task.labels[task.train_rows] + 1
        if optim.sampling_of == "side":
            groups = np.where(groups > N_ATYPICAL, 2, np.minimum(groups, 1))
        weights *= _share_of_own(groups) ** -optim.sampling
    if optim.domain_balance:
        weights *= _share_of_own(task.domains[task.train_rows]) ** -optim.domain_balance
    return weights


def _share_of_own(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(n,) relative size of the group that each of (n,) belongs to."""
    return np.asarray(np.bincount(groups)[groups] / len(groups))
