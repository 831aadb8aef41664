"""The notebooks run from the first cell to the last, and are stored small."""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted(DOCS.glob("notebooks/*.ipynb"))

every_notebook = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


@pytest.mark.slow
@every_notebook
def test_it_runs(file: Path) -> None:
    pytest.importorskip("nbclient")
    runpy.run_path(str(DOCS / "make_examples.py"))["execute"](file)


@every_notebook
def test_it_is_small_and_tells_nothing_of_a_machine(file: Path) -> None:
    text = file.read_text("utf-8")
    assert len(text) < 300_000
    for path in (tempfile.gettempdir(), str(DOCS.parent), "site-packages"):
        assert path not in text


def test_there_are_two() -> None:
    assert len(NOTEBOOKS) == 2
