"""Slides in the encodings of other people's tools; patches and damaged files follow in field_cohorts."""
# ruff: noqa: E501

from __future__ import annotations

import copy
from typing import Any, Final

import numpy as np
import tifffile
from field_bench import Bench, Picture, case, png, retag, tiff
from PIL import Image, ImageCms
from slide_files import write_dicom  # type: ignore[import-not-found]

# name -> (right, pixels made of the plain ones, options of tifffile, arguments)
ANY_MPP: Final = ("--mpp", 0.25)
TIFFS: Final[dict[str, tuple[Any, ...]]] = {
    "16 bits": ("-", lambda p: p.astype(np.uint16) * 257, {}),
    "12 bits in 16, strips": ("-", lambda p: p.astype(np.uint16) * 16, {"tile": None, "rowsperstrip": 64}),
    "floats": ("-", lambda p: (p / 255).astype(np.float32), {}),
    "signed bytes": ("-", lambda p: (p // 2).astype(np.int8), {}),
    "grey tiles": ("-", lambda p: p[..., 1], {"photometric": "minisblack"}),
    "grey strips, white is 0": ("-", lambda p: 255 - p[..., 1], {"photometric": "miniswhite", "tile": None, "rowsperstrip": 64}),
    "a mask of bits": ("-", lambda p: p[..., 1] > 128, {"photometric": "minisblack", "tile": None, "rowsperstrip": 64}),
    "CMYK": ("-", lambda p: np.dstack([255 - p, np.zeros_like(p[..., :1])]), {"photometric": "separated"}),
    "opaque alpha": ("same?", lambda p: np.dstack([p, np.full_like(p[..., :1], 255)]), {"extrasamples": ["unassalpha"]}),
    "a fourth sample of zeros": ("same?", lambda p: np.dstack([p, np.zeros_like(p[..., :1])]), {"extrasamples": ["unspecified"]}),
    "two samples": ("-", lambda p: p[..., :2], {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unspecified"]}),
    "planes apart": ("same?", lambda p: np.ascontiguousarray(p.transpose(2, 0, 1)), {"planarconfig": "separate"}),
    "JPEG of libvips": ("near", lambda p: ycc(p), {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2), "compressionargs": {"level": 95}}),
    "JPEG in RGB, as Aperio": ("near", lambda p: p, {"compression": "jpeg", "compressionargs": {"level": 95, "outcolorspace": "rgb"}}),
    "LZW with predictor": ("same", lambda p: p, {"compression": "lzw", "predictor": 2}),
    "PackBits strips": ("same", lambda p: p, {"compression": "packbits", "tile": None, "rowsperstrip": 16}),
    "Zstandard": ("same?", lambda p: p, {"compression": "zstd"}),
    "JPEG 2000, lossless": ("same?", lambda p: p, {"compression": "jpeg2000", "compressionargs": {"level": 0}}),
    "WebP, lossless": ("same?", lambda p: p, {"compression": "webp", "compressionargs": {"lossless": True}}),
    "JPEG XL": ("near?", lambda p: p, {"compression": "jpegxl"}),
    "BigTIFF": ("same", lambda p: p, {"bigtiff": True}),
    "big-endian": ("same", lambda p: p, {"byteorder": ">"}),
    "one strip": ("same", lambda p: p, {"tile": None, "rowsperstrip": 480}),
    "inches": ("same", lambda p: p, {"mpp": None, "resolution": (101600, 101600), "resolutionunit": 2}),
    "72 dpi": ("-", lambda p: p, {"mpp": None, "resolution": (72, 72), "resolutionunit": 2}),
    "72 dpi and --mpp": ("same", lambda p: p, {"mpp": None, "resolution": (72, 72), "resolutionunit": 2}, *ANY_MPP),
    "--mpp against the file": ("same", lambda p: p, {"mpp": 0.5}, *ANY_MPP),
    "no resolution": ("-", lambda p: p, {"mpp": None}),
    "pixels not square": ("near", lambda p: np.repeat(p, 2, axis=1), {"mpp": (0.125, 0.25)}),
    "not square and --mpp": ("same", lambda p: p, {"mpp": (0.25, 0.4)}, *ANY_MPP),
    "0 as resolution and --mpp": ("same", lambda p: p, {"mpp": None, "resolution": (0, 0), "resolutionunit": 3}, *ANY_MPP),
    "Aperio's MPP": ("same?", lambda p: p, {"mpp": None, "description": "Aperio Image Library v12\r\n640x480 [0,0 640x480] (256x256)|AppMag = 40|MPP = 0.2500"}),
    "Aperio's MPP of 0 and --mpp": ("same", lambda p: p, {"mpp": None, "description": "Aperio Image Library v12\r\n640x480 [0,0 640x480] (256x256)|AppMag = 40|MPP = 0"}, *ANY_MPP),
    "Aperio's MPP with a comma": ("same?", lambda p: p, {"mpp": None, "description": "Aperio Image Library v12\r\n640x480 [0,0 640x480] (256x256)|AppMag = 40|MPP = 0,2500"}),
    "OME in nm": ("same", lambda p: p, {"mpp": None, "ome": True, "metadata": {"PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 250.0, "PhysicalSizeYUnit": "nm"}}),
    "OME in mm": ("same", lambda p: p, {"mpp": None, "ome": True, "metadata": {"PhysicalSizeX": 0.00025, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 0.00025, "PhysicalSizeYUnit": "mm"}}),
    "OME, three grey channels": ("same?", lambda p: np.ascontiguousarray(p.transpose(2, 0, 1)), {"ome": True, "photometric": "minisblack", "metadata": {"axes": "CYX"}}),
    "OME, 16 bits": ("-", lambda p: p.astype(np.uint16) * 257, {"ome": True}),
}  # fmt: skip


def tiff_case(
    name: str, right: str, made: Any, options: dict[str, Any], *arguments: object
) -> None:
    @case(f"tiff: {name}", "pixels of slides")
    def _(b: Bench) -> str:
        rest = copy.deepcopy(options)
        path = b.folder / ("x.ome.tif" if rest.get("ome") else "x.tif")
        tiff(path, made(b.small), rest.pop("mpp", 0.25), **rest)
        wide = 2 if name == "pixels not square" else 1
        want = right.replace("near", "same").replace("same?", "?")
        return b.pixels(path, want, *arguments, scale=wide, near=0.03 if "same" in right else 0.15)


for one, values in TIFFS.items():
    tiff_case(one, *values)


def retagged(name: str, right: str, made: Any, **tags: Any) -> None:
    @case(f"tiff: {name}", "pixels of slides")
    def _(b: Bench) -> str:
        return b.pixels(retag(tiff(b.folder / "x.tif", made(b.small)), **tags), right)


def lab(p: Picture) -> Any:
    profiles = [ImageCms.createProfile(n) for n in ("sRGB", "LAB")]
    return np.asarray(
        ImageCms.profileToProfile(Image.fromarray(p), profiles[0], profiles[1], outputMode="LAB")
    )


def ycc(p: Picture) -> Any:
    return np.asarray(Image.fromarray(p).convert("YCbCr"))


retagged("CIELAB tiles", "?", lab, PhotometricInterpretation=8)
retagged("YCbCr tiles, not JPEG", "?", ycc, PhotometricInterpretation=6)
retagged("bits that say 7", "?", lambda p: p, BitsPerSample=(7, 7, 7))


@case("tiff: turned by half, Orientation 3", "pixels of slides")
def _(b: Bench) -> str:
    return b.pixels(
        tiff(b.folder / "x.tif", b.small[::-1, ::-1], extratags=[(274, 3, 1, 3, True)]), "?"
    )


@case("tiff: palette", "pixels of slides")
def _(b: Bench) -> str:
    image = Image.fromarray(b.small).quantize(256)
    palette = np.array(image.getpalette()).reshape(-1, 3)
    colours = np.zeros((3, 256), np.uint16)
    colours[:, : len(palette)] = palette.T * 257
    path = tiff(b.folder / "x.tif", np.asarray(image), photometric="palette", colormap=colours)
    return b.pixels(path, "?", near=0.3)


def pages(
    name: str,
    right: str,
    *parts: tuple[str, dict[str, Any]],
    ome: bool = False,
    arguments: Any = (),
) -> None:
    """Add a file of several images: of the whole, of a half and of labels."""

    @case(f"tiff: {name}", "the slide among images")
    def _(b: Bench) -> str:
        made = {
            "whole": b.small,
            "half": b.small[::2, ::2],
            "label": np.full((300, 300, 3), 90, np.uint8),
            "macro": np.full((200, 500, 3), 200, np.uint8),
        }
        path = b.folder / ("x.ome.tif" if ome else "x.tif")
        with tifffile.TiffWriter(path, ome=ome) as writer:
            for part, options in parts:
                plain: dict[str, Any] = {
                    "photometric": "rgb",
                    "tile": (256, 256),
                    "compression": "zlib",
                }
                if not ome:
                    plain |= {"metadata": None, "resolution": (40000, 40000), "resolutionunit": 3}
                writer.write(made[part], **{**plain, **options})
        return b.pixels(path, right, *arguments)


SIZE: Final = {"metadata": {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}}
pages("thumbnail first", "?", ("half", {"subfiletype": 1}), ("whole", {}))
pages("label first", "?", ("label", {}), ("whole", {}))
pages("label and macro last", "same", ("whole", {}), ("half", {"subfiletype": 1}), ("label", {"tile": None}), ("macro", {"subfiletype": 9, "tile": None}))  # fmt: skip
pages("OME: macro, then the slide", "?", ("macro", SIZE), ("whole", SIZE), ome=True)
pages("OME: the slide, then label", "same", ("whole", SIZE), ("label", SIZE), ome=True)
pages("OME: levels in SubIFDs", "same", ("whole", {"subifds": 1, **SIZE}), ("half", {"subfiletype": 1}), ome=True)  # fmt: skip


def dicom(name: str, right: str, arguments: Any = (), **changes: Any) -> None:
    @case(f"dicom: {name}", "pixels of slides")
    def _(b: Bench) -> str:
        import pydicom

        path = write_dicom(b.folder / "d", b.small, 0.25, tile=160)
        data = pydicom.dcmread(path)
        if spacing := changes.pop("spacing", None):
            shared = data.SharedFunctionalGroupsSequence[0]
            shared.PixelMeasuresSequence[0].PixelSpacing = spacing
        for keyword, value in changes.items():
            setattr(data, keyword, value)
        data.save_as(path)
        return b.pixels(path, right, *arguments)


dicom("plain", "same")
dicom("not square and --mpp", "same", ("--mpp", 0.25), spacing=[0.00025, 0.0004])
dicom("spacing of 0 and --mpp", "same", ("--mpp", 0.25), spacing=[0, 0])
dicom("called YBR_FULL", "?", PhotometricInterpretation="YBR_FULL")
dicom("of 16 bits", "-", BitsAllocated=16, BitsStored=16, HighBit=15)


def other_slide(name: str, right: str, file: str, made: Any, *arguments: object) -> None:
    @case(f"slide: {name}", "files that are no slides")
    def _(b: Bench) -> str:
        return b.pixels(b.file(file, made(b)), right, *arguments)


def plain_bytes(b: Bench) -> bytes:
    return tiff(b.folder / "plain.tif", b.small).read_bytes()


other_slide("a PNG and --mpp", "?", "x.png", lambda b: png(b.small), "--mpp", 0.25)
other_slide("a PNG of no µm", "-", "x.png", lambda b: png(b.small))
other_slide("a TIFF named svs", "same", "x.svs", plain_bytes)
other_slide("cut in half", "-", "x.tif", lambda b: plain_bytes(b)[:60_000])
other_slide("empty", "-", "x.svs", lambda _: b"")
other_slide(
    "a pointer of git-lfs", "-", "x.svs", lambda _: b"version https://git-lfs.github.com/spec/v1\n"
)
other_slide("zeros of a broken copy", "-", "x.tif", lambda b: plain_bytes(b)[:8] + bytes(90_000))
