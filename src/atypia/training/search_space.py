"""What a search varies: settings of the configuration, and the values that each may take.

A space is a YAML file with one entry per setting::

    optim.learning_rate: {low: 0.0001, high: 0.003, log: true}
    optim.epochs: {low: 8, high: 24, step: 4}
    augment.mixup: [0, 0.1, 0.2]
    augment.flip: [true, false]
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from atypia.core.config import TrainConfig, config_from_tree, presets
from atypia.core.errors import InputError, Problem
from atypia.core.files import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import optuna

Measure: TypeAlias = Literal[
    "log_loss", "calibrated_log_loss", "mean_auc", "balanced_accuracy", "binary_auc"
]
"""What trials are compared by."""
MINIMISED: Final = ("log_loss", "calibrated_log_loss")
"""Measures of which small values are good."""

Label: TypeAlias = bool | int | float | str | None
"""A value as a study keeps it: plain, so that any data base can hold it."""

_NOT_SEARCHED: Final = {
    "label": "it decides what is right, not how well that is learned",
    "seed": "a seed that was lucky here is of no use to other patients",
    "split": "it decides which patients are kept apart",
    "resamples": "it changes no measure",
    "runtime": "it must not change what is learned",
    "ensemble.members": "all trials are compared on the same folds",
    "ensemble.trained": "all trials are compared on the same folds; --folds says how many",
    "ensemble.bagging": "trials measure members one by one",
    "ensemble.join": "trials measure members one by one",
    "ensemble.calibration": "it is fitted after the training; trials are measured before it",
    "ensemble.miss_cost": "it is fitted after the training and changes none of the measures",
    "ensemble.named_share": "it is fitted after the training and changes none of the measures",
    "ensemble.threshold": "it is fitted after the training and changes none of the measures",
    "ensemble.threshold_by": "it is fitted after the training and changes none of the measures",
    "ensemble.conformal_alpha": "it is fitted after the training and changes no measure",
    "optim.select": "with best, the fold that is measured has chosen the epoch and looks too good",
    "target.teacher": "a teacher has seen labels of the folds that are measured",
    "target.teacher_mass": "a teacher has seen labels of the folds that are measured",
}
"""Settings, or groups of them, that must be alike in all trials, and why."""


def default_measure(config: TrainConfig) -> Measure:
    """Log-loss, after a temperature where the configuration calibrates by one."""
    return "calibrated_log_loss" if config.ensemble.calibration == "temperature" else "log_loss"


@dataclass(frozen=True)
class Choices:
    """Any of these values, in no order."""

    values: tuple[Any, ...]

    @property
    def labels(self) -> tuple[Label, ...]:
        """What a study keeps for each value: itself, or its JSON where it is a list."""
        return tuple(json.dumps(v) if isinstance(v, list) else v for v in self.values)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that limit the dimension: all of them."""
        return self.values

    def label_of(self, value: Any) -> Label:
        """Label of a value; ValueError if it is not among them."""
        return self.labels[self.values.index(value)]

    def value_of(self, label: Label) -> Any:
        """Value that a label stands for."""
        return self.values[self.labels.index(label)]

    def suggest(self, trial: optuna.Trial, key: str) -> Label:
        """Draw a label, or return the one that the trial was given."""
        return trial.suggest_categorical(key, self.labels)

    def to_plain(self) -> list[Any]:
        """As it stands in a YAML file."""
        return list(self.values)


class NumberRange(BaseModel):
    """Every number from `low` to `high`, both included; whole ones where both are integers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float
    high: int | float
    log: bool = False
    """Equal ratios are equally probable at first, instead of equal differences."""
    step: int | float | None = None

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that limit the dimension."""
        return self.low, self.high

    def label_of(self, value: Any) -> Label:
        """Label of a number: itself; ValueError if it is none or cannot be drawn."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high:
            raise ValueError
        if self.step is not None and not _is_whole((value - self.low) / self.step):
            raise ValueError
        label: Label = value
        return label

    def value_of(self, label: Label) -> Any:
        """Value that a label stands for: itself."""
        return label

    def suggest(self, trial: optuna.Trial, key: str) -> Label:
        """Draw a number, or return the one that the trial was given."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            step = int(self.step or 1)
            return trial.suggest_int(key, self.low, self.high, step=step, log=self.log)
        return trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)

    def to_plain(self) -> dict[str, Any]:
        """As it stands in a YAML file."""
        return self.model_dump(exclude_defaults=True)


Dimension: TypeAlias = Choices | NumberRange


@dataclass(frozen=True)
class SearchSpace:
    """Settings by their dotted names, and what each may be. Made by :func:`read_space`."""

    dimensions: Mapping[str, Dimension]

    def to_yaml(self) -> str:
        """Write the space as a file that :func:`read_space` takes."""
        plain = {key: dimension.to_plain() for key, dimension in self.dimensions.items()}
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None)

    def values(self, point: Mapping[str, Label]) -> dict[str, Any]:
        """Values of the settings at one point of the space."""
        return {key: d.value_of(point[key]) for key, d in self.dimensions.items()}

    def configure(self, base: TrainConfig, point: Mapping[str, Label]) -> TrainConfig:
        """Put one point of the space into a configuration.

        Raises:
            InputError: These values do not fit each other.
        """
        tree = base.model_dump(mode="json")
        for key, value in self.values(point).items():
            _put(tree, key, value)
        return config_from_tree(tree, "this point of the space")

    def values_in(self, config: TrainConfig) -> dict[str, Any]:
        """Values of the searched settings in a configuration."""
        tree = config.model_dump(mode="json")
        return {key: _get(tree, key) for key in self.dimensions}

    def point_of(self, config: TrainConfig) -> dict[str, Label] | None:
        """Find the point at which a configuration lies; None if it lies outside."""
        values = self.values_in(config)
        try:
            return {key: d.label_of(values[key]) for key, d in self.dimensions.items()}
        except ValueError:
            return None

    def edges(self, base: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
        """Give `base` with each value that limits a dimension, and the dimension's name."""
        for key, dimension in self.dimensions.items():
            for value in dimension.ends:
                tree = base.model_dump(mode="json")
                _put(tree, key, value)
                yield key, config_from_tree(tree, key)


def default_space(preset: str) -> Path:
    """Find the space that the package has for a preset.

    Raises:
        InputError: There is none.
    """
    folder = Path(str(resources.files("atypia") / "presets" / "search"))
    file = folder / f"{preset}.yaml"
    if preset not in presets() or not file.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        raise InputError(
            f"--search: expected the YAML file of a search space, since only the presets {known} "
            f"come with one, but got none for {preset!r}."
        )
    return file


def read_space(file: Path, base: TrainConfig, measure: str) -> SearchSpace:
    """Read a space of `base`; check both ends of every range, and every choice, against it.

    Raises:
        InputError: Lists every key that is not a setting or must not be searched, and every value
            that the setting does not take.
    """
    tree = read_yaml(file)
    if not isinstance(tree, dict) or not tree:
        raise InputError(
            f"{file}: expected settings with their values, such as 'augment.mixup: [0, 0.2]', but "
            f"got {'nothing' if not tree else type(tree).__name__}."
        )
    problems: list[Problem] = []
    dimensions: dict[str, Dimension] = {}
    for key, given in tree.items():
        faults: list[str] = []
        dimension = _dimension(str(key), given, base, measure, faults)
        problems += [Problem(fault, str(file), column=str(key)) for fault in faults]
        if dimension is not None:
            dimensions[str(key)] = dimension
    if problems:
        raise InputError(problems)
    return SearchSpace(dimensions)


def _dimension(
    key: str, given: Any, base: TrainConfig, measure: str, faults: list[str]
) -> Dimension | None:
    """Read one entry; adds to `faults` everything that is wrong with it."""
    try:
        current = _get(base.model_dump(mode="json"), key)
    except (KeyError, TypeError):
        current = {}
    why = next((w for k, w in _NOT_SEARCHED.items() if f"{key}.".startswith(f"{k}.")), None)
    if isinstance(current, dict):  # nothing, or a group of settings
        faults.append("is not a setting. The config.yaml of a run lists them all.")
    elif why is not None:
        faults.append(f"cannot be searched: {why}.")
    elif key == "ensemble.prior_power" and measure != "balanced_accuracy":
        faults.append(
            f"cannot be searched by {measure}: it changes the decisions, not the probabilities. "
            "Choose --measure balanced_accuracy."
        )
    elif isinstance(given, list):
        return _choices(key, given, base, faults)
    elif isinstance(given, dict):
        return _range(key, given, base, faults)
    else:
        faults.append(f"expected a list of values, or {{low: ..., high: ...}}, but got {given!r}.")
    return None


def _choices(key: str, given: list[Any], base: TrainConfig, faults: list[str]) -> Choices:
    values = [_checked(base, key, value, faults) for value in given]
    # 1 and True are equal, but not the same choice.
    if not faults and len({json.dumps(value) for value in values}) != len(values):
        faults.append(f"expected each value once but got {given}.")
    elif not faults and len(values) < 2:
        faults.append(f"expected at least two values but got {given}. Fix a setting by key=value.")
    return Choices(tuple(values))


def _range(
    key: str, given: dict[str, Any], base: TrainConfig, faults: list[str]
) -> NumberRange | None:
    ends = {}
    for name in ("low", "high"):
        of_end: list[str] = []
        if name in given:
            ends[name] = _checked(base, key, given[name], of_end)
        faults += [f"{name}: {fault}" for fault in of_end]
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends.values()):
        faults[:] = faults or ["is not a number: expected a list of values instead of a range."]
    if faults:
        return None
    try:
        found = NumberRange.model_validate({**given, **ends})
    except ValidationError as error:
        for item in error.errors():
            part = item["loc"][0]
            if item["type"] == "missing":
                faults.append(f"expected {part} but it is missing.")
            elif item["type"] == "extra_forbidden":
                faults.append(f"expected low, high, log or step but got {part!r}.")
            else:
                faults.append(f"{part}: {item['msg']}, but got {item['input']!r}.")
        return None
    low, high, log, step = found.low, found.high, found.log, found.step
    whole = isinstance(ends["low"], int)
    if low >= high:
        faults.append(f"expected low below high but got {low:g} and {high:g}.")
    elif log and low <= 0:
        faults.append(f"log: expected a low above 0 but got {low:g}.")
    elif log and step is not None:
        faults.append("expected log or step, not both.")
    elif step is not None and step <= 0:
        faults.append(f"step: expected a number above 0 but got {step!r}.")
    elif step is not None and whole and not _is_whole(step):
        faults.append(f"step: expected an integer, as the setting is, but got {step:g}.")
    elif step is not None and not _is_whole((high - low) / step):
        faults.append(
            f"step: expected a whole number of steps from {low:g} to {high:g} but got {step:g}."
        )
    return found if step is None else found.model_copy(update={"step": type(low)(step)})


def _checked(base: TrainConfig, key: str, value: Any, faults: list[str]) -> Any:
    """Read `value` as the setting does, so that ``1e-4`` is a number."""
    tree = base.model_dump(mode="json")
    _put(tree, key, value)
    try:
        return _get(config_from_tree(tree, key).model_dump(mode="json"), key)
    except InputError as error:
        faults += [
            problem.what if problem.column == key else f"with {value!r}: {problem}"
            for problem in error.problems
        ]
        return None


def _is_whole(number: float) -> bool:
    return math.isclose(number, round(number), abs_tol=1e-8)


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree[parent]
    tree[leaf] = value


def _get(tree: dict[str, Any], key: str) -> Any:
    value: Any = tree
    for part in key.split("."):
        value = value[part]
    return value
