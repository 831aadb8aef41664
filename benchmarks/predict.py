"""Patches per second of ``atypia predict``, and seconds to its first answer.

    python benchmarks/predict.py cohorts/ami-br [--model released]

For each quality that the model offers: patches per second over a part of a cohort, from files to
the finished table, decoding included; and wall seconds of a fresh process that classifies one
image. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

PATCHES = {"fast": 2000, "best": 64}


def first_answer(image: Path, mpp: float, model: str, quality: str) -> float:
    """Wall seconds of ``atypia predict IMAGE`` in a process of its own; the better of two."""
    command = [sys.executable, "-m", "atypia", "predict", str(image), "--mpp", str(mpp)]
    command += ["--model", model, "--quality", quality]
    seconds = []
    for _ in range(2):  # the first one may read the libraries from disk
        clock = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - clock)
    return min(seconds)


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path, help="cohort folder")
    parser.add_argument("--model", default="released", help="bundle or run folder")
    options = parser.parse_args()

    from atypia.classifiers.bundle import find_bundle, read_header
    from atypia.classifiers.ensemble import Ensemble
    from atypia.core.files import describe_machine
    from atypia.inference.patch_predictions import find_items, predict_items
    from atypia.models.hardware import choose_device, keep_freed_memory

    items = find_items([options.cohort], None)
    figures: dict[str, object] = dict(describe_machine())
    figures["keeps freed memory"] = keep_freed_memory()
    for quality in read_header(find_bundle(options.model)).qualities:
        wait = first_answer(items[0].path, items[0].mpp, options.model, quality)
        device = choose_device("auto")
        model = Ensemble.load(options.model, quality).to(device)
        predict_items(model, items[:64])  # buffers are made, threads started
        n = min(PATCHES[quality], len(items))
        clock, cpu = time.perf_counter(), time.process_time()
        predict_items(model, items[:n])
        wall, cpu = time.perf_counter() - clock, time.process_time() - cpu
        figures[quality] = {
            "networks": len(model.members),
            "patches": n,
            "patches per second": round(n / wall, 1),
            # On a busy machine: what it would be with all cores to itself.
            "patches per CPU second": round(n / cpu, 1),
            "seconds to the first answer": round(wait, 2),
        }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
