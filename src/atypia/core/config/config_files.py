"""From presets, files and ``key=value`` to a configuration, with every fault reported at once."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from atypia.core.config.run_configs import (
    AnyConfig,
    HybridConfig,
    MilConfig,
    MitosisConfig,
    RulesConfig,
    StackConfig,
    TrainConfig,
)
from atypia.core.errors import InputError, Problem
from atypia.core.files import read_yaml
from atypia.core.parsing import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KINDS: Final[dict[str, type[RulesConfig | HybridConfig | StackConfig | MitosisConfig]]] = {
    "mitosis": MitosisConfig,
    "rules": RulesConfig,
    "hybrid": HybridConfig,
    "stack": StackConfig,
}
"""By the key ``kind``; that of a network of subtypes has none."""


def presets() -> list[str]:
    """Names of the presets in the package."""
    folder = resources.files("atypia") / "presets"
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def load_config(preset: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Resolve a preset of a network and ``key=value`` overrides.

    Raises:
        InputError: See :func:`load_any_config`; or the preset is not of a network.
    """
    config = load_any_config(preset, overrides)
    if not isinstance(config, TrainConfig):
        raise InputError(
            f"{preset}: expected the preset of a network but got one of {config.kind}."
        )
    return config


def load_any_config(preset: str, overrides: Sequence[str] = ()) -> AnyConfig:
    """Resolve a preset and ``key=value`` overrides.

    Args:
        preset: Name of a preset in the package, or path of a YAML file.
        overrides: Like ``"optim.epochs=30"``; values are YAML.

    Raises:
        InputError: Lists every unknown key and wrong value.
    """
    if preset in presets():
        tree = read_yaml(Path(str(resources.files("atypia"))) / "presets" / f"{preset}.yaml")
    elif Path(preset).suffix in {".yaml", ".yml"} and Path(preset).is_file():
        tree = read_yaml(Path(preset))
    else:
        raise InputError(
            f"--preset: expected one of {presets()} or the path of a YAML file but got {preset!r}."
        )
    if not isinstance(tree, dict):
        raise InputError(f"{preset}: expected a mapping of settings but got {type(tree).__name__}.")
    problems = _apply(tree, overrides)
    config, more = _validated(tree, f"preset {preset} and key=value" if overrides else preset)
    if problems or config is None or more:
        raise InputError([*problems, *more])
    return config


def mil_config(settings: Sequence[str], tree: Mapping[str, Any] | None = None) -> MilConfig:
    """Resolve settings of a prediction for patients, as of :func:`load_any_config`.

    What they change is `tree`, such as the content of a run's ``config.yaml``.
    """
    own = dict(tree or {})
    # A group is given in part: the rest is that of the defaults.
    defaults = MilConfig(target="").model_dump(mode="json")
    own |= {k: {**v, **own.get(k, {})} for k, v in defaults.items() if isinstance(v, dict)}
    problems = _apply(own, settings)
    try:
        config = MilConfig.model_validate(own)
    except ValidationError as error:
        raise InputError([*problems, *_problems(error, "key=value")]) from None
    if problems:
        raise InputError(problems)
    return config


def config_from_tree(tree: Mapping[str, Any], origin: str) -> TrainConfig:
    """Validate the ``config.yaml`` of a network's run; raises InputError with all problems."""
    config = any_config_from_tree(tree, origin)
    if not isinstance(config, TrainConfig):
        raise InputError(f"{origin}: expected the run of a network but got one of {config.kind}.")
    return config


def any_config_from_tree(tree: Mapping[str, Any], origin: str) -> AnyConfig:
    """Validate a mapping, such as a run's ``config.yaml``; raises InputError with all problems."""
    config, problems = _validated(tree, origin)
    if config is None:
        raise InputError(problems)
    return config


def _apply(tree: dict[str, Any], overrides: Sequence[str]) -> list[Problem]:
    problems = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            problems.append(Problem(f"expected key=value but got {override!r}."))
            continue
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                problems.append(Problem(f"{key!r}: {parent!r} is a value, not a group."))
                break
            node = child
        else:
            try:
                node[leaf] = parse_yaml(value, key)
            except InputError:
                node[leaf] = value
            # YAML 1.1 reads 1e-4 as a string; people mean the number.
            if isinstance(node[leaf], str):
                node[leaf] = _number(node[leaf])
    return problems


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _validated(tree: Mapping[str, Any], origin: str) -> tuple[AnyConfig | None, list[Problem]]:
    kind = tree.get("kind")
    if "kind" in tree and kind not in _KINDS:
        what = f"expected one of {list(_KINDS)}, or no such key for a network, but got {kind!r}."
        return None, [Problem(what, origin, column="kind")]
    try:
        return (_KINDS[str(kind)] if "kind" in tree else TrainConfig).model_validate(tree), []
    except ValidationError as error:
        return None, _problems(error, origin)


def _problems(error: ValidationError, origin: str) -> list[Problem]:
    """Report of each fault its key, what was expected and what came."""
    problems = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(whole)"
        if item["type"] == "extra_forbidden":
            what = "is not a setting. The config.yaml of a run lists them all."
        elif item["type"] == "missing":
            what = "is required but missing."
        elif not item["loc"]:  # of the whole; the message has what came
            what = f"{item['msg']}."
        else:
            what = f"{item['msg']}, but got {item['input']!r}."
        problems.append(Problem(what, origin, column=key))
    return problems
