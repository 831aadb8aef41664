"""Are the maps of ``atypia explain`` about the network? Its checks, on patches of a cohort.

As many figures of each subtype as there are to be had, of those on which the raters agree, drawn
with a seed; what is explained is the subtype that the model gives. For each method: the rank
correlation with the maps of networks whose weights were shuffled, from the answer back, and the
areas under the deletion and insertion curves beside those of random places, of the middle of the
field and of the darkest places. A method that has been measured is not measured again; the table
holds every one that has been.

    python benchmarks/explanations.py cohorts/ami-br --out runs/explanations
    python benchmarks/explanations.py cohorts/ami-br --out runs/explanations-fast --quality fast
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atypia.classifiers.ensemble import Ensemble
from atypia.core.files import read_json, write_json, write_text
from atypia.core.labels import SUBTYPES
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.explain import METHODS, check, explain, maps_by
from atypia.explain.randomise import SHARES

if TYPE_CHECKING:
    import numpy.typing as npt

CASCADE = {"gradcam": SHARES}
"""Shares of the layers to shuffle, by method; the others take too long for more than all."""


def choose(cohort: Cohort, n: int, seed: int) -> npt.NDArray[np.int64]:
    """Rows of about `n` figures, evenly over the subtypes, on whose subtype all raters agree."""
    labels = cohort.manifest[[f"label_{rater}" for rater in cohort.raters]].to_numpy()
    agreed = (labels == labels[:, :1]).all(axis=1)
    rng = np.random.default_rng(seed)
    rows = []
    for subtype in SUBTYPES:
        these = np.flatnonzero(agreed & (labels[:, 0] == subtype))
        rows.append(rng.choice(these, min(n // len(SUBTYPES), len(these)), replace=False))
    return np.concatenate(rows)


def measure(
    ensemble: Ensemble, patches: npt.NDArray[np.uint8], mpp: float, method: str, seed: int
) -> dict[str, Any]:
    """Check one method."""
    targets = ensemble.postprocessing.subtypes(ensemble.predict_proba(patches, mpp))
    found = explain(ensemble, patches, mpp, targets, method)
    sanity = check(
        ensemble,
        patches,
        mpp,
        targets,
        maps_by(method),
        maps=found.maps,
        shares=CASCADE.get(method, (1.0,)),
        seed=seed,
    )
    difference = found.scores - found.flat_scores
    return sanity.to_json() | {
        "method": method,
        "seed": seed,
        "score_difference": float(np.abs(difference).mean()),
        "completeness_error": float(np.abs(found.totals - difference).mean()),
        "mean_curves": {name: curve.tolist() for name, curve in sanity.mean_curves.items()},
    }


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: randomisation, then areas."""

    def cell(e: dict[str, float]) -> str:
        return f"{e['value']:.3f} ({e['low']:.3f} to {e['high']:.3f})"

    lines = [
        "| method | layers shuffled | correlation, signed | correlation of strength |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {r['method']} | {step['share']:.0%} | {cell(step['signed'])} | "
        f"{cell(step['magnitude'])} |"
        for r in results
        for step in r["randomisation"]
    ]
    lines += [
        "",
        "| order of cells | deletion (low is good) | insertion (high is good) |",
        "|---|---|---|",
    ]
    lines += [
        f"| {r['method']} | {cell(r['deletion']['map'])} | {cell(r['insertion']['map'])} |"
        for r in results
    ]
    lines += [
        f"| {name} | {cell(results[0]['deletion'][key])} | {cell(results[0]['insertion'][key])} |"
        for key, name in (
            ("dark", "darkest places"),
            ("middle", "middle of the field"),
            ("random", "random places"),
        )
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write ``METHOD.json`` and ``table.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="released")
    parser.add_argument("--quality", default="best")
    parser.add_argument("--method", choices=METHODS, action="append", help="[default: all]")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    cohort = Cohort.open(asked.cohort)
    rows = choose(cohort, asked.n, asked.seed)
    paths = cohort.image_paths()
    patches = np.stack([read_patch(paths[row]) for row in rows])
    mpp = float(cohort.manifest["mpp"].iloc[rows[0]])
    ensemble = Ensemble.load(asked.model, asked.quality)
    files = {method: asked.out / f"{method}.json" for method in METHODS}
    for method in asked.method or METHODS:
        if not files[method].is_file():
            write_json(files[method], measure(ensemble, patches, mpp, method, asked.seed))
        results = [read_json(file) for file in files.values() if file.is_file()]
        write_text(asked.out / "table.md", table(results))
        print(table(results), flush=True)


if __name__ == "__main__":
    main()
