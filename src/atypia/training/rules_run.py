"""Rules: a run without training. Read every shape, settle the answers, predict, score, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atypia.classifiers.rules.rules_classifier import RulesClassifier, raw_probabilities
from atypia.core.config import RulesConfig
from atypia.core.progress import OnStep, silent
from atypia.data.cohort import Cohort
from atypia.reports.run_report import write_report
from atypia.training.run_folder import (
    Clock,
    Run,
    run_config,
    run_record,
    run_splits,
    session,
    warn_of_missing_classes,
)
from atypia.training.run_scores import score_run
from atypia.training.uncalibrated_model import (
    UncalibratedModel,
    finish_outer,
    part_of,
    read_cohort,
    shaped_on,
    write_measures,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atypia.classifiers.rules.shape_reading import ShapeFeatures


def run_rules(
    cohort_folder: Path,
    out: Path,
    config: RulesConfig | None,
    *,
    resume: bool = False,
    command: str = "",
    on_step: OnStep = silent,
) -> dict[str, Any]:
    """Leave the run folder that a training leaves, with the rules as its model.

    Nothing is learned, so every answer to a training patient counts as out of fold. On these
    answers are fixed what is fixed for every model: temperature, threshold, prediction sets, error
    rates. Where the rules were made with a look at these patients the measures are marked as
    optimistic; of AMi-Br only the test part of ``table1`` was not looked at.

    Args:
        cohort_folder: From :func:`atypia.pipeline.prepare`.
        out: The run folder. It also gets ``measures.csv``: what was measured of every patch.
        config: None only to resume: with the run's own configuration.
        resume: Do a run that was stopped once more; it takes a minute or two.
        command: The command line, for the record.
        on_step: Called with ``shapes``, patches done and patches in all.

    Returns:
        The content of ``metrics.json``.

    Raises:
        InputError: Options, cohort, splits or run folder do not fit each other.
        MissingExtraError: The extra ``rules`` is not installed.
    """
    clock = Clock()
    RulesClassifier()  # a missing package is told before the work
    config = run_config(out, config, resume, RulesConfig)
    cohort = Cohort.open(cohort_folder, verify=True)
    run = Run(out, cohort, config, run_splits(out, cohort, config))
    with session(run, run_record(run, cohort_folder, command), clock) as note:
        warn_of_missing_classes(run)
        readings = read_cohort(cohort, on_step)
        write_measures(out, cohort, readings)
        facts = [
            finish_outer(run, number, _of_outer(run, number, readings))
            for number in range(len(run.splits.outer))
        ]
        metrics = score_run(
            run,
            [f["threshold_atypical"] for f in facts],
            optimistic=any(shaped_on(outer.training) for outer in run.splits.outer),
            test_optimistic=any(shaped_on(outer.test) for outer in run.splits.outer),
        )
        note("running", models=facts)  # the report tells of this session, too
        write_report(out, cohort)
    note("finished", models=facts)
    return metrics


def _of_outer(
    run: Run[RulesConfig], number: int, readings: Sequence[ShapeFeatures]
) -> UncalibratedModel:
    part = part_of(run, number)
    raw = raw_probabilities(readings)
    return UncalibratedModel(
        part=part,
        training=raw[part.training],
        test=raw[part.test],
        facts={"initial_weights": "none: rules", "parameters": 0},
        answer=lambda answers, _, own: RulesClassifier(answers).settled(
            [readings[row] for row in own]
        ),
        save=lambda folder, answers, told: RulesClassifier(answers, told).save(folder),
    )
