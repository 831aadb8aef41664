"""Whether OpenSlide and tifffile give the same pixels of one slide, around candidates and over all.

    python benchmarks/parity.py ../shared/slides/small_HE.svs [--candidates 1000]

Candidates are laid over the slide at random, some beyond its edges. For each, the square around it
on level 0 is read with both readers; then level 0 as a whole. Prints JSON: the share of identical
squares, and the number of pixels that differ.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atypia.slides import Slide, open_slide
from atypia.slides.openslide_reader import open_with_openslide
from atypia.slides.tiff_reader import open_with_tifffile

if TYPE_CHECKING:
    from atypia.slides.reader import Pixels

SIDE = 128
STRIP = 512
"""Rows of level 0 that are compared at a time."""


def main() -> None:
    """Read, compare, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--candidates", type=int, default=1000)
    options = parser.parse_args()
    with open_slide(options.slide, mpp=0.25) as opened:
        info = opened.info
    pixels: list[Pixels] = [open_with_openslide(options.slide), open_with_tifffile(options.slide)]
    first, second = (Slide(reader, info) for reader in pixels)
    margin = SIDE / 2
    size = np.array([info.width, info.height])
    places = np.random.default_rng(0).uniform(-margin, size + margin, (options.candidates, 2))
    identical = sum(
        bool((first.crop(x, y, SIDE) == second.crop(x, y, SIDE)).all()) for x, y in places
    )
    different = 0
    for top in range(0, info.height, STRIP):
        rows = min(STRIP, info.height - top)
        both = [p.read(0, 0, top, info.width, rows, info.background) for p in pixels]
        different += int((both[0] != both[1]).any(axis=-1).sum())
    for reader in pixels:
        reader.close()
    figures = {
        "slide": options.slide.name,
        "size_px": [info.width, info.height],
        "candidates": options.candidates,
        "identical squares": identical / options.candidates,
        "pixels of level 0": info.width * info.height,
        "pixels that differ": different,
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
