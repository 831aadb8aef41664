"""The parts of the training loop that have an answer of their own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from atypia.core.config import load_config
from atypia.core.errors import InputError
from atypia.models.transforms import Augmenter
from atypia.training import fit as fit_module
from atypia.training.checkpoint import Progress, read_history, write_history
from atypia.training.fit import _size_px

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.core.config import InputSpec
    from atypia.models.network import Network

pytestmark = pytest.mark.usefixtures("undrawn")


def sizes(steps: str, epochs: int, head_epochs: int = 0) -> list[int]:
    config = load_config(
        "quick", [f"optim.progressive={steps}", f"optim.epochs={epochs}", "input.size_px=96"]
    )
    return [_size_px(config.optim, epoch, 96) for epoch in range(-head_epochs, epochs)]


def test_a_measure_that_is_not_defined_survives_the_history(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "phase": "all"}, {"epoch": 2, "phase": "all", "valid_binary_auc": 0.75}]
    write_history(tmp_path / "history.csv", Progress(history=rows))
    first, second = read_history(tmp_path / "history.csv")
    assert math.isnan(float(first["valid_binary_auc"]))
    assert second == rows[1]


def test_the_input_grows_at_the_wanted_shares_of_the_epochs() -> None:
    assert sizes("[]", 3) == [96, 96, 96]
    assert sizes("[[0, 64], [0.5, 80], [0.75, 96]]", 8) == [64] * 4 + [80] * 2 + [96] * 2
    # The classification layer alone learns from what the network is to see in the end.
    assert sizes("[[0, 64], [0.5, 96]]", 4, head_epochs=2) == [96] * 2 + [64] * 2 + [96] * 2


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 7, 10])
def test_the_last_epoch_has_the_final_size_however_few_there_are(epochs: int) -> None:
    reached = sizes("[[0, 64], [0.5, 80], [0.9, 96]]", epochs)
    assert reached[-1] == 96
    assert reached == sorted(reached)


class Seen(BaseException):
    """Stops a training at the first image."""


def test_the_views_of_an_epoch_have_its_size(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from atypia import pipeline

    def at_size(self: Augmenter, size_px: int) -> Augmenter:
        assert self.spec.size_px == 48
        assert self.styles is not None
        raise Seen(size_px)

    monkeypatch.setattr(fit_module.Augmenter, "at_size", at_size)
    settings = [*tiny, "input.size_px=48", "optim.progressive=[[0, 32], [0.5, 48]]"]
    with pytest.raises(Seen, match="32"):
        pipeline.train(
            cohort_folder, tmp_path / "run", load_config("quick", [*settings, "augment.style=1"])
        )


def test_a_backbone_of_one_size_does_not_grow(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    from atypia import pipeline

    settings = [
        *(*tiny, "model.backbone=test_vit", "input.size_px=64"),
        "optim.progressive=[[0, 32], [0.5, 64]]",
    ]
    with pytest.raises(InputError, match=r"optim\.progressive: test_vit"):
        pipeline.train(cohort_folder, tmp_path / "run", load_config("quick", settings))


def test_on_a_cpu_attention_is_written_out_while_a_network_learns(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from atypia import pipeline

    made: list[Network] = []
    make_network = fit_module.make_network

    def kept(*args: Any, **settings: Any) -> tuple[Network, InputSpec, str]:
        network, spec, origin = make_network(*args, **settings)
        made.append(network)
        return network, spec, origin

    def at_size(*_: Any) -> Augmenter:
        raise Seen

    monkeypatch.setattr(fit_module, "make_network", kept)
    monkeypatch.setattr(fit_module.Augmenter, "at_size", at_size)
    settings = [*tiny, "model.backbone=test_vit", "input.size_px=64", "runtime.device=cpu"]
    with pytest.raises(Seen):
        pipeline.train(cohort_folder, tmp_path / "run", load_config("quick", settings))
    layers = [layer for layer in made[0].modules() if hasattr(layer, "fused_attn")]
    assert layers
    assert not any(layer.fused_attn for layer in layers)
