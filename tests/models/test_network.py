"""The head: one rater or several, and what of it is saved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from atypia.models.network import Network


class Pooled(nn.Module):
    """Stands for a backbone: (B, 3, S, S) to (B, 3)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


def network(n_raters: int) -> Network:
    torch.manual_seed(0)
    return Network(Pooled(), 3, 0.0, n_raters)


IMAGES = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("n_raters", [1, 2, 3])
def test_all_raters_score_while_it_learns_and_the_first_one_answers(n_raters: int) -> None:
    net = network(n_raters)
    learning = net.train()(IMAGES)
    answering = net.eval()(IMAGES)
    assert learning.shape == (5, 8 * n_raters)
    torch.testing.assert_close(answering, learning[:, :8])


def test_every_rater_starts_from_the_class_distribution() -> None:
    net = network(2)
    prior = torch.arange(1, 9) / 36
    net.start_from(prior)
    scores = net.train()(torch.zeros(1, 3, 4, 4)).view(2, 8).softmax(1)
    torch.testing.assert_close(scores, prior.expand(2, 8))


def test_the_saved_scores_are_those_of_a_network_of_one_rater() -> None:
    """Saving leaves the network that goes on learning as it is."""
    net, alone = network(2), network(1)
    alone.load_state_dict(net.answering_tensors())
    torch.testing.assert_close(alone.eval()(IMAGES), net.eval()(IMAGES))
    assert net.head.weight.shape == (16, 3)
    assert net.state_dict()["head.bias"].shape == (16,)
