"""The checks find out a map that is not about the network, and let one pass that is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel
from scipy.stats import spearmanr
from spots import MPP, SIZE, TARGET, TinyConv, ensemble_of, red_network, spotted, trained
from torch import nn

from atypia.classifiers.ensemble import Ensemble
from atypia.explain import check, maps_by
from atypia.explain.faithful import STEPS, Grid, central_cells, curves, random_cells
from atypia.explain.randomise import randomised
from atypia.explain.sanity import LEAST_FIGURES, rank_correlation


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    return ensemble_of([trained(TinyConv(), 16, steps=150, seed=s) for s in (0, 1)])


@pytest.fixture(scope="module")
def figures() -> tuple[np.ndarray, np.ndarray]:
    patches, _ = spotted(16, seed=50)
    blue, _ = spotted(16, seed=70, colour=(30, 40, 220))
    changed = np.abs(blue.astype(int) - [30, 40, 220]).sum(3) == 0
    patches[changed] = blue[changed]  # something else to see, which is not evidence for TARGET
    return patches, np.full(16, TARGET, dtype=np.int64)


def edges(_: object, patches: np.ndarray, __: float, ___: np.ndarray) -> np.ndarray:
    """A pretty map that asks no network."""
    grey = patches.astype(np.float32).mean(3)
    return np.hypot(sobel(grey, axis=1), sobel(grey, axis=2))


def test_a_map_of_a_network_passes(ensemble: Ensemble, figures: tuple) -> None:
    sanity = check(ensemble, figures[0], MPP, figures[1], maps_by("gradcam"), shares=(0.5, 1.0))
    assert [step.share for step in sanity.randomisation] == [0.5, 1.0]
    assert sanity.judged
    assert sanity.passed
    assert sanity.deletion.map.value < sanity.deletion.random.value
    assert sanity.insertion.map.value > sanity.insertion.random.value
    assert sanity.deletion.gain.low > 0
    told = sanity.to_json()
    assert told["passed"] is True
    assert "mean_curves" not in told


def test_an_edge_detector_is_found_out(ensemble: Ensemble, figures: tuple) -> None:
    sanity = check(ensemble, figures[0], MPP, figures[1], edges)
    assert sanity.randomisation[-1].magnitude.value == pytest.approx(1)
    assert sanity.randomisation[-1].signed.value == pytest.approx(1)
    assert not sanity.depends_on_weights
    assert not sanity.passed


def test_a_map_that_points_elsewhere_is_found_out(ensemble: Ensemble, figures: tuple) -> None:
    generator = np.random.default_rng(0)

    def noise(_: object, patches: np.ndarray, __: float, ___: np.ndarray) -> np.ndarray:
        return generator.normal(size=patches.shape[:3])

    sanity = check(ensemble, figures[0], MPP, figures[1], noise)
    assert sanity.depends_on_weights  # it is another map each time
    assert not sanity.points_at_what_matters
    assert not sanity.passed

    def wrong(*asked: object) -> np.ndarray:
        return -maps_by("gradcam")(*asked)

    sanity = check(ensemble, figures[0], MPP, figures[1], wrong)
    assert sanity.deletion.gain.high < 0
    assert not sanity.passed


def test_few_figures_give_no_verdict(ensemble: Ensemble, figures: tuple) -> None:
    n = LEAST_FIGURES - 1
    sanity = check(ensemble, figures[0][:n], MPP, figures[1][:n], maps_by("gradcam"))
    assert not sanity.judged
    assert not sanity.passed


def test_the_same_seed_gives_the_same_check(ensemble: Ensemble, figures: tuple) -> None:
    def asked(seed: int) -> dict:
        return check(
            ensemble, figures[0][:8], MPP, figures[1][:8], maps_by("gradcam"), seed=seed
        ).to_json()

    assert asked(3) == asked(3)
    assert asked(3) != asked(4)


def test_shuffling_keeps_values_and_loses_their_order(ensemble: Ensemble, figures: tuple) -> None:
    before = [p.detach().clone() for p in ensemble.members[0].parameters()]
    forgot = randomised(ensemble, figures[0], MPP, seed=1)
    moved = 0
    for old, new in zip(before, forgot.members[0].parameters(), strict=True):
        assert torch.equal(old.flatten().sort().values, new.detach().flatten().sort().values)
        moved += not torch.equal(old, new)
    assert moved > len(before) / 2
    for old, kept in zip(before, ensemble.members[0].parameters(), strict=True):
        assert torch.equal(old, kept)
    # Batch norms of the copy fit what comes to them now.
    norm = forgot.members[0].backbone.first[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.momentum is not None
    assert not norm.training
    assert not torch.equal(norm.running_mean, ensemble.members[0].backbone.first[1].running_mean)


def test_a_cascade_begins_at_the_answer(ensemble: Ensemble, figures: tuple) -> None:
    half = randomised(ensemble, figures[0], MPP, share=0.5).members[0]
    original = ensemble.members[0]
    assert torch.equal(half.backbone.first[0].weight, original.backbone.first[0].weight)
    assert not torch.equal(half.backbone.second[0].weight, original.backbone.second[0].weight)
    assert not torch.equal(half.head.weight, original.head.weight)


def test_backbones_side_by_side_forget_alike(figures: tuple) -> None:
    separate = ensemble_of([red_network("separate")])
    forgot = randomised(separate, figures[0], MPP).members[0]
    for old, new in zip(
        separate.members[0].backbone.backbones, forgot.backbone.backbones, strict=True
    ):
        assert not torch.equal(old.find.weight, new.find.weight)


def test_curves_of_a_perfect_map_and_of_its_contrary() -> None:
    """The answer is the share of a known square that is visible."""
    patches, corners = spotted(3)
    grid = Grid.of((SIZE, SIZE), MPP, 16.0)
    assert grid.side == 16
    red = (patches == (230, 20, 40)).all(3)

    def answer(images: np.ndarray) -> np.ndarray:
        seen = (images == (230, 20, 40)).all(3) & red
        return seen.sum((1, 2)) / red.sum((1, 2))

    perfect = grid.mean(red.astype(np.float64))
    good, bad = (curves(answer, patches, grid, cells) for cells in (perfect, -perfect))
    assert (good.deletion[:, 0] == 1).all()
    assert (good.deletion[:, -1] == 0).all()
    assert (good.insertion[:, -1] == 1).all()
    # The square covers at most 16 of 256 cells: it is gone, and there, after the first step.
    np.testing.assert_allclose(good.deletion_area, 0.5 / STEPS)
    np.testing.assert_allclose(good.insertion_area, 1 - 0.5 / STEPS)
    assert (bad.deletion_area > 0.9).all()
    assert (bad.insertion_area < 0.1).all()
    assert corners.shape == (3, 2)


def test_cells_are_means_of_their_pixels() -> None:
    grid = Grid.of((10, 14), 1.0, 6.0)
    assert grid.side == 6
    maps = np.arange(140.0).reshape(1, 10, 14)
    np.testing.assert_array_equal(grid.mean(maps)[0], maps[0, 2:8, 4:10])
    coarse = Grid.of((8, 8), 0.25, 2.0)
    assert coarse.side == 2
    np.testing.assert_allclose(
        coarse.mean(np.arange(64.0).reshape(1, 8, 8))[0], [[13.5, 17.5], [45.5, 49.5]]
    )
    mask = coarse.mask(np.array([[[True, False], [False, False]]]), (8, 8))
    assert mask.sum() == 16
    assert mask[0, :4, :4].all()
    # A field of view larger than the patch: the patch is what there is.
    assert Grid.of((8, 8), 0.25, 99.0).side == 2


def test_rank_correlation_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 4, 5, 5)).round(1)
    expected = [spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(rank_correlation(one, other), expected)
    assert (rank_correlation(np.ones((2, 3, 3)), other[:2, :3, :3]) == 0).all()


def test_maps_to_compare_with_know_nothing() -> None:
    assert not np.array_equal(random_cells(2, 8, 0)[0], random_cells(2, 8, 0)[1])
    np.testing.assert_array_equal(random_cells(2, 8, 5), random_cells(2, 8, 5))
    middle = central_cells(1, 5)[0]
    assert np.unravel_index(middle.argmax(), middle.shape) == (2, 2)
