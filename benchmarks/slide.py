"""Wall time and peak memory of ``atypia slide`` for 1,000 and for 10,000 candidates of one slide.

    python benchmarks/slide.py --model MODEL [--quality fast] [--slide SLIDE]

Without ``--slide``, an invented pyramid of 20,000 × 20,000 px at 0.25 µm/px is written first. Each
command runs in a process of its own, import and start of the readers included. The memory must
hardly grow with the number of candidates: that of the process that classifies, and of all together
with the readers (resident memory, what they share counted in each; looked at five times a second).
Prints JSON, with the goals: 10,000 candidates in less than 60 s, memory within 10 %.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from atypia.core.files import describe_machine
from atypia.slides import open_slide

SIDE = 20_000
TILE = 256


def write_slide(path: Path, side: int = SIDE) -> None:
    """Write a pyramid that looks like tissue to a JPEG decoder, a row of tiles in memory at a time.

    Spots of some 8 px with a little noise: about a quarter of a byte per pixel, as scanners write.
    """
    import tifffile

    rng = np.random.default_rng(0)
    spots = Image.fromarray(rng.integers(120, 250, (TILE // 2, TILE // 2, 3), dtype=np.uint8))
    field = np.asarray(spots.resize((4 * TILE, 4 * TILE), Image.Resampling.BICUBIC), np.int16)
    field = (field + rng.integers(-4, 5, field.shape)).clip(0, 255).astype(np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(4):
            width = side >> level
            per_cm = 1e4 / (0.25 * 2**level)
            count = math.ceil(width / TILE) ** 2
            tiles = (
                field[i % 700 : i % 700 + TILE, i % 500 : i % 500 + TILE] for i in range(count)
            )
            tiff.write(
                tiles,
                shape=(width, width, 3),
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
    together = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        together = max(together, resident_kb(process.pid))
        time.sleep(0.2)
    if status:
        sys.exit(f"atypia {' '.join(arguments)} failed")
    return {
        "seconds": round(time.perf_counter() - clock, 1),
        "peak_memory_gb": round(usage.ru_maxrss / 1e6, 3),
        "peak_memory_with_readers_gb": round(together / 1e6, 3),
    }


def resident_kb(pid: int) -> int:
    """Resident memory of a process and of those that it has started (Linux)."""
    total = 0
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        total += int(found[1]) if found else 0
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total += sum(resident_kb(int(c)) for c in (thread / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        pass
    return total


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="released", help="'released', a bundle or a run folder")
    parser.add_argument("--quality", default="best")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--slide", type=Path)
    options = parser.parse_args()
    figures: dict[str, object] = dict(describe_machine())
    runs = []
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
            run = timed(
                "slide",
                str(slide),
                f"--candidates={candidates}",
                f"--out={Path(scratch) / f'{count}.geojson'}",
                f"--model={options.model}",
                f"--quality={options.quality}",
                f"--backend={options.backend}",
            )
            figures[f"{count} candidates"] = run
            runs.append(run)
    few, many = runs
    growth = {
        name: round(many[name] / few[name] - 1, 3)
        for name in ("peak_memory_gb", "peak_memory_with_readers_gb")
    }
    figures["growth of memory"] = growth
    figures["goals"] = {
        "10,000 candidates in less than 60 s": many["seconds"] < 60,
        "memory within 10 %": max(growth.values()) <= 0.1,
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
