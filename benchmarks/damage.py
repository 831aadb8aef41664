"""What flipped bits and ``kill -9`` do to runs, jobs and studies: nothing that is not noticed.

    python benchmarks/damage.py flips [--times 200] [--seed 0]
    python benchmarks/damage.py kills [--train 20] [--slides 10] [--tune 10] [--prepare 10]
        [--distill 5] [--seed 0]

``flips`` changes one bit at random in a checkpoint, a member's weights, a Parquet part, a file of
features and a patch, reads it as the next command would, and counts how often it was named
(refused or made again), how often the answer was the same, and how often another one came in
silence.

``kills`` starts each command, kills it (SIGKILL) at a moment drawn from the length of an
undisturbed one, gives the same command again, and compares what is left with the undisturbed one:
the same bits, and no other file. All on a synthetic cohort with networks of seconds.

Prints JSON; ends with 1 if
one answer was silent or one result differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from atypia.core.errors import AtypiaError
from atypia.core.files import describe_machine, sha256_file

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from conftest import TINY  # type: ignore[import-not-found]
from slide_jobs import write_slide_table  # type: ignore[import-not-found]
from untrained import untrained_ensemble  # type: ignore[import-not-found]

SMALL = (*TINY[:2], "model.reduction=null", *TINY[3:7], "optim.epochs=4", *TINY[9:])
SPACE = "optim.learning_rate: {low: 1e-4, high: 1e-1, log: true}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["flips", "kills"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int, default=200)
    for name, times in {"train": 20, "slides": 10, "tune": 10, "prepare": 10, "distill": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=times)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        work = flips if given.what == "flips" else kills
        found = work(Path(folder), np.random.default_rng(given.seed), given)
    print(json.dumps({"seed": given.seed, "machine": describe_machine(), **found}, indent=2))
    sys.exit(any(row.get("silent") or row.get("wrong") for row in found.values()))


def flips(folder: Path, rng: np.random.Generator, given: Any) -> dict[str, Any]:
    """Flip bits in each kind of file; see the module."""
    targets = {
        "checkpoint": checkpoint(folder),
        "member": member(folder),
        "Parquet part": part(folder),
        "feature cache": features(folder),
        "patch": patch(folder),
    }
    found = {}
    for name, (file, read) in targets.items():
        whole, expected = file.read_bytes(), read()
        outcomes: Counter[str] = Counter(silent=0)
        for _ in range(given.times):
            data = bytearray(whole)
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            file.write_bytes(data)
            try:
                same = read() == expected
            except AtypiaError:
                outcomes["named"] += 1
            else:
                made_again = file.read_bytes() != bytes(data)
                outcomes["named, made again" if made_again else "same" if same else "silent"] += 1
                outcomes["silent"] += made_again and not same
            file.write_bytes(whole)
        found[name] = dict(outcomes)
    return found


Target = tuple[Path, "Callable[[], Any]"]


def checkpoint(folder: Path) -> Target:
    import torch

    from atypia.training.checkpoint import Progress, load_checkpoint, save_checkpoint

    file = folder / "one" / "checkpoint.pt"
    state = untrained_ensemble().members[0].state_dict()
    save_checkpoint(file, Progress(epoch=2), {"network": state})

    def read() -> str:
        loaded = load_checkpoint(file)
        assert loaded is not None
        digest = hashlib.sha256(str(vars(loaded[0])).encode())
        for name, tensor in sorted(loaded[1]["network"].items()):
            digest.update(name.encode() + torch.as_tensor(tensor).numpy().tobytes())
        return digest.hexdigest()

    return file, read


def member(folder: Path) -> Target:
    from atypia.classifiers.ensemble import Ensemble

    untrained_ensemble().save(folder / "bundle")
    (file,) = (folder / "bundle").glob("*.safetensors")
    pixels = np.random.default_rng(0).integers(0, 255, (2, 80, 80, 3), np.uint8)
    return file, lambda: Ensemble.load(folder / "bundle").predict_proba(pixels, 0.25).tobytes()


def part(folder: Path) -> Target:
    from atypia.inference.job_parts import FinishedPart, part_path, read_rows, write_part

    table = pd.DataFrame(
        {"patch_id": [f"p{i}" for i in range(50)], "p_atypical": np.arange(50) / 50}
    )
    file = part_path(folder / "parts", "key")
    write_part(file, FinishedPart(table, 50))
    return file, lambda: read_rows(file).to_csv()


def features(folder: Path) -> Target:
    from atypia.core.config.settings import RuntimeConfig
    from atypia.data.cohort import Cohort
    from atypia.data.synthetic import make_synthetic_cohort
    from atypia.training.distributed import ComputePlace
    from atypia.training.features import cohort_features
    from atypia.training.patch_store import open_store

    make_synthetic_cohort(folder / "crops", patients=4, patches=16, seed=1, size_px=80)
    cohort, ensemble = Cohort.open(folder / "crops"), untrained_ensemble()
    network, spec = ensemble.members[0], ensemble.specs[0]
    store = open_store(cohort, spec, None, folder / "pixels.npy")
    place = ComputePlace.of(RuntimeConfig(device="cpu", precision="fp32", threads=1))

    def read() -> bytes:
        found = cohort_features(cohort, store, network, spec, place, folder, all_views=False)
        return found.values.tobytes()

    read()
    (file,) = (folder / "crops" / "features").glob("*.npy")
    return file, read


def patch(folder: Path) -> Target:
    from atypia import pipeline
    from atypia.data.cohort import Cohort
    from atypia.data.synthetic import make_synthetic_cohort

    make_synthetic_cohort(folder / "cohort", patients=4, patches=16, seed=1, size_px=80)
    untrained_ensemble().save(folder / "model")
    file = Cohort.open(folder / "cohort").image_paths()[0]

    def read() -> str:
        table, _ = pipeline.predict([folder / "cohort"], None, folder / "model")
        return str(table.to_csv())

    return file, read


def kills(folder: Path, rng: np.random.Generator, given: Any) -> dict[str, Any]:
    """Kill each command at random and let the same command go on; see the module."""
    from atypia.data.synthetic import make_synthetic_cohort

    make_synthetic_cohort(folder / "cohort", patients=24, patches=240, seed=1, size_px=80)
    (folder / "space.yaml").write_text(SPACE)
    untrained_ensemble().save(folder / "model")
    (folder / "wsi").mkdir()
    table = write_slide_table(folder / "wsi", [200, 200])
    listing = folder / "listing.csv"
    manifest = pd.read_csv(folder / "cohort" / "manifest.csv", keep_default_na=False)
    manifest.assign(file=[str(folder / "cohort" / f) for f in manifest["file"]]).to_csv(
        listing, index=False
    )
    cohort, tiny = str(folder / "cohort"), [*TINY, "optim.epochs=6"]
    commands: dict[str, tuple[list[str], list[str]]] = {
        "train": (["train", cohort, "--preset", "quick", *tiny], ["--resume"]),
        "slides": (
            ["slides", str(table), "--model", str(folder / "model"), "--item-size", "8"],
            [],
        ),
        "tune": (
            [
                "tune",
                cohort,
                "--preset",
                "quick",
                "--trials",
                "3",
                "--search",
                str(folder / "space.yaml"),
                *tiny,
            ],
            ["--resume"],
        ),
        "prepare": (["prepare", str(listing)], []),
        "distill": (["distill", str(folder / "train" / "whole"), *SMALL], ["--resume"]),
    }
    found = {}
    for name, (command, more) in commands.items():
        base = folder / name
        base.mkdir()
        started = time.perf_counter()
        run(command, base / "whole", more=[], check=True)
        length = time.perf_counter() - started
        expected, wrong, left, struck = content(base / "whole"), [], [], 0
        for number in range(getattr(given, name)):
            out = base / f"killed-{number}"
            process = run(command, out, more=[], wait=False)
            try:
                process.wait(rng.uniform(0.2, 0.98) * length)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                struck += 1
            if not (out / "report.html").is_file() or name != "train":
                going_on = more if out.exists() else []
                if name != "prepare" or not (out / "cohort.json").is_file():
                    run(command, out, more=going_on, check=True)
            got = content(out)
            differing = sorted(
                k for k in expected.keys() | got.keys() if expected.get(k) != got.get(k)
            )
            wrong += [f"{number}: {file}" for file in differing]
            left += [str(p.relative_to(base)) for p in base.glob(".*")]
            shutil.rmtree(out)
        found[name] = {
            "commands": getattr(given, name),
            "killed": struck,
            "seconds undisturbed": round(length, 1),
            "wrong": wrong,
            "left behind": left,
        }
        print(name, found[name], file=sys.stderr, flush=True)
    return found


def run(
    command: list[str], out: Path, *, more: list[str], check: bool = False, wait: bool = True
) -> Any:
    """Start a command of this checkout with its output folder."""
    words = [sys.executable, "-m", "atypia", *command, "--out", str(out), *more]
    if wait:
        return subprocess.run(words, check=check, capture_output=True)
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def content(out: Path) -> dict[str, str]:
    """Name and digest of every file whose bytes do not depend on the clock or on the folder."""
    found = {}
    for file in sorted(p for p in out.rglob("*") if p.is_file()):
        name = str(file.relative_to(out))
        # A study's history shows the trial that was killed as well.
        timed = file.suffix in (".log", ".html", ".db", ".svg") or file.name in (
            *(
                "run.json",
                "job.json",
                "tune.json",
                "done.json",
                "history.csv",
                "trials.csv",
                ".lock",
            ),
            *("model-card.md", "model.json", "cohort.json"),
        )
        found[name] = "" if timed else sha256_file(file)
        if file.name == "best.yaml":  # a trial that was repeated has another number
            text = file.read_text().replace(str(out.resolve()), "").partition("\n")[2]
            found[name] = hashlib.sha256(text.encode()).hexdigest()
    return {k: v for k, v in found.items() if not k.startswith("trials/")}


if __name__ == "__main__":
    main()
