"""What labels are worth, and what figures without them are: inside the training part of a split.

One member per variant learns from the training patients outside one inner fold and answers for that
fold; no test part is touched. Of the training patients 10, 30 or 100 % keep their labels; what is
known of the others is nothing (``alone``, ``unlabelled``), whether a figure is atypical
(``binary``, ``binary_unlabelled``), or what networks of ``alone`` say of them with eight views
(``taught``, ``taught3``, ``binary_taught3``: self-training, Xie et al., CVPR 2020). Every variant
takes as many steps as that with all labels: what differs is what is learned from, not for how long.
A stopped run goes on where it was; a finished one is not trained again.

    python benchmarks/few_labels.py cohorts/ami-br --out runs/few --variant 100_alone
    python benchmarks/few_labels.py cohorts/ami-br --out runs/few --variant 30_alone
    python benchmarks/few_labels.py cohorts/ami-br --out runs/few --variant 30_unlabelled
    python benchmarks/few_labels.py cohorts/ami-br --out runs/few --variant 30_binary
    python benchmarks/few_labels.py cohorts/ami-br --out runs/few --variant 30_taught
    python benchmarks/few_labels.py cohorts/ami-br --out runs/few --variant 30_alone1    # and so on
    python benchmarks/few_labels.py cohorts/ami-br --out runs/few --table

``--member`` takes another fold; the table pools the folds that every variant has. ``--set
key=value`` with ``--name`` tries something else, in a folder of its own.

One process uses one thread by default: two of them beside each other are faster than one with two.
"""

from __future__ import annotations

import argparse
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from one_member import MEASURES, NAMES, PLACE, outer_split, signed, write_answers

from atypia.classifiers.answers import Answers
from atypia.classifiers.ensemble import load_network, predict_network
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.config import load_config
from atypia.core.errors import InputError, Problem
from atypia.core.files import write_json, write_text
from atypia.data.cohort import Cohort
from atypia.evaluation.comparison import compare
from atypia.evaluation.predictions import read_predictions, write_predictions
from atypia.inference.patch_predictions import prediction_table
from atypia.models.hardware import keep_freed_memory
from atypia.models.network import make_network
from atypia.training.fit import fit
from atypia.training.member_tasks import member_tasks
from atypia.training.patch_store import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atypia.core.config import TrainConfig
    from atypia.training.member_tasks import MemberTask

PRESET = "released"
MEMBERS = ["ensemble.members=3"]
SHARES = (10, 30, 100)
UNLABELLED = ["unlabelled.weight=1"]
# What is learned of the patients without labels: meaning, settings.
KINDS: dict[str, tuple[str, list[str]]] = {
    "alone": ("alone", []),
    "unlabelled": ("and the rest without labels", UNLABELLED),
    "binary": ("and atypical or normal of the rest", ["target.others=atypical"]),
    "binary_unlabelled": (
        "and atypical or normal of the rest, which is shown twice as well",
        ["target.others=atypical", *UNLABELLED],
    ),
    "alone1": ("alone, other random numbers", []),
    "alone2": ("alone, other random numbers again", []),
    "taught": ("and what the network of as few labels says of the rest", []),
    "taught3": ("and what three networks of as few labels say of the rest", []),
    "binary_taught3": ("and of the rest atypical or normal, and this", ["target.others=atypical"]),
}
SEEDS = {"alone1": 1, "alone2": 2}
TEACHERS = {
    "taught": ("alone",),
    "taught3": ("alone", "alone1", "alone2"),
    "binary_taught3": ("alone", "alone1", "alone2"),
}
"""Whose answers about the rest are learned from."""
ALL = "100_alone"
VARIANTS = [f"{share}_{kind}" for share in SHARES[:-1] for kind in KINDS] + [ALL]


def main() -> None:
    """Train one variant, or print the table of all that are done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="table1")
    parser.add_argument("--variant", choices=VARIANTS)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--name", help="Of the folder, where settings change the variant.")
    parser.add_argument("--member", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.variant:
        if options.settings and not options.name:
            raise SystemExit("--name: expected a name of its own for a variant with settings")
        torch.set_num_threads(options.threads)
        keep_freed_memory()
        train_variant(options)
    if options.table:
        result = table(options.out)
        write_json(options.out / "few_labels.json", result, compact=True)
        write_text(options.out / "few_labels.md", markdown(result))
        print(markdown(result))


def train_variant(options: argparse.Namespace) -> None:
    """Train one member; leaves its answers for the fold that it has not seen."""
    cohort = Cohort.open(options.cohort)
    share, _, kind = options.variant.partition("_")
    settings = [*MEMBERS, f"target.labelled_patients={int(share) / 100}", *KINDS[kind][1]]
    plain = load_config(PRESET, MEMBERS)
    outer = outer_split(cohort, plain, options.split)
    every = member_tasks(cohort, outer, 0, plain)[options.member]
    steps = len(every.train_rows) // plain.optim.batch_size
    settings += [f"optim.batches_per_epoch={steps}", *options.settings]
    config = load_config(PRESET, settings)
    member = options.out / f"member-{options.member}"
    if kind in TEACHERS:
        task = member_tasks(cohort, outer, 0, config)[options.member]
        teachers = [member / f"{share}_{name}" for name in TEACHERS[kind]]
        teacher = ask(teachers, member, cohort, config, task, options.member)
        config = load_config(
            PRESET, [*settings, f"target.teacher={teacher}", "target.teacher_mass=1"]
        )
    folder = member / (options.name or options.variant)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", config.to_yaml())

    task = member_tasks(cohort, outer, 0, config)[options.member]
    task = replace(task, seed=task.seed + SEEDS.get(kind, 0))
    known = task.labels[task.train_rows] >= 0
    patients = cohort.manifest["patient_id"].iloc[task.train_rows[known]].nunique()
    print(f"{known.sum()} figures of {patients} patients with a subtype, "
          f"{len(task.unlabelled_rows)} without")  # fmt: skip
    _, spec, _ = make_network(config.model, config.input, initial_weights=False)
    store = open_store(cohort, spec, config.augment, folder / ".pixels.npy")
    if not (folder / "done.json").is_file():
        fit(task, config, store, PLACE, folder)
    network = load_network(config.model, spec, folder / "member.safetensors")
    rows, tta = task.valid_rows, config.ensemble.tta
    answers = predict_network(
        network, store.pixels, store.mpp, spec, device=PLACE.device, tta=tta, rows=rows
    )
    write_answers(folder, cohort, config, task, answers, options.member)


def ask(
    teachers: Sequence[Path],
    folder: Path,
    cohort: Cohort,
    config: TrainConfig,
    task: MemberTask,
    member: int,
) -> Path:
    """Ask networks with few labels about the training figures that they have not learned from."""
    missing = [t.name for t in teachers if not (t / "done.json").is_file()]
    if missing:
        raise InputError([Problem(f"expected --variant {name} to be done.") for name in missing])
    _, spec, _ = make_network(config.model, config.input, initial_weights=False)
    store = open_store(cohort, spec, config.augment, folder / ".pixels.npy")
    rows = np.flatnonzero(~task.targets.subtypes.any(axis=(1, 2)))
    rows = np.intersect1d(rows, task.seen_rows)
    answers = np.mean(
        [
            predict_network(
                load_network(config.model, spec, teacher / "member.safetensors"),
                store.pixels,
                store.mpp,
                spec,
                device=PLACE.device,
                tta=config.ensemble.tta,
                rows=rows,
            )
            for teacher in teachers
        ],
        axis=0,
    )
    file = folder / f"{teachers[0].name}-{len(teachers)}-of-the-rest.csv"
    about = cohort.manifest.iloc[rows]
    write_predictions(file, prediction_table(about, Answers(answers), Postprocessing(), member))
    return file


def table(out: Path) -> list[dict[str, Any]]:
    """Measures of each variant, its differences, and the part that it recovers of what is lost.

    A variant is compared with that with all labels and with that of as few labels alone.
    """
    done = {
        name: sorted(
            file.parent.parent.name for file in out.glob(f"member-*/{name}/predictions.csv")
        )
        for name in sorted({f.parent.name for f in out.glob("member-*/*/predictions.csv")})
    }
    if ALL not in done:
        raise InputError([Problem(f"expected --variant {ALL} to be done.")])
    order = [*(name for name in VARIANTS if name in done), *(n for n in done if n not in VARIANTS)]
    folds = sorted(set.intersection(*(set(members) for members in done.values())))
    if not folds:
        raise InputError([Problem(f"expected a member that every variant has but got {done}.")])
    named = {}
    for name in order:
        parts = [pd.read_csv(out / fold / name / "predictions.csv") for fold in folds]
        file = out / f".{name}.csv"
        write_predictions(file, pd.concat(parts).fillna(""))
        named[name] = read_predictions(file)
        file.unlink()
    rows = []
    for name in order:
        share = re.match(r"\d+", name)
        alone = f"{share[0]}_alone" if share else ALL
        against = [a for a in dict.fromkeys((ALL, alone)) if a in named and a != name]
        rows.append(_row(name, folds, named, against, alone))
    return rows


def _row(
    name: str, folds: Sequence[str], named: dict[str, Any], against: Sequence[str], alone: str
) -> dict[str, Any]:
    differences: dict[str, Any] = {}
    recovered: dict[str, float | None] = {}
    values: dict[str, Any] = {}
    for other in against or [next(n for n in named if n != name)]:
        result = compare({other: named[other], name: named[name]})
        values |= {n: result["measures"][n] for n in (other, name)}
        if other in against:
            measures = result["differences"][0]["measures"]
            differences[other] = {m: measures[m] for m in MEASURES}
    another_seed = name.partition("_")[2] in SEEDS
    if name not in (ALL, alone) and alone in values and not another_seed:
        for m in MEASURES:
            lost = values[ALL][m] - values[alone][m]
            fewer_are_worse = lost < 0 if m == "log_loss" else lost > 0
            part = (values[name][m] - values[alone][m]) / lost if fewer_are_worse else None
            recovered[m] = part
    return {
        "variant": name,
        "folds": list(folds),
        "n": result["n"],
        "n_patients": result["n_patients"],
        "measures": {m: values[name][m] for m in MEASURES},
        "differences": differences,
        "recovered": recovered,
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Lay the table out; differences with their 95 % intervals below each measure."""
    first = rows[0]
    lines = [
        f"{first['n']} figures of {first['n_patients']} patients ({', '.join(first['folds'])}). "
        "Differences with 95 % intervals from resampling patients. Recovered: the part of the "
        f"difference between {ALL} and as few labels alone; it means little where that is small, "
        "and nothing (–) where fewer labels were no worse.",
        "",
        f"| variant | | {' | '.join(NAMES.values())} |",
        "|---" * (2 + len(MEASURES)) + "|",
    ]
    for row in rows:
        cells = [f"{row['measures'][m]:.3f}" for m in MEASURES]
        lines.append(f"| **{row['variant']}** | | {' | '.join(cells)} |")
        for other, measures in row["differences"].items():
            cells = [
                f"{signed(d['value'])} ({signed(d['low'])} to {signed(d['high'])})"
                for d in measures.values()
            ]
            lines.append(f"| | minus {other} | {' | '.join(cells)} |")
        if row["recovered"]:
            parts = row["recovered"].values()
            cells = ["–" if part is None else f"{100 * part:.0f} %" for part in parts]
            lines.append(f"| | recovered | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
