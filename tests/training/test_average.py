"""Averages of weights: which epochs, what of, and what a restart makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from atypia import pipeline
from atypia.core.config import OptimConfig, load_config
from atypia.training import fit as fit_module
from atypia.training.optimisation import answering, is_averaged, make_average

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("undrawn")

SWA = ("optim.epochs=5", "optim.head_epochs=1", "optim.ema=0", "optim.average=0.4")
ONE = ("model.backbone=test_efficientnet", "ensemble.trained=1")
"""A network with batch normalisation, and no more than one of it."""


@pytest.mark.parametrize(
    ("share", "epochs", "head_epochs", "averaged"),
    [
        (0, 4, 0, []),
        (0.5, 4, 0, [2, 3]),
        (0.5, 4, 2, [4, 5]),
        (0.1, 4, 0, [3]),  # one at least
        (0.3, 4, 0, [2, 3]),  # no fewer than were asked for
        (1, 3, 2, [2, 3, 4]),  # never those of the classification layer alone
    ],
)
def test_the_last_epochs_are_averaged(
    share: float, epochs: int, head_epochs: int, averaged: list[int]
) -> None:
    optim = OptimConfig(
        batch_size=2, epochs=epochs, head_epochs=head_epochs, average=share, schedule="plateau"
    )
    assert [e for e in range(head_epochs + epochs) if is_averaged(e, optim)] == averaged


def test_a_network_answers_until_its_average_has_something_in_it() -> None:
    network: Any = torch.nn.Linear(2, 2)
    assert make_average(network, OptimConfig(batch_size=2, epochs=2)) is None
    assert answering(network, None) is network
    average = make_average(network, OptimConfig(batch_size=2, epochs=2, average=0.5))
    assert average is not None
    assert answering(network, average) is network
    average.update_parameters(network)
    assert answering(network, average) is average.module


def states(monkeypatch: pytest.MonkeyPatch, kill_after: int | None = None) -> list[dict[str, Any]]:
    """Collect a copy of the network after each epoch; kill the training after so many epochs."""
    seen: list[dict[str, Any]] = []
    original = fit_module.save_checkpoint

    def spy(file: Path, progress: Any, tensors: dict[str, Any]) -> None:
        original(file, progress, tensors)
        seen.append({k: v.clone() for k, v in tensors["network"].items()})
        if len(seen) == kill_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit_module, "save_checkpoint", spy)
    return seen


def test_a_member_is_the_equal_average_of_its_last_epochs(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*tiny, *SWA, *ONE]
    seen = states(monkeypatch)
    pipeline.train(cohort_folder, tmp_path / "run", load_config("quick", settings))
    member = load_file(tmp_path / "run" / "fold-0" / "member.safetensors")
    assert len(seen) == 6
    for name, tensor in member.items():
        if "running_" in name:  # of the average's own, not the average of theirs
            between = (seen[-1][name] + seen[-2][name]) / 2
            assert not torch.allclose(tensor, between, rtol=1e-3), name
        elif "num_batches" in name:
            assert tensor == 3, name  # all batches of an epoch, once
        else:
            torch.testing.assert_close(tensor, (seen[-1][name] + seen[-2][name]) / 2)
    history = pd.read_csv(tmp_path / "run" / "fold-0" / "history.csv")
    rates = history["learning_rate"].tolist()
    assert rates[-1] == rates[-2] == rates[-3]  # where the epochs before have left it
    assert 1e-2 * max(rates) < rates[-1] < max(rates)


@pytest.fixture(scope="module")
def whole(
    cohort_folder: Path, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run that was not disturbed."""
    out = tmp_path_factory.mktemp("runs") / "swa"
    pipeline.train(cohort_folder, out, load_config("quick", [*tiny, *SWA, *ONE]))
    return out


@pytest.mark.parametrize("kill_after", [4, 5, 6])
def test_a_restart_among_the_averaged_epochs_changes_nothing(
    cohort_folder: Path,
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill_after: int,
) -> None:
    """Before the first averaged epoch, between the two, after the last."""
    out = tmp_path / "killed"
    with monkeypatch.context() as patch:
        states(patch, kill_after)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(cohort_folder, out, load_config(str(whole / "config.yaml")))
    pipeline.train(cohort_folder, out, None, resume=True)
    for file in ("fold-0/member.safetensors", "predictions-test.csv"):
        assert (out / file).read_bytes() == (whole / file).read_bytes()
