"""Patches per second of the models of finished runs, from files to the finished table.

    python benchmarks/speed_of_runs.py cohorts/ami-br runs/flat runs/rules --out speed.json

One after the other, on a machine with nothing else to do, with all of its cores. What the file
holds of other runs stays. A run of several test parts is measured by its first model.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from atypia.classifiers.loading import load_ensemble
from atypia.core.files import describe_machine, read_json, write_json
from atypia.inference.patch_predictions import find_items, predict_items
from atypia.models.hardware import keep_freed_memory


def main() -> None:
    """Measure each run, and keep what is known of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--patches", type=int, default=512)
    options = parser.parse_args()
    keep_freed_memory()
    known: dict[str, Any] = read_json(options.out) if options.out.is_file() else {}
    items = find_items([options.cohort], None)[: options.patches]
    for run in options.runs:
        folder = run / "outer-0" if (run / "outer-0").is_dir() else run
        model = load_ensemble(folder)
        predict_items(model, items[:32])  # buffers are made, threads started
        clock, cpu = time.perf_counter(), time.process_time()
        predict_items(model, items)
        wall, cpu = time.perf_counter() - clock, time.process_time() - cpu
        known[run.name] = {
            "patches": len(items),
            "patches_per_second": round(len(items) / wall, 2),
            # On a busy machine: what it would be with all cores to itself, for one core.
            "patches_per_cpu_second": round(len(items) / cpu, 2),
            "machine": describe_machine(),
        }
        print(run.name, known[run.name]["patches_per_second"])
        write_json(options.out, known)


if __name__ == "__main__":
    main()
