"""Train: from a cohort and a configuration to a model, its predictions, its measures, a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from atypia.core.config import (
    AnyConfig,
    HybridConfig,
    MitosisConfig,
    RulesConfig,
    StackConfig,
    TrainConfig,
)
from atypia.core.progress import OnStep, silent
from atypia.reports.run_report import write_report
from atypia.training.hybrid_fitter import HybridFitter
from atypia.training.mitosis_fitter import MitosisFitter
from atypia.training.network_fitter import NetworkFitter
from atypia.training.rules_fitter import RulesFitter
from atypia.training.run_folder import run_config
from atypia.training.stack_fitter import StackFitter

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.training.outer_split import ModelFitter

FITTERS: Final[dict[type[AnyConfig], type[ModelFitter[Any]]]] = {
    TrainConfig: NetworkFitter,
    MitosisConfig: MitosisFitter,
    RulesConfig: RulesFitter,
    HybridConfig: HybridFitter,
    StackConfig: StackFitter,
}
"""By the kind of configuration: what fits the models of such a run."""


def train(
    cohort_folder: Path,
    out: Path,
    config: AnyConfig | None,
    *,
    resume: bool = False,
    command: str = "",
    on_step: OnStep = silent,
) -> dict[str, Any] | None:
    """Fit the models that the configuration asks for, one for each outer split, and judge them.

    A run folder holds the record (``run.json``, ``config.yaml``, ``splits.json``, ``train.log``),
    the bundle in ``model``, its predictions out of fold and for the test part, the measures of
    both, and ``report.html``. With several outer splits, each has its own folder ``outer-<i>``.

    Started by ``torchrun``, all processes train each member of a network; only the first one
    writes.

    Args:
        cohort_folder: From :func:`atypia.pipeline.prepare`.
        out: The run folder.
        config: Of networks, the rules, a hybrid or a stack; None only to resume: the run's own.
        resume: Go on with a run that was stopped. Members that are finished are not trained again;
            the rest is done once more.
        command: The command line, for the record.
        on_step: Called with what is being done (such as the member's name), steps done and steps
            in all.

    Returns:
        The content of ``metrics.json``; None in processes that do not write.

    Raises:
        InputError: Options, cohort, splits, base runs or run folder do not fit each other.
        LeakError: Patients stand on both sides of a split.
        MissingExtraError: What this kind of run needs is not installed.
        TrainingError: The training cannot go on.
    """
    config = run_config(out, config, resume=resume)
    fitter = FITTERS[type(config)](config)
    # Open the cohort, split it by patient (or take the splits of the run), open the run folder.
    with fitter.start(cohort_folder, out, command, on_step) as (run, note):
        models = []
        for number in range(len(run.splits.outer)):
            # Train the members and aggregate their predictions: out of fold, and of the test part.
            model = fitter.fit(number)
            if run.writes:
                # Calibrate, fix threshold and prediction sets out of fold; save bundle and tables.
                models.append(fitter.finish(number, model))
        if not run.writes:
            return None
        metrics = fitter.score(models)
        fitter.write_more()
        note(models=models)  # the report has this session, too
        write_report(out, run.cohort)
    return metrics
