"""Averages of a network's weights over its training: EMA, SWA."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from atypia.core.config import OptimConfig
    from atypia.models.network import Network


def make_average(network: Network, optim: OptimConfig) -> AveragedModel | None:
    """Start the average that the configuration asks for; None if it asks for none.

    ``ema`` is a moving average over steps, ``average`` an equal one over epochs. Running means of
    batches are averaged like weights.
    """
    if optim.ema:
        decayed = get_ema_multi_avg_fn(optim.ema)  # type: ignore[no-untyped-call]
        return AveragedModel(network, multi_avg_fn=decayed, use_buffers=True)
    return AveragedModel(network, use_buffers=True) if optim.average else None


def is_averaged(epoch: int, optim: OptimConfig) -> bool:
    """Whether the weights at the end of this epoch, from 0 on, go into an equal average."""
    averaged = math.ceil(optim.average * optim.epochs)
    return epoch >= optim.head_epochs + optim.epochs - averaged


def answering(network: Network, average: AveragedModel | None) -> Network:
    """Give the weights that answer: the average's, once there is something in it."""
    if average is None or average.n_averaged == 0:
        return network
    return cast("Network", average.module)
