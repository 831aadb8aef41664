"""Hybrid: join a finished run's network with the rules by a small classifier."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from atypia.classifiers.combiner import feature_table
from atypia.classifiers.hybrid import postprocessed, save_hybrid
from atypia.classifiers.rules.rules_classifier import RulesClassifier, raw_probabilities
from atypia.core.config import HybridConfig
from atypia.core.errors import InputError
from atypia.core.files import sha256_file, write_text
from atypia.core.progress import OnStep, silent
from atypia.data.cohort import Cohort
from atypia.evaluation.comparison import trade, trade_table
from atypia.evaluation.predictions import predictions_from_table
from atypia.inference.patch_predictions import prediction_table
from atypia.reports.run_report import write_report
from atypia.training.base_predictions import BasePredictions, splits_of
from atypia.training.combiner_fit import choose, cross_fitted, fit_combiner
from atypia.training.postprocessing_fit import fit_postprocessing
from atypia.training.run_folder import Clock, Run, run_config, run_record, session
from atypia.training.run_scores import score_run
from atypia.training.targets import chosen_labels
from atypia.training.uncalibrated_model import (
    OuterRows,
    UncalibratedModel,
    finish_outer,
    read_cohort,
    shaped_on,
    write_measures,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atypia.classifiers.rules.shape_reading import ShapeFeatures

log = logging.getLogger("atypia")

TRADE: Final = "trade"
"""Files of a run: what the rules buy, ``.csv`` and ``.md``."""
_PARTS: Final = {"out of fold": "predictions-oof.csv", "test": "predictions-test.csv"}
_TRADE_HEADER: Final = """# Sensitivity against specificity

Each model at its own out-of-fold threshold; differences are to the network alone; 95 % intervals
from resampling patients.
"""


def run_hybrid(
    cohort_folder: Path,
    out: Path,
    config: HybridConfig | None,
    *,
    resume: bool = False,
    command: str = "",
    on_step: OnStep = silent,
) -> dict[str, Any]:
    """Fit a small classifier on a network's out-of-fold probabilities and the rules' findings.

    What it uses (the network alone, the rules' truths, all measures) and how strongly it is
    regularised is chosen by cross-validation over the patients of the training part; its own
    out-of-fold predictions come from that whole recipe, fold by fold.

    The network answers the test part with all its members, out of fold with one: the classifier
    therefore trusts it a little less than it could.

    Args:
        cohort_folder: Of the network's run.
        out: The run folder. It also gets ``measures.csv`` and ``trade.csv``: sensitivity and
            specificity of the network, the rules and the hybrid on the test part.
        config: None only to resume: with the run's own configuration.
        resume: Do a run that was stopped once more; it takes a few minutes.
        command: The command line, for the record.
        on_step: Called with ``shapes``, patches done and patches in all.

    Returns:
        The content of ``metrics.json``.

    Raises:
        InputError: Options, cohort, network or run folder do not fit each other.
        MissingExtraError: The extra ``rules`` is not installed.
    """
    clock = Clock()
    RulesClassifier()  # a missing package is told before the work
    config = run_config(out, config, resume, HybridConfig)
    if config.network is None:
        raise InputError("network: expected the folder of a network's finished run: network=RUN")
    cohort = Cohort.open(cohort_folder, verify=True)
    network = Path(config.network)
    splits = splits_of("network", network, cohort)
    run = Run(out, cohort, config, splits)
    opinions = [BasePredictions.of(run, number, network) for number in range(len(splits.outer))]
    with session(run, run_record(run, cohort_folder, command), clock) as note:
        readings = read_cohort(cohort, on_step)
        write_measures(out, cohort, readings)
        facts = [
            finish_outer(run, number, _fitted(run, opinion, readings))
            for number, opinion in enumerate(opinions)
        ]
        seen = any(opinion.optimistic for opinion in opinions)
        metrics = score_run(
            run,
            [f["threshold_atypical"] for f in facts],
            optimistic=seen or any(shaped_on(outer.training) for outer in splits.outer),
            test_optimistic=any(shaped_on(outer.test) for outer in splits.outer),
        )
        _write_trade(run, opinions, readings)
        note("running", models=facts)  # the report tells of this session, too
        write_report(out, cohort)
    note("finished", models=facts)
    return metrics


def _fitted(
    run: Run[HybridConfig], opinion: BasePredictions, readings: Sequence[ShapeFeatures]
) -> UncalibratedModel:
    part = opinion.part
    labels = chosen_labels(run.cohort.manifest, run.config.label)[part.training]
    table = feature_table(opinion.training, [readings[row] for row in part.training])
    choices = choose(table, labels, part.folds)
    best, known = choices[0], labels >= 0
    log.info("hybrid: %s with C = %g is best out of fold", " + ".join(best.uses), best.strength)
    combiner = fit_combiner(table[known], labels[known], best.uses, best.strength)
    tested = feature_table(opinion.test, [readings[row] for row in part.test])
    said = np.full((len(readings), 8), np.nan)
    said[part.training], said[part.test] = opinion.training, opinion.test
    return UncalibratedModel(
        part=part,
        training=cross_fitted(table, labels, part.folds),
        test=combiner.predict_proba(tested),
        facts={
            "initial_weights": f"network: {os.path.relpath(opinion.bundle, run.folder)}",
            "network_sha256": sha256_file(opinion.bundle / "model.json"),
            "parameters": combiner.coefficients.size + combiner.intercept.size,
            "choice": [choice.to_json() for choice in choices],
        },
        answer=lambda answers, raw, own: postprocessed(
            answers, raw, said[own], [readings[row] for row in own]
        ),
        save=lambda folder, answers, told: save_hybrid(
            folder, opinion.bundle, combiner, answers, told
        ),
    )


def _write_trade(
    run: Run[HybridConfig], opinions: Sequence[BasePredictions], readings: Sequence[ShapeFeatures]
) -> None:
    """Compare the calls of network, rules and hybrid, each at its own out-of-fold threshold."""
    ruled = [
        _of_rules(run, number, opinion.part, readings) for number, opinion in enumerate(opinions)
    ]
    tables, told = [], []
    for index, (part, file) in enumerate(_PARTS.items()):
        if run.splits.kind == "all" if part == "test" else len(opinions) > 1:
            continue  # no such part, or one in which every patch is several times
        files = {
            "network": [opinion.folder / file for opinion in opinions],
            "hybrid": [run.outer_folder(number) / file for number in range(len(opinions))],
        }
        frames = {name: pd.concat(map(_read, paths)) for name, paths in files.items()}
        frames["rules"] = pd.concat([of_outer[index] for of_outer in ruled])
        named = {
            name: predictions_from_table(frames[name]) for name in ("network", "rules", "hybrid")
        }
        table = trade(named, run.config.label, run.config.resamples, run.config.seed)
        tables.append(table.assign(part=part))
        told.append(f"## {part.capitalize()}\n\n{trade_table(table)}")
    text = pd.concat(tables).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_text(run.folder / f"{TRADE}.csv", text)
    write_text(run.folder / f"{TRADE}.md", "\n".join([_TRADE_HEADER, *told]))


def _of_rules(
    run: Run[HybridConfig], number: int, part: OuterRows, readings: Sequence[ShapeFeatures]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of the rules alone: out of fold, and of the test part."""
    manifest, raw = run.cohort.manifest, raw_probabilities(readings)
    labels = chosen_labels(manifest, run.config.label)[part.training]
    answers, out_of_fold = fit_postprocessing(
        run.config, manifest.iloc[part.training], labels, raw[part.training], part.folds
    )
    tested = prediction_table(
        manifest.iloc[part.test],
        answers.calibration.apply(raw[part.test]),
        answers.decision,
        answers.threshold,
        number,
    )
    return out_of_fold, tested


def _read(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype=str, keep_default_na=False)
