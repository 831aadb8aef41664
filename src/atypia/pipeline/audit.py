"""Audit the labels of a cohort by out-of-fold predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atypia.core.errors import InputError, Problem, first_few
from atypia.core.files import overwriting, read_json, sha256_file, write_json, write_text
from atypia.core.tables import csv_text
from atypia.evaluation.label_audit import audit as audit_labels
from atypia.evaluation.predictions import read_predictions
from atypia.reports.audit_page import TOP, render_audit
from atypia.reports.report_input import cohort_of, patch_reader

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.data.cohort import Cohort
    from atypia.evaluation.label_audit import AuditResult


def audit(
    source: Path,
    out: Path,
    label: str = "expert1",
    top: int = TOP,
    cohort: Cohort | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> AuditResult:
    """List the patches whose label is probably wrong: ``audit.csv``, ``.json`` and ``.html``.

    Args:
        source: A run folder, or a table of predictions by a model that was not trained on the
            patches in it.
        out: The folder to write to.
        label: A rater, or ``agreed``.
        top: How many issues the page shows.
        cohort: For the images; None looks for a run's cohort where it was when the run began.
        resamples: As for `evaluate`; no interval of an audit needs any.

    Raises:
        InputError: The run has no out-of-fold predictions, a problem of the table, or patches
            that the cohort lacks. Nothing is written.
    """
    table = out_of_fold_table(source)
    if problems := overwriting([out / "audit.csv"], [table], "--out"):
        raise InputError(problems)
    result = audit_labels(read_predictions(table), label, resamples, seed)
    if cohort is None and (source / "run.json").is_file():
        cohort = cohort_of(source, read_json(source / "run.json"))
    if cohort is not None:
        _check_images(cohort, result, top)
    page = render_audit(
        result,
        title=source.resolve().name,
        patches=patch_reader(cohort) if cohort is not None else None,
        top=top,
    )
    rounded = csv_text(result.table, float_format="%.6g")
    write_text(out / "audit.csv", rounded)
    origin = {"predictions": {"file": table.name, "sha256": sha256_file(table)}}
    write_json(out / "audit.json", origin | result.summary)
    write_text(out / "audit.html", page)
    return result


def out_of_fold_table(source: Path) -> Path:
    """Find the table of a run in which no model was trained on the patches that it predicts.

    With several outer folds it is that of the test parts, which together hold every patient.
    """
    if not source.is_dir():
        return source
    several = any(source.glob("outer-*"))
    table = source / ("predictions-test.csv" if several else "predictions-oof.csv")
    if not table.is_file():
        raise InputError(
            f"{source} has no {table.name}. Finish the run first (--resume), or give a table of "
            "predictions by a model that has not learned from the patches in it."
        )
    return table


def _check_images(cohort: Cohort, result: AuditResult, top: int) -> None:
    known = set(cohort.manifest["patch_id"])
    missing = [name for name in result.issues["patch_id"].head(top) if name not in known]
    if missing:
        what = (
            f"expected the patches of the predictions but {len(missing)} to be shown are missing: "
            f"{first_few(missing)}. Give the cohort that was predicted."
        )
        raise InputError(Problem(what, str(cohort.path)))
