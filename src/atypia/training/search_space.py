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
import types
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from atypia.core.config import TrainConfig, config_from_tree, presets
from atypia.core.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Label: TypeAlias = bool | int | float | str | None
"""A value as a study keeps it: plain, so that any data base can hold it."""

_NOT_SEARCHED: Final = {
    "label": "it says what is right, not how well that is learned",
    "seed": "a seed that was lucky here is of no use to other patients",
    "split": "it decides which patients are kept apart",
    "resamples": "it changes no measure",
    "runtime": "it must not change what is learned",
    "ensemble.members": "all trials are compared on the same folds",
    "ensemble.trained": "all trials are compared on the same folds; --folds says how many",
    "ensemble.bagging": "trials measure members one by one",
    "ensemble.join": "trials measure members one by one",
    "ensemble.calibration": "it is fixed on the finished answers; trials are measured before it",
    "ensemble.threshold": "it is fixed on the finished answers and changes none of the measures",
    "ensemble.threshold_by": "it is fixed on the finished answers and changes none of the measures",
    "ensemble.conformal_alpha": "it is fixed on the finished answers and changes no measure",
    "optim.select": "with best, the fold that is measured has chosen the epoch and looks too good",
    "target.teacher": "a teacher has seen labels of the folds that are measured",
    "target.teacher_mass": "a teacher has seen labels of the folds that are measured",
}
"""Settings, or groups of them, that must be alike in all trials, and why."""


@dataclass(frozen=True)
class Choices:
    """Any of these values, in no order."""

    values: tuple[Any, ...]

    @property
    def labels(self) -> tuple[Label, ...]:
        """What a study keeps for each value: itself, or its JSON where it is a list."""
        return tuple(json.dumps(v) if isinstance(v, list | dict) else v for v in self.values)

    def holds(self, value: Any) -> bool:
        """Whether `value` is among them."""
        return value in self.values

    def to_plain(self) -> list[Any]:
        """As it stands in a YAML file."""
        return list(self.values)


@dataclass(frozen=True)
class NumberRange:
    """Every number from `low` to `high`, both included; whole ones where both are integers."""

    low: float
    high: float
    log: bool = False
    """Equal ratios are equally probable at first, instead of equal differences."""
    step: float | None = None

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (
            self.step is None or _is_whole((value - self.low) / self.step)
        )

    def to_plain(self) -> dict[str, Any]:
        """As it stands in a YAML file."""
        plain: dict[str, Any] = {"low": self.low, "high": self.high}
        if self.log:
            plain["log"] = True
        if self.step is not None:
            plain["step"] = self.step
        return plain


Dimension: TypeAlias = Choices | NumberRange


@dataclass(frozen=True)
class SearchSpace:
    """Settings by their dotted names, and what each may be. Made by :func:`read_space`."""

    dimensions: Mapping[str, Dimension]

    def to_yaml(self) -> str:
        """Write the space as a file that :func:`read_space` takes."""
        plain = {key: dimension.to_plain() for key, dimension in self.dimensions.items()}
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None)

    def configure(self, base: TrainConfig, labels: Mapping[str, Label]) -> TrainConfig:
        """Put one point of the space into a configuration.

        Args:
            base: Says everything that is not searched.
            labels: One per dimension.

        Raises:
            InputError: These values do not fit each other.
        """
        tree = base.model_dump(mode="json")
        for key, dimension in self.dimensions.items():
            value: Any = labels[key]
            if isinstance(dimension, Choices):
                value = dimension.values[dimension.labels.index(value)]
            _put(tree, key, value)
        return config_from_tree(tree, "this point of the space")

    def point_of(self, config: TrainConfig) -> dict[str, Label] | None:
        """Find the point at which a configuration lies; None if it lies outside."""
        tree, point = config.model_dump(mode="json"), {}
        for key, dimension in self.dimensions.items():
            value = _get(tree, key)
            if not dimension.holds(value):
                return None
            if isinstance(dimension, Choices):
                value = dimension.labels[dimension.values.index(value)]
            point[key] = value
        return point

    def edges(self, base: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
        """Give `base` with each value that limits a dimension, and the dimension's name."""
        tree = base.model_dump(mode="json")
        for key, dimension in self.dimensions.items():
            ends = (
                (dimension.low, dimension.high)
                if isinstance(dimension, NumberRange)
                else dimension.values
            )
            for value in ends:
                yield key, config_from_tree(_with(tree, key, value), key)


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
    """Read a space and check both ends of every range, and every choice, against the configuration.

    Args:
        file: YAML.
        base: The configuration that the space varies.
        measure: What trials are compared by.

    Raises:
        InputError: Lists every key that is not a setting or must not be searched, and every value
            that the setting does not take.
    """
    try:
        tree = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"--search: {file} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: expected YAML but got: {error}") from None
    if not isinstance(tree, dict) or not tree:
        raise InputError(
            f"{file}: expected settings with their values, such as 'augment.mixup: [0, 0.2]', but "
            f"got {'nothing' if not tree else type(tree).__name__}."
        )
    problems: list[Problem] = []
    dimensions: dict[str, Dimension] = {}
    for key, given in tree.items():
        dimension, wrong = _dimension(str(key), given, base, measure)
        problems += [Problem(what, str(file), column=str(key)) for what in wrong]
        if dimension is not None:
            dimensions[str(key)] = dimension
    if problems:
        raise InputError(problems)
    return SearchSpace(dimensions)


def _dimension(
    key: str, given: Any, base: TrainConfig, measure: str
) -> tuple[Dimension | None, list[str]]:
    """Check one entry; None, and everything that is wrong with it, if anything is."""
    number = _number_type(key)
    if number is None:
        return None, ["is not a setting. The config.yaml of a run lists them all."]
    for fixed, why in _NOT_SEARCHED.items():
        if key == fixed or key.startswith(f"{fixed}."):
            return None, [f"cannot be searched: {why}."]
    if key == "ensemble.prior_power" and measure != "balanced_accuracy":
        return None, [
            f"cannot be searched by {measure}: it changes the answers, not their probabilities. "
            "Choose --measure balanced_accuracy."
        ]
    if isinstance(given, list):
        return _choices(key, given, base)
    if isinstance(given, dict):
        return _range(key, given, base, number)
    return None, [f"expected a list of values, or {{low: ..., high: ...}}, but got {given!r}."]


def _choices(key: str, given: list[Any], base: TrainConfig) -> tuple[Choices | None, list[str]]:
    tree = base.model_dump(mode="json")
    wrong, values = [], []
    for value in given:
        checked, what = _checked(tree, key, value)
        wrong += what
        if not what:
            values.append(checked)
    # 1 and True are equal, but not the same choice.
    if not wrong and len({json.dumps(value) for value in values}) != len(values):
        wrong.append(f"expected each value once but got {given}.")
    if not wrong and len(values) < 2:
        wrong.append(f"expected at least two values but got {given}. Fix a setting by key=value.")
    return (None if wrong else Choices(tuple(values))), wrong


def _range(
    key: str, given: dict[str, Any], base: TrainConfig, number: type
) -> tuple[NumberRange | None, list[str]]:
    if number is object:
        return None, ["is not a number: expected a list of values instead of a range."]
    unknown = sorted(map(str, set(given) - {"low", "high", "log", "step"}))
    wrong = [f"expected low, high, log or step but got {unknown}."] if unknown else []
    wrong += [f"expected {end} but it is missing." for end in ("low", "high") if end not in given]
    log = given.get("log", False)
    if not isinstance(log, bool):
        wrong.append(f"log: expected true or false but got {log!r}.")
    tree = base.model_dump(mode="json")
    ends = {}
    for end in {"low", "high"} & set(given):
        ends[end], what = _checked(tree, key, given[end])
        if isinstance(ends[end], bool) or not isinstance(ends[end], int | float):
            what = what or [f"expected a number but got {given[end]!r}."]
        wrong += [f"{end}: {text}" for text in what]
    step = _number(given.get("step"))
    if wrong:
        return None, sorted(wrong)
    low, high = number(ends["low"]), number(ends["high"])
    if low >= high:
        return None, [f"expected low below high but got {low:g} and {high:g}."]
    if log and low <= 0:
        wrong.append(f"log: expected a low above 0 but got {low:g}.")
    if step is not None:
        if log:
            wrong.append("expected log or step, not both.")
        if not isinstance(step, int | float) or step <= 0:
            return None, [*wrong, f"step: expected a number above 0 but got {step!r}."]
        if not _is_whole(step) and number is int:
            wrong.append(f"step: expected an integer, as the setting is, but got {step:g}.")
        elif not _is_whole((high - low) / step):
            wrong.append(
                f"step: expected a whole number of steps from {low:g} to {high:g} but got {step:g}."
            )
        step = number(step)
    return (None if wrong else NumberRange(low, high, log, step)), wrong


def _checked(tree: dict[str, Any], key: str, value: Any) -> tuple[Any, list[str]]:
    """Read `value` as the setting does, so that ``1e-4`` is a number; or say what is wrong."""
    try:
        config = config_from_tree(_with(tree, key, value), key)
    except InputError as error:
        return None, [
            problem.what if problem.column == key else f"with {value!r}: {problem}"
            for problem in error.problems
        ]
    return _get(config.model_dump(mode="json"), key), []


def _number_type(key: str) -> type | None:
    """Find what a setting holds: ``int``, ``float``, ``object`` for all else; None if unknown."""
    model: Any = TrainConfig
    *parents, leaf = key.split(".")
    for parent in parents:
        field = model.model_fields.get(parent)
        model = field.annotation if field is not None else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
    field = model.model_fields.get(leaf)
    if field is None or issubclass(getattr(field.annotation, "__mro__", (object,))[0], BaseModel):
        return None
    kinds = set(_plain_types(field.annotation)) - {type(None)}
    return kinds.pop() if kinds in ({int}, {float}) else object


def _plain_types(annotation: Any) -> Iterator[type]:
    """Types that a value may have; constraints and unions are looked through."""
    if get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _plain_types(part)
    elif hasattr(annotation, "__metadata__"):  # Annotated
        yield from _plain_types(annotation.__origin__)
    else:
        yield annotation if isinstance(annotation, type) else object


def _number(value: Any) -> Any:
    """Read a text as a number where it is one: YAML 1.1 takes ``1e-4`` for a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is_whole(number: float) -> bool:
    return math.isclose(number, round(number), abs_tol=1e-8)


def _with(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(tree))
    _put(copy, key, value)
    return copy


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
