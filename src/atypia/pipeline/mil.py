"""Mil: one prediction for each patient from all of their figures, cross-validated over patients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.classifiers.bundle import PATIENTS
from atypia.classifiers.training_patients import refuse_learned
from atypia.core.config import MilConfig, mil_config
from atypia.core.errors import InputError
from atypia.core.files import read_yaml, write_json
from atypia.core.progress import OnStep, silent
from atypia.data.cohort import Cohort
from atypia.data.overlap import shared_cases
from atypia.data.patient_names import veiled_cases
from atypia.evaluation.patient_scores import score_patients
from atypia.training.mil.bag_features import describe_alike, describe_figures, write_attention
from atypia.training.mil.patient_target import DERIVED, find_target, write_patients
from atypia.training.run_folder import Clock, Run, run_record, session
from atypia.training.targets import chosen_labels

if TYPE_CHECKING:
    from pathlib import Path


def mil(
    cohort_folder: Path,
    out: Path,
    config: MilConfig,
    *,
    command: str = "",
    on_step: OnStep = silent,
) -> dict[str, Any]:
    """Describe the figures, cross-validate every pooling over patients, keep the first one.

    Leaves ``predictions-patients.csv``, ``attention.csv`` (the weight of each figure, by models
    that have not seen its patient), ``metrics.json``, ``splits.json``, and in ``model/`` the first
    pooling fitted on all patients, for :func:`mil_predict`.

    Arguments and result are as those of :func:`atypia.pipeline.train`.

    Raises:
        InputError: Options, cohort, target or run folder do not fit each other.
    """
    from atypia.training.mil.mil_crossval import cross_validate
    from atypia.training.mil.mil_network import fit_patients

    clock = Clock()
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} already holds something. Choose another --out.")
    cohort = Cohort.open(cohort_folder, verify=True)
    labels = chosen_labels(cohort.manifest, config.label) if config.target in DERIVED else None
    target = find_target(config.target, cohort.manifest, labels, config.column)
    figures = describe_figures(cohort, config, out, on_step)
    target = target.among(figures.patients)
    out_of_fold = cross_validate(figures, target, config, on_step)
    run = Run(out, cohort, config, out_of_fold.splits(target, config, cohort.sha256))
    with session(run, run_record(run, cohort_folder, command), clock) as note:
        rows = figures.rows_of(target.patients)
        metrics = target.facts() | {"n_figures": sum(len(r) for r in rows)}
        chosen = target.values, out_of_fold.probabilities, target.patients
        metrics |= score_patients(*chosen, config.resamples, config.seed)
        write_json(out / "metrics.json", metrics)
        columns = {
            "patient_id": target.patients,
            "target": np.array(target.classes)[target.values],
            "n_figures": [len(r) for r in rows],
            **{f"fold_{i}": fold for i, fold in enumerate(out_of_fold.folds)},
        }
        write_patients(out, columns, out_of_fold.probabilities, target.classes)
        write_attention(out / "attention.csv", figures, out_of_fold.weights)
        first = config.pooling[0]
        bags, n_classes = [figures.values[r] for r in rows], len(target.classes)
        model = fit_patients(bags, target.values, n_classes, first, config, config.seed)
        header = {
            "target": target.name,
            "classes": list(target.classes),
            "pooling": first,
            "attention_width": config.attention_width,
            "figures": figures.origin,
            "cohort": cohort.name,
            "cohort_sha256": cohort.sha256,
        }
        model.save(out / "model", header | {PATIENTS: veiled_cases(target.patients.tolist())})
        note(models=[header])
    return metrics


def mil_predict(
    run: Path,
    cohort_folder: Path,
    out: Path,
    on_step: OnStep = silent,
    answers: str | None = None,
    *,
    allow_overlap: bool = False,
    distinct_ids: bool = False,
) -> Path:
    """Predict for the patients of another cohort with the model of a run.

    Args:
        run: From :func:`mil`.
        cohort_folder: The other cohort.
        out: Gets ``predictions-patients.csv``, which is returned, and ``attention.csv``.
        on_step: Called with ``features``, patches done and patches in all.
        answers: Predictions of the other cohort, where the run's figures are described by some.
        allow_overlap: With `distinct_ids` as for :func:`refuse_learned`.

    Raises:
        LeakError: The model was trained on some of the patients; lists them.
        InputError: Not such a run, its own cohort, or figures that are described otherwise.
    """
    from atypia.training.mil.mil_network import PatientModel

    config = mil_config([], read_yaml(run / "config.yaml"))
    model, header = PatientModel.load(run / "model")
    cohort = Cohort.open(cohort_folder, verify=True)
    if cohort.sha256 == header["cohort_sha256"]:
        raise InputError(
            f"{cohort_folder} is the cohort that {run} has learned from: its answers are in "
            f"{run / 'predictions-patients.csv'}, by models that had not seen the patient."
        )
    # A model of a version before its patients were recorded is recognised by its cohort alone.
    shared = shared_cases(header.get(PATIENTS, []), sorted(set(cohort.manifest["patient_id"])))
    refuse_learned(shared, cohort.name, allow_overlap=allow_overlap, distinct_ids=distinct_ids)
    figures = describe_alike(config, header["figures"], cohort, answers, out, on_step)
    patients, pooling = np.unique(figures.patients), header["pooling"]
    rows = figures.rows_of(patients.tolist())
    predicted = [model(figures.values[r]) for r in rows]
    weights = np.full(len(figures.patients), np.nan)
    weights[np.concatenate(rows)] = np.concatenate([w for _, w in predicted])
    write_attention(out / "attention.csv", figures, {pooling: weights})
    columns = {"patient_id": patients, "n_figures": [len(r) for r in rows]}
    probabilities = {pooling: np.stack([p for p, _ in predicted])}
    return write_patients(out, columns, probabilities, header["classes"])
