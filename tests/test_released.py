"""The model in the package: whole, small enough, and able to answer offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import atypia
from atypia.classifiers.bundle import CARD, HEADER, find_bundle, read_header
from atypia.core.labels import PROBABILITY_COLUMNS

MEGABYTES = 40
GRAPHS = ("onnx/onnx.json", "onnx/best.onnx", "onnx/fast.onnx")


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_it_is_whole_and_small() -> None:
    folder = find_bundle("released")
    header = read_header(folder)
    files = {file.file for quality in header.qualities.values() for file in quality.files}
    there = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files_of(folder)}
    assert set(there) == {HEADER, CARD, *files, *GRAPHS}
    assert sum(there.values()) <= MEGABYTES * 1e6
    assert header.calibration["kind"] == "temperature"
    assert header.conformal is not None
    assert header.errors is not None
    assert header.provenance["split"] == "all"
    card = (folder / CARD).read_text("utf-8")
    assert "not for diagnosis" in card
    assert f"{header.thresholds.atypical:.3f}" in card


@pytest.mark.parametrize("name", GRAPHS[1:])
def test_its_graphs_do_not_tell_where_they_were_made(name: str) -> None:
    told = (find_bundle("released") / name).read_bytes()
    assert b'File "/' not in told
    assert b"site-packages" not in told


def test_it_names_no_place_on_a_machine() -> None:
    text = json.dumps(read_header(find_bundle("released")).provenance)
    assert "/" not in text.replace("EfficientNet/", "")


def test_one_cell_from_the_command_line(tmp_path: Path) -> None:
    from atypia.data.synthetic import make_synthetic_cohort

    make_synthetic_cohort(tmp_path / "cohort", patients=8, patches=16, seed=3)
    image = next((tmp_path / "cohort" / "patches").glob("*.png"))
    command = [sys.executable, "-m", "atypia", "predict", str(image), "--mpp", "0.25"]
    subprocess.run([*command, "--out", str(tmp_path / "one.csv")], check=True)
    row = pd.read_csv(tmp_path / "one.csv").iloc[0]
    assert row[list(PROBABILITY_COLUMNS)].sum() == pytest.approx(1, abs=1e-5)


WATCHED = """
import sys, time
import atypia
model = atypia.load_model("released", quality="fast", backend="onnx")
model.predict(sys.argv[1], mpp=0.25)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(
    "seconds",
    # Telemetry of ONNX Runtime writes at once; it looks a host up some nine seconds later.
    [0, pytest.param(15, marks=pytest.mark.slow)],
)
def test_nothing_leaves_the_machine_and_nothing_is_kept(tmp_path: Path, seconds: int) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed, which sees what a process asks the network for")
    (home := tmp_path / "home").mkdir()
    trace = tmp_path / "trace.txt"
    image = Path(__file__).parents[1] / "docs" / "images" / "cells" / "ring.png"
    watched = ["strace", "-f", "-e", "trace=socket,connect,sendto,sendmsg,sendmmsg", "-o", trace]
    code = [sys.executable, "-c", WATCHED, image, str(seconds)]
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([*watched, *code], check=True, env=environment | {"HOME": str(home)})
    assert "exited with 0" in trace.read_text()
    assert "AF_INET" not in trace.read_text()
    assert not [file for file in home.rglob("*") if file.is_file()]


@pytest.mark.realdata
def test_it_has_learned(ami_br: Path) -> None:
    """On figures that it learned from: far above chance, or the weights are damaged."""
    table = pd.read_csv(ami_br / "AMI-BR.csv").sample(96, random_state=0)
    folders = np.where(table["majority_atypical"], "atypical", "normal")
    files = [
        ami_br / "patches" / folder / f"{row.dataset}_{row.uid}.png"
        for folder, row in zip(folders, table.itertuples(), strict=True)
    ]
    answers = atypia.load_model("released").predict(files, mpp=0.25)
    assert roc_auc_score(table["majority_atypical"], answers["p_atypical"]) > 0.9


def test_it_answers_where_there_is_no_torch(tmp_path: Path) -> None:
    """The graphs in the package stand in, at the default quality."""
    from atypia.data.synthetic import make_synthetic_cohort

    make_synthetic_cohort(tmp_path / "cohort", patients=8, patches=16, seed=3)
    image = next((tmp_path / "cohort" / "patches").glob("*.png"))
    script = "import sys; sys.modules['torch'] = None; from atypia.cli import main; main()"
    command = ["predict", str(image), "--mpp", "0.25", "--out"]
    subprocess.run(
        [sys.executable, "-c", script, *command, str(tmp_path / "light.csv")], check=True
    )
    subprocess.run(
        [sys.executable, "-m", "atypia", *command, str(tmp_path / "own.csv")], check=True
    )
    light, own = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("light", "own"))
    columns = list(PROBABILITY_COLUMNS)
    np.testing.assert_allclose(light[columns], own[columns], atol=1e-4)
