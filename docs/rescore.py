"""Measure the kept predictions of all runs anew, where the way to measure has changed.

    python docs/rescore.py

Values must stay what they were, but for the calibration error; a folder in which they do not is
named and left as it is. What ``make_results.py`` has left out stays out. Measures out of fold whose
predictions are not kept stay as they were made; their ``interval`` says how.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from kept_results import read_metrics, rounded
from make_results import write_compressed

from atypia.evaluation.predictions import read_predictions
from atypia.evaluation.scores import evaluate

RESULTS = Path(__file__).parent / "results"
CHANGED = ("ece",)
"""Measures whose values may change, beside the intervals."""
CLOSE = 2e-3
"""Probabilities are kept with six decimals."""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for file in sorted(options.results.glob("**/metrics.json.bz2")):
        folder = file.parent
        name = folder.relative_to(options.results)
        if not list(folder.glob("predictions-*.csv.bz2")):
            print(f"{name}: no predictions are kept")
            continue
        old = read_metrics(folder)
        new = {key: value for key, value in measured(folder, old).items() if key in old}
        if different := list(differences(old, new, "")):
            print(f"{name}: left as it was, other values: {'; '.join(different[:3])}")
            continue
        text = json.dumps({**old, **rounded(new)}, separators=(",", ":"), ensure_ascii=False)
        write_compressed(file, text)
        print(f"{name}: measured anew", flush=True)


def measured(folder: Path, old: dict[str, Any]) -> dict[str, Any]:
    """Score the predictions of a folder as they were scored."""
    return evaluate(
        read_predictions(folder),
        old["label"],
        threshold=old["binary"]["against"][old["label"]]["at_operating_point"]["threshold"],
        alpha=old.get("conformal", {}).get("alpha"),
    )


def differences(old: Any, new: Any, at: str) -> list[str]:
    """Name the measures that have other values."""
    if isinstance(old, dict) and "value" in old and isinstance(new, dict):
        before, after = old["value"], new.get("value")
        close = before == after or (
            None not in (before, after) and math.isclose(before, after, abs_tol=CLOSE)
        )
        return [] if close or at.endswith(CHANGED) else [f"{at} {before} is {after}"]
    if isinstance(old, dict) and isinstance(new, dict):
        return [d for k in old if k in new for d in differences(old[k], new[k], f"{at}.{k}")]
    return []


if __name__ == "__main__":
    main()
