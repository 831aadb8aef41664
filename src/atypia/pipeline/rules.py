"""Rules: a run without training. Read every shape, settle the answers, predict, score, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atypia.config import RulesConfig
from atypia.data.cohort import Cohort
from atypia.pipeline.readings import (
    Unsettled,
    part_of,
    read_cohort,
    settle_outer,
    shaped_on,
    write_measures,
)
from atypia.pipeline.report import write_report
from atypia.pipeline.run import (
    Clock,
    Run,
    run_config,
    run_record,
    run_splits,
    session,
    warn_of_missing_classes,
)
from atypia.pipeline.score import score_run
from atypia.progress import OnStep, silent
from atypia.rules import RulesClassifier, raw_probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atypia.models.rules.reading import Reading


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
        cohort_folder: From :func:`atypia.data.prepare.prepare`.
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
            settle_outer(run, number, _of_outer(run, number, readings))
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


def _of_outer(run: Run[RulesConfig], number: int, readings: Sequence[Reading]) -> Unsettled:
    part = part_of(run, number)
    raw = raw_probabilities(readings)
    return Unsettled(
        part=part,
        training=raw[part.training],
        test=raw[part.test],
        facts={"initial_weights": "none: rules", "parameters": 0},
        answer=lambda answers, _, own: RulesClassifier(answers).settled(
            [readings[row] for row in own]
        ),
        save=lambda folder, answers, told: RulesClassifier(answers, told).save(folder),
    )
