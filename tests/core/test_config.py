"""Presets, overrides, and problems told together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from atypia.core.config import (
    any_config_from_tree,
    config_from_tree,
    load_any_config,
    load_config,
    presets,
)
from atypia.core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid_and_survives_its_own_yaml(name: str) -> None:
    config = load_any_config(name)
    assert any_config_from_tree(yaml.safe_load(config.to_yaml()), "config.yaml") == config


def test_a_kind_is_known_and_not_mistaken_for_a_network() -> None:
    assert load_any_config("rules", ["split.kind=cv"]).answer.calibration == "temperature"
    with pytest.raises(InputError, match="expected the preset of a network but got one of rules"):
        load_config("rules")
    with pytest.raises(InputError, match=r"'kind': expected one of .*'rules', 'hybrid'.*'forest'"):
        load_any_config("quick", ["kind=forest"])
    with pytest.raises(InputError, match="'optim': is not a setting"):
        load_any_config("rules", ["optim.epochs=3"])
    with pytest.raises(InputError, match="'split': is not a setting"):
        load_any_config("hybrid", ["network=run", "split.kind=cv"])


def test_the_paper_preset_is_the_published_protocol() -> None:
    config = load_config("paper")
    optim = config.optim
    assert config.input.size_px == 224
    assert (optim.batch_size, optim.batches_per_epoch, optim.head_epochs) == (42, 180, 10)
    assert (optim.head_learning_rate, optim.learning_rate) == (1e-4, 1e-4)
    assert (optim.min_learning_rate, optim.plateau_factor, optim.plateau_patience) == (
        1e-7,
        0.1,
        10,
    )
    assert (optim.epochs, optim.early_stopping, optim.select) == (1000, 10, "best")
    assert (config.loss.kind, config.loss.class_weights) == ("focal", "balanced")
    assert (config.ensemble.members, config.ensemble.tta) == (3, False)


@pytest.mark.parametrize(
    ("settings", "steered_by"),
    [
        ([], []),
        (["optim.select=best"], ["optim.select=best"]),
        (["optim.early_stopping=3"], ["optim.early_stopping=3"]),
        (["optim.schedule=plateau"], ["optim.schedule=plateau"]),
        (["optim.early_stopping=3", "model.frozen=true"], []),  # a layer fitted in one step
    ],
)
def test_what_a_validation_fold_steers_is_known(settings: list[str], steered_by: list[str]) -> None:
    assert load_config("quick", settings).steered_by == steered_by


def test_overrides_are_typed_and_nested() -> None:
    config = load_config("quick", ["optim.learning_rate=1e-4", "seed=7", "split.kind=cv"])
    assert (config.optim.learning_rate, config.seed, config.split.kind) == (1e-4, 7, "cv")


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        load_config("quick", ["optim.epochs=0", "optim.epoch=3", "loss.kind=hinge", "noequals"])
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    for part in ("optim.epochs", "optim.epoch'", "loss.kind", "noequals"):
        assert part in text


def test_a_second_rater_needs_a_mass() -> None:
    with pytest.raises(InputError, match="second_rater"):
        load_config("quick", ["target.second_rater_mass=0"])


def test_scores_per_rater_need_a_second_rater() -> None:
    alone = ["target.second_rater=null", "target.second_rater_mass=0"]
    with pytest.raises(InputError, match=r"target.*per_rater: expected a second_rater"):
        load_config("quick", [*alone, "target.per_rater=true"])
    assert load_config("quick", ["target.per_rater=true"]).target.per_rater


@pytest.mark.parametrize(
    "steps",
    [
        "[[0.1, 64], [0.5, 96]]",  # starts late
        "[[0, 64], [0.5, 80]]",  # ends elsewhere
        "[[0, 64], [0.5, 80], [0.5, 96]]",  # twice at once
        "[[0.5, 64], [0, 96]]",  # falls
        "[[0, 48], [0.8, 64], [0.4, 96]]",  # falls later on
        "[[0, 64], [1, 96]]",  # never comes to the last
        "[[0, 128], [0.5, 96]]",  # larger than the input
    ],
)
def test_progressive_sizes_go_from_the_first_epoch_to_the_input(steps: str) -> None:
    with pytest.raises(InputError, match=r"progressive: expected .*\.size_px = 96, but got \[\[0"):
        load_config("quick", [f"optim.progressive={steps}"])


def test_progressive_sizes_that_fit() -> None:
    for steps in ("[]", "[[0, 96]]", "[[0, 64], [0.5, 80], [0.75, 96]]"):
        config = load_config("quick", [f"optim.progressive={steps}"])
        assert config.optim.progressive == tuple(map(tuple, yaml.safe_load(steps)))
        assert config_from_tree(yaml.safe_load(config.to_yaml()), "config.yaml") == config


@pytest.mark.parametrize(
    "setting",
    [
        "loss.atypical=-0.1",
        "augment.style=1.1",
        "augment.stain=-1",
        "augment.blur_um=6",
        "augment.mixup=3",
        "augment.cutmix=-1",
        "optim.average=1.1",
        "optim.self_supervised_epochs=-1",
        "optim.progressive=[[0, 16]]",
        "ensemble.calibration=platt",
        "ensemble.conformal_alpha=0.5",
        "ensemble.conformal_alpha=0",
    ],
)
def test_a_value_out_of_range_is_named(setting: str) -> None:
    with pytest.raises(InputError, match=setting.partition("=")[0]):
        load_config("quick", [setting])


def test_an_equal_average_needs_known_epochs_and_no_other_average() -> None:
    settings = ["optim.average=0.9", "optim.ema=0.99", "optim.select=best"]
    with pytest.raises(InputError, match=r"average: expected ema=0.*select=last.*0\.9") as caught:
        load_config("quick", [*settings, "optim.early_stopping=3", "optim.warmup=0.2"])
    assert "no early_stopping" in str(caught.value)
    assert "at most 0.8" in str(caught.value)
    alone = ["optim.ema=0", "optim.warmup=0.2"]
    assert load_config("quick", [*alone, "optim.average=0.8"]).optim.average == 0.8
    plateau = [*alone, "optim.schedule=plateau", "optim.average=1"]
    assert load_config("quick", plateau).optim.average == 1


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_a_binary_classifier_refuses_to_mix_majorities(mixing: str) -> None:
    with pytest.raises(InputError, match=r"augment\.mixup=0"):
        load_config("released", ["loss.of=sides", "loss.atypical=0", f"augment.{mixing}=0.5"])


def test_settings_of_a_run_from_before_a_setting_existed_still_load() -> None:
    tree = load_config("released").model_dump(mode="json")
    for group, name in (
        *(("augment", "cutmix"), ("optim", "average"), ("optim", "self_supervised_epochs")),
    ):
        assert tree[group].pop(name) == 0
    assert config_from_tree(tree, "config.yaml") == load_config("released")


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="quick"):
        load_config("nonsense")


def test_a_yaml_file_is_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(load_config("quick", ["seed=5"]).to_yaml())
    assert load_config(str(file)).seed == 5
    file.write_text("- a list")
    with pytest.raises(InputError, match="mapping"):
        load_config(str(file))


def test_a_linear_probe_refuses_what_it_would_not_use() -> None:
    with pytest.raises(InputError, match=r"expected unlabelled\.weight=0, optim\.sampling=0"):
        load_config("probe", ["unlabelled.weight=1", "optim.sampling=0.5"])
    with pytest.raises(InputError, match="no lora_rank"):
        load_config("probe", ["model.lora_rank=4"])
    with pytest.raises(InputError, match="atypical=0"):
        load_config("quick", ["loss.of=sides", "loss.atypical=0.5"])
