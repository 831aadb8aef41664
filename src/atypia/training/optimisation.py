"""Optimiser, learning rate over a training, and averages of the weights: EMA, SWA."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from atypia.core.config import OptimConfig
    from atypia.models.network import Network


def make_optimizer(
    network: Network, optim: OptimConfig, head_only: bool, batches: int
) -> tuple[torch.optim.Optimizer, LRScheduler | ReduceLROnPlateau]:
    """Make the optimiser of one phase, of `batches` an epoch, and its schedule."""
    rate = optim.head_learning_rate if head_only else optim.learning_rate
    kind = torch.optim.AdamW if optim.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(network.parameter_groups(optim.weight_decay), lr=rate, fused=True)
    if head_only:
        return optimizer, ConstantLR(optimizer, factor=1.0)
    if optim.schedule == "one_cycle":
        return optimizer, one_cycle(optimizer, rate, optim.epochs * batches, optim.warmup)
    return optimizer, ReduceLROnPlateau(
        optimizer,
        factor=optim.plateau_factor,
        # Keras, which the reference study used, lowers the rate in the epoch in which torch
        # would still wait, and asks for an improvement of 1e-4.
        patience=optim.plateau_patience - 1,
        threshold=1e-4,
        threshold_mode="abs",
        min_lr=optim.min_learning_rate,
    )


def one_cycle(optimizer: Optimizer, rate: float, steps: int, rising: float) -> OneCycleLR:
    """Let rate and momentum go up to `rate` and down once, by cosines (Smith and Topin 2019).

    `rising` is the share of `steps` before the highest rate.
    """
    if rising * steps == 1:  # torch divides by the length of the rise less 1
        rising *= 1 + 1e-9
    return OneCycleLR(optimizer, max_lr=rate, total_steps=steps, pct_start=rising)


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
