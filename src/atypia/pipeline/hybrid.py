"""Hybrid: join a finished run's network with the rules by a small classifier."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from atypia.bundle import find_bundle
from atypia.config import HybridConfig
from atypia.data.cohort import Cohort
from atypia.data.splits import Splits
from atypia.errors import InputError, Problem
from atypia.evaluation.predictions import (
    Predictions,
    predictions_from_table,
    read_predictions,
)
from atypia.evaluation.trade import trade, trade_table
from atypia.hybrid.classifier import save_hybrid, settled
from atypia.hybrid.combiner import feature_table
from atypia.hybrid.fit import choose, cross_fitted, fit_combiner
from atypia.inference.predict import prediction_table
from atypia.pipeline.readings import (
    Part,
    Unsettled,
    part_of,
    read_cohort,
    settle_outer,
    write_measures,
)
from atypia.pipeline.report import write_report
from atypia.pipeline.run import Clock, Run, run_config, run_record, session
from atypia.pipeline.score import score_run
from atypia.pipeline.settle import settle
from atypia.progress import OnStep, silent
from atypia.rules import RulesClassifier, raw_probabilities
from atypia.runs import read_json, sha256_file, write_text
from atypia.training.targets import chosen_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from atypia.models.rules.reading import Reading

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
    splits = _splits_of(network, cohort)
    run = Run(out, cohort, config, splits)
    opinions = [_Opinion.of(run, number, network) for number in range(len(splits.outer))]
    with session(run, run_record(run, cohort_folder, command), clock) as note:
        readings = read_cohort(cohort, on_step)
        write_measures(out, cohort, readings)
        facts = [
            settle_outer(run, number, _fitted(run, opinion, readings))
            for number, opinion in enumerate(opinions)
        ]
        optimistic = any(opinion.optimistic for opinion in opinions)
        metrics = score_run(run, [f["threshold_atypical"] for f in facts], optimistic=optimistic)
        _write_trade(run, opinions, readings)
        note("running", models=facts)  # the report tells of this session, too
        write_report(out, cohort)
    note("finished", models=facts)
    return metrics


@dataclass(frozen=True)
class _Opinion:
    """What a network said of the patches of one outer split."""

    folder: Path
    """Of the split in the network's run."""
    bundle: Path
    part: Part
    training: npt.NDArray[np.float64]
    """(N, 8), out of fold."""
    test: npt.NDArray[np.float64]
    """(M, 8)."""
    optimistic: bool
    """Whether the out-of-fold predictions are."""

    @classmethod
    def of(cls, run: Run[HybridConfig], number: int, network: Path) -> _Opinion:
        """Read it.

        Raises:
            InputError: A file is missing or of other patches, or there are too few folds.
        """
        folder = network if len(run.splits.outer) == 1 else network / f"outer-{number}"
        bundle = find_bundle(folder)
        whole = part_of(run, number)
        row_of = {name: row for row, name in enumerate(run.cohort.manifest["patch_id"])}
        out_of_fold = read_predictions(folder / "predictions-oof.csv")
        training = _rows(out_of_fold, row_of, whole.training, folder)
        folds = np.array([int(fold) for fold in out_of_fold.folds])
        if len(np.unique(folds)) < 3:
            what = (
                f"expected out-of-fold predictions of at least 3 folds but got "
                f"{len(np.unique(folds))}: what to make of them is chosen by folds within folds."
            )
            raise InputError(Problem(what, str(folder)))
        test = np.empty((0, 8))
        if len(whole.test):
            tested = read_predictions(folder / "predictions-test.csv")
            order = _rows(tested, row_of, whole.test, folder)
            test = tested.probabilities[np.argsort(order)]
            whole = Part(whole.training, whole.folds, np.sort(order))
        optimistic = bool(read_json(folder / "metrics-oof.json").get("optimistic", False))
        part = Part(training, folds, whole.test)
        return cls(folder, bundle, part, out_of_fold.probabilities, test, optimistic)


def _rows(
    table: Predictions, row_of: dict[str, int], allowed: npt.NDArray[np.int64], folder: Path
) -> npt.NDArray[np.int64]:
    """Rows of the manifest that a table is of."""
    rows = np.array([row_of.get(str(name), -1) for name in table.patch_ids])
    strange = ~np.isin(rows, allowed)
    if strange.any():
        what = (
            f"expected predictions of this part of the cohort but got {int(strange.sum())} others, "
            f"the first {table.patch_ids[strange][0]!r}."
        )
        raise InputError(Problem(what, str(folder)))
    return rows


def _splits_of(network: Path, cohort: Cohort) -> Splits:
    needed = ["run.json", "splits.json"]
    missing = [name for name in needed if not (network / name).is_file()]
    if missing:
        raise InputError(f"network: expected a run but {network} has no {', '.join(missing)}.")
    status = read_json(network / "run.json")["status"]
    if status != "finished":
        raise InputError(
            f"network: expected a finished run but the status of {network} is {status!r}."
        )
    return Splits.read(network / "splits.json", cohort.manifest, cohort.sha256)


def _fitted(run: Run[HybridConfig], opinion: _Opinion, readings: Sequence[Reading]) -> Unsettled:
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
    return Unsettled(
        part=part,
        training=cross_fitted(table, labels, part.folds),
        test=combiner.predict_proba(tested),
        facts={
            "initial_weights": f"network: {os.path.relpath(opinion.bundle, run.folder)}",
            "network_sha256": sha256_file(opinion.bundle / "model.json"),
            "parameters": combiner.coefficients.size + combiner.intercept.size,
            "choice": [choice.to_json() for choice in choices],
        },
        answer=lambda answers, raw, own: settled(
            answers, raw, said[own], [readings[row] for row in own]
        ),
        save=lambda folder, answers, told: save_hybrid(
            folder, opinion.bundle, combiner, answers, told
        ),
    )


def _write_trade(
    run: Run[HybridConfig], opinions: Sequence[_Opinion], readings: Sequence[Reading]
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
    run: Run[HybridConfig], number: int, part: Part, readings: Sequence[Reading]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of the rules alone: out of fold, and of the test part."""
    manifest, raw = run.cohort.manifest, raw_probabilities(readings)
    labels = chosen_labels(manifest, run.config.label)[part.training]
    answers, out_of_fold = settle(
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
