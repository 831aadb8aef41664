"""Distil a run into one fast network, or into an ensemble that is better than its teacher."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from atypia.classifiers.bundle import find_bundle, read_header
from atypia.core.choices import BEST, FAST
from atypia.core.config import config_from_tree, load_config
from atypia.core.errors import InputError, Problem
from atypia.core.files import read_yaml
from atypia.core.progress import OnStep, silent
from atypia.training.base_predictions import cohort_of_teacher
from atypia.training.network_fitter import train_on_one_split
from atypia.training.run_folder import network_config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atypia.core.config import TrainConfig

PRESET = "fast"
TEACHER_MASS = 0.5
"""Share of the target that is the teacher's, unless the settings give another."""


def distill(
    teacher: Path,
    out: Path,
    settings: Sequence[str] = (),
    *,
    quality: str = FAST,
    into: Path | None = None,
    resume: bool = False,
    command: str = "",
    on_step: OnStep = silent,
) -> dict[str, Any] | None:
    """Train students on the cohort, the split and the out-of-fold predictions of a finished run.

    At quality ``fast`` it is one network, which learns from all training patients but those of
    inner fold 0. At quality ``best`` there is one for each inner fold, and their predictions are
    averaged over rotations and flips: networks that learn from an ensemble of their own kind
    surpass it (born-again networks: Furlanello et al., ICML 2018).

    On the folds left out, temperature, threshold and prediction sets are fitted. A student has seen
    labels of its fold through the teacher's predictions for other patients, which makes measures
    on that fold optimistic; the test part is clean, and is predicted once.

    Args:
        teacher: Folder of a finished run with one outer split.
        out: The student's run folder; this, `resume`, `command`, `on_step` and what is returned
            are those of :func:`atypia.pipeline.train`.
        settings: ``key=value`` over the preset ``fast``.
        quality: ``fast`` or ``best``.
        into: A bundle, or the folder of a run, that gets the student as its quality ``fast``.

    Raises:
        InputError: The run is not finished or not of one split, its cohort is not where it was,
            or the settings are wrong; or `into` with students of quality ``best``.
        TrainingError: The training cannot go on.
    """
    from atypia.classifiers.ensemble import Ensemble, add_quality

    if into is not None and quality != FAST:
        raise InputError("--into: takes a student of quality fast. Leave it out, or --quality.")
    bundle = None if into is None else find_bundle(into)
    if bundle is not None:
        read_header(bundle)  # a fault is reported before the work
    cohort_folder = cohort_of_teacher(teacher)
    given = None if resume and not settings else student_config(teacher, settings, quality)
    config = network_config(out, given, resume=resume)
    metrics = train_on_one_split(cohort_folder, out, config, command=command, on_step=on_step)
    if bundle is not None and metrics is not None:
        add_quality(bundle, Ensemble.load(out))
    return metrics


def student_config(teacher: Path, settings: Sequence[str] = (), quality: str = FAST) -> TrainConfig:
    """Resolve the student's configuration: preset ``fast``, then the teacher's data, then settings.

    Raises:
        InputError: Lists every unknown key and wrong value; or an unknown quality; or settings that
            would show labels which were hidden from the teacher.
    """
    if quality not in (BEST, FAST):
        raise InputError(f"--quality: expected best or fast but got {quality!r}.")
    file = teacher / "config.yaml"
    own = config_from_tree(read_yaml(file), str(file))
    from_teacher = {
        "label": own.label,
        "split.kind": str((teacher / "splits.json").resolve()),
        "ensemble.members": own.ensemble.members,
        "target.teacher": str((teacher / "predictions-oof.csv").resolve()),
        "target.teacher_mass": TEACHER_MASS,
    }
    if quality == BEST:
        from_teacher |= {"ensemble.trained": None, "ensemble.tta": True}
    hidden = _hiding(own) if own.target.labelled_patients < 1 else {}
    fixed = [f"{key}={json.dumps(value)}" for key, value in (from_teacher | hidden).items()]
    config = load_config(PRESET, [*fixed, *settings])
    given = _hiding(config)
    wrong = [
        f"expected {key}={json.dumps(value)}, as of the teachers, but got "
        f"{json.dumps(given[key])}: it decides whose labels are hidden. Leave it out."
        for key, value in hidden.items()
        if given[key] != value
    ]
    if wrong:
        raise InputError([Problem(text) for text in wrong])
    return config


def _hiding(config: TrainConfig) -> dict[str, Any]:
    """Gather the settings that decide whose labels are hidden."""
    return {
        "target.labelled_patients": config.target.labelled_patients,
        "target.others": config.target.others,
        "seed": config.seed,
    }
