"""MixUp and CutMix: who is in whose image, and in whose target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from atypia.core.config import AugmentConfig
from atypia.training.epoch_batches import cutmix, mixed, mixup

if TYPE_CHECKING:
    from collections.abc import Callable


def test_mixup_joins_images_and_targets_with_the_same_partner() -> None:
    who = torch.eye(12)
    images, subtypes, atypical = mixup(
        0.4, np.random.default_rng(0), who.view(12, 3, 2, 2), who[:, None], torch.arange(12.0)
    )
    shares = images.flatten(1)  # (12, 12) row i: how much of whom is in i
    torch.testing.assert_close(shares, subtypes[:, 0])
    torch.testing.assert_close(atypical, shares @ torch.arange(12.0))
    torch.testing.assert_close(shares.sum(0), torch.ones(12))  # nobody is lost
    torch.testing.assert_close(shares.sum(1), torch.ones(12))
    assert ((shares > 0).sum(1) <= 2).all()
    assert len(shares.diagonal()[shares.diagonal() < 1].unique()) == 1  # one share per batch
    (other,) = mixup(0.4, np.random.default_rng(1), who)
    assert not torch.equal(other > 0, shares > 0)  # another batch, other partners


def test_mixup_mixes_by_a_beta_distribution() -> None:
    part = torch.tensor([0.0, 1.0])
    shares = []
    for seed in range(400):
        (images,) = mixup(0.5, np.random.default_rng(seed), part)
        if images[0] != part[0]:  # partners, not each with itself
            shares.append(float(images[1]))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    assert np.var(shares) == pytest.approx(0.125, rel=0.15)  # of Beta(1/2, 1/2)


def test_a_vote_that_is_unknown_stays_unknown_whenmixup() -> None:
    votes = torch.tensor([1.0, float("nan"), 0.0])
    (mixed,) = mixup(1.0, np.random.default_rng(1), votes)
    assert mixed[1].isnan()


def test_cutmix_sets_one_rectangle_of_the_partner_into_each_image() -> None:
    who = torch.arange(12.0)
    images = who[:, None, None, None].expand(12, 3, 20, 16).clone()
    before = images.clone()
    shared = 0
    for seed in range(30):
        cut, subtypes, votes = cutmix(
            1.0, np.random.default_rng(seed), images, torch.eye(12)[:, None], who
        )
        assert torch.equal(images, before)  # the batch that came is as it was
        foreign = cut != images  # (12, 3, 20, 16)
        for i in range(12):
            assert set(cut[i].unique().tolist()) <= {float(i), *cut[i][foreign[i]].tolist()}
            assert len(cut[i].unique()) <= 2  # one partner
            rows, columns = foreign[i, 0].any(dim=1), foreign[i, 0].any(dim=0)
            assert torch.equal(foreign[i, 0], rows[:, None] & columns)  # a rectangle, ...
            for line in (rows, columns):  # ... whole
                assert line.int().diff().abs().sum() <= 2
        # Targets by area: what share of the pixels shows whom.
        area = torch.stack([(cut[:, 0] == other).float().mean((1, 2)) for other in who], dim=1)
        torch.testing.assert_close(subtypes[:, 0], area)
        torch.testing.assert_close(votes, area @ who)
        shared += len(area[area > 0].unique()) > 1
    assert shared > 20  # and not always the whole image, or none of it


def test_cutmix_cuts_by_a_beta_distribution_and_anywhere() -> None:
    images = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 64, 64)
    where, shares = np.zeros((64, 64)), []
    for seed in range(2000):
        cut, target = cutmix(1.0, np.random.default_rng(seed), images, images[:, 0, 0, 0])
        if cut[0].any():  # partners, not each with itself
            where += cut[0, 0].numpy()
            shares.append(float(target[0]))
    # A square of side r around a uniform centre keeps r - r**2 / 4 of each side, and Beta(1, 1) of
    # its area makes that E[(sqrt(u) - u / 4)**2] = 1/2 - 1/5 + 1/48 of the image.
    assert np.mean(shares) == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.03)
    where /= len(shares)
    assert where[28:36, 28:36].mean() > where[:8, :8].mean() > 0.05
    np.testing.assert_allclose(where, where[::-1, ::-1], atol=0.08)


def test_with_both_each_batch_takes_one_of_them() -> None:
    images = torch.rand(8, 3, 16, 16)
    taken = []
    for seed in range(60):
        config = AugmentConfig(mixup=1, cutmix=1)
        (joined,) = mixed(config, np.random.default_rng(seed), images)
        old = torch.isin(joined, images).float().mean()  # CutMix leaves every pixel as it was
        taken.append("cutmix" if old == 1 else "mixup")
    assert 18 <= taken.count("cutmix") <= 42
    (untouched,) = mixed(AugmentConfig(), np.random.default_rng(0), images)
    assert untouched is images


@pytest.mark.parametrize(("name", "method"), [("mixup", mixup), ("cutmix", cutmix)])
def test_one_alone_is_always_taken(name: str, method: Callable[..., Any]) -> None:
    images, targets = torch.rand(8, 3, 16, 16), torch.rand(8, 8)
    for seed in range(10):
        config = AugmentConfig.model_validate({name: 0.4})
        got = mixed(config, np.random.default_rng(seed), images, targets)
        expected = method(0.4, np.random.default_rng(seed), images, targets)
        for ours, theirs in zip(got, expected, strict=True):
            assert torch.equal(ours, theirs)
