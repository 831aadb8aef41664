"""Mil: one answer for each patient from all of their figures, cross-validated over patients."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from atypia.classifiers.bundle import PATIENTS
from atypia.classifiers.training_patients import refuse_learned
from atypia.core.config import AugmentConfig, MilConfig
from atypia.core.errors import InputError
from atypia.core.files import write_json, write_text
from atypia.core.progress import OnStep, silent
from atypia.data.cohort import Cohort
from atypia.data.overlap import shared_cases
from atypia.data.sources.patients import veiled_cases
from atypia.data.splits import Outer, Splits
from atypia.evaluation.patient_scores import score_patients
from atypia.training.run_folder import Clock, Run, run_record, session, warn_of_another_scale

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.training.mil.bag_features import BagFeatures
    from atypia.training.mil.mil_crossval import OutOfFold
    from atypia.training.mil.patient_target import Target

log = logging.getLogger("atypia")

MODEL = "model"


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

    Args:
        cohort_folder: From :func:`atypia.pipeline.prepare`.
        out: The run folder.
        config: Target, description of the figures, poolings.
        command: The command line, for the record.
        on_step: Called with what is being done, steps done and steps in all.

    Returns:
        The content of ``metrics.json``.

    Raises:
        InputError: Options, cohort, target or run folder do not fit each other.
    """
    from atypia.training.mil.mil_crossval import cross_validate
    from atypia.training.mil.mil_network import fit_patients
    from atypia.training.mil.patient_target import DERIVED, find_target
    from atypia.training.targets import chosen_labels

    clock = Clock()
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} already holds something. Choose another --out.")
    cohort = Cohort.open(cohort_folder, verify=True)
    labels = chosen_labels(cohort.manifest, config.label) if config.target in DERIVED else None
    target = find_target(config.target, cohort.manifest, labels, config.column)
    figures = _figures(cohort, config, out, on_step)
    target = _asked(target, figures)
    answers = cross_validate(figures, target, config, on_step)
    run = Run(out, cohort, config, _splits(cohort, target, answers, config))
    with session(run, run_record(run, cohort_folder, command), clock) as note:
        metrics = {
            "target": target.name,
            "classes": list(target.classes),
            "n_of_class": np.bincount(target.values).tolist(),
            "log_loss_of_shares": _log_loss_of_shares(target.values),
            "n_figures": int(sum(len(r) for r in figures.rows_of(target.patients))),
            **score_patients(
                target.values, answers.probabilities, target.patients, config.resamples, config.seed
            ),
        }
        write_json(out / "metrics.json", metrics)
        rows = figures.rows_of(target.patients)
        told = {
            "patient_id": target.patients,
            "target": np.array(target.classes)[target.values],
            "n_figures": [len(r) for r in rows],
            **{f"fold_{i}": fold for i, fold in enumerate(answers.folds)},
        }
        _write(out / "predictions-patients.csv", told | _columns(target, answers.probabilities))
        _write_attention(out / "attention.csv", figures, answers.weights)
        first = config.pooling[0]
        bags = [figures.values[r] for r in rows]
        n_classes = len(target.classes)
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
        model.save(out / MODEL, header | {PATIENTS: veiled_cases(target.patients.tolist())})
    note("finished", models=[header])
    return metrics


def _log_loss_of_shares(values: npt.NDArray[np.int64]) -> float:
    """Give what is lost by telling everyone how frequent the classes are."""
    shares = np.bincount(values) / len(values)
    return float(-np.log(shares[values]).mean())


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
    """Answer for the patients of another cohort with the model of a run.

    Args:
        run: From :func:`mil`.
        cohort_folder: The other cohort.
        out: Gets ``predictions-patients.csv`` and ``attention.csv``.
        on_step: Called with ``features``, patches done and patches in all.
        answers: Table of predictions of the other cohort, where the run's figures are described by
            one.
        allow_overlap: Answer for patients that the model has learned from, too, and warn.
        distinct_ids: Equal ids that name no public case are of different people.

    Returns:
        The table of patients.

    Raises:
        LeakError: Patients are asked about whom the model has learned from; lists them.
        InputError: Not such a run, or its own cohort.
    """
    import yaml

    from atypia.core.config import mil_config
    from atypia.training.mil.mil_network import PatientModel
    from atypia.training.mil.patient_target import Target

    config = mil_config([], yaml.safe_load((run / "config.yaml").read_text("utf-8")))
    model, header = PatientModel.load(run / MODEL)
    cohort = Cohort.open(cohort_folder, verify=True)
    if cohort.sha256 == header["cohort_sha256"]:
        raise InputError(
            f"{cohort_folder} is the cohort that {run} has learned from: its answers are in "
            f"{run / 'predictions-patients.csv'}, by models that had not seen the patient."
        )
    # A model that was made before it told its patients is known by its cohort alone.
    shared = shared_cases(header.get(PATIENTS, []), sorted(set(cohort.manifest["patient_id"])))
    refuse_learned(shared, cohort.name, allow_overlap=allow_overlap, distinct_ids=distinct_ids)
    if (config.answers is None) != (answers is None):
        raise InputError(
            f"--answers: expected {'a table' if config.answers else 'none'}, since the run's "
            f"figures are described by {header['figures']}."
        )
    config = config.model_copy(update={"answers": answers})
    figures = _figures(cohort, config, out, on_step)
    if answers is None and figures.origin != header["figures"]:
        raise InputError(
            f"expected figures described as the run's were, by {header['figures']}, but the "
            f"backbone here gives {figures.origin}. Give it the same weights."
        )
    patients = np.unique(figures.patients)
    rows = figures.rows_of(patients.tolist())
    told = [model(figures.values[r]) for r in rows]
    weights = np.full(len(figures.patients), np.nan)
    for r, (_, of_figures) in zip(rows, told, strict=True):
        weights[r] = of_figures
    target = Target(
        header["target"], patients, np.zeros(len(patients), np.int64), tuple(header["classes"])
    )
    table = out / "predictions-patients.csv"
    columns = {"patient_id": patients, "n_figures": [len(r) for r in rows]}
    pooling = header["pooling"]
    _write(table, columns | _columns(target, {pooling: np.stack([p for p, _ in told])}))
    _write_attention(out / "attention.csv", figures, {pooling: weights})
    return table


def _figures(cohort: Cohort, config: MilConfig, out: Path, on_step: OnStep) -> BagFeatures:
    """Describe the figures by a table of answers, or by the features of a backbone."""
    import torch

    from atypia.models.hardware import choose_device, choose_precision
    from atypia.models.network import make_network
    from atypia.training.distributed import ComputePlace, World
    from atypia.training.features import cohort_features
    from atypia.training.mil.bag_features import figures_from_answers, figures_from_features
    from atypia.training.patch_store import open_store

    if config.answers is not None:
        return figures_from_answers(cohort.manifest, Path(config.answers))
    warn_of_another_scale(config)
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    device = choose_device(config.runtime.device)
    place = ComputePlace(device, choose_precision("fp32", device), World())
    torch.manual_seed(config.seed)
    network, spec, origin = make_network(config.model, config.input)
    cache = out / ".pixels.npy"
    try:
        # The window that a linear probe decodes, so that both find the same features.
        store = open_store(cohort, spec, AugmentConfig(), cache)
        features = cohort_features(cohort, store, network, spec, place, out, on_step=on_step)
    finally:
        cache.unlink(missing_ok=True)
    return figures_from_features(
        cohort.manifest, features.values, f"features of {config.model.backbone}, {origin}"
    )


def _asked(target: Target, figures: BagFeatures) -> Target:
    """Leave out patients of whom no figure is described."""
    from dataclasses import replace

    known = np.isin(target.patients, figures.patients)
    if not known.all():
        log.warning("%d patients have no figure that is described", int((~known).sum()))
    return replace(target, patients=target.patients[known], values=target.values[known])


def _splits(cohort: Cohort, target: Target, answers: OutOfFold, config: MilConfig) -> Splits:
    """Folds in the format of ``splits.json``; patients without a target are in no part."""
    outer = []
    for fold_of in answers.folds:
        parts = [tuple(target.patients[fold_of == f].tolist()) for f in range(config.folds)]
        outer += [
            Outer(test, tuple(part for other, part in enumerate(parts) if other != f))
            for f, test in enumerate(parts)
        ]
    return Splits("cv", config.seed, cohort.sha256, tuple(outer))


def _columns(
    target: Target, probabilities: dict[str, npt.NDArray[np.float64]]
) -> dict[str, npt.NDArray[np.float64]]:
    """Name the columns: ``p_MODEL`` of the second of two classes, else ``p_MODEL_CLASS``."""
    if len(target.classes) == 2:
        return {f"p_{name}": p[:, 1] for name, p in probabilities.items()}
    return {
        f"p_{name}_{label}": p[:, c]
        for name, p in probabilities.items()
        for c, label in enumerate(target.classes)
    }


def _write_attention(
    file: Path, figures: BagFeatures, weights: dict[str, npt.NDArray[np.float64]]
) -> None:
    """Write the weight of each figure, and how many times the mean's it is; heaviest first."""
    attention = weights.get("attention")
    if attention is None:
        return
    table = pd.DataFrame(
        {"patient_id": figures.patients, "patch_id": figures.patch_ids, "attention": attention}
    ).dropna()
    n = table.groupby("patient_id")["patch_id"].transform("size")
    table["times_mean"] = table["attention"] * n
    table = table.sort_values(
        ["patient_id", "attention", "patch_id"], ascending=[True, False, True], kind="stable"
    )
    write_text(file, table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def _write(file: Path, columns: dict[str, Any]) -> None:
    table = pd.DataFrame(columns)
    write_text(file, table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
