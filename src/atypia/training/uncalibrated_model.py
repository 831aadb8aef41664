"""Runs that read shapes: every patch of a cohort is read once, then each outer split is settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from atypia.classifiers.bundle import PATIENTS
from atypia.classifiers.rules.rules_classifier import read_patches
from atypia.core.files import write_text
from atypia.data.images import read_patch
from atypia.data.sources.patients import case_of, veiled_cases
from atypia.data.splits import published_roles, rows
from atypia.evaluation.predictions import write_predictions
from atypia.inference.patch_predictions import prediction_table, with_reasons
from atypia.training.postprocessing_fit import fit_postprocessing, postprocessing_facts
from atypia.training.targets import chosen_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.classifiers.conformal import ConformalSets
    from atypia.classifiers.postprocessing import Explanation, Postprocessing
    from atypia.classifiers.rules.shape_reading import ShapeFeatures
    from atypia.core.config import HybridConfig, RulesConfig, StackConfig
    from atypia.core.progress import OnStep
    from atypia.data.cohort import Cohort
    from atypia.training.run_folder import Run

    Indices = npt.NDArray[np.int64]
    Answered = tuple[npt.NDArray[np.float32], list[Explanation]]

MEASURES: Final = "measures.csv"
"""What was measured of every patch of the cohort."""


@dataclass(frozen=True)
class OuterRows:
    """Rows of the manifest that one outer split fixes answers on, and those that it tests."""

    training: Indices
    """(N,)."""
    folds: Indices
    """(N,) inner fold of each."""
    test: Indices
    """(M,)."""


@dataclass(frozen=True)
class UncalibratedModel:
    """A model of one outer split with probabilities of which nothing is made yet."""

    part: OuterRows
    training: npt.NDArray[np.floating[Any]]
    """(N, 8) probabilities of the training rows, out of fold."""
    test: npt.NDArray[np.floating[Any]]
    """(M, 8) of the test rows."""
    facts: dict[str, Any]
    """For ``run.json`` and the bundle's provenance."""
    answer: Callable[[Postprocessing, npt.NDArray[np.floating[Any]], Indices], Answered]
    """From probabilities of some rows to answers with reasons, or with none at all."""
    save: Callable[[Path, Postprocessing, dict[str, Any]], None]
    """Write the bundle, given its provenance."""


def read_cohort(cohort: Cohort, on_step: OnStep) -> list[ShapeFeatures]:
    """Read every patch of a cohort, in the order of its manifest."""
    mpp = cohort.manifest["mpp"].to_numpy(dtype=float)
    readings = []
    for row, path in enumerate(cohort.image_paths()):
        readings += read_patches(read_patch(path)[None], float(mpp[row]))
        on_step("shapes", row + 1, len(mpp))
    return readings


def shaped_on(patients: Iterable[str]) -> bool:
    """Whether the rules were made with a look at one of these patients.

    Their constants were set by eye on the training patients of ``table1``, whatever cohort these
    come in now. Figures on them flatter the rules, and what was fitted to the rules' answers.
    """
    seen = {case_of(p) for p, role in published_roles("table1").items() if role == "train"}
    return not seen.isdisjoint(map(case_of, patients))


def write_measures(folder: Path, cohort: Cohort, readings: Sequence[ShapeFeatures]) -> None:
    """Write :data:`MEASURES`: one row per patch, empty where nothing was found."""
    table = pd.DataFrame([dict(reading.measures) for reading in readings])
    table.insert(0, "patch_id", cohort.manifest["patch_id"].to_numpy())
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_text(folder / MEASURES, text)


def part_of(run: Run[RulesConfig | HybridConfig | StackConfig], number: int) -> OuterRows:
    """Rows of an outer split: all of its training patients, and its test patients."""
    manifest, outer = run.cohort.manifest, run.splits.outer[number]
    fold_of = np.full(len(manifest), -1)
    for fold, patients in enumerate(outer.inner):
        fold_of[rows(manifest, patients)] = fold
    training = np.flatnonzero(fold_of >= 0)
    return OuterRows(training, fold_of[training], np.flatnonzero(rows(manifest, outer.test)))


def finish_outer(
    run: Run[RulesConfig | HybridConfig | StackConfig], number: int, model: UncalibratedModel
) -> dict[str, Any]:
    """Fix a model's answers on the training part, save it, and write its predictions.

    Returns:
        What ``run.json`` tells of the model.
    """
    manifest, config, part = run.cohort.manifest, run.config, model.part
    folder = run.outer_folder(number)
    labels = chosen_labels(manifest, config.label)[part.training]
    answers, _ = fit_postprocessing(
        config, manifest.iloc[part.training], labels, model.training, part.folds
    )
    facts = model.facts | postprocessing_facts(answers)
    provenance = {
        "cohort": run.cohort.name,
        "cohort_sha256": run.cohort.sha256,
        "label": config.label,
        "seed": config.seed,
        "split": run.splits.kind,
        "outer": number,
        PATIENTS: veiled_cases(manifest["patient_id"].iloc[part.training]),
        **facts,
    }
    model.save(folder / "model", answers, provenance)

    def write(
        name: str,
        own: Indices,
        raw: npt.NDArray[np.floating[Any]],
        fold: Indices | int,
        conformal: ConformalSets | None,
    ) -> None:
        probabilities, reasons = model.answer(answers, raw, own)
        table = prediction_table(
            manifest.iloc[own],
            probabilities,
            answers.decision,
            answers.threshold,
            fold,
            conformal=conformal,
        )
        table = with_reasons(table, reasons)
        table = table.drop(columns="measures", errors="ignore")  # they have a file
        write_predictions(folder / name, table)

    # As for networks: a set for a figure that the sets were fixed on would promise too much.
    write("predictions-oof.csv", part.training, model.training, part.folds, None)
    if len(part.test):
        write("predictions-test.csv", part.test, model.test, number, answers.conformal)
    return facts
