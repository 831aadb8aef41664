"""Time of ``atypia slides`` against the number of candidates, and what a killed worker costs.

    python benchmarks/cluster.py [--candidates 1000000] [--slides 1000] [--workers 2]

One invented slide (8,192 × 8,192 px at 0.25 µm/px, JPEG tiles) and one file of candidates stand for
all: the table names them under so many names, and each is opened and read as a slide of its own.
Three shares of the slides (``--shares``) are a job each, in a process of its own; in the last one a
worker is killed (SIGKILL) half-way, with ``--engine ray``. ``--model tiny`` (the default) is a very
small untrained network, so that a million candidates measure everything but the network; give a
bundle or ``released`` (with ``--quality fast`` and fewer candidates) to measure that as well.

Prints JSON: seconds and a straight line through them, rows that are lost or there twice, memory of
the process that hands out the work, bytes on the disk, CPU time to open the slide and to read a
field; with ``--engine local`` also CPU seconds of the job with those of its readers. The goals: no
row lost or there twice, and no job farther than 10 % from the line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from slide import write_slide

from atypia.core.files import describe_machine

if TYPE_CHECKING:
    import numpy.typing as npt

SIDE = 8192
SHARES = (0.03, 0.1, 1.0)


def write_tiny_model(folder: Path) -> None:
    """Write a bundle of one very small network with random weights."""
    import torch

    from atypia.classifiers.ensemble import Ensemble
    from atypia.core.config import InputConfig, ModelConfig
    from atypia.models.network import make_network

    torch.manual_seed(0)
    model = ModelConfig(backbone="test_convnext", pretrained=False)
    size = InputConfig(field_of_view_um=18, size_px=32)
    network, spec, _ = make_network(model, size, initial_weights=False)
    Ensemble([network.eval()], spec, model, tta=False).save(folder)


def reading_cost(slide: Path, places: npt.NDArray[np.float64]) -> dict[str, float]:
    """CPU time in ms: to open a slide, and to read the field of one candidate at 18 µm."""
    from atypia.core.config import InputSpec
    from atypia.inference.slide_predictions import field_to_read
    from atypia.slides import open_slide

    spec = InputSpec(field_of_view_um=18, size_px=64, mean=(0, 0, 0), std=(1, 1, 1))
    with open_slide(slide):
        pass  # libraries are loaded
    begin = time.process_time()
    with open_slide(slide) as opened:
        opening = time.process_time() - begin
        field_um, mpp = field_to_read([spec], opened.info.mpp or 0.25)
        begin = time.process_time()
        for x, y in places[:500]:
            opened.read_field(x, y, field_um, mpp)
        reading = (time.process_time() - begin) / len(places[:500])
    return {"opening, CPU ms": round(opening * 1e3, 1), "field, CPU ms": round(reading * 1e3, 2)}


def actors(driver: int) -> list[int]:
    """Find the processes below the driver in which Ray's actors work (Linux)."""
    parent, title = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
            title[int(folder.name)] = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue

    def is_below(pid: int) -> bool:
        while pid in parent and pid != driver:
            pid = parent[pid]
        return pid == driver

    return [pid for pid, name in title.items() if name.startswith(b"ray::MapW") and is_below(pid)]


def run_job(command: list[str], out: Path, n_parts: int, kill: bool) -> dict[str, Any]:
    """Run a job; seconds, memory, and what became of the worker that was killed."""
    clock = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    figures: dict[str, Any] = {}
    while kill and process.poll() is None:
        done = len(list((out / "parts").glob("[0-9a-f]*.parquet")))
        if done >= n_parts / 2 and (working := actors(process.pid)):
            os.kill(working[0], signal.SIGKILL)
            figures["killed after items"] = done
            break
        time.sleep(0.2)
    _, told = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{told.decode()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures["seconds"] = round(time.perf_counter() - clock, 1)
    figures["cpu_seconds"] = round(
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1
    )
    return figures


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--slides", type=int, default=1_000)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", default="ray", choices=("ray", "local"))
    parser.add_argument("--item-size", type=int, default=1024)
    parser.add_argument("--model", default="tiny", help="'tiny', 'released', a bundle or a run")
    parser.add_argument("--quality", default="best")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--slide", type=Path, help="a real one instead of the invented one")
    options = parser.parse_args()
    each = options.candidates // options.slides
    figures: dict[str, Any] = dict(describe_machine())
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        slide = options.slide or scratch / "slide.tif"
        if options.slide is None:
            write_slide(slide, SIDE)
        if options.model == "tiny":
            write_tiny_model(scratch / "tiny")
        from atypia.slides import open_slide

        with open_slide(slide) as opened:
            size = opened.info.width, opened.info.height
        places = np.random.default_rng(0).random((each, 2)) * size
        pd.DataFrame(places, columns=["x_px", "y_px"]).to_csv(scratch / "c.csv", index=False)
        figures |= reading_cost(slide, places)
        for share in options.shares:
            count = max(1, round(options.slides * share))
            table = pd.DataFrame(
                {
                    "slide": str(slide.absolute()),
                    "candidates": "c.csv",
                    "slide_id": [f"slide-{i}" for i in range(count)],
                }
            )
            table.to_csv(scratch / "table.csv", index=False)
            out = scratch / f"job-{count}"
            command = [sys.executable, "-m", "atypia", "slides", str(scratch / "table.csv")]
            command += ["--out", str(out), "--engine", options.engine]
            command += ["--item-size", str(options.item_size), "--quality", options.quality]
            command += ["--backend", options.backend]
            model = str(scratch / "tiny") if options.model == "tiny" else options.model
            command += ["--model", model]
            if options.engine == "ray":
                command += ["--workers", str(options.workers)]
            n_parts = count * -(-each // options.item_size)
            kill = options.engine == "ray" and share == max(options.shares)
            run = {"slides": count, "candidates": count * each}
            run |= run_job(command, out, n_parts, kill)
            if options.engine == "ray":
                del run["cpu_seconds"]  # the workers are no children of ours
            names = pd.read_parquet(out / "parts", columns=["patch_id"])["patch_id"]
            run["lost"] = count * each - names.nunique()
            run["twice"] = len(names) - names.nunique()
            for part in ("parts", "candidates"):
                used = sum(path.stat().st_size for path in (out / part).iterdir())
                run[f"bytes per candidate, {part}"] = round(used / (count * each), 1)
            runs.append(run)
    n = np.array([run["candidates"] for run in runs], dtype=np.float64)
    seconds = np.array([run["seconds"] for run in runs])
    slope, start = np.polyfit(n, seconds, 1, w=1 / seconds)
    deviation = float(np.abs((start + slope * n) / seconds - 1).max())
    figures |= {
        "engine": options.engine,
        "workers": options.workers if options.engine == "ray" else 1,
        "model": options.model,
        "runs": runs,
        "seconds at the start": round(float(start), 1),
        "seconds per 1,000 candidates": round(float(slope) * 1000, 3),
        "largest deviation from the line": f"{deviation:.1%}",
        "largest process, GB": round(
            resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6, 2
        ),
        "goals": {
            "nothing lost, nothing twice": not any(run["lost"] or run["twice"] for run in runs),
            "within 10 % of a straight line": deviation <= 0.1,
        },
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
