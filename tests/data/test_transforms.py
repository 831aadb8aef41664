"""The field of view, augmentation, and symmetry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional
from torchvision.transforms.v2.functional import gaussian_blur

from atypia.core.config import AugmentConfig, InputSpec
from atypia.models.transforms import (
    Augmenter,
    colour_styles,
    dihedral,
    normalise,
    optical_density,
    sample_field,
)

HALF = (0.5, 0.5, 0.5)


def spec(field: float = 16, size: int = 64) -> InputSpec:
    return InputSpec(field_of_view_um=field, size_px=size, mean=HALF, std=HALF)


def patches(n: int, side: int = 96, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8))


ALL = AugmentConfig(
    flip=True,
    rotate=True,
    scale=0.2,
    shift_um=1,
    optical_density=0.2,
    stain=0.1,
    style=0.5,
    blur_um=0.5,
    noise=0.05,
)
STYLES = colour_styles(patches(5, seed=9).numpy())


def colour_only(**changes: Any) -> AugmentConfig:
    return AugmentConfig(flip=False, rotate=False, **changes)


def plain_rgb(pixels: torch.Tensor) -> torch.Tensor:
    """What `colour_only` starts from: the central field, (B, 3, 32, 32) in 0..1."""
    return sample_field(pixels, 0.25, spec(8, 32))


def augmented_rgb(
    config: AugmentConfig,
    pixels: torch.Tensor,
    styles: torch.Tensor | None = None,
    seed: int = 0,
    **draws: float,
) -> torch.Tensor:
    """Views in 0..1. `draws`, named ``u<column>``, replace random numbers by chosen ones."""
    augment = Augmenter(config, spec(8, 32), seed, styles)
    if draws:
        original = augment._draw

        def chosen(*args: Any) -> Any:
            uniform = original(*args)
            for name, value in draws.items():
                uniform[:, int(name[1:])] = value
            return uniform

        augment._draw = chosen  # type: ignore[method-assign]
    n = len(pixels)
    return augment(pixels, 0.25, np.arange(n), np.zeros(n, int)) / 2 + 0.5


DYES = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


def stained(n: int, seed: int = 0) -> torch.Tensor:
    """Patches of random amounts of the three dyes, dark and bright enough never to saturate."""
    amounts = np.random.default_rng(seed).uniform(0.2, 0.6, (n, 40, 40, 3))
    return torch.from_numpy(np.round(255 * np.exp(-amounts @ DYES)).astype(np.uint8))


def amounts_of(images: torch.Tensor) -> np.ndarray:
    """Amounts of haematoxylin, eosin and residual, (B, 3, S * S), by solving Beer-Lambert's law."""
    density = -np.log(images.double().flatten(2).numpy())
    unit = DYES / np.linalg.norm(DYES, axis=1, keepdims=True)
    return np.linalg.solve(unit.T[None], density)


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
    augment = Augmenter(ALL, spec(), 3, STYLES)
    pixels = patches(6)
    names, passes = np.arange(6), np.full(6, 2)
    together = augment(pixels, 0.25, names, passes)
    order = torch.tensor([4, 1, 5])
    apart = Augmenter(ALL, spec(), 3, STYLES)(pixels[order], 0.25, names[order], passes[order])
    torch.testing.assert_close(apart, together[order], atol=1e-6, rtol=0)


@pytest.mark.parametrize("change", ["seed", "pass", "sample"])
def test_seed_pass_and_sample_each_change_the_draw(change: str) -> None:
    pixels = patches(1)
    first = Augmenter(ALL, spec(), 0, STYLES)(pixels, 0.25, np.array([0]), np.array([0]))
    second = Augmenter(ALL, spec(), int(change == "seed"), STYLES)(
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


def test_optical_density_is_the_logarithm_of_grey_levels() -> None:
    grey = torch.tensor([0, 1 / 256, 0.5, 1, 1.2])
    expected = [np.log(256), np.log(256), np.log(2), 0, 0]
    np.testing.assert_allclose(optical_density(grey), expected, atol=1e-6)


def test_styles_are_mean_and_deviation_of_the_density() -> None:
    pixels = patches(300, side=8)  # more than one block
    styles = colour_styles(pixels.numpy())
    density = -np.log(np.clip(pixels.numpy() / 255, 1 / 256, 1)).reshape(300, 64, 3)
    assert styles.shape == (300, 2, 3)
    np.testing.assert_allclose(styles[:, 0], density.mean(1), rtol=1e-5)
    np.testing.assert_allclose(styles[:, 1], density.std(1, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_stain_jitter_scales_each_dye_and_adds_a_little_of_it(seed: int) -> None:
    """Per sample: amount_after = factor * amount_before + offset, for every dye on its own."""
    n, deviation = 60, 0.1
    pixels = stained(n, seed)
    before = amounts_of(plain_rgb(pixels))
    after = amounts_of(augmented_rgb(colour_only(stain=deviation), pixels, seed=seed))
    factors, offsets = np.empty((n, 3)), np.empty((n, 3))
    for i in range(n):
        for dye in range(3):
            design = np.c_[before[i].T, np.ones(before.shape[2])]
            found, residual, *_ = np.linalg.lstsq(design, after[i, dye], rcond=None)
            assert residual < 1e-6
            factors[i, dye], offsets[i, dye] = found[dye], found[3]
            np.testing.assert_allclose(np.delete(found[:3], dye), 0, atol=1e-4)
    np.testing.assert_allclose(factors.std(), deviation, rtol=0.15)
    np.testing.assert_allclose(offsets.std(), deviation / 10, rtol=0.15)
    np.testing.assert_allclose(factors.mean(), 1, atol=0.03)
    assert np.abs(np.corrcoef(np.hstack([factors, offsets]).T) - np.eye(6)).max() < 0.5


@pytest.mark.parametrize("name", ["stain", "optical_density"])
def test_a_draw_in_the_middle_changes_no_colour(name: str) -> None:
    pixels = stained(3)
    middle = {f"u{column}": 0.5 for column in (*range(5, 11), *range(16, 22))}
    images = augmented_rgb(colour_only(**{name: 0.3}), pixels, **middle)
    torch.testing.assert_close(images, plain_rgb(pixels), atol=1e-5, rtol=0)


def test_style_dyes_and_channels_are_changed_one_after_the_other() -> None:
    """In one map; with the same draws each change alone is known from what it does to a patch."""
    pixels, styles = stained(3), colour_styles(stained(1, seed=1).numpy() // 4 * 3)
    draws = {"u13": 0.0, "u15": 0.6} | {
        f"u{c}": 0.05 + c / 23 for c in (*range(5, 11), *range(16, 22))
    }

    def density(**changes: float) -> np.ndarray:
        images = augmented_rgb(colour_only(**changes), pixels, styles, **draws)
        return -np.log(images.double().flatten(2).numpy()).swapaxes(1, 2)  # (B, pixels, 3)

    expected = density(style=1)
    for changes in ({"stain": 0.1}, {"optical_density": 0.1}):
        before, after = density().reshape(-1, 3), density(**changes).reshape(-1, 3)
        affine = np.linalg.lstsq(np.c_[before, np.ones(len(before))], after, rcond=None)[0]
        expected = expected @ affine[:3] + affine[3]
    together = density(style=1, stain=0.1, optical_density=0.1)
    np.testing.assert_allclose(together, expected, atol=1e-4)
    assert np.abs(together - density(style=1)).mean() > 0.01


def mean_density(images: torch.Tensor) -> torch.Tensor:
    return -torch.log(images).mean((2, 3))


def test_a_style_taken_on_entirely_gives_the_other_patchs_density() -> None:
    """Mean and deviation, where the deviations are within a factor of two."""
    pixels, others = stained(4), stained(3, seed=1) // 4 * 3
    styles = colour_styles(others[:, 4:36, 4:36].numpy())
    images = augmented_rgb(colour_only(style=1), pixels, styles, u13=0, u14=0.5, u15=1)
    torch.testing.assert_close(mean_density(images), styles[1, 0].expand(4, 3), atol=1e-4, rtol=0)
    spread = (-torch.log(images)).flatten(2)
    torch.testing.assert_close(spread.std(2), styles[1, 1].expand(4, 3), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("ratio", "expected"), [(5.0, 2.0), (0.1, 0.5), (1.5, 1.5)])
def test_a_style_changes_the_contrast_by_a_factor_of_two_at_most(
    ratio: float, expected: float
) -> None:
    pixels = stained(2)
    own = colour_styles(pixels[:, 4:36, 4:36].numpy())[:1]
    styles = own * torch.tensor([1, ratio])[None, :, None]
    images = augmented_rgb(colour_only(style=1), pixels[:1], styles, u13=0, u15=1)
    spread = (-torch.log(images)).flatten(2).std(2)
    torch.testing.assert_close(spread, own[:, 1] * expected, atol=1e-4, rtol=2e-3)


def test_a_style_is_approached_by_a_random_part_of_the_way() -> None:
    """Each channel by the same part; no patch beyond the other's colours."""
    pixels = stained(64)
    style = colour_styles(stained(1, seed=1).numpy() // 2 + 60)
    own = mean_density(plain_rgb(pixels))
    taken = mean_density(augmented_rgb(colour_only(style=1), pixels, style))
    part = (taken - own) / (style[:, 0] - own)
    torch.testing.assert_close(part, part[:, :1].expand(64, 3), atol=2e-3, rtol=0)
    assert -0.01 < part.min() < 0.1
    assert 0.9 < part.max() < 1.01


def test_the_share_of_patches_that_take_on_a_style() -> None:
    pixels = stained(1).expand(200, -1, -1, -1)
    style = colour_styles(stained(1, seed=1).numpy() // 2 + 60)
    images = augmented_rgb(colour_only(style=0.3), pixels, style)
    changed = (images - plain_rgb(pixels)).abs().amax((1, 2, 3)) > 1e-4
    assert 0.2 < float(changed.float().mean()) < 0.4  # three deviations


def test_every_patch_lends_its_style() -> None:
    """Deviations that are all their own tell which patch was drawn."""
    pixels = stained(1).expand(200, -1, -1, -1)
    styles = torch.stack([torch.full((4, 3), 0.3), torch.full((4, 3), 0.1)], dim=1)
    styles[:, 0] += torch.arange(4)[:, None] * 0.1
    images = augmented_rgb(colour_only(style=1), pixels, styles, u15=1)
    lent = ((mean_density(images)[:, 0] - 0.3) / 0.1).round().int()
    assert lent.unique().tolist() == [0, 1, 2, 3]


def test_a_style_without_other_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="styles"):
        Augmenter(colour_only(style=0.1), spec(), 0)


@pytest.mark.parametrize("um", [0.1, 0.5, 1.5])
def test_blur_is_torchvisions_and_scipys(um: float) -> None:
    pixels = patches(2, side=40)
    plain = plain_rgb(pixels)
    images = augmented_rgb(colour_only(blur_um=um), pixels, u22=1)
    sigma = um * 4  # 32 px to 8 µm
    taps = 2 * int(np.ceil(2.5 * sigma)) + 1
    torch.testing.assert_close(images, gaussian_blur(plain, taps, sigma), atol=1e-5, rtol=0)
    reference = ndimage.gaussian_filter(
        plain.double().numpy(), sigma, mode="mirror", radius=taps // 2, axes=(2, 3)
    )
    np.testing.assert_allclose(images, reference, atol=1e-5)


def test_each_sample_is_blurred_by_its_own_draw() -> None:
    pixels = patches(1, side=40).expand(50, -1, -1, -1)
    config = colour_only(blur_um=0.5)
    contrast = augmented_rgb(config, pixels).flatten(1).std(1)
    assert len(contrast.unique()) > 40
    largest = augmented_rgb(config, pixels[:1], u22=1).std()
    assert largest <= contrast.min() + 1e-5
    torch.testing.assert_close(
        augmented_rgb(config, pixels[:1], u22=0), plain_rgb(pixels[:1]), atol=1e-5, rtol=0
    )


def test_a_blur_wider_than_the_field_is_possible() -> None:
    narrow = InputSpec(field_of_view_um=4, size_px=32, mean=HALF, std=HALF)
    augment = Augmenter(colour_only(blur_um=5), narrow, 0)
    images = augment(patches(2), 0.25, np.arange(2), np.zeros(2, int))
    assert images.shape == (2, 3, 32, 32)
    assert torch.isfinite(images).all()


def test_at_size_is_the_same_view_with_other_pixels() -> None:
    """One pixel of the small view is the mean of four of the large one, on a smooth image."""
    axis = np.linspace(0, 2 * np.pi, 96)
    waves = np.sin(axis)[:, None, None] * np.cos(axis + np.arange(3)[:, None])[..., None].T
    pixels = torch.from_numpy((128 + 80 * waves).astype(np.uint8))[None].expand(6, -1, -1, -1)
    augment = Augmenter(ALL.model_copy(update={"noise": 0.0}), spec(), 0, STYLES)
    small = augment.at_size(32)
    names, passes = np.arange(6), np.ones(6, int)
    large_view, small_view = (a(pixels, 0.25, names, passes) for a in (augment, small))
    assert small_view.shape == (6, 3, 32, 32)
    assert large_view.shape == (6, 3, 64, 64)  # the one it was made from has not changed
    averaged = functional.avg_pool2d(large_view, 2)
    torch.testing.assert_close(small_view, averaged, atol=0.03, rtol=0)
    # The noise, which is by the pixel, fits too.
    noisy = Augmenter(ALL, spec(), 0, STYLES).at_size(48)
    assert noisy(pixels, 0.25, names, passes).shape == (6, 3, 48, 48)


def test_a_finer_scan_is_averaged_not_thinned_out() -> None:
    """Noise of single pixels at 0.05 µm is averaged away when the network sees 0.25 µm."""
    field = sample_field(patches(1, side=640), 0.05, spec(16, 64))
    assert field.std() < 0.12  # of single pixels it is 0.29
