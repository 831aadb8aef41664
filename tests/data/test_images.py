"""The strict reader: what it takes, what it refuses, and what it says."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from atypia.core.config import InputSpec
from atypia.core.errors import InputError
from atypia.data.field_of_view import size_problem
from atypia.data.images import check_patches, export_png, read_pages, read_patch

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
RGB = Image.fromarray(PIXELS)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_16_bit(path: Path) -> Path:
    rows = b"".join(b"\0" + b"\x12\x34" * 3 * 32 for _ in range(32))
    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def png_bomb(path: Path, side: int) -> Path:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_rgb_is_read_as_it_is(tmp_path, name):
    pixels = read_patch(save(RGB, tmp_path / name))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, PIXELS)


def test_jpeg_and_webp_are_read(tmp_path):
    for name in ("a.jpg", "a.webp"):
        assert read_patch(save(RGB, tmp_path / name)).shape == (24, 32, 3)


def test_palette_becomes_rgb(tmp_path):
    palette = RGB.quantize(16)
    np.testing.assert_array_equal(
        read_patch(save(palette, tmp_path / "p.png")), np.asarray(palette.convert("RGB"))
    )


def test_opaque_alpha_is_dropped(tmp_path):
    rgba = RGB.copy()
    rgba.putalpha(255)
    np.testing.assert_array_equal(read_patch(save(rgba, tmp_path / "a.png")), PIXELS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_exif_rotation_is_applied_once(tmp_path, orientation, suffix):
    # How a viewer shows the stored pixels, by the definition of the EXIF tag.
    shown = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS, -1),
        7: PIXELS.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(PIXELS, 1),
    }[orientation]
    path = save(RGB, tmp_path / f"a{suffix}", exif=exif(orientation))
    np.testing.assert_array_equal(read_patch(path), shown)
    export_png(path, tmp_path / "out.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), shown)


def half_transparent() -> Image.Image:
    rgba = RGB.copy()
    rgba.putalpha(Image.fromarray(np.full((24, 32), 254, np.uint8)))
    return rgba


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Everything that is refused, with a part of the sentence that says why."""
    whole = save(RGB, folder / "whole.png").read_bytes()
    jpeg = save(RGB, folder / "whole.jpg").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    made = {
        "cut.png": whole[: len(whole) // 2],
        "no_end.png": whole[:-12],
        "flipped.png": bytes(flipped),
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "empty.png": b"",
        "text.png": b"this is no image",
    }
    for name, data in made.items():
        (folder / name).write_bytes(data)
    (folder / "folder.png").mkdir()
    palette = RGB.quantize(16)
    keyed = Image.new("RGB", (32, 32), (1, 2, 3))
    tifffile.imwrite(folder / "16.tif", np.zeros((32, 32, 3), np.uint16), photometric="rgb")
    tifffile.imwrite(
        folder / "16z.tif", np.zeros((32, 32, 3), np.uint16), photometric="rgb", compression="zlib"
    )
    return {
        "alpha": (save(half_transparent(), folder / "alpha.png"), "transparent"),
        "palette alpha": (save(palette, folder / "pa.png", transparency=3), "transparent"),
        "colour key": (save(keyed, folder / "key.png", transparency=(1, 2, 3)), "transp"),
        "16 bit": (png_16_bit(folder / "16.png"), "8 bits per channel but got 16"),
        "16 bit gray": (save(Image.new("I;16", (32, 32)), folder / "16g.png"), "but got 16"),
        "16 bit tiff": (folder / "16.tif", "8 bits per channel but got 16"),
        "16 bit zlib tiff": (folder / "16z.tif", "8 bits per channel but got 16"),
        "cmyk": (save(RGB.convert("CMYK"), folder / "cmyk.tif"), "got CMYK"),
        "cmyk jpeg": (save(RGB.convert("CMYK"), folder / "cmyk.jpg"), "got CMYK"),
        "gray": (save(RGB.convert("L"), folder / "gray.png"), "got grayscale"),
        "gray alpha": (save(RGB.convert("LA"), folder / "la.png"), "got grayscale"),
        "bilevel": (save(RGB.convert("1"), folder / "1.png"), "got black and white"),
        "float": (save(Image.new("F", (32, 32)), folder / "f.tif"), "got floating-point"),
        "lab": (save(RGB.convert("LAB"), folder / "lab.tif"), "got CIE"),
        "truncated": (folder / "cut.png", "damaged or truncated"),
        "no end mark": (folder / "no_end.png", "damaged or truncated"),
        "one bit": (folder / "flipped.png", "damaged or truncated"),
        "truncated jpeg": (folder / "cut.jpg", "damaged or truncated"),
        "empty": (folder / "empty.png", "none of these"),
        "text": (folder / "text.png", "none of these"),
        "folder": (folder / "folder.png", "cannot be opened"),
        "missing": (folder / "nowhere.png", "no such file"),
        "gif": (save(RGB, folder / "a.gif"), "none of these"),
        "large": (png_bomb(folder / "large.png", 5000), "at most 16,777,216 pixels"),
        "bomb": (png_bomb(folder / "bomb.png", 60000), "at most 16,777,216 pixels"),
        "tiny": (save(RGB.resize((8, 8)), folder / "tiny.png"), "at least 16 px"),
        "pages": (
            save(RGB, folder / "s.tif", save_all=True, append_images=[RGB]),
            "one image but got 2 pages",
        ),
    }


def test_everything_unsound_is_refused_and_named(tmp_path):
    for name, (path, what) in bad_files(tmp_path).items():
        with pytest.raises(InputError) as caught:
            read_patch(path)
        assert what in str(caught.value), name
        assert [p.file for p in caught.value.problems] == [str(path)], name
        with pytest.raises(InputError):
            export_png(path, tmp_path / "out" / "x.png")
        assert not (tmp_path / "out" / "x.png").exists()


def test_check_patches_lists_all_in_order(tmp_path):
    bad = [path for path, _ in bad_files(tmp_path).values()]
    good = save(RGB, tmp_path / "good.png")
    problems = check_patches([good, *bad, good])
    assert [p.file for p in problems] == [str(path) for path in bad]


@pytest.mark.parametrize("damage", ["end mark put back", "hole of zeros", "bytes between"])
@pytest.mark.parametrize("progressive", [False, True])
def test_what_a_jpeg_decoder_only_warns_of_is_damage(tmp_path, damage, progressive):
    whole = save(
        RGB.resize((128, 128)), tmp_path / "whole.jpg", quality=90, progressive=progressive
    )
    data, half = whole.read_bytes(), whole.stat().st_size // 2
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(
        {
            "end mark put back": data[:half] + b"\xff\xd9",
            "hole of zeros": data[:half] + bytes(1000) + data[half + 1000 :],
            "bytes between": data[:20] + b"xx" + data[20:],  # behind the first segment
        }[damage]
    )
    for read in (read_patch, read_pages, lambda path: export_png(path, tmp_path / "out.png")):
        read(whole)
        with pytest.raises(InputError, match="damaged or truncated"):
            read(damaged)


@given(position=st.floats(0, 1, exclude_max=True), cut=st.booleans(), value=st.integers(1, 255))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_to_a_png_never_changes_a_pixel_in_silence(tmp_path, position, cut, value):
    buffer = io.BytesIO()
    RGB.save(buffer, format="PNG")
    data = bytearray(buffer.getvalue())
    at = int(position * len(data))
    if cut:
        del data[at:]
    else:
        data[at] ^= value
    (tmp_path / "x.png").write_bytes(data)
    try:
        pixels = read_patch(tmp_path / "x.png")
    except InputError:
        return
    # Only the end mark is left, which carries nothing.
    np.testing.assert_array_equal(pixels, PIXELS)
    assert at >= len(data) - 12


def test_pixel_limit_is_an_argument(tmp_path):
    path = save(RGB, tmp_path / "a.png")
    assert read_patch(path, max_pixels=24 * 32).shape == (24, 32, 3)
    with pytest.raises(InputError, match="32 × 24 px"):
        read_patch(path, max_pixels=24 * 32 - 1)


def test_pages_of_a_stack(tmp_path):
    stack = RNG.integers(0, 256, (5, 20, 20, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="rgb")
    np.testing.assert_array_equal(read_pages(tmp_path / "s.tif"), stack)
    single = read_pages(save(RGB, tmp_path / "one.png"))
    np.testing.assert_array_equal(single, PIXELS[None])
    with pytest.raises(InputError, match="page 3 goes beyond"):
        read_pages(tmp_path / "s.tif", max_pixels=2 * 20 * 20)


def test_bad_pages_are_all_named(tmp_path):
    pages = [RGB.convert("L"), RGB, half_transparent()]
    path = save(RGB, tmp_path / "s.tif", save_all=True, append_images=pages)
    with pytest.raises(InputError) as caught:
        read_pages(path)
    first, second = caught.value.problems
    assert first.what.startswith("page 2: expected an RGB image but got grayscale")
    assert second.what.startswith("page 4: expected an opaque RGB image")


def test_export_keeps_the_bytes_of_a_plain_png(tmp_path):
    source = save(RGB, tmp_path / "a.png", optimize=True)
    assert export_png(source, tmp_path / "out" / "b.png").shape == (24, 32, 3)
    assert (tmp_path / "out" / "b.png").read_bytes() == source.read_bytes()
    export_png(save(RGB, tmp_path / "a.tif"), tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(image), PIXELS)


def test_previews_reduced_pages_and_animations_are_no_figures(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    image, small = Image.fromarray(picture), Image.fromarray(picture[::2, ::2])
    image.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[small])
    assert len(read_pages(tmp_path / "phone.jpg")) == 1
    assert read_patch(tmp_path / "phone.jpg").shape == (64, 64, 3)
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as tiff:
        tiff.write(picture, photometric="rgb", metadata=None)
        tiff.write(picture[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        tiff.write(255 - picture, photometric="rgb", metadata=None)
    assert [page.shape for page in read_pages(tmp_path / "pyramid.tif")] == [(64, 64, 3)] * 2
    for name in ("a.webp", "a.png"):
        image.save(tmp_path / name, save_all=True, append_images=[Image.fromarray(255 - picture)])
        with pytest.raises(InputError, match="expected a still image but got 2 frames"):
            read_pages(tmp_path / name)
        with pytest.raises(InputError, match="expected a still image but got 2 frames"):
            read_patch(tmp_path / name)


def test_a_slide_is_refused_with_the_command_that_is_meant(tmp_path):
    tifffile.imwrite(tmp_path / "case.svs", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="atypia slide SLIDE --candidates"):
        read_pages(tmp_path / "case.svs")
    spec = InputSpec(field_of_view_um=32, size_px=64, mean=(0, 0, 0), std=(1, 1, 1))
    wide = size_problem(2220, 0.5, [spec])
    assert wide is not None
    assert "atypia slide SLIDE --candidates" in wide


def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded(tmp_path):
    file = tmp_path / "bomb.jpg"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(file, progressive=True)
    data = file.read_bytes()
    file.write_bytes(data[:-2] + b"\xff\xda" * 1000 + data[-2:])
    with pytest.raises(InputError, match="expected a JPEG of a few scans"):
        read_patch(file)
