"""The field of view, augmentation, and symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atypia.config import AugmentConfig, InputSpec
from atypia.data.transforms import Augmenter, dihedral, normalise, sample_field

HALF = (0.5, 0.5, 0.5)


def spec(field: float = 16, size: int = 64) -> InputSpec:
    return InputSpec(field_of_view_um=field, size_px=size, mean=HALF, std=HALF)


def patches(n: int, side: int = 96, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8))


ALL = AugmentConfig(flip=True, rotate=True, scale=0.2, shift_um=1, optical_density=0.2, noise=0.05)


def test_without_resampling_the_field_is_the_central_crop() -> None:
    pixels = patches(2)
    field = sample_field(pixels, 0.25, spec(16, 64))  # 64 px of the patch to 64 px
    expected = pixels[:, 16:80, 16:80].permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(field, expected, atol=1e-5, rtol=0)


def test_a_resolution_from_a_table_is_as_good_as_any() -> None:
    """Tables hand out NumPy's 64-bit numbers; they must not turn the images into 64-bit ones."""
    assert sample_field(patches(1), np.float64(0.25), spec()).dtype == torch.float32


def test_the_field_has_the_same_extent_at_any_resolution() -> None:
    """A disc of 4 µm radius covers the same share of the field whatever the patch's mpp."""
    shares = []
    for mpp, side in ((0.25, 128), (0.5, 64), (0.125, 256)):
        axis = (np.arange(side) - (side - 1) / 2) * mpp
        disc = np.hypot(*np.meshgrid(axis, axis)) < 4
        image = torch.from_numpy((disc * 255).astype(np.uint8))[None, ..., None].expand(
            -1, -1, -1, 3
        )
        shares.append(float(sample_field(image, mpp, spec(16, 64)).mean()))
    np.testing.assert_allclose(shares, np.pi * 16 / 256, rtol=0.05)


def test_normalise_maps_to_the_backbones_scale() -> None:
    assert normalise(torch.ones(1, 3, 2, 2), spec()).unique().tolist() == [1.0]
    assert normalise(torch.zeros(1, 3, 2, 2), spec()).unique().tolist() == [-1.0]


def test_dihedral_gives_eight_different_views_identity_first() -> None:
    image = torch.arange(27.0).view(1, 3, 3, 3)
    views = list(dihedral(image))
    assert torch.equal(views[0], image)
    assert len({tuple(v.flatten().tolist()) for v in views}) == 8


def test_a_sample_is_augmented_alike_in_any_batch_and_order() -> None:
    augment = Augmenter(ALL, spec(), seed=3)
    pixels = patches(6)
    names, passes = np.arange(6), np.full(6, 2)
    together = augment(pixels, 0.25, names, passes)
    order = torch.tensor([4, 1, 5])
    apart = Augmenter(ALL, spec(), seed=3)(pixels[order], 0.25, names[order], passes[order])
    torch.testing.assert_close(apart, together[order], atol=1e-6, rtol=0)


@pytest.mark.parametrize("change", ["seed", "pass", "sample"])
def test_seed_pass_and_sample_each_change_the_draw(change: str) -> None:
    pixels = patches(1)
    first = Augmenter(ALL, spec(), 0)(pixels, 0.25, np.array([0]), np.array([0]))
    second = Augmenter(ALL, spec(), int(change == "seed"))(
        pixels, 0.25, np.array([int(change == "sample")]), np.array([int(change == "pass")])
    )
    assert (first - second).abs().mean() > 0.01


def test_no_augmentation_is_the_plain_field() -> None:
    nothing = AugmentConfig(flip=False, rotate=False)
    pixels = patches(3)
    augmented = Augmenter(nothing, spec(), 0)(pixels, 0.25, np.arange(3), np.zeros(3, int))
    torch.testing.assert_close(augmented, normalise(sample_field(pixels, 0.25, spec()), spec()))


def test_rotation_and_flip_keep_a_centred_disc() -> None:
    axis = np.arange(96) - 47.5
    disc = (np.hypot(*np.meshgrid(axis, axis)) < 20).astype(np.uint8) * 255
    pixels = torch.from_numpy(disc)[None, ..., None].expand(8, -1, -1, 3)
    turned = Augmenter(AugmentConfig(flip=True, rotate=True), spec(), 0)(
        pixels, 0.25, np.arange(8), np.zeros(8, int)
    )
    plain = normalise(sample_field(pixels, 0.25, spec()), spec())
    assert (turned - plain).abs().mean() < 0.05  # the edge of the disc, pixel by pixel


def test_stain_jitter_leaves_white_white_and_scales_density() -> None:
    config = AugmentConfig(flip=False, rotate=False, optical_density=0.3)
    white = torch.full((4, 96, 96, 3), 255, dtype=torch.uint8)
    images = Augmenter(config, spec(), 0)(white, 0.25, np.arange(4), np.zeros(4, int))
    assert images.min() > 0.75  # the offset alone, a tenth of the factor
    grey = torch.full((64, 96, 96, 3), 100, dtype=torch.uint8)
    images = Augmenter(config, spec(), 0)(grey, 0.25, np.arange(64), np.zeros(64, int))
    density = -torch.log((images[:, :, 0, 0] + 1) / 2)
    assert 0.2 < float((density / -np.log(100 / 255)).std()) < 0.4


def test_a_finer_scan_is_averaged_not_thinned_out() -> None:
    """Noise of single pixels at 0.05 µm is averaged away when the network sees 0.25 µm."""
    field = sample_field(patches(1, side=640), 0.05, spec(16, 64))
    assert field.std() < 0.12  # of single pixels it is 0.29
