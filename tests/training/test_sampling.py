"""How often a figure is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atypia.config import OptimConfig
from atypia.training.distributed import World
from atypia.training.sampling import plan, row_weights
from atypia.training.task import MemberTask

# Of the training part two figures are of subtype 5 and six of subtype 6; six of domain 0, two of 1.
LABELS = np.array([5, 6, 6, 5, 6, 0, 6, 6, 6])
DOMAINS = np.array([0, 0, 0, 1, 0, 2, 0, 0, 1])
ROWS = np.array([0, 1, 2, 3, 4, 6, 7, 8])


def task() -> MemberTask:
    nothing: Any = None
    return MemberTask("", ROWS, np.array([5]), nothing, LABELS, 0, domains=DOMAINS)


def optim(**settings: float) -> OptimConfig:
    return OptimConfig(batch_size=2, epochs=1, **settings)  # type: ignore[arg-type]


def drawn(groups: np.ndarray, **settings: float) -> np.ndarray:
    weights = row_weights(task(), optim(**settings))
    assert weights is not None
    return np.bincount(groups[ROWS], weights)


@pytest.mark.parametrize(("power", "shares"), [(1, [1, 1]), (0.5, [3**0.5, 1])])
def test_rare_subtypes_are_drawn_more_often(power: float, shares: list[float]) -> None:
    shown = drawn(LABELS, sampling=power)[[6, 5]]
    np.testing.assert_allclose(shown / shown[1], shares)


@pytest.mark.parametrize(("power", "shares"), [(1, [1, 1]), (0.5, [3**0.5, 1])])
def test_small_domains_are_drawn_more_often(power: float, shares: list[float]) -> None:
    shown = drawn(DOMAINS, domain_balance=power)[[0, 1]]
    np.testing.assert_allclose(shown / shown[1], shares)


def test_within_a_domain_subtypes_keep_their_shares_and_both_can_be_balanced() -> None:
    weights = row_weights(task(), optim(domain_balance=1))
    assert weights is not None
    np.testing.assert_allclose(weights[[0, 1, 2, 4, 5, 6]], weights[0])  # domain 0
    both = row_weights(task(), optim(domain_balance=1, sampling=1))
    by_subtype = row_weights(task(), optim(sampling=1))
    assert both is not None and by_subtype is not None  # noqa: PT018 - for the types
    np.testing.assert_allclose(both, weights * by_subtype)


def test_without_a_wish_all_are_drawn_alike() -> None:
    assert row_weights(task(), optim()) is None


def test_processes_share_every_batch() -> None:
    whole = plan(task(), optim(domain_balance=1), 3, World())
    parts = [plan(task(), optim(domain_balance=1), 3, World(rank, 2)) for rank in range(2)]
    for name in ("samples", "passes"):
        joined = np.stack([getattr(part, name) for part in parts], axis=2)
        np.testing.assert_array_equal(joined.reshape(-1, 2), getattr(whole, name))


def test_the_rarer_side_is_drawn_more_often_and_its_subtypes_keep_their_shares() -> None:
    labels = np.array([0, 1, 6, 6, 6, 5, 6, 6, 6])
    nothing: Any = None
    own = MemberTask("", np.arange(9), np.array([5]), nothing, labels, 0, domains=DOMAINS)
    weights = row_weights(own, optim(sampling=1, sampling_of="side"))  # type: ignore[arg-type]
    assert weights is not None
    np.testing.assert_allclose(weights[:2].sum(), weights[2:].sum())
    np.testing.assert_allclose(weights[2:], weights[2])
