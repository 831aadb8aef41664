"""Adapt a model to a new site: a bundle whose calls and probabilities suit the site's figures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.classifiers.bundle import BundleHeader, find_bundle, read_any_header
from atypia.classifiers.loading import load_ensemble
from atypia.classifiers.training_patients import require_new_patients
from atypia.core.choices import BEST
from atypia.core.errors import InputError, Problem
from atypia.core.files import read_stamped
from atypia.core.tables import read_table
from atypia.data.cohort import Cohort
from atypia.evaluation.predictions import predictions_from_table
from atypia.inference.patch_predictions import find_items, predict_items
from atypia.training.site_adaptation import LocalFigures, adapt_postprocessing, save_adapted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.core.progress import OnDone


def adapt(
    model: Path | str,
    cohort: Path,
    out: Path,
    label: str = "expert1",
    *,
    sampled: Path | None = None,
    allow_overlap: bool = False,
    distinct_ids: bool = False,
    backend: str = "auto",
    device: str = "auto",
    on_start: OnDone,
    on_done: OnDone,
) -> dict[str, Any]:
    """Refit what follows a model's networks on labelled figures of a site; write a new bundle.

    Temperature and threshold are drawn towards the shipped ones, as far as there are few figures;
    the networks stay.

    Args:
        model: ``released``, ``rules``, a bundle or a run folder, of any kind.
        cohort: Of the site; figures without the label are left out.
        out: Folder of the new bundle.
        label: A rater, ``agreed``, or votes.
        sampled: Table of :func:`plan_figures` by which the figures were chosen: its weights count.
        allow_overlap: Accept patients that the model was trained on; with `distinct_ids` as for
            :func:`atypia.classifiers.training_patients.require_new_patients`.
        backend: With `device` as for :func:`load_ensemble`.
        on_start: Called with the number of patches to classify.
        on_done: Called with the number of patches done since the last call.

    Returns:
        The entry ``adapted`` of the new bundle's provenance.

    Raises:
        LeakError: The model was trained on patients of the cohort; lists them.
        InputError: Model, cohort, label or weights do not fit; or `out` exists.
    """
    bundle = find_bundle(model)
    header = read_any_header(bundle)
    if out.exists():
        raise InputError(f"{out} already exists. Choose another --out, or remove it first.")
    opened = Cohort.open(cohort)
    weights = sampling_weights(sampled, opened.manifest["patch_id"].tolist())
    items = find_items([cohort], mpp=None)
    qualities = list(header.qualities) if isinstance(header, BundleHeader) else [BEST]
    on_start(len(items) * len(qualities))
    fitted, parts = {}, {}
    for quality in qualities:
        classifier = load_ensemble(bundle, quality, backend=backend, device=device)
        table, _ = predict_items(classifier, items, on_done=on_done)
        if not allow_overlap:
            require_new_patients(predictions_from_table(table), bundle, distinct_ids=distinct_ids)
        local = LocalFigures.of(table, label, weights)
        fitted[quality], adapted = adapt_postprocessing(classifier.postprocessing, local)
        parts[quality] = [part.to_json() for part in adapted]
    record = {
        "cohort": opened.name,
        "cohort_sha256": opened.sha256,
        "model_sha256": read_stamped(bundle / "model.json")["content_sha256"],
        "label": label,
        "figures": len(local),
        "patients": len(np.unique(local.patients)),
        "atypical": int(local.is_atypical.sum()),
        "parts": parts,
    }
    save_adapted(bundle, out, fitted, record)
    return record


def sampling_weights(plan: Path | None, patch_ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """How many figures of the site each patch stands for, (N,): 1 without a plan, NaN if not in it.

    Raises:
        InputError: Lists what is wrong with the plan: no such columns, or weights not above 0.
    """
    if plan is None:
        return np.ones(len(patch_ids))
    table = read_table(plan)
    table.require("patch_id", "weight")
    weights, problems = {}, [row.problem for row in table.rows if row.problem]
    for row in table.rows:
        weight = row.cells["weight"]
        if not re.fullmatch(r"\d+(\.\d+)?", weight) or not float(weight):
            what = f"expected a weight above 0 but got {weight!r}."
            problems.append(Problem(what, str(plan), row.line, "weight"))
        weights[row.cells["patch_id"]] = weight
    if problems:
        raise InputError(problems)
    return np.array([float(weights.get(name, "nan")) for name in patch_ids])
