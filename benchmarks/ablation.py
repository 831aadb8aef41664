"""What each ingredient of a recipe is worth, inside the training part of a split.

One member per variant learns from the training patients outside one inner fold and answers for that
fold; no test part is touched. Variants are compared with the one they change, patient by patient. A
stopped run goes on where it was; a finished variant is not trained again.

    python benchmarks/ablation.py cohort --out runs/ablation --variant quick_16_epochs
    python benchmarks/ablation.py cohort --out runs/ablation --table

One process uses one thread by default: two of them beside each other are faster than one with two.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atypia.config import load_config
from atypia.data.cohort import Cohort
from atypia.data.loader import open_store
from atypia.data.splits import make_splits
from atypia.ensemble import Decision, load_network, predict_network
from atypia.evaluation.compare import compare
from atypia.evaluation.predictions import read_predictions, write_predictions
from atypia.inference.predict import prediction_table
from atypia.labels import N_SUBTYPES
from atypia.models.hardware import keep_freed_memory
from atypia.models.network import make_network
from atypia.pipeline.run import CHOSEN, with_chosen_label
from atypia.runs import write_json, write_text
from atypia.training.crossval import member_tasks
from atypia.training.distributed import World
from atypia.training.fit import Place, fit

if TYPE_CHECKING:
    from collections.abc import Sequence

BASE = ["optim.epochs=16"]
SMALL = [*BASE, "input.size_px=80"]
GROWING = [*BASE, "optim.progressive=[[0,64],[0.5,80],[0.75,96]]"]
ALONE = ["target.second_rater=null", "target.second_rater_mass=0"]
COLOUR = ["augment.stain=0.05", "augment.style=0.3", "augment.blur_um=0.25", "augment.scale=0.2"]

# Name: the variant it changes, what that means, settings on top of the preset `quick`.
VARIANTS: dict[str, tuple[str, str, list[str]]] = {
    "base": ("", "quick, 16 epochs", BASE),
    "field24": ("base", "field of 24 µm instead of 18 µm", [*BASE, "input.field_of_view_um=24"]),
    "small": ("base", "80 px instead of 96 px", SMALL),
    "expert1": ("small", "labels of expert 1 alone", [*SMALL, *ALONE]),
    "growing": ("base", "64, 80, then 96 px", GROWING),
    "colour": ("base", "64 to 96 px; dyes, styles, blur, more scale", [*GROWING, *COLOUR]),
    "votes": ("base", "64 to 96 px; term for the atypical votes", [*GROWING, "loss.atypical=0.5"]),
    "mixup": ("base", "64 to 96 px; MixUp 0.2", [*GROWING, "augment.mixup=0.2"]),
    "per_rater": ("base", "64 to 96 px; a head per rater", [*GROWING, "target.per_rater=true"]),
    "focal": (
        "small",
        "focal loss, balanced class weights",
        [*SMALL, "loss.kind=focal", "loss.class_weights=balanced"],
    ),
}
MEASURES = ("mean_auc", "balanced_accuracy", "macro_f1", "kappa", "log_loss", "binary.auc")


def main() -> None:
    """Train one variant, or print the table of all that are done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="table1")
    parser.add_argument("--variant", choices=sorted(VARIANTS))
    parser.add_argument("--member", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.variant:
        torch.set_num_threads(options.threads)
        keep_freed_memory()
        train_variant(options)
    if options.table:
        done = [v for v in VARIANTS if (options.out / v / "predictions.csv").is_file()]
        result = table(options.out, done)
        write_json(options.out / "ablation.json", result)
        write_text(options.out / "ablation.md", markdown(result))
        print(markdown(result))


def train_variant(options: argparse.Namespace) -> None:
    """Train one member; leaves its answers for the fold it has not seen."""
    cohort = Cohort.open(options.cohort)
    config = load_config("quick", VARIANTS[options.variant][2])
    folder = options.out / options.variant
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", config.to_yaml())
    outer = make_splits(
        with_chosen_label(cohort, config.label),
        cohort.sha256,
        kind=options.split,
        label=CHOSEN,
        seed=config.seed,
        inner_folds=config.ensemble.members,
    ).outer[0]
    task = member_tasks(cohort, outer, 0, config)[options.member]
    _, spec, _ = make_network(config.model, config.input, initial_weights=False)
    store = open_store(cohort, spec, config.augment, folder / ".pixels.npy")
    device = torch.device("cpu")
    fit(task, config, store, Place(device, torch.float32, World()), folder)
    network = load_network(config.model, spec, folder / "member.safetensors")
    rows = task.valid_rows
    answers = predict_network(
        network, store.pixels, store.mpp, spec, device=device, tta=config.ensemble.tta, rows=rows
    )
    counts = np.bincount(task.labels[task.train_rows], minlength=N_SUBTYPES)
    decision = Decision(prior=(counts / counts.sum()).tolist(), power=config.ensemble.prior_power)
    frame = prediction_table(cohort.manifest.iloc[rows], answers, decision, 0.5, options.member)
    write_predictions(folder / "predictions.csv", frame)


def table(out: Path, variants: Sequence[str]) -> list[dict[str, Any]]:
    """Measures of each variant, and its difference to the one it changes."""
    rows = []
    for name in variants:
        reference, meaning, _ = VARIANTS[name]
        other = reference if reference in variants else next(v for v in variants if v != name)
        named = {n: read_predictions(out / n / "predictions.csv") for n in (other, name)}
        result = compare(named)
        difference = result["differences"][0]["measures"] if reference in variants else {}
        rows.append(
            {
                "variant": name,
                "changes": reference,
                "meaning": meaning,
                "n": result["n"],
                "measures": {m: result["measures"][name][m] for m in MEASURES},
                "differences": {m: difference[m] for m in MEASURES if m in difference},
            }
        )
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Lay the table out; differences with their 95 % intervals stand in brackets."""
    lines = [f"| variant | against | {' | '.join(MEASURES)} |", "|---" * (2 + len(MEASURES)) + "|"]
    for row in rows:
        cells = []
        for measure in MEASURES:
            cell = f"{row['measures'][measure]:.3f}"
            if measure in row["differences"]:
                d = row["differences"][measure]
                cell += f" [{d['value']:+.3f}, {d['low']:+.3f} to {d['high']:+.3f}]"
            cells.append(cell)
        lines.append(f"| {row['meaning']} | {row['changes'] or '–'} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
