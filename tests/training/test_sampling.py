"""How often a figure is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atypia.core.config import OptimConfig
from atypia.training.distributed import World
from atypia.training.epoch_batches import plan, row_weights
from atypia.training.member_tasks import MemberTask
from atypia.training.targets import Targets

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


def test_within_a_domain_subtypes_keep_their_shares_unless_both_are_balanced() -> None:
    weights = row_weights(task(), optim(domain_balance=1))
    assert weights is not None
    np.testing.assert_allclose(weights[[0, 1, 2, 4, 5, 6]], weights[0])  # domain 0
    # Domain 0 has one figure of subtype 5 and five of 6, domain 1 one of each.
    both = row_weights(task(), optim(domain_balance=1, sampling=1))
    assert both is not None
    np.testing.assert_allclose(both[0], both[[1, 2, 4, 5, 6]].sum())
    np.testing.assert_allclose(both[3], both[7])
    np.testing.assert_allclose(both[DOMAINS[ROWS] == 0].sum(), both[DOMAINS[ROWS] == 1].sum())


def test_a_domain_without_subtypes_is_shown_as_often_as_one_with_eight() -> None:
    labels = np.concatenate([np.arange(8), np.full(8, -1)])
    domains = np.repeat([0, 1], 8)
    nothing: Any = None
    mixed = MemberTask("", np.arange(16), np.array([0]), nothing, labels, 0, domains=domains)
    weights = row_weights(mixed, optim(domain_balance=1, sampling=1))
    np.testing.assert_allclose(weights, 1)


def test_without_a_wish_all_are_drawn_alike() -> None:
    assert row_weights(task(), optim()) is None


def test_processes_share_every_batch() -> None:
    whole = plan(task(), optim(domain_balance=1), 3, World())
    parts = [plan(task(), optim(domain_balance=1), 3, World(rank, 2)) for rank in range(2)]
    for name in ("samples", "passes"):
        joined = np.stack([getattr(part, name) for part in parts], axis=2)
        np.testing.assert_array_equal(joined.reshape(-1, 2), getattr(whole, name))


def test_the_rarer_side_by_most_votes_is_drawn_more_often() -> None:
    """Whatever the label says; a tie goes by the label, and who has no opinion is a third group."""
    labels = np.array([0, 1, 6, 6, 6, 5, 6, 6, -1, -1])
    votes = np.array([1, 0.3, 1, 0, 0, 0.5, 0, 0, 0, np.nan], np.float32)
    targets = Targets(np.zeros((10, 1, 8), np.float32), votes)
    own = MemberTask("", np.arange(10), np.array([5]), targets, labels, 0, domains=DOMAINS)
    weights = row_weights(own, optim(sampling=1, sampling_of="side"))  # type: ignore[arg-type]
    assert weights is not None
    atypical, normal = weights[[0, 2]], weights[[1, 3, 4, 5, 6, 7, 8]]
    np.testing.assert_allclose([atypical.sum(), normal.sum()], weights[9])
    np.testing.assert_allclose(atypical, atypical[0])
    np.testing.assert_allclose(normal, normal[0])
