"""Start a run of any kind: of networks, of the rules, of a hybrid, of a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from atypia.core.config import (
    AnyConfig,
    HybridConfig,
    RulesConfig,
    StackConfig,
    any_config_from_tree,
)
from atypia.core.progress import OnStep, silent
from atypia.training.hybrid_run import run_hybrid
from atypia.training.network_run import train as train_networks
from atypia.training.rules_run import run_rules
from atypia.training.stack_run import run_stack

if TYPE_CHECKING:
    from pathlib import Path


def train(
    cohort_folder: Path,
    out: Path,
    config: AnyConfig | None,
    *,
    resume: bool = False,
    command: str = "",
    on_step: OnStep = silent,
) -> dict[str, Any] | None:
    """Do what the configuration asks for.

    See :func:`atypia.training.network_run.train`, :func:`run_rules`, :func:`run_hybrid` and
    :func:`run_stack`.

    Args:
        cohort_folder: From :func:`atypia.pipeline.prepare`.
        out: The run folder.
        config: None only to resume: with the run's own configuration.
        resume: Go on with a run that was stopped.
        command: The command line, for the record.
        on_step: Called with what is being done, steps done and steps in all.

    Returns:
        The content of ``metrics.json``; None in processes that do not write.

    Raises:
        InputError: Options, cohort, splits or run folder do not fit each other.
        AtypiaError: The work cannot go on.
    """
    file = out / "config.yaml"
    if config is None and file.is_file():
        config = any_config_from_tree(yaml.safe_load(file.read_text("utf-8")), str(file))
    options: dict[str, Any] = {"resume": resume, "command": command, "on_step": on_step}
    if isinstance(config, RulesConfig):
        return run_rules(cohort_folder, out, config, **options)
    if isinstance(config, HybridConfig):
        return run_hybrid(cohort_folder, out, config, **options)
    if isinstance(config, StackConfig):
        return run_stack(cohort_folder, out, config, **options)
    return train_networks(cohort_folder, out, config, **options)
