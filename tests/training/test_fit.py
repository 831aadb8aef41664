"""The parts of the training loop that have an answer of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from atypia.config import load_config
from atypia.data.transforms import Augmenter
from atypia.errors import InputError
from atypia.training import fit as fit_module
from atypia.training.fit import _mixed, _size_px

if TYPE_CHECKING:
    from pathlib import Path


def sizes(steps: str, epochs: int, head_epochs: int = 0) -> list[int]:
    config = load_config(
        "quick", [f"optim.progressive={steps}", f"optim.epochs={epochs}", "input.size_px=96"]
    )
    return [_size_px(config.optim, epoch, 96) for epoch in range(-head_epochs, epochs)]


def test_the_input_grows_at_the_wanted_shares_of_the_epochs() -> None:
    assert sizes("[]", 3) == [96, 96, 96]
    assert sizes("[[0, 64], [0.5, 80], [0.75, 96]]", 8) == [64] * 4 + [80] * 2 + [96] * 2
    # The classification layer alone learns from what the network is to see in the end.
    assert sizes("[[0, 64], [0.5, 96]]", 4, head_epochs=2) == [96] * 2 + [64] * 2 + [96] * 2


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 7, 10])
def test_the_last_epoch_has_the_final_size_however_few_there_are(epochs: int) -> None:
    reached = sizes("[[0, 64], [0.5, 80], [0.9, 96]]", epochs)
    assert reached[-1] == 96
    assert reached == sorted(reached)


def test_mixup_joins_images_and_targets_with_the_same_partner() -> None:
    who = torch.eye(12)
    images, subtypes, atypical = _mixed(
        0.4, np.random.default_rng(0), who.view(12, 3, 2, 2), who[:, None], torch.arange(12.0)
    )
    shares = images.flatten(1)  # (12, 12) row i: how much of whom is in i
    torch.testing.assert_close(shares, subtypes[:, 0])
    torch.testing.assert_close(atypical, shares @ torch.arange(12.0))
    torch.testing.assert_close(shares.sum(0), torch.ones(12))  # nobody is lost
    torch.testing.assert_close(shares.sum(1), torch.ones(12))
    assert ((shares > 0).sum(1) <= 2).all()
    assert len(shares.diagonal()[shares.diagonal() < 1].unique()) == 1  # one share per batch
    (other,) = _mixed(0.4, np.random.default_rng(1), who)
    assert not torch.equal(other > 0, shares > 0)  # another batch, other partners


def test_mixup_mixes_by_a_beta_distribution() -> None:
    part = torch.tensor([0.0, 1.0])
    shares = []
    for seed in range(400):
        (mixed,) = _mixed(0.5, np.random.default_rng(seed), part)
        if mixed[0] != part[0]:  # partners, not each with itself
            shares.append(float(mixed[1]))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    assert np.var(shares) == pytest.approx(0.125, rel=0.15)  # of Beta(1/2, 1/2)


def test_a_vote_that_is_unknown_stays_unknown_when_mixed() -> None:
    votes = torch.tensor([1.0, float("nan"), 0.0])
    (mixed,) = _mixed(1.0, np.random.default_rng(1), votes)
    assert mixed[1].isnan()


class Seen(BaseException):
    """Stops a training at the first image."""


def test_the_views_of_an_epoch_have_its_size(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from atypia import pipeline

    def at_size(self: Augmenter, size_px: int) -> Augmenter:
        assert self.spec.size_px == 48
        assert self.styles is not None
        raise Seen(size_px)

    monkeypatch.setattr(fit_module.Augmenter, "at_size", at_size)
    settings = [*tiny, "input.size_px=48", "optim.progressive=[[0, 32], [0.5, 48]]"]
    with pytest.raises(Seen, match="32"):
        pipeline.train(
            cohort_folder, tmp_path / "run", load_config("quick", [*settings, "augment.style=1"])
        )


def test_a_backbone_of_one_size_does_not_grow(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    from atypia import pipeline

    settings = [
        *(*tiny, "model.backbone=test_vit", "input.size_px=64"),
        "optim.progressive=[[0, 32], [0.5, 64]]",
    ]
    with pytest.raises(InputError, match=r"optim\.progressive: test_vit"):
        pipeline.train(cohort_folder, tmp_path / "run", load_config("quick", settings))
