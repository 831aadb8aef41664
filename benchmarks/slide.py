"""Wall time and peak memory of ``atypia slide`` for 1,000 and for 10,000 candidates of one slide.

    python benchmarks/slide.py --model MODEL [--quality fast] [--slide SLIDE]

Without ``--slide``, a tiled pyramid of 20,000 × 20,000 px at 0.25 µm/px is written first. Each
command runs in a process of its own, import and start of the readers included; the memory is that
of the process that classifies, which must hardly grow with the number of candidates. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from atypia.data.slides import open_slide
from atypia.runs import describe_machine

SIDE = 20_000
TILE = 256


def write_slide(path: Path) -> None:
    """Write a pyramid of stained-looking noise, one row of tiles in memory at a time."""
    import tifffile

    noise = np.random.default_rng(0).integers(120, 250, (4 * TILE, 4 * TILE, 3), dtype=np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(4):
            side = SIDE >> level
            per_cm = 1e4 / (0.25 * 2**level)
            count = math.ceil(side / TILE) ** 2
            tiles = (
                noise[i % 700 : i % 700 + TILE, i % 500 : i % 500 + TILE] for i in range(count)
            )
            tiff.write(
                tiles,
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="jpeg",
                photometric="rgb",
                subfiletype=int(level > 0),
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def timed(*arguments: str) -> dict[str, float]:
    """Run ``atypia`` with arguments; seconds and peak memory in GB."""
    clock = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "atypia", *arguments], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"atypia {' '.join(arguments)} failed")
    seconds = time.perf_counter() - clock
    return {"seconds": round(seconds, 1), "peak_memory_gb": round(usage.ru_maxrss / 1e6, 2)}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="released", help="'released', a bundle or a run folder")
    parser.add_argument("--quality", default="best")
    parser.add_argument("--slide", type=Path)
    options = parser.parse_args()
    figures: dict[str, object] = dict(describe_machine())
    with tempfile.TemporaryDirectory() as scratch:
        slide = options.slide or Path(scratch) / "slide.tif"
        if options.slide is None:
            write_slide(slide)
        with open_slide(slide) as opened:
            size = opened.info.width, opened.info.height
        for count in (1_000, 10_000):
            places = np.random.default_rng(0).random((count, 2)) * size
            candidates = Path(scratch) / f"{count}.csv"
            pd.DataFrame(places, columns=["x_px", "y_px"]).to_csv(candidates, index=False)
            figures[f"{count} candidates"] = timed(
                "slide",
                str(slide),
                f"--candidates={candidates}",
                f"--out={Path(scratch) / f'{count}.geojson'}",
                f"--model={options.model}",
                f"--quality={options.quality}",
            )
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
