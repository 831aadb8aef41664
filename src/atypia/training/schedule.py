"""The learning rate over a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim.lr_scheduler import OneCycleLR

if TYPE_CHECKING:
    from torch.optim import Optimizer


def one_cycle(optimizer: Optimizer, rate: float, steps: int, rising: float) -> OneCycleLR:
    """Let the rate rise and fall once, by cosines (Smith and Topin 2019).

    Args:
        optimizer: Its rates and momenta are changed.
        rate: The highest one.
        steps: Of the whole cycle.
        rising: Share of `steps` before the highest rate.
    """
    if rising * steps == 1:  # torch divides by the length of the rise less 1
        rising *= 1 + 1e-9
    return OneCycleLR(optimizer, max_lr=rate, total_steps=steps, pct_start=rising)
