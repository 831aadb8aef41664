"""The same picture in every encoding: right by every reader, or refused."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from slide_files import smooth, write_dicom

from atypia.core.errors import InputError
from atypia.slides import open_slide
from atypia.slides.openslide_reader import OpenSlidePixels

PICTURE = smooth(96, 128)
TILED = {"tile": (32, 32)}
METRE = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
APERIO = "Aperio Image Library v12\r\n128x96 [0,0 128x96] (32x32) |AppMag = 20|MPP = 0.5"


def write(path: Path, pixels: np.ndarray = PICTURE, **options: Any) -> Path:
    options = {"photometric": "rgb", **METRE, "metadata": None, **options}
    tifffile.imwrite(path, pixels, **options)
    return path


def crop(path: Path) -> np.ndarray:
    with open_slide(path) as slide:
        return slide.crop(64, 48, 40)


@pytest.mark.parametrize(
    "layout", [TILED, {"rowsperstrip": 16}, {}], ids=["tiles", "strips", "one"]
)
@pytest.mark.parametrize(
    "encoding",
    [
        {},
        {"compression": "zlib"},
        {"compression": "lzw", "predictor": 2},
        {"planarconfig": "separate"},
        {"compression": "jpeg", "compressionargs": {"level": 100}},
        {"compression": "jpeg2000", "compressionargs": {"level": 0}},
        {"compression": "webp", "compressionargs": {"lossless": True}},
        {"compression": "jpegxl", "compressionargs": {"lossless": True}},
    ],
    ids=lambda e: "-".join(str(v) for v in e.values() if not isinstance(v, dict)) or "none",
)
def test_what_tifffile_decodes_is_the_picture(tmp_path, layout, encoding):
    pixels = PICTURE
    if encoding.get("planarconfig"):
        pixels = np.ascontiguousarray(np.moveaxis(PICTURE, -1, 0))
    try:
        path = write(tmp_path / "a.tif", pixels, **layout, **encoding)
    except (ValueError, RuntimeError) as error:  # an encoder that does not do strips
        pytest.skip(str(error))
    apart = np.abs(crop(path).astype(int) - PICTURE[28:68, 44:84]).max()
    assert apart <= (6 if encoding.get("compression") == "jpeg" else 0)


def test_openslide_tifffile_and_wsidicom_agree(tmp_path):
    plain = crop(write(tmp_path / "a.tif", **TILED))
    scanner = write(tmp_path / "a.svs", **TILED, description=APERIO)
    with open_slide(scanner) as slide:
        assert isinstance(slide._pixels, OpenSlidePixels)
        np.testing.assert_array_equal(slide.crop(64, 48, 40), plain)
    np.testing.assert_array_equal(crop(write_dicom(tmp_path / "d", PICTURE, 0.5)), plain)
    np.testing.assert_array_equal(plain, PICTURE[28:68, 44:84])


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (PICTURE.astype(np.uint16) * 16, {}),
        (PICTURE.astype(np.int8), {}),
        (PICTURE.astype(np.float32), {}),
        (PICTURE[..., 0], {"photometric": "minisblack"}),
        (PICTURE[..., 0], {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
        (PICTURE, {"photometric": "ycbcr"}),
        (PICTURE, {"photometric": "cielab"}),
        (np.dstack([PICTURE, PICTURE[..., 0]]), {"photometric": "separated"}),
        (PICTURE, {"extratags": [(274, "H", 1, 3, True)]}),
    ],
    ids=["16-bit", "signed", "float", "grey", "palette", "ycbcr", "lab", "cmyk", "turned"],
)
@pytest.mark.parametrize("name", ["a.tif", "a.svs"])
def test_what_is_not_upright_8_bit_rgb_is_refused_by_every_reader(tmp_path, pixels, options, name):
    about = {"description": APERIO} if name == "a.svs" else {}
    if name == "a.svs" and options.get("photometric") == "ycbcr":
        pytest.skip("OpenSlide converts it")
    path = write(tmp_path / name, pixels, **TILED, **options, **about)
    with pytest.raises(InputError, match="expected"):
        crop(path)


def test_a_fourth_sample_is_an_opacity_only_where_it_is_stated(tmp_path):
    nothing = np.dstack([PICTURE, np.zeros_like(PICTURE[..., 0])])
    path = write(tmp_path / "a.tif", nothing, **TILED, extrasamples=["unspecified"])
    np.testing.assert_array_equal(crop(path), PICTURE[28:68, 44:84])
    path = write(tmp_path / "b.tif", nothing, **TILED, extrasamples=["unassalpha"])
    with open_slide(path, background=(250, 240, 230)) as slide:
        np.testing.assert_array_equal(slide.crop(64, 48, 4), np.full((4, 4, 3), (250, 240, 230)))


def test_dicom_that_is_not_8_bit_rgb_is_refused(tmp_path):
    import pydicom

    path = write_dicom(tmp_path / "d", PICTURE, 0.5)
    header = pydicom.dcmread(path)
    header.PhotometricInterpretation = "PALETTE COLOR"
    header.save_as(path)
    with pytest.raises(InputError, match="expected 8-bit RGB but got 3 samples of 8 bits, PALETTE"):
        crop(path)


def test_the_largest_image_is_the_slide(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:  # thumbnail, slide, label, in no helpful order
        for pixels, kind in ((PICTURE[::4, ::4], 0), (PICTURE, 0), (PICTURE[:40, :40], 9)):
            tiff.write(pixels, photometric="rgb", subfiletype=kind, **METRE, metadata=None)
    np.testing.assert_array_equal(crop(path), PICTURE[28:68, 44:84])
    ome = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(ome, ome=True) as tiff:
        for pixels, um in ((PICTURE[:40, :40], 8.0), (PICTURE, 0.5)):
            sizes = {"PhysicalSizeX": um, "PhysicalSizeY": um}
            tiff.write(np.ascontiguousarray(pixels), photometric="rgb", metadata=sizes)
    with open_slide(ome) as slide:
        assert slide.info.mpp == 0.5
        np.testing.assert_array_equal(slide.crop(64, 48, 40), PICTURE[28:68, 44:84])
    twice = tmp_path / "b.tif"
    with tifffile.TiffWriter(twice) as tiff:
        for um in (1, 2):
            tiff.write(
                PICTURE, photometric="rgb", metadata=None, description=str(um), tile=(32, 32)
            )
            tiff.write(PICTURE[:8], photometric="rgb", metadata=None)
    with pytest.raises(InputError, match="expected one image but got 2"):
        crop(twice)


@pytest.mark.parametrize("sizes", [(20_000, 10_000), (0, 0), (1, 1), (1e9, 1e9)])
def test_a_given_resolution_stands_above_whatever_the_file_states(tmp_path, sizes):
    path = write(tmp_path / "a.tif", **TILED, resolution=sizes)
    with open_slide(path, mpp=0.25) as slide:
        assert (slide.info.mpp, slide.info.aspect) == (0.25, 1)
        assert slide.read_field(64, 48, 8.0, 0.25).shape == (32, 32, 3)


def test_a_broken_resolution_of_ome_is_none(tmp_path):
    path = tmp_path / "a.ome.tif"
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, PICTURE, photometric="rgb", metadata=sizes)
    path.write_bytes(path.read_bytes().replace(b'PhysicalSizeX="0.5"', b'PhysicalSizeX="?.?"'))
    with open_slide(path) as slide:
        assert slide.info.mpp is None


def test_pixels_that_are_not_square_are_resampled_each_axis_by_its_own_size(tmp_path, caplog):
    # Pixels of 0.6 × 0.5 µm: the same field in fewer columns.
    path = write(tmp_path / "a.tif", smooth(96, 107), **TILED, resolution=(16_667, 20_000))
    square = write(tmp_path / "b.tif", smooth(96, 128), **TILED)
    with open_slide(path) as slide, open_slide(square) as expected:
        with caplog.at_level(logging.WARNING, "atypia"):
            slide.info.log_oddities(None)
        assert slide.info.um_per_px == pytest.approx((0.6, 0.5), rel=1e-3)
        field = slide.read_field(53.5, 48, 20.0, 0.5).astype(int)
        assert np.abs(field - expected.read_field(64, 48, 20.0, 0.5)).max() <= 2
    assert "pixels of 0.6 × 0.5 µm" in caplog.text


@pytest.mark.parametrize(
    ("tags", "what"), [((256,), "an image of up to"), ((322, 323), "tiles of up to")]
)
def test_sizes_of_damaged_headers_are_refused_before_they_fill_the_memory(tmp_path, tags, what):
    path = write(tmp_path / "a.tif", **TILED)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for tag in tags:
            tiff.pages[0].tags[tag].overwrite(2**24, dtype="I")
    with pytest.raises(InputError, match=what):
        crop(path)
