"""The loss against independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from atypia.config import LossConfig
from atypia.training.losses import SubtypeLoss

MASS = torch.tensor([59, 71, 154, 255, 253, 1349, 1527, 52.0])


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 8, generator=generator)
    return logits, torch.randint(8, (16,), generator=generator)


def test_plain_cross_entropy_is_torchs(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = batch
    loss = SubtypeLoss(LossConfig(), MASS).train()
    one_hot = functional.one_hot(labels, 8).float()
    torch.testing.assert_close(loss(logits, one_hot), functional.cross_entropy(logits, labels))
    soft = logits.flip(0).softmax(1)
    torch.testing.assert_close(loss(logits, soft), functional.cross_entropy(logits, soft))


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.repeat_interleave(torch.arange(8), MASS.long()).numpy()
    expected = compute_class_weight("balanced", classes=np.arange(8), y=labels)
    loss = SubtypeLoss(LossConfig(class_weights="balanced"), MASS)
    torch.testing.assert_close(loss.weights.double(), torch.from_numpy(expected), rtol=1e-5, atol=0)


def test_focal_loss_of_two_classes_is_torchvisions() -> None:
    """Two logits (0, z) are the sigmoid of z; all other classes are made impossible."""
    z = torch.linspace(-4, 4, 9)
    logits = torch.full((9, 8), -1e9)
    logits[:, 0], logits[:, 1] = 0, z
    targets = torch.zeros(9, 8)
    targets[:, 1] = 1
    loss = SubtypeLoss(LossConfig(kind="focal", focal_gamma=2), MASS)
    expected = sigmoid_focal_loss(z, torch.ones(9), alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(loss(logits, targets), expected)


def test_the_prior_is_what_the_loss_sees() -> None:
    plain = SubtypeLoss(LossConfig(), MASS)
    torch.testing.assert_close(plain.prior, MASS / MASS.sum())
    balanced = SubtypeLoss(LossConfig(class_weights="balanced"), MASS)
    torch.testing.assert_close(balanced.prior, torch.full((8,), 1 / 8))


def test_gradients_stay_finite_at_certainty() -> None:
    logits = torch.zeros(1, 8)
    logits[0, 0] = 200
    logits.requires_grad_()
    targets = torch.eye(8)[[0]]
    SubtypeLoss(LossConfig(kind="focal", focal_gamma=0.5), MASS)(logits, targets).backward()
    assert torch.isfinite(logits.grad).all()
