"""Tissue on pictures whose tissue is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slide_files import write_pyramid

from atypia.slides.slide_pool import SlidePool
from atypia.slides.tissue import PIXEL_UM, Tissue, tissue_of

SHARED = Path(__file__).parents[3] / "../shared/slides/small_HE.svs"
MPP = 4.0
GLASS, PALE, DARK = (244, 243, 246), (236, 205, 222), (150, 90, 160)


def picture(*, tissue_everywhere: bool = False) -> np.ndarray:
    """4 × 3.2 mm at 4 µm: 2 × 2 mm of tissue on glass, half of it pale; dust, ink, a black bar."""
    rng = np.random.default_rng(0)
    pixels = np.empty((800, 1000, 3), np.uint8)
    pixels[:] = PALE if tissue_everywhere else GLASS
    pixels[100:600, 100:350] = PALE
    pixels[100:600, 350:600] = DARK
    if not tissue_everywhere:
        pixels[300:308, 200:208] = GLASS  # a gap of 32 µm
        pixels[700:706, 800:806] = DARK  # dust
        pixels[:, 960:] = 0
    return np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)


def test_coloured_pixels_are_tissue_glass_dust_and_black_are_not(tmp_path: Path) -> None:
    with SlidePool(write_pyramid(tmp_path / "s.tif", picture(), MPP), readers=1) as slide:
        tissue = tissue_of(slide)
    assert tissue is not None
    assert tissue.mask.shape == (160, 200)
    assert tissue.area_mm2 == pytest.approx(4.0, rel=0.01)
    expected = np.zeros((160, 200), bool)
    expected[20:120, 20:120] = True
    assert (tissue.mask != expected).sum() <= 40  # corners that the filter rounds
    places = tissue.scattered(2000)
    assert (places >= 400).all()
    assert (places <= 2400).all()
    np.testing.assert_allclose(places.mean(axis=0), 1400, atol=60)


def test_a_picture_full_of_tissue_is_tissue(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "s.tif", picture(tissue_everywhere=True), MPP)
    with SlidePool(path, readers=1) as slide:
        tissue = tissue_of(slide)
    assert tissue is not None
    assert tissue.mask.mean() > 0.99


def test_glass_alone_has_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    glass = (np.array(GLASS) + rng.normal(0, 3, (400, 400, 3))).clip(0, 255).astype(np.uint8)
    with SlidePool(write_pyramid(tmp_path / "s.tif", glass, MPP), readers=1) as slide:
        tissue = tissue_of(slide)
    assert tissue is not None
    assert tissue.area_mm2 == 0


def test_places_are_those_of_the_mask() -> None:
    tissue = Tissue(np.array([[False, True], [True, False]]), 10.0, (100.0, 200.0))
    assert tissue.places_um.tolist() == [[115, 205], [105, 215]]
    assert tissue.area_mm2 == pytest.approx(2e-4)


@pytest.mark.realdata
def test_a_real_slide_agrees_with_its_lightness() -> None:
    """The pixels that are darker than glass on a picture of 20 µm per pixel, by another way."""
    with SlidePool(SHARED, readers=1) as slide:
        tissue = tissue_of(slide)
        size = (round(slide.info.width * 0.499 / PIXEL_UM), round(slide.info.height * 0.499 / 20))
        (square,) = slide.read(np.array([[1110.0, 1483.5]]), 1480.0, PIXEL_UM)
    assert tissue is not None
    grey = np.asarray(Image.fromarray(square).convert("L"))  # type: ignore[arg-type]
    left = (74 - size[0]) // 2
    dark = grey[:, left : left + size[0]] < 220
    assert tissue.area_mm2 == pytest.approx(dark.sum() * 4e-4, rel=0.08)
