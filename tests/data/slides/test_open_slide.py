"""Every format gives the same pixels, the right resolution, and glass where there is no image."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from slide_files import (
    GLASS,
    noise,
    smooth,
    spoil_tile,
    write_dicom,
    write_pyramid,
    write_tiff,
)

from atypia.core.errors import InputError, MissingExtraError
from atypia.slides import open_slide
from atypia.slides.dicom_reader import DicomPixels
from atypia.slides.openslide_reader import OpenSlidePixels, open_with_openslide
from atypia.slides.tiff_reader import TiffPixels, open_with_tifffile

SLIDE = Path(__file__).parents[4] / "shared" / "slides" / "small_HE.svs"
PIXELS = noise(150, 200)


def plain(folder: Path) -> Path:
    return write_tiff(folder / "a.tif", PIXELS, 0.5)


def strips(folder: Path) -> Path:
    return write_tiff(folder / "a.tif", PIXELS, 0.5, compression="lzw", rowsperstrip=7)


def planes(folder: Path) -> Path:
    options = {"planarconfig": "separate", "tile": (32, 32), "compression": "zlib"}
    moved = np.moveaxis(PIXELS, -1, 0)
    return write_tiff(folder / "a.ome.tif", moved, metadata=OME | {"axes": "SYX"}, **options)


def raw_planes(folder: Path) -> Path:
    moved = np.moveaxis(PIXELS, -1, 0)
    return write_tiff(folder / "a.tif", moved, 0.5, planarconfig="separate")


def imagej(folder: Path) -> Path:
    path = folder / "a.tif"
    tifffile.imwrite(path, PIXELS, imagej=True, resolution=(2, 2), metadata={"unit": "micron"})
    return path


def ome_pyramid(folder: Path) -> Path:
    path = folder / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        options = {"tile": (32, 32), "compression": "zlib", "photometric": "rgb"}
        tiff.write(PIXELS, subifds=1, metadata=OME | {"axes": "YXS"}, **options)
        tiff.write(PIXELS[::2, ::2], subfiletype=1, **options)
    return path


def pyramid(folder: Path) -> Path:
    return write_pyramid(folder / "a.tif", PIXELS, 0.5)


def dicom(folder: Path) -> Path:
    pytest.importorskip("wsidicom")
    return write_dicom(folder / "dicom", PIXELS, 0.5)


def dicom_folder(folder: Path) -> Path:
    return dicom(folder).parent


OME = {
    "PhysicalSizeX": 500.0,
    "PhysicalSizeXUnit": "nm",
    "PhysicalSizeY": 0.5,
    "PhysicalSizeYUnit": "µm",
}
FORMATS: dict[Any, type] = {
    plain: TiffPixels,
    strips: TiffPixels,
    planes: TiffPixels,
    raw_planes: TiffPixels,
    imagej: TiffPixels,
    ome_pyramid: TiffPixels,
    pyramid: TiffPixels,
    dicom: DicomPixels,
    dicom_folder: DicomPixels,
}


def around(x: int, y: int, side: int) -> np.ndarray:
    """What a crop must be: the image on an endless sheet of glass."""
    sheet = np.empty((PIXELS.shape[0] + 2 * side, PIXELS.shape[1] + 2 * side, 3), np.uint8)
    sheet[:] = GLASS
    sheet[side : side + PIXELS.shape[0], side : side + PIXELS.shape[1]] = PIXELS
    top, left = y - side // 2 + side, x - side // 2 + side
    return sheet[top : top + side, left : left + side]


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_pixels_of_every_format_inside_and_beyond_all_edges_and_corners(tmp_path, make):
    with open_slide(make(tmp_path)) as slide:
        assert type(slide._pixels) is FORMATS[make]
        assert (slide.info.width, slide.info.height) == (200, 150)
        assert slide.info.mpp == pytest.approx(0.5, rel=1e-4)
        assert slide.info.background == GLASS
        for x in (0, 100, 199):
            for y in (0, 75, 149):
                expected = around(x, y, 40)
                np.testing.assert_array_equal(slide.crop(x, y, 40), expected)
                np.testing.assert_array_equal(slide.read_field(x, y, 20.0, 0.5), expected)
        np.testing.assert_array_equal(slide.crop(-500, 75, 8), np.broadcast_to(GLASS, (8, 8, 3)))


@pytest.mark.parametrize("out_mpp", [0.25, 0.7, 1.0, 1.3, 2.0, 3.1])
@pytest.mark.parametrize("make", [write_pyramid, write_tiff], ids=["pyramid", "one level"])
def test_a_field_shows_the_same_place_at_every_resolution(tmp_path, make, out_mpp):
    with open_slide(make(tmp_path / "a.tif", smooth(512, 512), 0.5)) as slide:
        side = round(50 / out_mpp)
        field = slide.read_field(300.25, 200.5, 50.0, out_mpp)
    assert field.shape == (side, side, 3)
    # Pixel i of the field is centred (i + 0.5 - side / 2) samples from the field's centre.
    at = (np.arange(side) + 0.5 - side / 2) * out_mpp / 0.5
    # A colour step is 2 px of level 0; cropping whole pixels may shift by half a pixel.
    step = 2 * 250 / 512 + 1
    np.testing.assert_allclose(field[side // 2, :, 0], (300.25 + at) / 512 * 250, atol=step)
    np.testing.assert_allclose(field[:, side // 2, 1], (200.5 + at) / 512 * 250, atol=step)
    assert (field[..., 2] == 77).all()


def test_fine_stripes_turn_grey_instead_of_aliasing(tmp_path):
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 200
    with open_slide(write_tiff(tmp_path / "a.tif", stripes, 0.25)) as slide:
        field = slide.read_field(128, 128, 24.0, 0.75)
    assert abs(field.astype(int) - 100).max() <= 12


def test_a_level_finer_than_wanted_is_read_never_a_coarser_one(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:  # each level has a colour of its own
        for level, value in enumerate((10, 20, 40)):
            size = 512 >> level
            per_cm = 1e4 / (0.25 * 2**level)
            pixels = np.full((size, size, 3), value, np.uint8)
            options = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
            tiff.write(
                pixels, tile=(64, 64), photometric="rgb", subfiletype=int(level > 0), **options
            )
    with open_slide(path, background=(0, 0, 0)) as slide:
        for out_mpp, value in ((0.2, 10), (0.25, 10), (0.4, 10), (0.5, 20), (0.9, 20), (1, 40)):
            assert (slide.read_field(256, 256, 20.0, out_mpp) == value).all(), out_mpp


def test_the_stated_resolution_and_background_win(tmp_path):
    with open_slide(plain(tmp_path), mpp=0.25, background=(1, 2, 3)) as slide:
        assert slide.info.mpp == 0.25
        assert slide.info.stated_mpp == pytest.approx(0.5)
        assert slide.crop(-100, 0, 4)[0, 0].tolist() == [1, 2, 3]


def test_a_slide_without_resolution_is_refused_for_fields(tmp_path):
    path = write_tiff(tmp_path / "a.tif", PIXELS)
    with open_slide(path) as slide, pytest.raises(InputError, match="Give --mpp"):
        slide.read_field(50, 50, 16.0, 0.5)
    with open_slide(path, mpp=0.5) as slide:
        assert slide.read_field(50, 50, 16.0, 0.5).shape == (32, 32, 3)


@pytest.mark.parametrize("reader", [open_with_openslide, open_with_tifffile])
def test_a_damaged_tile_fails_alone(tmp_path, reader, monkeypatch):
    path = pyramid(tmp_path)
    spoil_tile(path, 5)  # columns 64..128, rows 64..128
    monkeypatch.setattr("atypia.slides.reader._open", reader)
    with open_slide(path) as slide:
        for _ in range(2):
            with pytest.raises(InputError, match="cannot be read"):
                slide.crop(96, 96, 16)
            np.testing.assert_array_equal(slide.crop(30, 30, 16), around(30, 30, 16))


def test_spoilt_handles_are_closed(tmp_path):
    path = pyramid(tmp_path)
    spoil_tile(path, 5)
    opened = []

    class Handle(openslide.OpenSlide):
        def __init__(self, name):
            super().__init__(name)
            self.closed = False
            opened.append(self)

        def close(self):
            self.closed = True
            super().close()

    pixels = OpenSlidePixels(lambda: Handle(path))
    for _ in range(5):
        with pytest.raises(openslide.OpenSlideError):
            pixels.read(0, 80, 80, 16, 16, (255, 255, 255))
    assert [handle.closed for handle in opened].count(False) == 1
    pixels.close()
    assert all(handle.closed for handle in opened)


def test_a_tile_that_was_never_written_is_glass(tmp_path):
    path = tmp_path / "a.tif"

    def tiles():
        yield noise(64, 64)
        yield None

    options = {"tile": (64, 64), "compression": "zlib", "photometric": "rgb"}
    tifffile.imwrite(path, tiles(), shape=(64, 128, 3), dtype=np.uint8, **options)
    with open_slide(path, mpp=0.5, background=GLASS) as slide:
        assert slide.crop(96, 32, 8).reshape(-1, 3).tolist() == [list(GLASS)] * 64
        np.testing.assert_array_equal(slide.crop(32, 32, 64), noise(64, 64))


def test_transparent_pixels_become_background():
    class Scanned:
        """A slide of which the right half was not scanned."""

        level_dimensions = ((20, 10),)
        level_downsamples = (1.0,)

        def __init__(self):
            self.properties = {"openslide.background-color": "F0E1D2", "openslide.bounds-x": "3"}

        def read_region(self, place, _, size):
            region = np.zeros((size[1], size[0], 4), np.uint8)
            region[:, : 10 - place[0]] = 200, 100, 50, 255
            return Image.fromarray(region, "RGBA")

    pixels = OpenSlidePixels(Scanned)
    assert pixels.background == (0xF0, 0xE1, 0xD2)
    assert pixels.origin == (3, 0)
    row = pixels.read(0, 8, 0, 4, 1, (9, 8, 7))[0].tolist()
    assert row == [[200, 100, 50]] * 2 + [[9, 8, 7]] * 2


def test_files_that_are_no_slides_are_refused_in_words(tmp_path):
    (tmp_path / "junk.svs").write_bytes(b"junk")
    tifffile.imwrite(tmp_path / "grey.tif", PIXELS[..., 0])
    tifffile.imwrite(tmp_path / "16.tif", PIXELS.astype(np.uint16), photometric="rgb")
    stack = np.stack([PIXELS, PIXELS])
    tifffile.imwrite(
        tmp_path / "stack.ome.tif", stack, photometric="rgb", metadata={"axes": "ZYXS"}
    )
    for name, what in {
        "gone.svs": "no such file",
        "junk.svs": "cannot be read",
        "grey.tif": "8-bit RGB",
        "16.tif": "8-bit RGB",
        "stack.ome.tif": "2 planes",
    }.items():
        with pytest.raises(InputError, match=what), open_slide(tmp_path / name):
            pass


def test_a_file_that_is_cut_short_is_told_as_such_or_loses_its_last_tiles(tmp_path):
    whole = pyramid(tmp_path).read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page = tiff.pages[0]
        last = page.dataoffsets[-1]
    # tifffile writes the directory of a page before its tiles; scanners write it at the end.
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[: last + 5])
    with open_slide(cut, background=GLASS, mpp=0.5) as slide:
        np.testing.assert_array_equal(slide.crop(30, 30, 16), around(30, 30, 16))
        with pytest.raises(InputError, match="cannot be read"):
            slide.crop(196, 146, 8)
    end = tmp_path / "end.tif"
    end.write_bytes(b"II*\0" + (10**6).to_bytes(4, "little") + whole[8:])
    with pytest.raises(InputError, match=r"file ends .* before the directory"), open_slide(end):
        pass


def test_every_level_of_a_dicom_slide_is_read(tmp_path):
    pytest.importorskip("wsidicom")
    fine, coarse = smooth(256, 256), smooth(128, 128)
    first = write_dicom(tmp_path / "dicom", fine, 0.25)
    write_dicom(tmp_path / "dicom", coarse, 0.5, of=first)
    with open_slide(tmp_path / "dicom") as slide:
        assert [level.width for level in slide._pixels.levels] == [256, 128]
        np.testing.assert_array_equal(slide.read_field(128, 128, 16, 0.25), fine[96:160, 96:160])
        np.testing.assert_array_equal(slide.read_field(128, 128, 16, 0.5), coarse[48:80, 48:80])


def test_two_dicom_slides_in_a_folder_must_be_told_apart(tmp_path):
    file = dicom(tmp_path)
    second = write_dicom(tmp_path / "second", PIXELS[:64, :64], 0.5)
    second.rename(file.parent / "other.dcm")
    with pytest.raises(InputError, match=r"2\. Name one of its files"), open_slide(file.parent):
        pass
    with open_slide(file) as slide:
        assert (slide.info.width, slide.info.height) == (200, 150)


@pytest.mark.parametrize(
    ("module", "extra"), [("tifffile", "slides"), ("openslide", "slides"), ("wsidicom", "dicom")]
)
def test_missing_packages_are_named_with_their_extra(tmp_path, monkeypatch, module, extra):
    path = dicom(tmp_path) if extra == "dicom" else plain(tmp_path)
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == module:
            raise ImportError(f"No module named {module!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf"atypia\[{extra}\]"), open_slide(path):
        pass


@pytest.mark.realdata
def test_two_readers_agree_on_a_real_slide_pixel_by_pixel(monkeypatch):
    if not SLIDE.is_file():
        pytest.skip(f"slide not found at {SLIDE}")
    with openslide.OpenSlide(SLIDE) as reference:
        whole = np.asarray(reference.read_region((0, 0), 0, reference.dimensions).convert("RGB"))
    for reader in (open_with_openslide, open_with_tifffile):
        monkeypatch.setattr("atypia.slides.reader._open", reader)
        with open_slide(SLIDE, mpp=0.499) as slide:
            assert whole.shape == (slide.info.height, slide.info.width, 3)
            pixels = slide._pixels.read(0, 0, 0, slide.info.width, slide.info.height, GLASS)
        np.testing.assert_array_equal(pixels, whole)
