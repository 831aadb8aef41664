"""Whether two checkouts answer alike: runs commands on fixed inputs in both, compares the files.

Run ``python dev/same.py OLD [NEW]``. The inputs are cells of the documentation, an invented cohort
and, where it lies beside the checkout, the slide ``../shared/slides/small_HE.svs``. Tables are
compared byte for byte, JSON by its values, both without times, versions and paths. Exit code 1
where anything differs.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
CELLS = HERE / "docs" / "images" / "cells"
SLIDE = HERE.parent / "shared" / "slides" / "small_HE.svs"
SMALL = ("optim.epochs=2", "ensemble.members=3", "input.size_px=48", "runtime.threads=1")
ONE = ("--seed", "3", "--split", "holdout", "--preset")
FLEETING = {"started", "seconds", "cpu_seconds", "peak_memory_gb", "command", "versions"} | {
    "commit", "machine", "path", "created_with", "sessions", "models_sha256", "network_sha256",
}  # fmt: skip
"""Entries of JSON files that differ between any two runs, or that hash such entries."""


def commands(work: Path, table: Path) -> list[tuple[str, ...]]:
    """Command lines, in an order in which each has what it needs."""
    cells = tuple(str(p) for p in sorted(CELLS.glob("*.png")))
    found: list[tuple[str, ...]] = []
    for quality in ("best", "fast"):
        for backend in ("torch", "onnx"):
            out = str(work / f"cells-{quality}-{backend}.csv")
            options = ("--mpp", "0.25", "--quality", quality, "--backend", backend, "--out", out)
            found.append(("predict", *cells, *options))
    found.append(
        ("predict", *cells, "--mpp", "0.25", "--model", "rules", "--out", str(work / "rules.json"))
    )
    cohort, run = str(work / "cohort"), str(work / "network")
    found += [
        ("train", cohort, "--out", run, *ONE, "quick", *SMALL),
        ("train", cohort, "--out", str(work / "rules"), *ONE, "rules"),
        ("train", cohort, "--out", str(work / "hybrid"), "--preset", "hybrid", f"network={run}"),
        (
            "train", cohort, "--out", str(work / "stack"), "--preset", "stack",
            f"runs=[{run},{work / 'rules'}]",
        ),
        ("evaluate", str(table), "--out", str(work / "evaluate"), "--resamples", "300"),
        ("audit", run, "--out", str(work / "audit"), "--resamples", "300"),
        (
            "compare", run, str(work / "rules"), "--out", str(work / "compare.json"),
            "--resamples", "300",
        ),
    ]  # fmt: skip
    if SLIDE.is_file():
        outs = [work / f"slide.{form}" for form in ("csv", "json", "geojson")]
        found += [
            ("slide", str(SLIDE), "--candidates", str(work / "candidates.csv"),
             "--backend", "torch", *(part for out in outs for part in ("--out", str(out)))),
            (
                "biomarker", str(outs[0]), "--out", str(work / "biomarker"), "--area-mm2", "1.6",
                "--model", "released",
            ),
        ]  # fmt: skip
    return found


def prepare(work: Path) -> None:
    """Write what the commands read: the same bytes in every checkout."""
    code = (
        "from pathlib import Path; from atypia.data.synthetic import make_synthetic_cohort as make;"
        f"make(Path({str(work / 'cohort')!r}), patients=20, patches=240)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    rows = [f"c{i},{150 + 310 * (i % 7)},{200 + 420 * (i // 7)}" for i in range(42)]
    (work / "candidates.csv").write_text("\n".join(["id,x_px,y_px", *rows]) + "\n", "utf-8")


def lasting(value: Any) -> Any:
    """Drop from a JSON value what differs from run to run."""
    if isinstance(value, dict):
        return {k: lasting(v) for k, v in value.items() if k not in FLEETING}
    return [lasting(v) for v in value] if isinstance(value, list) else value


def results(checkout: Path, work: Path, table: Path) -> dict[str, object]:
    """Run everything with one checkout; the content of each table and JSON file that it leaves."""
    work.mkdir()
    environment = {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    os.environ |= environment
    prepare(work)
    for command in commands(work, table):
        done = subprocess.run(
            [sys.executable, "-m", "atypia", *command], capture_output=True, text=True, cwd=work
        )
        if done.returncode:
            sys.exit(f"{checkout}: atypia {' '.join(command)}\n{done.stderr}")
    found: dict[str, object] = {}
    for file in sorted(work.rglob("*")):
        name = str(file.relative_to(work)).replace(str(work), "")
        if file.suffix == ".csv" and not file.name.startswith("history"):
            found[name] = file.read_bytes().replace(str(work).encode(), b"")
        elif file.suffix == ".json" or file.suffix == ".geojson":
            text = file.read_text("utf-8").replace(str(work), "")
            found[name] = lasting(json.loads(text))
        elif file.suffix == ".safetensors":
            found[name] = file.read_bytes()
    return found


def main() -> None:
    """Compare two checkouts."""
    old = Path(sys.argv[1]).resolve()
    new = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else HERE
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        source = old / "docs" / "results" / "released-all"
        packed = source / "predictions-oof.csv.gz"
        plain = packed.with_suffix("")
        table.write_bytes(
            gzip.decompress(packed.read_bytes()) if packed.is_file() else plain.read_bytes()
        )
        one = results(old, Path(folder) / "old", table)
        two = results(new, Path(folder) / "new", table)
    differing = sorted(k for k in {*one, *two} if one.get(k) != two.get(k))
    for name in differing:
        state = "differs" if name in one and name in two else "is in one of them"
        print(f"{name} {state}")
    print(f"{len({*one, *two}):,} files, {len(differing)} differ")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
