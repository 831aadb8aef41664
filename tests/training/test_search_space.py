"""A space is checked against the configuration before anything is drawn from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from atypia.core.config import load_config, presets
from atypia.core.errors import InputError
from atypia.training.search_space import (
    Choices,
    NumberRange,
    SearchSpace,
    default_space,
    read_space,
)

BASE = load_config("quick")


def space(folder: Path, text: str, measure: str = "log_loss") -> SearchSpace:
    file = folder / "search.yaml"
    file.write_text(text)
    return read_space(file, BASE, measure)


GOOD = """
optim.learning_rate: {low: 1e-4, high: 0.003, log: true}
optim.epochs: {low: 8, high: 24, step: 4}
optim.weight_decay: {low: 0, high: 1}
optim.batches_per_epoch: [null, 10]
augment.mixup: [0, 1e-1, 0.2]
augment.flip: [true, false]
model.backbone: [test_convnext, test_vit]
optim.progressive: [[], [[0, 64], [0.5, 96]]]
"""


def test_values_are_read_as_the_settings_read_them(tmp_path: Path) -> None:
    found = space(tmp_path, GOOD).dimensions
    assert found["optim.learning_rate"] == NumberRange(low=1e-4, high=0.003, log=True)
    epochs, decay = found["optim.epochs"], found["optim.weight_decay"]
    assert epochs == NumberRange(low=8, high=24, step=4)
    assert isinstance(epochs, NumberRange)
    assert isinstance(epochs.low, int)
    assert decay == NumberRange(low=0.0, high=1.0)
    assert isinstance(decay, NumberRange)
    assert isinstance(decay.low, float)  # or only 0 and 1 would be drawn
    assert found["augment.mixup"] == Choices((0.0, 0.1, 0.2))
    assert found["augment.flip"] == Choices((True, False))
    assert found["optim.batches_per_epoch"] == Choices((None, 10))
    progressive = found["optim.progressive"]
    assert isinstance(progressive, Choices)
    assert progressive.labels == ("[]", "[[0.0, 64], [0.5, 96]]")  # what a data base can hold


def test_its_own_yaml_gives_it_back(tmp_path: Path) -> None:
    once = space(tmp_path, GOOD)
    assert space(tmp_path, once.to_yaml()) == once


def test_a_point_becomes_a_configuration_and_back(tmp_path: Path) -> None:
    searched = space(tmp_path, GOOD)
    point = {
        "optim.learning_rate": 2e-4,
        "optim.epochs": 12,
        "optim.weight_decay": 0.3,
        "optim.batches_per_epoch": None,
        "augment.mixup": 0.1,
        "augment.flip": False,
        "model.backbone": "test_vit",
        "optim.progressive": "[[0.0, 64], [0.5, 96]]",
    }
    config = searched.configure(BASE, point)
    assert config.optim.progressive == ((0, 64), (0.5, 96))
    assert (config.optim.epochs, config.augment.flip, config.model.backbone) == (
        12,
        False,
        "test_vit",
    )
    assert searched.point_of(config) == point
    assert config.target == BASE.target
    assert searched.point_of(BASE) is None  # of another backbone
    outside = space(tmp_path, "optim.learning_rate: {low: 0.002, high: 0.003}")
    assert outside.point_of(BASE) is None
    between = space(tmp_path, "optim.epochs: {low: 5, high: 35, step: 10}")  # it has 24
    assert between.point_of(BASE) is None


def test_values_that_fit_alone_but_not_together_are_told(tmp_path: Path) -> None:
    text = "optim.average: [0, 0.25]\noptim.ema: [0, 0.99]"
    base = load_config("quick", ["optim.ema=0"])
    file = tmp_path / "search.yaml"
    file.write_text(text)
    searched = read_space(file, base, "log_loss")
    with pytest.raises(InputError, match="two averages are one too many"):
        searched.configure(base, {"optim.average": 0.25, "optim.ema": 0.99})


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    wrong = {
        "optim.learning_rat: [1, 2]": "is not a setting",
        "optim: [1, 2]": "is not a setting",
        "label.x: [1, 2]": "is not a setting",
        "augment.mixup: [0, 3]": "less than or equal to 2",
        "augment.scale: {low: -0.1, high: 0.9}": "high: Input should be less",
        "loss.kind: [hinge, focal]": "hinge",
        "loss.focal_gamma: {low: 1}": "expected high",
        "model.dropout: {low: 0.3, high: 0.1}": "low below high",
        "optim.weight_decay: {low: 0, high: 0.1, log: true}": "low above 0",
        "optim.warmup: {low: 0.1, high: 0.5, step: 0.3}": "whole number of steps",
        "optim.epochs: {low: 2, high: 9, step: 0.5}": "expected an integer",
        "optim.batch_size: {low: 2, high: 9, step: -1}": "step: expected a number above 0",
        "augment.flip: {low: 0, high: 1}": "not a number",
        "model.backbone: {low: a, high: b}": "not a number",
        "augment.noise: {low: 0, high: 0.1, steps: 3}": "expected low, high, log or step",
        "augment.blur_um: 0.2": "expected a list of values, or",
        "augment.rotate: [true]": "at least two values",
        "augment.stain: [0.1, 0.1]": "each value once",
        # With this cohort-wide setting, the other one would have to change as well.
        "target.second_rater_mass: {low: 0, high: 0.5}": "second_rater and second_rater_mass",
        "seed: [0, 1]": "cannot be searched: a seed that was lucky",
        "split.kind: [cv, holdout]": "cannot be searched: it decides which patients",
        "ensemble.members: [3, 5]": "cannot be searched",
        "ensemble.prior_power: [0, 0.5]": "--measure balanced_accuracy",
        "runtime.precision: [fp32, bf16]": "cannot be searched",
        "optim.select: [best, last]": "looks too good",
    }
    with pytest.raises(InputError) as caught:
        space(tmp_path, "\n".join(wrong))
    told = {p.column: p.what for p in caught.value.problems}
    for line, expected in wrong.items():
        assert expected in told[line.partition(":")[0]], told[line.partition(":")[0]]
    # Each end is checked: two problems where both are wrong.
    assert sum(p.column == "augment.scale" for p in caught.value.problems) == 2


def test_what_only_answers_depend_on_can_be_searched_by_answers(tmp_path: Path) -> None:
    found = space(tmp_path, "ensemble.prior_power: {low: 0, high: 1}", "balanced_accuracy")
    assert found.dimensions["ensemble.prior_power"] == NumberRange(low=0.0, high=1.0)


@pytest.mark.parametrize("text", ["", "- a\n- b", "a: [", "3"])
def test_what_is_no_space(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"search\.yaml: expected"):
        space(tmp_path, text)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_space(tmp_path / "none.yaml", BASE, "log_loss")


@pytest.mark.parametrize("preset", ["quick", "released", "fast", "paper"])
def test_a_preset_comes_with_a_space_that_it_lies_in(preset: str) -> None:
    config = load_config(preset)
    searched = read_space(default_space(preset), config, "log_loss")
    point = searched.point_of(config)
    assert point is not None
    assert searched.configure(config, point) == config
    plain = {key: d.to_plain() for key, d in searched.dimensions.items()}
    assert yaml.safe_load(searched.to_yaml()) == plain


def test_a_preset_without_a_space_asks_for_one() -> None:
    assert "search" not in presets()  # the folder beside them is none
    for name in ("rules", "mine.yaml", "search/quick"):
        with pytest.raises(InputError, match="--search"):
            default_space(name)
