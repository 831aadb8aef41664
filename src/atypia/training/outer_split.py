"""One outer split: fit a model, then its postprocessing out of fold; write bundle and predictions.

Each kind of model has a :class:`ModelFitter`, which gives a :class:`FittedModel` for each outer
split; what follows is the same for all: :func:`finish_outer`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from atypia.biomarker.error_model import ErrorModel, no_error_model
from atypia.classifiers.answers import Answers
from atypia.classifiers.bundle import PATIENTS
from atypia.classifiers.calibration import Calibration, fit_calibration
from atypia.classifiers.conformal import ConformalSets
from atypia.classifiers.decision import Decision, OperatingPoint, p_atypical
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.choices import BALANCED, SENSITIVE, SPECIFIC
from atypia.core.config import TrainConfig
from atypia.core.files import sha256_file
from atypia.core.labels import N_ATYPICAL, N_SUBTYPES
from atypia.core.progress import OnStep, silent
from atypia.data.cohort import MAJORITY_COLUMN, Cohort
from atypia.data.patient_names import veiled_cases
from atypia.data.splits import rows, with_true_patients
from atypia.evaluation.predictions import UNKNOWN, predictions_from_table, write_predictions
from atypia.evaluation.thresholds import (
    cost_threshold,
    threshold_of_sensitivity,
    threshold_of_specificity,
)
from atypia.inference.patch_predictions import prediction_table
from atypia.training.run_folder import Clock, Config, Run, run_record, score_run, session
from atypia.training.targets import (
    require_learnable,
    scored_calls,
    scored_labels,
    vote_column,
    votes_in,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt
    import pandas as pd

    from atypia.core.config import AnyConfig
    from atypia.data.splits import Outer, Splits
    from atypia.training.distributed import World

    Indices = npt.NDArray[np.int64]
    Probabilities = npt.NDArray[np.floating[Any]]


log = logging.getLogger("atypia")


@dataclass(frozen=True)
class OuterRows:
    """Rows of the manifest that one outer split calibrates on, and those that it tests."""

    training: Indices
    """(N,)."""
    folds: Indices
    """(N,) inner fold of each."""
    test: Indices
    """(M,)."""

    @classmethod
    def of(cls, manifest: pd.DataFrame, outer: Outer) -> OuterRows:
        """Take all training patients of an outer split, and its test patients."""
        fold_of = np.full(len(manifest), -1)
        for fold, patients in enumerate(outer.inner):
            fold_of[rows(manifest, patients)] = fold
        training = np.flatnonzero(fold_of >= 0)
        return cls(training, fold_of[training], np.flatnonzero(rows(manifest, outer.test)))


@dataclass(frozen=True)
class FittedModel(ABC):
    """A model of one outer split, before its postprocessing is fitted."""

    part: OuterRows
    out_of_fold: Probabilities
    """(N, 8) of the training rows, each by members that have not learned from the patient."""
    test: Probabilities
    """(M, 8) of the test rows."""
    facts: dict[str, Any]
    """For ``run.json`` and the bundle's provenance."""

    @abstractmethod
    def save(
        self, folder: Path, postprocessing: Postprocessing, provenance: dict[str, Any]
    ) -> None:
        """Write the bundle."""

    def reasons(self, rows: Indices, subtypes: Sequence[str]) -> list[str] | None:
        """Give reasons for the predicted `subtypes` of some `rows`; None: the model has none."""
        del rows, subtypes
        return None

    def predict_test(self, run: Run[AnyConfig], postprocessing: Postprocessing) -> pd.DataFrame:
        """Make the table of the test part, but for its column ``fold``."""
        return prediction_table(
            run.cohort.manifest.iloc[self.part.test],
            Answers(postprocessing.calibration.apply(self.test)),
            postprocessing,
        )


class ModelFitter(ABC, Generic[Config]):
    """Fits one kind of model on each outer split of a run.

    Raises:
        InputError: The configuration is not complete, or a package is missing.
    """

    run: Run[Config]
    on_step: OnStep

    machine: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced
    """What ``run.json`` has on the hardware, besides :func:`atypia.core.files.describe_machine`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    look_alikes = False
    """Whether the cohort's look-alikes are learned from, too."""

    def open_cohort(self, folder: Path) -> Cohort:
        """Open the cohort, and check its files."""
        return Cohort.open(folder, verify=True, look_alikes=self.look_alikes)

    @contextmanager
    def processes(self) -> Iterator[World | None]:
        """Join the processes of ``torchrun``, where the kind can use them."""
        yield None

    @abstractmethod
    def split(self, cohort: Cohort, out: Path) -> Splits:
        """Split the cohort by patient, or read the splits of the run in `out`."""

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Make what all outer splits share, having checked everything; clear up afterwards."""
        yield

    @abstractmethod
    def fit(self, number: int) -> FittedModel:
        """Fit the model of one outer split; in all processes."""

    def finish(self, number: int, model: FittedModel) -> dict[str, Any]:
        """Fit the postprocessing and save what an outer split leaves: its entry of ``run.json``."""
        return finish_outer(self.run, number, model)

    def score(self, models: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Measure the predictions of all outer splits: the content of ``metrics.json``."""
        return score_run(self.run, models, self.optimistic())

    @abstractmethod
    def optimistic(self) -> tuple[bool, bool]:
        """Decide whether the measures out of fold, and of the test part, flatter the model."""

    def write_more(self) -> None:
        """Write what only this kind of run has, once its predictions are there."""

    @contextmanager
    def start(
        self, cohort_folder: Path, out: Path, command: str = "", on_step: OnStep = silent
    ) -> Iterator[tuple[Run[Config], Callable[..., None]]]:
        """Open the cohort, split it, and open the run folder.

        Yields the run, and a function that adds entries to its ``run.json``. Arguments as for
        :func:`atypia.pipeline.train`.
        """
        clock, cohort = Clock(), self.open_cohort(cohort_folder)
        require_learnable(cohort.manifest, self.config)
        with self.processes() as processes:
            writes = processes is None or processes.is_main
            run = Run(out, cohort, self.config, self.split(cohort, out), writes)
            self.run, self.on_step = run, on_step
            record = run_record(run, cohort_folder, command)
            record["machine"] |= self.machine
            with session(run, record, clock, processes) as note, self.prepared():
                warn_of_no_error_model(run)
                yield run, note


def warn_of_no_error_model(run: Run[AnyConfig]) -> None:
    """Warn before the training of each model that will not have its errors with it."""
    for outer in run.splits.outer:
        training = run.cohort.manifest[rows(run.cohort.manifest, outer.training)]
        if lacking := _no_error_model(with_true_patients(training), run.config.label):
            log.warning("The model will have no error model, for biomarkers: %s", lacking)


def _no_error_model(manifest: pd.DataFrame, label: str) -> str:
    calls = scored_calls(manifest, label)
    truth = np.where(np.isnan(calls), UNKNOWN, calls == 1).astype(np.int64)
    return no_error_model(truth, manifest["patient_id"].to_numpy(dtype=str), label)


def finish_outer(run: Run[AnyConfig], number: int, model: FittedModel) -> dict[str, Any]:
    """Fit a model's postprocessing, save bundle and predictions; give its entry of ``run.json``."""
    manifest, config, part = with_true_patients(run.cohort.manifest), run.config, model.part
    folder = run.outer_folder(number)
    postprocessing, out_of_fold = fit_postprocessing(
        config,
        manifest.iloc[part.training],
        scored_labels(manifest, config.label)[part.training],
        model.out_of_fold,
        part.folds,
    )
    facts = model.facts | {
        "threshold_atypical": postprocessing.threshold,
        "calibration": postprocessing.calibration.to_json(),
    }
    if lacking := _no_error_model(manifest.iloc[part.training], config.label):
        facts["no_error_model"] = lacking
    provenance = provenance_of(run, number, facts)

    def write(name: str, table: pd.DataFrame, own: Indices) -> None:
        reasons = model.reasons(own, table["predicted_subtype"].tolist())
        write_predictions(folder / name, table.assign(reason=reasons) if reasons else table)

    # Without sets: for a figure that the sets were fitted on they would be right too often.
    write("predictions-oof.csv", out_of_fold, part.training)
    model.save(folder / "model", postprocessing, provenance)
    if len(part.test):
        tested = model.predict_test(run, postprocessing).assign(fold=number)
        write("predictions-test.csv", tested, part.test)
    return facts


def provenance_of(run: Run[AnyConfig], number: int, facts: dict[str, Any]) -> dict[str, Any]:
    """Record for the bundle of an outer split what its model was made from.

    A teacher is added to `facts`.
    """
    manifest, config = with_true_patients(run.cohort.manifest), run.config
    training = rows(run.cohort.manifest, run.splits.outer[number].training)
    target = {}
    if isinstance(config, TrainConfig):
        target["target"] = config.target.model_dump(mode="json", exclude={"teacher"})
        if config.target.teacher is not None:
            facts["teacher_sha256"] = sha256_file(Path(config.target.teacher))
    return {
        "cohort": run.cohort.name,
        "cohort_sha256": run.cohort.sha256,
        "label": config.label,
        **target,
        "seed": config.seed,
        "split": run.splits.kind,
        "outer": number,
        PATIENTS: veiled_cases(manifest["patient_id"][training]),
        **facts,
    }


def fit_postprocessing(
    config: AnyConfig,
    manifest: pd.DataFrame,
    labels: Indices,
    probabilities: Probabilities,
    folds: Indices,
) -> tuple[Postprocessing, pd.DataFrame]:
    """Fit calibration, decision, prediction sets and error rates on out-of-fold predictions.

    Gives the postprocessing, and the table ``predictions-oof.csv``. `manifest`, `labels` (-1:
    none), `probabilities` (N, 8) before any calibration and `folds` are of the training part.

    Raises:
        InputError: Too few labels or patients to fit something on.
    """
    known = labels >= 0
    calibration, conformal = Calibration(), None
    domains = manifest["domain"].to_numpy(dtype=str)
    if config.answer.calibration == "temperature" and known.any():
        calibration = fit_calibration(probabilities[known], labels[known], domains[known])
    calibrated = calibration.apply(probabilities)
    if config.answer.conformal_alpha is not None and known.any():
        alpha = config.answer.conformal_alpha
        conformal = ConformalSets.fit(calibrated[known], labels[known], alpha)
    points = fit_points(config, manifest, p_atypical(calibrated), labels)
    decision = Decision(prior=[1 / N_SUBTYPES] * N_SUBTYPES, power=0)  # of votes alone
    if known.any():
        decision = Decision.fit(calibrated[known], labels[known], config.answer.prior_power)
    fitted = Postprocessing(
        decision, points[BALANCED].threshold, calibration, conformal, points=points
    )
    table = prediction_table(manifest, Answers(calibrated), fitted, folds, sets=False)
    if not _no_error_model(manifest, config.label):
        errors = ErrorModel.fit(predictions_from_table(table), config.label).to_json()
        fitted = replace(fitted, errors=errors)
    return fitted, table


def fit_points(
    config: AnyConfig, manifest: pd.DataFrame, p_atypical: Probabilities, labels: Indices
) -> dict[str, OperatingPoint]:
    """Fit and measure operating points out of fold; all arguments have their N rows.

    All are measured by the label's own calls.
    """
    p, calls = p_atypical.astype(float), _calls(config, manifest, labels)
    known = ~np.isnan(calls[0])
    p_known, atypical = p[known], calls[0][known] == 1
    thresholds = {BALANCED: fit_threshold(config, manifest, p_atypical, labels)}
    if config.fixed_threshold is None and 0 < atypical.sum() < len(atypical):
        balanced, share = thresholds[BALANCED], config.answer.named_share
        sensitive = threshold_of_sensitivity(p_known, atypical, share)
        specific = threshold_of_specificity(p_known, atypical, share)
        thresholds |= {
            SENSITIVE: min(sensitive, balanced),
            SPECIFIC: max(specific, balanced),
        }
    patients = manifest["patient_id"].to_numpy()[known]
    return {
        name: OperatingPoint.measured(threshold, p_known, atypical, patients)
        for name, threshold in thresholds.items()
    }


def fit_threshold(
    config: AnyConfig, manifest: pd.DataFrame, p_atypical: Probabilities, labels: Indices
) -> float:
    """Fit the threshold that weighs the costs of wrong calls; all arguments have their N rows."""
    if config.fixed_threshold is not None:
        return config.fixed_threshold
    calls = _calls(config, manifest, labels)
    if config.answer.threshold_by == "label_and_majority":
        calls.append(votes_in(manifest, MAJORITY_COLUMN))
    call = np.concatenate(calls)
    known, rows_of = ~np.isnan(call), np.tile(np.arange(len(labels)), len(calls))
    domains = manifest["domain"].to_numpy(dtype=str)[rows_of]
    return cost_threshold(
        p_atypical[rows_of][known].astype(float),
        call[known] == 1,
        config.answer.miss_cost,
        domains[known] if config.answer.threshold == "domains" else None,
    )


def _calls(
    config: AnyConfig, manifest: pd.DataFrame, labels: Indices
) -> list[npt.NDArray[np.float64]]:
    """List the calls by the label: one array, (N,), 1 for atypical, NaN where there is none."""
    if vote_column(manifest, config.label) is not None:
        return [scored_calls(manifest, config.label)]
    return [np.where(labels >= 0, labels < N_ATYPICAL, np.nan)]
