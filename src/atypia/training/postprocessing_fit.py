"""What a run fixes on out-of-fold predictions: calibration, threshold, sets, error rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.biomarker.error_model import ErrorModel
from atypia.classifiers.calibration import Calibration, fit_calibration
from atypia.classifiers.conformal import ConformalSets
from atypia.classifiers.decision import Decision, p_atypical
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.labels import N_ATYPICAL, N_SUBTYPES, parse_atypical
from atypia.data.cohort import MAJORITY_COLUMN
from atypia.evaluation.predictions import predictions_from_table
from atypia.evaluation.thresholds import operating_point
from atypia.inference.patch_predictions import prediction_table

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from atypia.core.config import AnyConfig


def fit_postprocessing(
    config: AnyConfig,
    manifest: pd.DataFrame,
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.floating[Any]],
    folds: npt.NDArray[np.int64],
) -> tuple[Postprocessing, pd.DataFrame]:
    """Fix on out-of-fold predictions what becomes of a model's probabilities.

    Args:
        config: Of the run.
        manifest: (N rows) of the training part.
        labels: (N,) subtype indices, -1 where there is none.
        probabilities: (N, 8) before any calibration.
        folds: (N,) inner fold of each row.

    Returns:
        What was fixed, and the table ``predictions-oof.csv``.

    Raises:
        InputError: Too few labels or patients to fix something on.
    """
    known = labels >= 0
    calibration, conformal = Calibration(), None
    domains = manifest["domain"].to_numpy(dtype=str)
    if config.answer.calibration == "temperature":
        calibration = fit_calibration(probabilities[known], labels[known], domains[known])
    calibrated = calibration.apply(probabilities)
    if config.answer.conformal_alpha is not None:
        conformal = ConformalSets.fit(
            calibrated[known],
            labels[known],
            config.answer.conformal_alpha,
            class_conditional=True,
        )
    threshold = fix_threshold(config, manifest, p_atypical(calibrated), labels)
    counts = np.bincount(labels[known], minlength=N_SUBTYPES)
    decision = Decision(prior=(counts / counts.sum()).tolist(), power=config.answer.prior_power)
    table = prediction_table(manifest, calibrated, decision, threshold, folds)
    errors = ErrorModel.fit(predictions_from_table(table), config.label).to_json()
    return Postprocessing(decision, threshold, calibration, conformal, errors), table


def fix_threshold(
    config: AnyConfig,
    manifest: pd.DataFrame,
    p_atypical: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.int64],
) -> float:
    """Fix the binary threshold on out-of-fold predictions; all arguments have their N rows."""
    if config.fixed_threshold is not None:
        return config.fixed_threshold
    calls = [np.where(labels >= 0, labels < N_ATYPICAL, np.nan)]
    if config.answer.threshold_by == "label_and_majority" and MAJORITY_COLUMN in manifest.columns:
        votes = [
            parse_atypical(str(vote)) if str(vote) else None for vote in manifest[MAJORITY_COLUMN]
        ]
        calls.append(np.array(votes, dtype=float))  # None becomes NaN
    call = np.concatenate(calls)
    known, rows_of = ~np.isnan(call), np.tile(np.arange(len(labels)), len(calls))
    domains = manifest["domain"].to_numpy(dtype=str)[rows_of]
    return operating_point(
        p_atypical[rows_of][known].astype(float),
        call[known] == 1,
        manifest["patient_id"].to_numpy()[rows_of][known],
        seed=config.seed,
        domains=domains[known] if config.answer.threshold == "domains" else None,
    )


def postprocessing_facts(answers: Postprocessing) -> dict[str, Any]:
    """Say what ``run.json`` and a bundle's provenance tell of it."""
    conformal = answers.conformal
    return {
        "threshold_atypical": answers.threshold,
        "calibration": answers.calibration.to_json(),
        "always_in_set": [] if conformal is None else list(conformal.always_in),
    }
