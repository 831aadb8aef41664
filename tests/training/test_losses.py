"""The loss against independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from atypia.core.config import LossConfig
from atypia.training.losses import SubtypeLoss

MASS = torch.tensor([59, 71, 154, 255, 253, 1349, 1527, 52.0])
SIDES = torch.tensor([833.0, 2887])
NO_VOTES = torch.full((16,), torch.nan)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 8, generator=generator)
    return logits, torch.randint(8, (16,), generator=generator)


def test_plain_cross_entropy_is_torchs(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = batch
    loss = SubtypeLoss(LossConfig(), MASS, SIDES).train()
    one_hot = functional.one_hot(labels, 8).float()
    torch.testing.assert_close(
        loss(logits, one_hot[:, None], NO_VOTES), functional.cross_entropy(logits, labels)
    )
    soft = logits.flip(0).softmax(1)
    torch.testing.assert_close(
        loss(logits, soft[:, None], NO_VOTES), functional.cross_entropy(logits, soft)
    )


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.repeat_interleave(torch.arange(8), MASS.long()).numpy()
    expected = compute_class_weight("balanced", classes=np.arange(8), y=labels)
    loss = SubtypeLoss(LossConfig(class_weights="balanced"), MASS, SIDES)
    torch.testing.assert_close(loss.weights.double(), torch.from_numpy(expected), rtol=1e-5, atol=0)


def test_focal_loss_of_two_classes_is_torchvisions() -> None:
    """Two logits (0, z) are the sigmoid of z; all other classes are made impossible."""
    z = torch.linspace(-4, 4, 9)
    logits = torch.full((9, 8), -1e9)
    logits[:, 0], logits[:, 1] = 0, z
    targets = torch.zeros(9, 1, 8)
    targets[:, 0, 1] = 1
    loss = SubtypeLoss(LossConfig(kind="focal", focal_gamma=2), MASS, SIDES)
    expected = sigmoid_focal_loss(z, torch.ones(9), alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(loss(logits, targets, NO_VOTES[:9]), expected)


def test_the_prior_is_what_the_loss_sees() -> None:
    plain = SubtypeLoss(LossConfig(), MASS, SIDES)
    torch.testing.assert_close(plain.prior, MASS / MASS.sum())
    balanced = SubtypeLoss(LossConfig(class_weights="balanced"), MASS, SIDES)
    torch.testing.assert_close(balanced.prior, torch.full((8,), 1 / 8))


@pytest.mark.parametrize("atypical", [0.0, 0.5])
@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_gradients_stay_finite_at_certainty(gamma: float, atypical: float) -> None:
    logits = torch.zeros(2, 8)
    logits[:, 0] = 200
    logits.requires_grad_()
    targets = torch.eye(8)[[0, 7]][:, None]
    config = LossConfig(kind="focal", focal_gamma=gamma, atypical=atypical)
    loss = SubtypeLoss(config, MASS, SIDES)(logits, targets, torch.tensor([1.0, 0.0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def two_raters(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (16, 16), subtypes (16, 2, 8) and their labels (16, 2)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(8, (16, 2), generator=generator)
    logits = torch.randn(16, 16, generator=generator)
    return logits, functional.one_hot(labels, 8).float(), labels


def test_two_raters_cost_the_mean_of_their_cross_entropies() -> None:
    logits, subtypes, labels = two_raters()
    expected = (
        functional.cross_entropy(logits[:, :8], labels[:, 0])
        + functional.cross_entropy(logits[:, 8:], labels[:, 1])
    ) / 2
    loss_of = SubtypeLoss(LossConfig(), MASS, SIDES)
    torch.testing.assert_close(loss_of(logits, subtypes, NO_VOTES), expected)


@pytest.mark.parametrize("config", [LossConfig(), LossConfig(kind="focal")])
def test_a_rater_who_said_nothing_does_not_count(config: LossConfig) -> None:
    """A row with one answer weighs as much as one with two, and the other head learns nothing."""
    logits, subtypes, _ = two_raters()
    subtypes[:5, 0], subtypes[5:9, 1] = 0, 0
    loss_of = SubtypeLoss(config, MASS, SIDES)
    logits.requires_grad_()
    loss = loss_of(logits, subtypes, NO_VOTES)
    loss.backward()
    assert (logits.grad[:5, :8] == 0).all()
    assert (logits.grad[5:9, 8:] == 0).all()
    assert (logits.grad[:5, 8:] != 0).all()
    rows = []
    for i in range(16):
        answers = [
            loss_of(logits[[i], 8 * r : 8 * r + 8], subtypes[[i], r : r + 1], NO_VOTES[:1])
            for r in range(2)
            if subtypes[i, r].any()
        ]
        rows.append(sum(answers) / len(answers))
    torch.testing.assert_close(loss, torch.stack(rows).mean())


def test_the_atypical_term_is_torchs_binary_cross_entropy_of_the_summed_probabilities(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, labels = batch
    subtypes = functional.one_hot(labels, 8).float()[:, None]
    share = torch.linspace(0, 1, 16)
    loss = SubtypeLoss(LossConfig(atypical=0.7), MASS, SIDES)(logits, subtypes, share)
    p = logits.softmax(1)[:, :4].sum(1)
    expected = functional.cross_entropy(logits, labels) + 0.7 * functional.binary_cross_entropy(
        p, share
    )
    torch.testing.assert_close(loss, expected)


def test_the_atypical_term_is_the_answering_raters_alone() -> None:
    logits, subtypes, _ = two_raters()
    share = torch.rand(16, generator=torch.Generator().manual_seed(2))
    term = SubtypeLoss(LossConfig(atypical=1), MASS, SIDES)(logits, subtypes, share) - SubtypeLoss(
        LossConfig(), MASS, SIDES
    )(logits, subtypes, share)
    p = logits[:, :8].softmax(1)[:, :4].sum(1)
    torch.testing.assert_close(term, functional.binary_cross_entropy(p, share))


def test_a_figure_without_a_vote_adds_nothing_to_the_atypical_term(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, labels = batch
    logits.requires_grad_()
    nothing = torch.zeros(16, 1, 8)
    share = (labels < 4).float()
    share[4:] = torch.nan
    loss = SubtypeLoss(LossConfig(atypical=1), MASS, SIDES)(logits, nothing, share)
    p = logits[:4].softmax(1)[:, :4].sum(1)
    expected = functional.binary_cross_entropy(p, share[:4], reduction="sum") / 16
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (logits.grad[4:] == 0).all()


def test_a_vote_without_a_subtype_teaches_by_the_atypical_term_alone(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """It lifts the four atypical scores in the proportion that they already have."""
    logits, _ = batch
    nothing, votes = torch.zeros(16, 1, 8), torch.ones(16)
    gradients = []
    for weight in (0.0, 1.0):
        fresh = logits.clone().requires_grad_()
        SubtypeLoss(LossConfig(atypical=weight), MASS, SIDES)(fresh, nothing, votes).backward()
        gradients.append(fresh.grad)
    assert (gradients[0] == 0).all()
    assert (gradients[1][:, :4] < 0).all()
    assert (gradients[1][:, 4:] > 0).all()
    inside = logits[:, :4].softmax(1)
    lifted = gradients[1][:, :4] / gradients[1][:, :4].sum(1, keepdim=True)
    torch.testing.assert_close(lifted, inside)


def test_the_balanced_weights_hold_for_every_rater_and_not_for_the_atypical_term() -> None:
    logits, subtypes, labels = two_raters()
    share = (labels[:, 0] < 4).float()
    loss = SubtypeLoss(LossConfig(class_weights="balanced", atypical=1), MASS, SIDES)
    heads = [
        functional.cross_entropy(
            logits[:, 8 * r : 8 * r + 8], labels[:, r], weight=loss.weights, reduction="sum"
        )
        for r in range(2)
    ]
    p = logits[:, :8].softmax(1)[:, :4].sum(1)
    expected = sum(heads) / 32 + functional.binary_cross_entropy(p, share)
    torch.testing.assert_close(loss(logits, subtypes, share), expected)


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_on_the_sides_it_is_torchs_binary_cross_entropy_against_the_majority(weights: str) -> None:
    config = LossConfig(of="sides", class_weights=weights)  # type: ignore[arg-type]
    logits = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    share = torch.tensor([1 / 3, 2 / 3, 1.0, 0.0, 0.5, torch.nan])
    subtypes = torch.eye(8)[:6, None]
    loss = SubtypeLoss(config, MASS, SIDES)
    given = loss(logits, subtypes, share)
    p = logits.softmax(1)[:, :4].sum(1)
    atypical = float(SIDES[0] / SIDES.sum())  # of the votes, not of the subtypes
    of_side = torch.tensor(
        [0.5 / atypical, 0.5 / (1 - atypical)] if weights == "balanced" else [1.0, 1.0]
    )
    target = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.5])
    terms = of_side[0] * target * p[:5].log() + of_side[1] * (1 - target) * (1 - p[:5]).log()
    torch.testing.assert_close(given, -terms.sum() / 6)  # who has no vote adds nothing
    given.backward()
    assert logits.grad is not None
    assert not logits.grad[5].any()
    weighed = float(0.5 if weights == "balanced" else atypical)
    torch.testing.assert_close(loss.prior[:4], weighed * MASS[:4] / MASS[:4].sum())
    torch.testing.assert_close(loss.prior.sum(), torch.tensor(1.0))


def test_on_the_sides_the_focal_loss_is_torchvisions() -> None:
    config = LossConfig(of="sides", kind="focal", focal_gamma=2.0)
    logits = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    majority = torch.tensor([0.0, 1, 1, 0, 1, 0])
    given = SubtypeLoss(config, MASS, SIDES)(logits, torch.eye(8)[:6, None], majority)
    binary = logits[:, :4].logsumexp(1) - logits[:, 4:].logsumexp(1)
    expected = sigmoid_focal_loss(binary, majority, alpha=-1, gamma=2.0, reduction="mean")
    torch.testing.assert_close(given, expected)


def test_two_stages_learn_nothing_within_a_side_that_is_not_asked_for() -> None:
    from atypia.models.hierarchical import StagedHead

    torch.manual_seed(0)
    head = StagedHead(5)
    scores = head(torch.randn(6, 5))
    SubtypeLoss(LossConfig(of="sides"), MASS, SIDES)(
        scores, torch.eye(8)[:6, None], torch.tensor([0.0, 1, 1, 0, 1, 0])
    ).backward()
    assert head.side.weight.grad is not None
    assert head.side.weight.grad.abs().max() > 1e-3
    for layer in (head.atypical, head.normal):
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().max() < 1e-6
