"""Fixtures shared by all tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """Leave our logger as it was.

    The command line adds its handler where there is none; one that an earlier test has left would
    write to that test's standard error.
    """
    log = logging.getLogger("atypia")
    handlers, level = log.handlers[:], log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)


@pytest.fixture(scope="session")
def ami_br() -> Path:
    """The AMi-Br checkout; skips where it is missing."""
    default = Path(__file__).parents[1].parent / "shared" / "ami-br"
    folder = Path(os.environ.get("ATYPIA_AMI_BR", default))
    if not (folder / "AMI-BR.csv").is_file():
        pytest.skip(
            f"AMi-Br data not found at {folder}: set ATYPIA_AMI_BR to a folder with AMI-BR.csv "
            "and patches/ (get it with: atypia download ami-br --out DIR)"
        )
    return folder


@pytest.fixture(scope="session")
def cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic cohort: every subtype in every fold, quick to make."""
    from atypia.data.synthetic import make_synthetic_cohort

    folder = tmp_path_factory.mktemp("cohorts") / "synthetic"
    make_synthetic_cohort(folder, patients=24, patches=240, seed=1, size_px=80)
    return folder


# A network that trains in a second: what the tests of training are about is not its skill.
TINY = (
    "model.backbone=test_convnext",
    "model.pretrained=false",
    "model.drop_path=0.1",
    "input.size_px=32",
    "optim.epochs=2",
    "optim.batch_size=16",
    "optim.batches_per_epoch=3",
    "ensemble.members=2",
    "ensemble.tta=false",
    "resamples=100",
    "runtime.threads=1",
)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without their plots: for tests of what is learned, not of what is shown.

    Drawing them is two thirds of a tiny training. What is drawn is tested in ``evaluation``.
    """
    monkeypatch.setattr("atypia.reports.plots._svg", lambda _: "<svg></svg>")


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides of the quick preset for a training of seconds."""
    return TINY


@pytest.fixture(scope="session")
def run_folder(cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny network on the synthetic cohort."""
    from atypia import pipeline
    from atypia.core.config import load_config

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    pipeline.train(cohort_folder, folder, load_config("quick", TINY), command="atypia train")
    return folder
