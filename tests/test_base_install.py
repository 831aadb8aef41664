"""The base installation, from the built wheel into an environment of its own: it has no torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from atypia.core.labels import PROBABILITY_COLUMNS

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
FIRST = re.search(r"^atypia (predict .*)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of the environment; takes packages from the index or pip's cache."""
    folder = tmp_path_factory.mktemp("base")
    subprocess.run([*PIP, "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("atypia-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([*PIP, "--python", python, "install", "-q", wheel], check=True)
    return python.parent


def run(program: Path, *arguments: object) -> str:
    alone = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"COLUMNS": "200"}
    done = subprocess.run(
        [program, *map(str, arguments)], cwd=ROOT, env=alone, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_has_no_torch(programs: Path) -> None:
    code = "from importlib.util import find_spec as f; print(f('torch'), f('timm'), f('sklearn'))"
    assert run(programs / "python", "-c", code) == "None None None\n"
    assert re.search(r"extra train +missing torch", run(programs / "atypia", "doctor"))


def test_the_first_command_of_the_readme(programs: Path) -> None:
    assert FIRST is not None
    assert "Ana-/telophase" in run(programs / "atypia", *FIRST[1].split())


def test_a_cohort_is_classified_evaluated_and_compared(
    programs: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    atypia, tables = programs / "atypia", [tmp_path / "a.csv", tmp_path / "b.csv"]
    for table in tables:
        run(atypia, "predict", cohort_folder, "--quality", "fast", "--out", table)
    assert pd.read_csv(tables[0])[list(PROBABILITY_COLUMNS)].sum(axis=1).between(0.99, 1.01).all()
    run(atypia, "evaluate", tables[0], "--out", tmp_path / "scores", "--resamples", 100)
    assert (tmp_path / "scores" / "report.html").is_file()
    run(atypia, "compare", *tables, "--out", tmp_path / "both", "--resamples", 100)


def test_the_first_prediction_imports_only_what_it_needs(programs: Path) -> None:
    assert FIRST is not None
    code = (
        "import sys; from atypia.cli import main\n"
        f"sys.argv = ['atypia', *{FIRST[1].split()!r}]\n"
        "main()\n"
        "slow = {'matplotlib', 'jinja2', 'scipy.stats', 'scipy.special', 'scipy.ndimage'}\n"
        "print(slow & set(sys.modules))\n"
    )
    assert run(programs / "python", "-c", code).splitlines()[-1] == "set()"
