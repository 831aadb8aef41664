"""Without torch: whatever only applies a model, or evaluates tables, still runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from slide_files import noise, write_tiff

from atypia.core.labels import PROBABILITY_COLUMNS
from atypia.data.cohort import Cohort
from atypia.inference.patch_predictions import find_items, predict_items

if TYPE_CHECKING:
    from .conftest import Export

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

# As if the blocked packages were not installed.
SCRIPT = """
import json, sys
blocked, commands = json.loads(sys.stdin.read())

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *more):
        return None if name.split(".")[0] in blocked else self.finder.find_spec(name, *more)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path = [Without(finder) for finder in sys.meta_path]
from atypia.cli import main
for command in commands:
    sys.argv = ["atypia", *command]
    try:
        main()
    except SystemExit as stop:
        print("exit", stop.code)
import atypia
model = atypia.load_model(commands[0][-1])
print(len(model.predict(commands[0][1])), "by Python")
"""


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", r)[0].lower().replace("_", "-") for r in requirements}


def blocked_modules() -> list[str]:
    """Top-level modules of the packages that training and writing ONNX graphs add."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    left_out = names(extras["train"] + extras["onnx"]) - names(project["dependencies"])
    assert {"torch", "timm", "torchvision"} <= left_out
    return [
        module for module, owners in packages_distributions().items() if names(owners) & left_out
    ]


def run_without_torch(*commands: list[str]) -> subprocess.CompletedProcess[str]:
    told = json.dumps([blocked_modules(), commands])
    return subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=told,
        capture_output=True,
        text=True,
        check=True,
    )


def test_patches_slides_and_tables_without_torch(
    exported: Export, cohort_folder: Path, tmp_path: Path
) -> None:
    for package in ("openslide", "tifffile", "shapely"):
        pytest.importorskip(package)
    write_tiff(tmp_path / "slide.tif", noise(400, 500), mpp=0.25)
    (tmp_path / "centres.csv").write_text("x,y\n200,150\n300,250\n")
    model = ["--model", str(exported.folder)]
    table, slide = tmp_path / "predictions.csv", tmp_path / "slide.csv"
    done = run_without_torch(
        ["predict", str(cohort_folder), "--out", str(table), *model],
        ["doctor"],
        ["doctor", "--model", "released"],
        ["evaluate", str(table), "--out", str(tmp_path / "scores"), "--resamples", "100"],
        [
            "slide",
            str(tmp_path / "slide.tif"),
            "--candidates",
            str(tmp_path / "centres.csv"),
            "--units",
            "px",
            "--out",
            str(slide),
            *model,
        ],
        ["predict", str(cohort_folder), "--out", str(table), "--model", str(exported.bundle)],
        ["train", str(cohort_folder), "--out", str(tmp_path / "run")],
    )
    assert done.stdout.splitlines()[-3:] == ["exit 2", "exit 2", "240 by Python"], done
    assert "SHA-256 as model.json says" in done.stdout
    assert "atypia export" in done.stderr  # what to do with a bundle
    assert re.search(r"needs the package '\w+'.*pip install\s+'atypia\[train\]'", done.stderr)

    expected, _ = predict_items(exported.ensemble, find_items([cohort_folder], None))
    columns = list(PROBABILITY_COLUMNS)
    written = pd.read_csv(table)
    assert len(written) == len(Cohort.open(cohort_folder))
    np.testing.assert_allclose(written[columns], expected[columns].to_numpy(float), atol=1e-4)
    assert (tmp_path / "scores" / "report.html").is_file()
    assert len(pd.read_csv(slide)) == 2
