"""What the tests of the app show, and the server that shows it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from web_folders import make_cohort, make_cut, make_run, make_slide

if TYPE_CHECKING:
    from server_client import Server

    Start = Callable[..., AbstractContextManager[Server]]


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a hostile cohort, two runs on it, a slide, and a cohort cut from slides."""
    folder = tmp_path_factory.mktemp("shown")
    cohort = make_cohort(folder / "cohort")
    make_run(folder / "run", cohort)
    make_run(folder / "other", cohort, seed=5, skill=3.0)
    make_slide(folder / "slides")
    make_cut(folder / "cut")
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start the app on a source; what it saves lies in the test's own folder."""
    # Tests are no packages; another folder's helpers are found by its path.
    sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
    from server_client import running

    @contextmanager
    def start(source: Path, *options: str) -> Iterator[Server]:
        script = Path(__file__).parent / "web_server.py"
        with running(script, source, tmp_path / "reviews.sqlite", tmp_path, *options) as server:
            yield server

    return start
