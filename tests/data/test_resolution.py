"""What TIFF files say of their resolution; written by tifffile and Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from atypia.core.errors import InputError
from atypia.slides.tiff_reader import tiff_mpp

PIXELS = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize("unit", ["CENTIMETER", "INCH"])
def test_baseline_tags(tmp_path: Path, unit: str) -> None:
    per_unit = {"CENTIMETER": 10_000, "INCH": 25_400}[unit] / 0.25
    tifffile.imwrite(
        tmp_path / "a.tif", PIXELS, resolution=(per_unit, per_unit), resolutionunit=unit
    )
    assert tiff_mpp(tmp_path / "a.tif") == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("unit", "size"), [("µm", 0.5), ("nm", 500.0), ("mm", 0.0005), (None, 0.5)]
)
def test_ome(tmp_path: Path, unit: str | None, size: float) -> None:
    metadata = {f"PhysicalSize{axis}": size for axis in "XY"}
    if unit:
        metadata |= {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    tifffile.imwrite(tmp_path / "a.ome.tif", PIXELS, metadata=metadata, photometric="rgb")
    assert tiff_mpp(tmp_path / "a.ome.tif") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("unit", "per_unit", "mpp"),
    [
        ("um", 4, 0.25),
        ("micron", 4, 0.25),
        ("\\u00B5m", 4, 0.25),
        ("cm", 40_000, 0.25),
        ("pixel", 4, None),
    ],
)
def test_imagej(tmp_path: Path, unit: str, per_unit: int, mpp: float | None) -> None:
    resolution = (per_unit, per_unit)
    tifffile.imwrite(
        tmp_path / "a.tif", PIXELS, imagej=True, resolution=resolution, metadata={"unit": unit}
    )
    found = tiff_mpp(tmp_path / "a.tif")
    assert found == (None if mpp is None else pytest.approx(mpp))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_what_says_nothing_plausible_is_unknown(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    image.save(tmp_path / "no tags.tif")
    image.save(tmp_path / "screen.tif", dpi=(72, 72))
    image.save(tmp_path / "a.png", dpi=(101_600, 101_600))
    tifffile.imwrite(tmp_path / "imagej without unit.tif", PIXELS, imagej=True, resolution=(4, 4))
    (tmp_path / "broken.tif").write_bytes(b"II*\0 nothing more")
    for file in tmp_path.iterdir():
        assert tiff_mpp(file) is None, file
    assert tiff_mpp(tmp_path / "none.tif") is None


def test_oblong_pixels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", PIXELS, resolution=(22_000, 20_000), resolutionunit="CENTIMETER"
    )
    with pytest.raises(InputError, match="square"):
        tiff_mpp(tmp_path / "a.tif")
