"""Refuse to judge predictions for patients that the model was trained on."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from atypia.classifiers.bundle import HEADER, PATIENTS, RULES, find_bundle, read_any_header
from atypia.core.choices import FAST, RELEASED
from atypia.core.config import LEAK
from atypia.core.errors import InputError
from atypia.core.files import read_json
from atypia.data.cohort import Cohort
from atypia.data.overlap import find_overlap, refuse, shared_cases
from atypia.data.sources.ami_br import NAME as AMI_BR
from atypia.data.splits import Splits, ami_br_patients

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atypia.data.overlap import Shared
    from atypia.evaluation.predictions import Predictions

log = logging.getLogger("atypia")


def require_new_patients(
    predictions: Predictions,
    trained_on: Path | str,
    cohort: Path | None = None,
    *,
    allow_overlap: bool = False,
    distinct_ids: bool = False,
) -> None:
    """Refuse predictions for patients that the model was trained on.

    Args:
        predictions: The table.
        trained_on: A run, a bundle or ``released``, whose training patients count; or a cohort,
            whose patients all do.
        cohort: Of the table: pictures are then compared as well as the names of cases.
        allow_overlap: Warn instead.
        distinct_ids: Equal ids that name no public case are of different people.

    Raises:
        LeakError: There are such patients; lists them.
        InputError: `trained_on` is none of these, or has no record of them; or the cohort lacks
            patches of the table, or is given beside a bundle, which has no pictures.
    """
    learned = _learned(trained_on)
    if cohort is None:
        names = learned.manifest["patient_id"] if isinstance(learned, Cohort) else learned
        shared = shared_cases(sorted(set(names)), sorted(set(predictions.patients.tolist())))
    elif isinstance(learned, Cohort):
        shared = find_overlap(learned, _judged(cohort, predictions))
    else:
        raise InputError(
            f"--cohort: expected a run or a cohort with --trained-on but got {trained_on}, a "
            "model, which has no pictures to compare. Leave --cohort out: names are compared."
        )
    refuse_learned(shared, "the table", allow_overlap=allow_overlap, distinct_ids=distinct_ids)


def refuse_learned(
    shared: Sequence[Shared], where: str, *, allow_overlap: bool, distinct_ids: bool
) -> None:
    """Refuse `shared` patients of `where`; arguments as for :func:`require_new_patients`.

    Raises:
        LeakError: There are any; lists them.
    """
    if distinct_ids:
        shared = [entry for entry in shared if not entry.by_id_alone]
    if not allow_overlap:
        remedy = (
            "What a model has learned by heart says nothing of its skill: leave these patients "
            "out, or say that it is meant: --allow-overlap."
        )
        refuse("what was learned from", where, shared, remedy)
    elif shared:
        log.warning("%d patients of %s have been learned from", len(shared), where)


def _learned(source: Path | str) -> Cohort | list[str]:
    """Figures that a model was trained on, or, where only they are known, the patients."""
    path = Path(source)
    if str(source) in (RELEASED, RULES):
        return _named_by(find_bundle(source))
    if (path / "cohort.json").is_file():
        return Cohort.open(path)
    if (path / HEADER).is_file():
        return _named_by(path)
    if not (path / "splits.json").is_file():
        raise InputError(
            f"--trained-on: expected a run, a bundle, a cohort or {RELEASED!r} but got {source}."
        )
    cohort = Cohort.open(path / read_json(path / "run.json")["cohort"]["path"])
    splits = Splits.read(path / "splits.json", cohort.manifest, cohort.sha256)
    learned = {name for outer in splits.outer for name in outer.training}
    unit = "patch_id" if splits.kind == LEAK else "patient_id"
    return replace(cohort, manifest=cohort.manifest[cohort.manifest[unit].isin(learned)])


def _named_by(bundle: Path) -> list[str]:
    """Patients that all qualities of a bundle have learned from.

    Raises:
        InputError: It has no record of them.
    """
    provenance = read_any_header(bundle).provenance
    names: set[str] = set()
    for quality in (provenance, *([provenance[FAST]] if FAST in provenance else [])):
        if PATIENTS in quality:
            names |= set(quality[PATIENTS])
        # Models of versions without this record, those in the package among them.
        elif quality.get("cohort") == AMI_BR and quality.get("split") == "all":
            names |= set(ami_br_patients())
        else:
            raise InputError(
                f"--trained-on: {bundle} does not tell whom it has learned from, as models of "
                "earlier versions. Give its run, or the cohort."
            )
    return sorted(names)


def _judged(folder: Path, predictions: Predictions) -> Cohort:
    """Figures of a cohort that the table is about."""
    cohort = Cohort.open(folder)
    named = set(predictions.patch_ids.tolist())
    mine = cohort.manifest["patch_id"].isin(named)
    if missing := sorted(named - set(cohort.manifest["patch_id"])):
        raise InputError(
            f"--cohort: expected the patches of the table but {folder} lacks {len(missing)}, the "
            f"first {missing[0]!r}."
        )
    return replace(cohort, manifest=cohort.manifest[mine])
