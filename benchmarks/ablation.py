"""What each ingredient of a recipe is worth, inside the training part of a split.

One member per variant learns from the training patients outside one inner fold and answers for that
fold; no test part is touched. Each variant changes one thing of the recipe ``released`` and is
compared with it, patient by patient. A stopped run goes on where it was; a finished one is not
trained again.

    python benchmarks/ablation.py cohorts/ami-br --out runs/ablation --variant released
    python benchmarks/ablation.py cohorts/ami-br --out runs/ablation --variant mixup
    python benchmarks/ablation.py cohorts/ami-br --out runs/ablation --table

``seed1`` and ``seed2`` are the recipe with other random numbers: how far a figure moves by chance,
which the intervals (of patients) do not tell. ``mean`` and ``soup`` are not trained; they join the
members of ``released``, ``seed1`` and ``seed2``, which have learned from the same patients: the
mean of their probabilities, and one network with the mean of their weights (Wortsman et al., ICML
2022). ``one_view``, ``power0`` and ``power05`` are not trained either: the member of ``released``
answers in another way. ``vit`` needs the package's extra weights-vit.

``focal`` and ``sampling`` show every subtype equally often, or as if, and so have divided by the
subtypes' frequencies before the decision does: they decide with the power 0.

One process uses one thread by default: two of them beside each other are faster than one with two.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from one_member import MEASURES, NAMES, PLACE, outer_split, signed, write_answers
from torch.optim.swa_utils import AveragedModel, update_bn

from atypia.classifiers.ensemble import load_network, predict_network
from atypia.core.config import load_config
from atypia.core.errors import InputError, Problem
from atypia.core.files import write_json, write_text
from atypia.data.cohort import Cohort
from atypia.evaluation.comparison import compare
from atypia.evaluation.predictions import read_predictions
from atypia.models.hardware import keep_freed_memory
from atypia.models.network import make_network
from atypia.models.transforms import Augmenter, colour_styles
from atypia.training.epoch_batches import Views, plan_epoch
from atypia.training.fit import fit
from atypia.training.member_tasks import member_tasks
from atypia.training.patch_store import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atypia.core.config import InputSpec, TrainConfig
    from atypia.models.network import Network
    from atypia.training.distributed import ComputePlace
    from atypia.training.member_tasks import MemberTask
    from atypia.training.patch_store import PatchStore

PRESET = "released"
MEMBERS = ["ensemble.members=3"]
PLAIN_COLOUR = ["augment.stain=0", "augment.style=0", "augment.blur_um=0"]
EVEN_HANDED = "ensemble.prior_power=0"
ALONE = ["target.second_rater=null", "target.second_rater_mass=0"]

# Name: what it changes in the recipe, and how.
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "released": ("the recipe", []),
    "expert1": ("labels of expert 1 alone", ALONE),
    "per_rater": ("a head per rater instead of a shared target", ["target.per_rater=true"]),
    "no_smoothing": ("without label smoothing", ["target.smoothing=0"]),
    "no_votes": ("without the term for the atypical votes", ["loss.atypical=0"]),
    "plain_colour": ("without dyes, styles and blur", PLAIN_COLOUR),
    "no_shapes": (
        "without changes of scale and place",
        ["augment.scale=0", "augment.shift_um=0"],
    ),
    "mixup": ("with MixUp 0.2", ["augment.mixup=0.2"]),
    "cutmix": ("with CutMix 1", ["augment.cutmix=1"]),
    "focal": (
        "focal loss, balanced class weights",
        ["loss.kind=focal", "loss.class_weights=balanced", EVEN_HANDED],
    ),
    "sampling": ("every subtype drawn equally often", ["optim.sampling=1", EVEN_HANDED]),
    "no_ema": ("last weights instead of their moving average", ["optim.ema=0"]),
    "swa": (
        "equal average of the last 4 epochs instead of a moving one",
        ["optim.ema=0", "optim.average=0.25"],
    ),
    "self_supervised": (
        "10 epochs without labels first",
        ["optim.self_supervised_epochs=10"],
    ),
    "field24": ("field of 24 µm", ["input.field_of_view_um=24"]),
    "px96": ("96 px", ["input.size_px=96"]),
    "whole": ("the whole network, stages of 1/32 included", ["model.reduction=null"]),
    "random": ("from random weights", ["model.pretrained=false"]),
    "lite1": ("EfficientNet-Lite1", ["model.backbone=tf_efficientnet_lite1"]),
    "lite2": ("EfficientNet-Lite2", ["model.backbone=tf_efficientnet_lite2"]),
    "vit": (
        "ViT-S/14, 84 px, a tenth of the learning rate",
        [
            *("model.backbone=vit_small_patch14_dinov2", "model.reduction=null"),
            *("input.size_px=84", "optim.learning_rate=1e-4"),
        ],
    ),
    "convnext": (
        "ConvNeXt-Atto from random weights",
        ["model.backbone=convnext_atto", "model.pretrained=false", "model.reduction=null"],
    ),
    "one_view": ("one view instead of the mean of eight", ["ensemble.tta=false"]),
    "power0": ("the most probable subtype, p / frequency^0", [EVEN_HANDED]),
    "power05": ("p / frequency^0.5 instead of 0.25", ["ensemble.prior_power=0.5"]),
    "seed1": ("the recipe, other random numbers", []),
    "seed2": ("the recipe, other random numbers again", []),
    "mean": ("mean probability of three seeds", []),
    "soup": ("mean weights of three seeds, against their mean probability", []),
}
SEEDS = {"seed1": 1, "seed2": 2}
SEVERAL = ("released", "seed1", "seed2")
PARTS = {"mean": SEVERAL, "soup": SEVERAL} | dict.fromkeys(
    ("one_view", "power0", "power05"), ("released",)
)
"""Whose networks answer, where nothing is trained."""
REFERENCE = {"soup": "mean"}
"""What a variant is compared with, where it is not the recipe."""


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
        write_json(options.out / "ablation.json", result, compact=True)
        write_text(options.out / "ablation.md", markdown(result))
        print(markdown(result))


def train_variant(options: argparse.Namespace) -> None:
    """Train one member, or ask those that are trained; leaves answers for the fold not seen."""
    cohort = Cohort.open(options.cohort)
    config = load_config(PRESET, [*MEMBERS, *VARIANTS[options.variant][1]])
    folder = options.out / options.variant
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", config.to_yaml())
    outer = outer_split(cohort, config, options.split)
    task = member_tasks(cohort, outer, 0, config)[options.member]
    # The folds are the recipe's own; only what happens in the training is drawn anew.
    task = replace(task, seed=task.seed + SEEDS.get(options.variant, 0))
    _, spec, _ = make_network(config.model, config.input, initial_weights=False)
    store = open_store(cohort, spec, config.augment, folder / ".pixels.npy")
    if options.variant in PARTS:
        networks = load_parts(options.out, PARTS[options.variant], config, spec)
        if options.variant == "soup":
            networks = [soup(networks, task, config, spec, store, PLACE)]
    else:
        fit(task, config, store, PLACE, folder)
        networks = [load_network(config.model, spec, folder / "member.safetensors")]
    rows, tta = task.valid_rows, config.ensemble.tta
    answers = np.mean(
        [
            predict_network(
                network, store.pixels, store.mpp, spec, device=PLACE.device, tta=tta, rows=rows
            )
            for network in networks
        ],
        axis=0,
    )
    write_answers(folder, cohort, config, task, answers, options.member)


def load_parts(
    out: Path, names: Sequence[str], config: TrainConfig, spec: InputSpec
) -> list[Network]:
    """Load the members that answer."""
    missing = [name for name in names if not (out / name / "done.json").is_file()]
    if missing:
        raise InputError([Problem(f"expected --variant {name} to be done.") for name in missing])
    return [load_network(config.model, spec, out / name / "member.safetensors") for name in names]


def soup(
    parts: Sequence[Network],
    task: MemberTask,
    config: TrainConfig,
    spec: InputSpec,
    store: PatchStore,
    place: ComputePlace,
) -> Network:
    """Average the weights of networks that started from the same backbone, all alike.

    Their running means of batches are not those of the averaged weights; these are taken anew from
    one pass over the augmented training images.
    """
    average = AveragedModel(parts[0])
    for part in parts:
        average.update_parameters(part)
    styles = colour_styles(store.pixels[task.train_rows])
    augmenter = Augmenter(config.augment, spec, task.seed, styles)
    plan = plan_epoch(len(task.train_rows), config.optim.batch_size, None, task.seed, 0)
    torch.manual_seed(task.seed)
    update_bn(Views(store, task.train_rows, plan, augmenter, place), average)
    return cast("Network", average.module).eval()


def table(out: Path, variants: Sequence[str]) -> list[dict[str, Any]]:
    """Measures of the recipe and of each variant, and its difference to what it is judged by."""
    named = {n: read_predictions(out / n / "predictions.csv") for n in variants}
    rows: list[dict[str, Any]] = []
    for name in variants[1:]:
        reference = REFERENCE.get(name, variants[0])
        if reference not in named:
            reference = variants[0]
        result = compare({reference: named[reference], name: named[name]})
        difference = result["differences"][0]["measures"]
        if not rows:
            rows.append(_row(variants[0], result, {}))
        rows.append(_row(name, result, difference))
    return rows


def _row(name: str, result: dict[str, Any], difference: dict[str, Any]) -> dict[str, Any]:
    return {
        "variant": name,
        "meaning": VARIANTS[name][0],
        "n": result["n"],
        "measures": {m: result["measures"][name][m] for m in MEASURES},
        "differences": {m: difference[m] for m in MEASURES if m in difference},
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Lay the table out; differences with their 95 % intervals stand in brackets."""
    lines = [*chance(rows), f"| variant | {' | '.join(NAMES.values())} |"]
    lines.append("|---" * (1 + len(MEASURES)) + "|")
    for row in rows:
        cells = []
        for measure in MEASURES:
            cell = f"{row['measures'][measure]:.3f}"
            if measure in row["differences"]:
                d = row["differences"][measure]
                cell += f" [{signed(d['value'])}, {signed(d['low'])} to {signed(d['high'])}]"
            cells.append(cell)
        lines.append(f"| {row['meaning']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def chance(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say how far the recipe's own figures move with its random numbers."""
    seeds = [row["measures"] for row in rows if row["variant"] in SEVERAL]
    if len(seeds) < 2:
        return []
    told = [f"{NAMES[m]} {max(s[m] for s in seeds) - min(s[m] for s in seeds):.3f}" for m in NAMES]
    return [f"Between {len(seeds)} seeds of the recipe figures differ by: {', '.join(told)}.", ""]


if __name__ == "__main__":
    main()
