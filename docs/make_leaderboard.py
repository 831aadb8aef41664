"""Set every approach beside the flat ensemble: docs/results/leaderboard.md, from run folders.

    python docs/make_leaderboard.py runs docs/results --out docs/results/leaderboard.md

The approaches, and the names of their runs, are in docs/leaderboard.yaml. The folders given are
looked through in their order; a run counts where it is finished. What has no run is listed with
the command that makes one. Speeds come from the file of benchmarks/speed_of_runs.py, if given.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml
from kept_results import rounded
from leaderboard import differences, page, runs

from atypia.core.files import read_json, write_json, write_text

APPROACHES = Path(__file__).parent / "leaderboard.yaml"
SPLITS = {
    "table1": "The test part of `table1`",
    "cv": "Five-fold cross-validation by patient",
}


def main() -> None:
    """Write the page, and its figures as JSON beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of run folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--speed", type=Path, help="JSON of benchmarks/speed_of_runs.py")
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    approaches = yaml.safe_load(APPROACHES.read_text("utf-8"))
    speeds = read_json(options.speed) if options.speed is not None else {}
    lines = [page.HEADER]
    figures: dict[str, Any] = {}
    for split, title in SPLITS.items():
        entries = [runs.found(a, split, options.folders) for a in approaches]
        runs.find_parts(entries, split)
        references = [
            run for a in approaches if a.get("reference")
            for run in runs.all_found(a, split, options.folders)
        ]  # fmt: skip
        differences.compare_all(entries, references, options.resamples)
        differences.decide_alike(entries, references, options.resamples)
        lines += page.section(title, split, entries, speeds)
        figures[split] = {e.name: differences.record(e) for e in entries if e.folder is not None}
    write_text(options.out, "\n".join(lines) + "\n")
    write_json(options.out.with_suffix(".json"), rounded(figures, 6), compact=True)


if __name__ == "__main__":
    main()
