"""Stack: join the models of several finished runs by a mean, weights, votes, or a meta-learner."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.classifiers.aggregation import Aggregation
from atypia.classifiers.stack import cross_joined, fit_meta, joined, save_stack
from atypia.core.config import StackConfig
from atypia.core.errors import InputError, LeakError, Problem
from atypia.core.files import read_json, sha256_file
from atypia.core.progress import OnStep, silent
from atypia.data.cohort import Cohort
from atypia.reports.run_report import write_report
from atypia.training.base_predictions import BasePredictions, splits_of
from atypia.training.run_folder import Clock, Run, run_config, run_record, session
from atypia.training.run_scores import score_run
from atypia.training.targets import chosen_labels
from atypia.training.uncalibrated_model import OuterRows, UncalibratedModel, finish_outer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atypia.data.splits import Splits

log = logging.getLogger("atypia")


def run_stack(
    cohort_folder: Path,
    out: Path,
    config: StackConfig | None,
    *,
    resume: bool = False,
    command: str = "",
    on_step: OnStep = silent,
) -> dict[str, Any]:
    """Join the models of several runs, by what each says of patients it has not learned from.

    Out-of-fold predictions come from the whole recipe, fold by fold. As in a hybrid, a model
    answers the test part with all its members, out of fold with some of them.

    Args:
        cohort_folder: Of the runs.
        out: The run folder.
        config: None only to resume: with the run's own configuration.
        resume: Do a run that was stopped once more; it takes seconds.
        command: The command line, for the record.
        on_step: Called with ``models``, outer splits done and in all.

    Returns:
        The content of ``metrics.json``.

    Raises:
        InputError: Options, cohort, runs or run folder do not fit each other.
        LeakError: A run has learned from the test part of the first one.
    """
    clock = Clock()
    config = run_config(out, config, resume, StackConfig)
    sources = [Path(name) for name in config.runs]
    if len(sources) < 2:
        raise InputError(
            f"runs: expected two or more finished runs, runs=[RUN1,RUN2], but got {len(sources)}."
        )
    cohort = Cohort.open(cohort_folder, verify=True)
    splits = _common_splits(sources, cohort)
    run = Run(out, cohort, config, splits)
    n_outer = len(splits.outer)
    opinions = [_aligned(run, number, sources) for number in range(n_outer)]
    with session(run, run_record(run, cohort_folder, command), clock) as note:
        facts = []
        for number, of_outer in enumerate(opinions):
            facts.append(finish_outer(run, number, _fitted(run, of_outer)))
            on_step("models", number + 1, n_outer)
        optimistic = any(opinion.optimistic for of_outer in opinions for opinion in of_outer)
        metrics = score_run(
            run,
            [f["threshold_atypical"] for f in facts],
            optimistic=optimistic,
            test_optimistic=any(_test_is_optimistic(source) for source in sources),
        )
        note("running", models=facts)  # the report tells of this session, too
        write_report(out, cohort)
    note("finished", models=facts)
    return metrics


def _test_is_optimistic(source: Path) -> bool:
    return bool(read_json(source / "metrics.json").get("optimistic", False))


def _common_splits(sources: Sequence[Path], cohort: Cohort) -> Splits:
    """Give the splits of the first run, whose test parts must be those of the others."""
    first, *others = [splits_of("runs", source, cohort) for source in sources]
    problems = []
    for source, other in zip(sources[1:], others, strict=True):
        if [set(o.test) for o in other.outer] != [set(o.test) for o in first.outer]:
            what = (
                f"expected the test part of {sources[0]} but got another: one of the two has "
                "learned from patients that the other is tested on. Train both with one --split."
            )
            problems.append(Problem(what, str(source)))
    if problems:
        raise LeakError(problems)
    return first


def _aligned(run: Run[StackConfig], number: int, sources: Sequence[Path]) -> list[BasePredictions]:
    """Read what each model says of one outer split, all in the order of the first one's rows.

    Raises:
        InputError: A run answers for other patches.
    """
    first, *others = [BasePredictions.of(run, number, source) for source in sources]
    aligned, problems = [first], []
    for source, other in zip(sources[1:], others, strict=True):
        same = np.array_equal(np.sort(other.part.training), np.sort(first.part.training))
        if not same or not np.array_equal(other.part.test, first.part.test):
            what = f"expected answers for the patches of {sources[0]} but got others."
            problems.append(Problem(what, str(source)))
            continue
        place = {row: i for i, row in enumerate(other.part.training.tolist())}
        order = [place[row] for row in first.part.training.tolist()]
        part = OuterRows(first.part.training, other.part.folds[order], other.part.test)
        aligned.append(
            BasePredictions(other.folder, other.bundle, part, other.training[order], other.test,
                    other.optimistic)
        )  # fmt: skip
    if problems:
        raise InputError(problems)
    return aligned


def _fitted(run: Run[StackConfig], opinions: Sequence[BasePredictions]) -> UncalibratedModel:
    part, kind = opinions[0].part, run.config.join
    labels = chosen_labels(run.cohort.manifest, run.config.label)[part.training]
    training = np.stack([opinion.training for opinion in opinions])
    meta, choices = fit_meta(kind, training, labels, part.folds)
    facts: dict[str, Any] = {
        "initial_weights": "models: "
        + ", ".join(os.path.relpath(opinion.bundle, run.folder) for opinion in opinions),
        "models_sha256": [sha256_file(opinion.bundle / "model.json") for opinion in opinions],
        "parameters": 0,
    }
    if isinstance(meta, Aggregation):
        facts["join"] = meta.model_dump(mode="json", exclude_none=True)
    else:
        log.info("stack: C = %g is best out of fold", choices[0].strength)
        facts["parameters"] = meta.coefficients.size + meta.intercept.size
        facts["choice"] = [choice.to_json() for choice in choices]
    test = np.stack([opinion.test for opinion in opinions])
    return UncalibratedModel(
        part=part,
        training=cross_joined(kind, training, labels, part.folds),
        test=joined(meta, test) if len(part.test) else np.empty((0, 8)),
        facts=facts,
        answer=lambda answers, raw, _: (answers.calibration.apply(raw), []),
        save=lambda folder, answers, told: save_stack(
            folder, [opinion.bundle for opinion in opinions], meta, answers, told
        ),
    )
