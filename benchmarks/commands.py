"""Wall time and peak memory of ``atypia prepare`` and ``atypia evaluate`` on AMi-Br.

    python benchmarks/commands.py --ami-br ami-br

Each command runs in a process of its own, import included; the table to evaluate has all 3,720
figures, with expert 2's labels plus noise as probabilities. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from atypia.core.files import describe_machine
from atypia.core.labels import N_SUBTYPES, PROBABILITY_COLUMNS, subtype_index


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
    parser.add_argument("--ami-br", type=Path, required=True, help="AMi-Br checkout")
    options = parser.parse_args()
    figures: dict[str, object] = dict(describe_machine())
    with tempfile.TemporaryDirectory() as scratch:
        cohort = Path(scratch) / "cohort"
        figures["prepare"] = timed("prepare", str(options.ami_br), "--out", str(cohort))
        manifest = pd.read_csv(cohort / "manifest.csv", dtype=str, keep_default_na=False)
        rng = np.random.default_rng(0)
        noisy = rng.gamma(0.3, size=(len(manifest), N_SUBTYPES))
        noisy += np.eye(N_SUBTYPES)[[subtype_index(s) for s in manifest["label_expert2"]]]
        manifest[list(PROBABILITY_COLUMNS)] = noisy / noisy.sum(axis=1, keepdims=True)
        table = Path(scratch) / "predictions.csv"
        manifest.drop(columns=["file", "mpp"]).to_csv(table, index=False)
        figures["evaluate"] = timed("evaluate", str(table), "--out", str(Path(scratch) / "out"))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
