"""What pixels alone give away: no tissue, a poor image; and that figures pass in any stain."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from atypia.classifiers.field_quality import field_status
from atypia.core.labels import ANSWERED, SUBTYPES
from atypia.data.synthetic import SCANNERS, Patient, render

FIELD_UM = 18.0
STAINS = ((1, 1, 1), (0.6, 0.6, 0.6), (1.4, 1.4, 1.4), (0.75, 1, 1.1), (1.25, 1, 0.8))
"""Factors on the optical density of each channel: weak, strong, reddish, bluish."""


def drawn(side: int = 96, mpp: float = 0.25) -> np.ndarray:
    rng = np.random.default_rng(3)
    patients = [Patient.draw(scanner, rng) for scanner in SCANNERS]
    return np.stack([np.asarray(render(s, p, rng, side, mpp)) for s in SUBTYPES for p in patients])


def density(patches: np.ndarray) -> np.ndarray:
    return -np.log10(np.maximum(patches, 1) / 255)


def light(density: np.ndarray) -> np.ndarray:
    return (255 * 10**-density).clip(0, 255).round().astype(np.uint8)


def jpeg(patch: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(patch).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def changed(patches: np.ndarray) -> np.ndarray:
    """The same figures in other laboratories."""
    parts = [light(density(patches) * stain) for stain in STAINS]
    parts += [np.stack([jpeg(p, 40) for p in patches]), (patches * 0.8).astype(np.uint8)]
    return np.concatenate(parts)


def flat(colour: tuple[int, int, int]) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 2, (3, 80, 80, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("side", "mpp"), [(96, 0.25), (48, 0.5), (200, 0.12), (60, 0.25)])
def test_drawn_figures_pass_in_any_stain_at_any_resolution(side: int, mpp: float) -> None:
    assert (field_status(changed(drawn(side, mpp)), mpp, FIELD_UM) == ANSWERED).all()


@pytest.mark.parametrize(
    "colour", [(244, 243, 245), (255, 255, 255), (0, 0, 0), (225, 215, 228), (40, 60, 160)]
)
def test_glass_black_and_ink_are_no_tissue(colour: tuple[int, int, int]) -> None:
    assert (field_status(flat(colour), 0.25, FIELD_UM) == "no_tissue").all()


def test_a_figure_beyond_the_field_of_view_does_not_make_tissue_of_glass() -> None:
    patches = flat((244, 243, 245))
    patches[:, :, 75:] = 90  # 8.75 µm from the centre and more
    assert (field_status(patches, 0.25, 16.0) == "no_tissue").all()


def test_green_ink_over_tissue_is_no_tissue() -> None:
    inked = 0.3 * drawn() + 0.7 * np.array((40, 140, 80))
    assert (field_status(inked.astype(np.uint8), 0.25, FIELD_UM) == "no_tissue").all()


def test_images_out_of_focus_folded_saturated_grey_or_brown_are_poor() -> None:
    patches = drawn()
    dyes = density(patches)
    brown = dyes.mean(-1, keepdims=True) / 0.54 * (0.27, 0.57, 0.78)
    noise = np.random.default_rng(0).integers(0, 256, patches.shape).astype(np.uint8)
    for poor in (
        np.stack([ndimage.gaussian_filter(p, (7, 7, 0)) for p in patches]),
        light(4 * dyes + 0.5),
        np.repeat(patches.mean(-1, keepdims=True), 3, -1).astype(np.uint8),
        light(brown),
        noise,
    ):
        assert (field_status(poor, 0.25, FIELD_UM) == "poor_image").mean() > 0.9
    burnt = np.clip(1.0 * patches + 170, 0, 255).astype(np.uint8)
    assert (field_status(burnt, 0.25, FIELD_UM) != ANSWERED).mean() > 0.5


def test_an_empty_batch_has_no_status() -> None:
    assert field_status(np.empty((0, 80, 80, 3), np.uint8), 0.25, FIELD_UM).shape == (0,)


@pytest.mark.realdata
def test_real_figures_pass_in_any_stain(ami_br: Path) -> None:
    files = sorted((ami_br / "patches").glob("*/*.png"))[::10]
    files += sorted((ami_br.parent / "atnorm-md").glob("*/*.png"))[::5]
    patches = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    assert (field_status(changed(patches), 0.25, FIELD_UM) != ANSWERED).mean() < 0.002
