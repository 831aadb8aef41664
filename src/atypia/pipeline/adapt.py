"""Adapt a model to a new site: a bundle whose calls and probabilities suit the site's figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.classifiers.bundle import HEADER, BundleHeader, find_bundle, read_any_header
from atypia.classifiers.loading import load_ensemble
from atypia.classifiers.training_patients import require_new_patients
from atypia.core.choices import BEST
from atypia.core.errors import InputError, Problem, collected
from atypia.core.files import overwriting, read_stamped, write_text, wrong_suffix
from atypia.core.labels import N_ATYPICAL
from atypia.core.tables import csv_text
from atypia.data.cohort import Cohort
from atypia.evaluation.predictions import predictions_from_table, read_predictions
from atypia.evaluation.sampling_plan import foresee, plan_table, read_weights, usual_answers
from atypia.inference.patch_predictions import find_items, predict_items
from atypia.training.site_adaptation import LocalFigures, adapt_postprocessing, save_adapted

if TYPE_CHECKING:
    from atypia.core.progress import OnDone
    from atypia.evaluation.sampling_plan import Conclusion


def adapt(
    model: Path | str,
    cohort: Path,
    out: Path,
    label: str = "expert1",
    *,
    sampled: Path | None = None,
    allow_overlap: bool = False,
    distinct_ids: bool = False,
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
        sampled: Table of :func:`adapt_plan` by which the figures were chosen: its weights count.
        allow_overlap: Accept patients that the model was trained on; with `distinct_ids` as for
            :func:`atypia.classifiers.training_patients.require_new_patients`.
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
    weights = read_weights(sampled, opened.manifest["patch_id"].tolist())
    items = find_items([cohort], mpp=None)
    qualities = list(header.qualities) if isinstance(header, BundleHeader) else [BEST]
    on_start(len(items) * len(qualities))
    fitted, parts = {}, {}
    for quality in qualities:
        classifier = load_ensemble(bundle, quality)
        table, _ = predict_items(classifier, items, on_done=on_done)
        if not allow_overlap:
            require_new_patients(predictions_from_table(table), bundle, distinct_ids=distinct_ids)
        local = LocalFigures.of(table, label, weights)
        fitted[quality], adapted = adapt_postprocessing(classifier.postprocessing, local)
        parts[quality] = [vars(part) for part in adapted]
    record = {
        "cohort": opened.name,
        "cohort_sha256": opened.sha256,
        "model_sha256": read_stamped(bundle / HEADER)["content_sha256"],
        "label": label,
        "figures": len(local.predictions),
        "patients": len(np.unique(local.predictions.patients)),
        "atypical": int(local.is_atypical.sum()),
        "left_out": dict(local.left_out),
        "parts": parts,
    }
    save_adapted(bundle, out, fitted, record)
    return record


def adapt_plan(
    model: Path | str,
    source: Path | None,
    out: Path | None = None,
    figures: int = 100,
    seed: int = 0,
    *,
    on_start: OnDone,
    on_done: OnDone,
) -> dict[int, tuple[Conclusion, Conclusion]]:
    """Plan which figures of a site to label, and foresee what they can show.

    Args:
        model: ``released``, ``rules``, a bundle or a run folder.
        source: A cohort, or a table of the model's predictions; None for a site of 2,000 figures
            on which the model is as on the patients that it was measured on.
        out: The ``.csv`` to write: the figures to label, with their weights.
        figures: How many to label.
        seed: Of the draw.
        on_start: With `on_done` as for :func:`adapt`.

    Returns:
        By the number of figures what figures at random can show, and what planned ones can.

    Raises:
        InputError: Lists what is wrong; or there are fewer figures than are to be labelled.
    """
    problems = wrong_suffix("--out", out, ".csv") + overwriting([out], [source or Path()], "--out")
    if source is None and out is not None:
        problems.append(Problem("--out: expected a cohort or predictions to choose figures from."))
    with collected(problems):
        header = read_any_header(find_bundle(model))
    if problems:
        raise InputError(problems)
    threshold = header.thresholds.atypical
    if source is None:
        prevalence = sum(header.decision.prior[:N_ATYPICAL])
        return foresee(usual_answers(prevalence), None, threshold, figures)
    if source.is_dir():
        items = find_items([source], mpp=None)
        on_start(len(items))
        predicted, _ = predict_items(load_ensemble(model), items, on_done=on_done)
        table = predictions_from_table(predicted)
    else:
        table = read_predictions(source)
    table = table.only_answered()
    found = foresee(table.p_atypical, table.patients, threshold, figures)
    if out is not None:
        write_text(out, csv_text(plan_table(table, threshold, figures, seed)))
    return found
