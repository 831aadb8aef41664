"""The learning rate over a training, down to the shortest ones."""

from __future__ import annotations

import pytest
import torch

from atypia.training.optimisation import one_cycle


def rates(steps: int, rising: float) -> list[float]:
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = one_cycle(optimizer, 1.0, steps, rising)
    seen = []
    for _ in range(steps):
        seen.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step() if len(seen) < steps else None
    return seen


@pytest.mark.parametrize(("steps", "rising"), [(4, 0.25), (5, 0.2), (2, 0.5), (1, 0.25), (3, 0.0)])
def test_a_cycle_of_a_few_steps_has_its_rates(steps: int, rising: float) -> None:
    """With a rise of one step torch's own schedule divides by zero."""
    seen = rates(steps, rising)
    assert max(seen) <= 1
    assert min(seen) >= 0


def test_the_rate_rises_and_falls_once() -> None:
    seen = rates(40, 0.25)
    top = seen.index(max(seen))
    assert top == 9
    assert seen[top] == pytest.approx(1)
    assert seen[: top + 1] == sorted(seen[: top + 1])
    assert seen[top:] == sorted(seen[top:], reverse=True)
    assert seen[-1] < 1e-3
