"""Two stages: their product, what teaches which of them, and that everything else takes them."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from atypia.classifiers.ensemble import Ensemble, load_network, predict_network, save_network
from atypia.core.config import InputConfig, LossConfig, ModelConfig
from atypia.core.errors import InputError
from atypia.models import lite
from atypia.models.hierarchical import SideBySide, StagedHead
from atypia.models.network import Network, make_network
from atypia.training.losses import SubtypeLoss

STAGES = ("shared", "separate")
IMAGES = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
PRIOR = torch.arange(1, 9) / 36


class Pooled(nn.Module):
    """Stands for a backbone: (B, 3, S, S) to (B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.mix(images.mean((2, 3))).tanh()


def network(stages: str, n_raters: int = 1, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    if stages == "separate":
        made = Network(SideBySide([Pooled() for _ in range(3)]), 15, 0.0, n_raters, "separate")
    else:
        made = Network(Pooled(), 5, 0.0, n_raters, stages)
    for parameter in made.head.parameters():
        nn.init.normal_(parameter)  # answers that differ
    return made


def parts(net: Network, images: torch.Tensor) -> list[torch.Tensor]:
    """The scores of each stage of a network of one rater, by hand."""
    head = net.head
    assert isinstance(head, StagedHead)
    backbones = list(net.backbone.backbones) if head.separate else [net.backbone] * 3
    layers = (head.side, head.atypical, head.normal)
    return [layer(backbone(images)) for layer, backbone in zip(layers, backbones, strict=True)]


@pytest.mark.parametrize("stages", STAGES)
def test_scores_are_the_logarithms_of_the_product(stages: str) -> None:
    net = network(stages).eval()
    side, atypical, normal = parts(net, IMAGES)
    p_side = side.sigmoid()
    product = torch.cat([p_side * atypical.softmax(1), (1 - p_side) * normal.softmax(1)], dim=1)
    scores = net(IMAGES)
    torch.testing.assert_close(scores.exp(), product)
    torch.testing.assert_close(scores.softmax(1), product)  # a softmax changes nothing
    torch.testing.assert_close(product.sum(1), torch.ones(6))


def test_far_scores_do_not_become_infinite() -> None:
    head = StagedHead(1)
    for parameter in head.parameters():
        nn.init.constant_(parameter, 0)
    nn.init.constant_(head.side.weight, 1)
    scores = head(torch.tensor([[200.0], [-200.0]]))
    assert scores.isfinite().all()
    np.testing.assert_allclose(scores[0, 4:].detach(), -200 - np.log(4), rtol=1e-6)


@given(
    seed=st.integers(0, 100),
    weighted=st.booleans(),
    votes=st.sampled_from([0.0, 0.5]),
    hard=st.booleans(),
)
def test_the_loss_is_the_sum_of_the_losses_of_the_stages(
    seed: int, weighted: bool, votes: float, hard: bool
) -> None:
    rng = np.random.default_rng(seed)
    target = rng.dirichlet(np.ones(8), 6)
    if hard:
        target = np.eye(8)[target.argmax(1)]
    targets = torch.tensor(target, dtype=torch.float32)
    share = torch.tensor(rng.random(6), dtype=torch.float32)
    net = network("shared", seed=seed).eval()
    config = LossConfig(class_weights="balanced" if weighted else "none", atypical=votes)
    loss_of = SubtypeLoss(config, PRIOR, torch.ones(2))
    whole = loss_of(net(IMAGES), targets[:, None], share)

    side, atypical, normal = parts(net, IMAGES)
    taught = targets * loss_of.weights
    mass = taught[:, :4].sum(1), taught[:, 4:].sum(1)
    log_side = functional.logsigmoid(side[:, 0]), functional.logsigmoid(-side[:, 0])
    of_side = -(mass[0] * log_side[0] + mass[1] * log_side[1])
    of_side -= votes * (share * log_side[0] + (1 - share) * log_side[1])
    of_subtypes = -(taught[:, :4] * atypical.log_softmax(1)).sum(1)
    of_subtypes -= (taught[:, 4:] * normal.log_softmax(1)).sum(1)
    torch.testing.assert_close(whole, (of_side + of_subtypes).mean())


def test_a_figure_of_one_side_teaches_nothing_of_the_subtypes_of_the_other() -> None:
    net = network("separate").train()
    targets = torch.eye(8)[[4, 5, 6, 7, 5, 6]][:, None]
    SubtypeLoss(LossConfig(atypical=0.5), PRIOR, torch.ones(2))(
        net(IMAGES), targets, torch.zeros(6)
    ).backward()
    gradients = [
        sum(float(p.grad.abs().sum()) for p in chain(backbone.parameters(), layer.parameters()))
        for backbone, layer in zip(
            net.backbone.backbones, (net.head.side, net.head.atypical, net.head.normal), strict=True
        )
    ]
    assert gradients[1] < 1e-6
    assert min(gradients[0], gradients[2]) > 1e-2


def test_one_loop_trains_three_networks_as_three_loops_would() -> None:
    """With AdamW; and a figure of the other side has no part in a stage's loss."""
    joint, alone = network("separate"), network("separate")
    rng = np.random.default_rng(0)
    batches = [
        (torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(i)), rng.integers(0, 8, 6))
        for i in range(12)
    ]
    optimizer = torch.optim.AdamW(joint.parameter_groups(0.05), lr=0.01)
    for images, labels in batches:
        optimizer.zero_grad()
        targets = torch.eye(8)[torch.from_numpy(labels)][:, None]
        SubtypeLoss(LossConfig(), PRIOR, torch.ones(2))(
            joint(images), targets, torch.full((6,), 0.5)
        ).backward()
        optimizer.step()

    layers = (alone.head.side, alone.head.atypical, alone.head.normal)
    for stage, (backbone, layer) in enumerate(zip(alone.backbone.backbones, layers, strict=True)):
        model = nn.Sequential(backbone, layer)
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.05},
                {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
            ],
            lr=0.01,
        )
        for images, labels in batches:
            optimizer.zero_grad()
            atypical = torch.from_numpy(labels < 4)
            if stage == 0:
                loss = functional.binary_cross_entropy_with_logits(
                    model(images)[:, 0], atypical.float()
                )
            else:
                mine = atypical if stage == 1 else ~atypical
                own = torch.from_numpy(labels % 4)[mine]
                each = functional.cross_entropy(model(images[mine]), own, reduction="sum")
                loss = each / len(labels)
            loss.backward()
            optimizer.step()
    for name, tensor in joint.state_dict().items():
        torch.testing.assert_close(tensor, alone.state_dict()[name], atol=2e-4, rtol=1e-3)
        assert not torch.allclose(tensor, network("separate").state_dict()[name], atol=2e-3), name


@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("n_raters", [1, 2])
def test_every_rater_starts_from_the_class_distribution(stages: str, n_raters: int) -> None:
    net = network(stages, n_raters)
    for layer in (net.head.side, net.head.atypical, net.head.normal):
        nn.init.zeros_(layer.weight)
    net.start_from(PRIOR)
    scores = net.train()(IMAGES).view(6, n_raters, 8).exp()
    torch.testing.assert_close(scores, PRIOR.expand(6, n_raters, 8))


@pytest.mark.parametrize("stages", STAGES)
def test_the_first_of_several_raters_answers_and_is_saved(stages: str) -> None:
    net, alone = network(stages, 3), network(stages, seed=1)
    learning, answering = net.train()(IMAGES), net.eval()(IMAGES)
    assert learning.shape == (6, 24)
    torch.testing.assert_close(learning[:, :8], answering)
    torch.testing.assert_close(learning.view(6, 3, 8).exp().sum(2), torch.ones(6, 3))
    alone.load_state_dict(net.answering_tensors())
    torch.testing.assert_close(alone.eval()(IMAGES), answering)


@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("backbone", ["test_convnext", "tf_efficientnet_lite0"])
def test_a_saved_network_answers_the_same(stages: str, backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ModelConfig(backbone=backbone, pretrained=False, reduction=None, stages=stages)
    made, spec, _ = make_network(model, InputConfig(field_of_view_um=18, size_px=32))
    for parameter in made.head.parameters():
        nn.init.normal_(parameter)
    patches = np.random.default_rng(0).integers(0, 256, (3, 80, 80, 3), dtype=np.uint8)
    expected = predict_network(made, patches, 0.25, spec, device=torch.device("cpu"))
    assert np.ptp(expected) > 0.05
    save_network(made, tmp_path / "m.safetensors")
    loaded = load_network(model, spec, tmp_path / "m.safetensors")
    is_lite = any(isinstance(m, lite.Lite) for m in loaded.modules())
    assert is_lite == (backbone == "tf_efficientnet_lite0")
    if is_lite:  # without timm, and with each batch norm in the convolution before it
        assert not any(isinstance(m, nn.BatchNorm2d) for m in lite.fused(loaded).modules())
    Ensemble([loaded], spec, model, False).save(tmp_path / "model")
    again = Ensemble.load(tmp_path / "model")
    assert again.model.stages == stages
    np.testing.assert_allclose(again.predict_proba(patches, 0.25), expected, atol=1e-5)


def test_separate_stages_begin_with_weights_of_their_own() -> None:
    model = ModelConfig(backbone="test_convnext", pretrained=False, stages="separate")
    made, _, _ = make_network(model, InputConfig(field_of_view_um=18, size_px=32))
    first, second, third = (b.state_dict()["stem.0.weight"] for b in made.backbone.backbones)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_a_head_without_stages_is_not_filled_with_one_that_has_them(tmp_path: Path) -> None:
    size = InputConfig(field_of_view_um=18, size_px=32)
    staged = ModelConfig(backbone="test_convnext", pretrained=False, stages="shared")
    made, spec, _ = make_network(staged, size)
    save_network(made, tmp_path / "m.safetensors")
    flat = staged.model_copy(update={"stages": "one"})
    with pytest.raises((InputError, RuntimeError), match=r"head\.side"):
        load_network(flat, spec, tmp_path / "m.safetensors")
