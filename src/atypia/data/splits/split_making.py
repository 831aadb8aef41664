"""Make the splits of a run: published, drawn, by domains, or from a file."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from importlib.resources import as_file, files
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from atypia.core.config import LEAK
from atypia.core.errors import InputError, LeakError, Problem
from atypia.core.tables import read_table
from atypia.data.splits.split_record import Outer, Splits, foreign_patients

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from atypia.data.cohort import Cohort

PUBLISHED: Final = ("table1", "benchmark")
"""Splits of AMi-Br whose test patients are shipped with the package."""
SEEDED: Final = ("holdout", "cv", "monte_carlo", LEAK)
WHOLE: Final = ("all", "domains")
"""Splits by what the cohort is: no test part at all, or each domain as one."""
KINDS: Final = (*PUBLISHED, *SEEDED, *WHOLE)

_RESTARTS: Final = 16
_OWNER: Final = "figure_of_patient"

log = logging.getLogger("atypia")


def ami_br_patients() -> list[str]:
    """Sorted patients of AMi-Br, all of whom a published split names."""
    return sorted(published_roles(PUBLISHED[0]))


def published_roles(kind: str) -> dict[str, str]:
    """``train`` or ``test`` for each patient of AMi-Br in a split of :data:`PUBLISHED`."""
    with as_file(files("atypia.data") / "resources" / f"{kind}_split.csv") as path:
        return read_roles(path)


def read_roles(path: Path) -> dict[str, str]:
    """``train`` or ``test`` for each patient of a split CSV; every problem of it at once."""
    if not path.is_file():
        raise InputError(
            f"expected a split ({', '.join(KINDS)}) or a file (.csv or .json) "
            f"but got {str(path)!r}, which does not exist."
        )
    table = read_table(path, may_be_empty=True)
    by_slide = "patient_id" not in table.columns
    expected = ["dataset", "slide", "role"] if by_slide else ["patient_id", "role"]
    if not set(expected) <= set(table.columns):
        what = (
            "expected the columns patient_id and role, or dataset, slide and role, "
            f"but got {list(table.columns)}."
        )
        raise InputError(Problem(what, str(path), row=1))
    problems: list[Problem] = []
    roles: dict[str, set[str]] = {}
    for row in table.rows:
        cells = row.cells
        for column in expected:
            if not cells[column]:
                what = "expected a value but the cell is empty."
                problems.append(Problem(what, str(path), row.line, column))
        role = cells["role"].lower()
        if role and role not in ("train", "test"):
            what = f"expected train or test but got {cells['role']!r}."
            problems.append(Problem(what, str(path), row.line, "role"))
        slide = patient_of_slide(cells["dataset"], cells["slide"]) if by_slide else None
        roles.setdefault(slide or cells["patient_id"], set()).add(role)
    both = sorted(patient for patient, found in roles.items() if {"train", "test"} <= found)
    if both:
        what = f"expected each patient in one part but got in both: {both}."
        problems.append(Problem(what, str(path)))
    if not any("test" in found for found in roles.values()):
        problems.append(Problem("expected at least one patient with the role test.", str(path)))
    if problems:
        raise (LeakError if both else InputError)(problems)
    return {patient: found.pop() for patient, found in roles.items()}


def patient_of_slide(dataset: str, slide: str) -> str:
    """Patient id of an AMi-Br slide: ``("MIDOG21", "002.tiff")`` is ``"MIDOG21_002"``."""
    return f"{dataset}_{PurePosixPath(slide).stem}"


def stratify(
    counts: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal patients into folds so that every class is spread by the folds' shares.

    Several times: patients in random order, those that hold the largest part of a class first,
    each go where they help most; then single patients move as long as a move helps. The best
    attempt is kept. What is minimised is, over folds and classes, the squared difference between
    the part of the class that the fold holds and the fold's share. A rare class so weighs as much
    as a common one, and leaving a fold without a class that could be there costs more than any
    unevenness. The numbers of figures and of patients count as one more class each.

    Of the (P, C) figures of each class per patient and the (F,) shares, positive and of sum 1, it
    makes the (P,) fold of each patient. No fold is empty if P >= F.

    Raises:
        ValueError: There are fewer patients than folds.
    """
    n_patients, n_folds = len(counts), len(shares)
    if n_patients < n_folds:
        raise ValueError(f"expected at least {n_folds} patients but got {n_patients}")
    ones = np.ones((n_patients, 1), dtype=np.int64)
    counts = np.hstack([counts, counts.sum(1, keepdims=True), ones])  # (P, C + 2)
    counts = counts[:, counts.any(0)]
    totals = counts.sum(0)
    can_be_everywhere = (counts > 0).sum(0) >= n_folds

    def cost(held: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cost of folds that hold these counts: (..., F, C) -> (..., F)."""
        uneven = ((held / totals - shares[:, None]) ** 2).sum(-1)
        lacking = ((held == 0) & can_be_everywhere).sum(-1)
        return np.asarray(uneven + n_folds * len(totals) * lacking)

    def attempt() -> tuple[float, NDArray[np.int64]]:
        weight = (counts / totals).max(1) * rng.uniform(0.5, 1.5, n_patients)
        fold_of = np.zeros(n_patients, dtype=np.int64)
        held = np.zeros((n_folds, len(totals)), dtype=np.int64)
        for p in np.argsort(-weight):
            fold_of[p] = np.argmin(cost(held + counts[p]) - cost(held))
            held[fold_of[p]] += counts[p]
        everyone = np.arange(n_patients)
        while True:
            leave = cost(held - counts[:, None])[everyone, fold_of] - cost(held)[fold_of]  # (P,)
            change = leave[:, None] + cost(held + counts[:, None]) - cost(held)  # (P, F)
            change[everyone, fold_of] = 0
            p, f = np.unravel_index(np.argmin(change), change.shape)
            if change[p, f] > -1e-12:
                return float(cost(held).sum()), fold_of
            held[fold_of[p]] -= counts[p]
            held[f] += counts[p]
            fold_of[p] = f

    return min((attempt() for _ in range(_RESTARTS)), key=lambda result: result[0])[1]


def make_splits(
    manifest: pd.DataFrame,
    cohort_sha256: str,
    *,
    kind: str | Path,
    label: str,
    seed: int,
    folds: int = 5,
    repeats: int = 1,
    test_fraction: float = 0.2,
    inner_folds: int = 3,
) -> Splits:
    """Split the patients of a cohort, the classes as even over the parts as patients allow.

    Args:
        manifest: Of the cohort; uses ``patient_id`` and the column `label`.
        cohort_sha256: Hash of the cohort, kept in the splits.
        kind: ``table1`` (40 test patients with the class counts of the reference paper's Table 1),
            ``benchmark`` (56 test slides of Banerjee et al., arXiv 2506.21444), ``holdout`` (one
            seeded test part), ``cv`` (each patient tests once per repeat), ``monte_carlo`` (as many
            holdouts as there are repeats, each drawn anew), ``leak_by_figure`` (the same over
            figures; see :func:`leaking`), ``all`` (no test part:
            for a model that is given away; out-of-fold predictions judge it), ``domains`` (each
            domain tests once and trains nothing then), or a file:
            a ``splits.json``, which is taken as it is, or a CSV with the columns ``patient_id``
            (or ``dataset`` and ``slide``) and ``role`` (``train`` or ``test``).
        label: Column to stratify by. Rows where it is empty do not count, but their patients are
            placed like any other.
        seed: Same cohort, options and seed: same splits, whatever the order of the rows.
        folds: Test parts per repeat of ``cv``.
        repeats: Repeats of ``cv``, test parts of ``monte_carlo``.
        test_fraction: Share of each test part of ``holdout`` and ``monte_carlo``.
        inner_folds: Members of the ensemble.

    Raises:
        LeakError: A file puts a patient on both sides.
        InputError: Unknown kind, options out of range, too few patients, or a published or file
            split that does not name exactly the patients of the cohort; all problems at once.
    """
    _check_options(manifest, label, folds, repeats, test_fraction, inner_folds)
    if str(kind) not in KINDS and Path(kind).suffix == ".json":
        return Splits.read(Path(kind), manifest, cohort_sha256)

    if kind == LEAK and _OWNER not in manifest.columns:
        raise LeakError(
            f"split {LEAK!r}: expected the training of a network, the only one for which this leak "
            "is made, to show what it does. Use monte_carlo, whose patients never cross a boundary."
        )
    deal = _deal_figures if kind == LEAK else stratify
    patients, counts = _count_figures(manifest, label)
    if kind == "domains":
        tests = _domains(manifest)
    elif kind == "all":
        tests = [()]
    else:
        tests = _test_parts(patients, counts, kind, deal, seed, folds, repeats, test_fraction)
    outer = []
    for i, test in enumerate(tests):
        rest = ~np.isin(patients, test)
        if rest.sum() < inner_folds:
            raise InputError(
                f"expected at least {inner_folds} patients outside the test part, one for each "
                f"inner fold, but got {rest.sum()}. Use more patients or fewer members."
            )
        shares = np.full(inner_folds, 1 / inner_folds)
        fold_of = deal(counts[rest], shares, np.random.default_rng([seed, 1, i]))
        inner = tuple(tuple(patients[rest][fold_of == f].tolist()) for f in range(inner_folds))
        outer.append(Outer(test=test, inner=inner))
    name = str(kind) if str(kind) in KINDS else "file"
    return Splits(name, seed, cohort_sha256, tuple(outer))


def _check_options(
    manifest: pd.DataFrame,
    label: str,
    folds: int,
    repeats: int,
    test_fraction: float,
    inner_folds: int,
) -> None:
    problems = []
    if label not in manifest.columns:
        columns = [c for c in manifest.columns if c.startswith(("label_", "atypical_", "majority"))]
        problems.append(Problem(f"expected a label column {columns} but got {label!r}."))
    for name, value, least in (("folds", folds, 2), ("repeats", repeats, 1)):
        if value < least:
            problems.append(Problem(f"expected {name} of at least {least} but got {value}."))
    if inner_folds < 2:
        what = (
            "expected at least 2 inner folds, so that each member has patients to train on and "
            f"others to validate on, but got {inner_folds}."
        )
        problems.append(Problem(what))
    if not 0 < test_fraction < 1:
        what = f"expected a test fraction between 0 and 1 but got {test_fraction}."
        problems.append(Problem(what))
    if problems:
        raise InputError(problems)


def _count_figures(
    manifest: pd.DataFrame, label: str
) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Sorted patients (P,), and their figures per class (P, C)."""
    patients = np.unique(manifest["patient_id"].to_numpy(dtype=str))
    labelled = manifest[manifest[label] != ""]
    table = pd.crosstab(labelled["patient_id"], labelled[label])
    return patients, table.reindex(patients, fill_value=0).to_numpy(dtype=np.int64)


def _test_parts(
    patients: NDArray[np.str_],
    counts: NDArray[np.int64],
    kind: str | Path,
    deal: Callable[..., NDArray[np.int64]],
    seed: int,
    folds: int,
    repeats: int,
    test_fraction: float,
) -> list[tuple[str, ...]]:
    if kind in SEEDED:
        if kind == "cv":
            shares, tested = np.full(folds, 1 / folds), folds
        else:
            shares, tested = np.array([test_fraction, 1 - test_fraction]), 1
        if kind == "holdout":
            repeats = 1
        if len(patients) < len(shares):
            raise InputError(
                f"expected at least {len(shares)} patients, one for each part of the split "
                f"{kind!r}, but got {len(patients)}."
            )
        dealt = [deal(counts, shares, np.random.default_rng([seed, 0, r])) for r in range(repeats)]
        return [tuple(patients[fold_of == f].tolist()) for fold_of in dealt for f in range(tested)]
    if kind in PUBLISHED:
        roles = published_roles(str(kind))
        place = f"split {kind!r}, which is made for AMi-Br"
    else:
        roles, place = read_roles(Path(kind)), str(kind)
    problems = foreign_patients(roles, patients.tolist(), place)
    if problems:
        raise InputError(problems)
    return [tuple(sorted(patient for patient, role in roles.items() if role == "test"))]


def _domains(manifest: pd.DataFrame) -> list[tuple[str, ...]]:
    """Patients of each domain, the domains by name."""
    if unknown := sorted(set(manifest.loc[manifest["domain"] == "", "patient_id"])):
        raise InputError(
            "split 'domains': expected the domain of every patch but it is empty for patients "
            f"{unknown}."
        )
    grouped = manifest.groupby("domain")["patient_id"]
    domains = {str(name): tuple(sorted(set(patients))) for name, patients in grouped}
    both = [p for p, n in Counter(chain.from_iterable(domains.values())).items() if n > 1]
    if both:
        raise LeakError(f"expected each patient in one domain but got in several: {sorted(both)}.")
    if len(domains) < 2:
        raise InputError(f"split 'domains': expected at least two domains but got {list(domains)}.")
    return list(domains.values())


def leaking(cohort: Cohort) -> Cohort:
    """Make each figure a patient of its own, for a split of kind ``leak_by_figure`` and that alone.

    Published measures of the field rest on such splits, in which figures of one patient, alike in
    stain, scanner and tumour, are trained and tested on. ``benchmarks/leak.py`` and runs beside
    ``monte_carlo`` measure how much that is worth.
    """
    log.warning(
        "split %s: figures of one patient will stand on both sides. The measures of this run are "
        "WRONG; they show what the leak does, nothing else.",
        LEAK,
    )
    owners = cohort.manifest["patient_id"]
    figures = cohort.manifest["patch_id"]
    return replace(cohort, manifest=cohort.manifest.assign(patient_id=figures, **{_OWNER: owners}))


def with_true_patients(manifest: pd.DataFrame) -> pd.DataFrame:
    """Give the figures of a leaking cohort back to their patients; others stay as they are."""
    if _OWNER not in manifest.columns:
        return manifest
    return manifest.assign(patient_id=manifest[_OWNER]).drop(columns=_OWNER)


def _deal_figures(
    counts: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal figures into folds at random, each class by the folds' shares; see :func:`stratify`."""
    fold_of = np.zeros(len(counts), dtype=np.int64)
    classes = np.where(counts.any(axis=1), counts.argmax(axis=1), -1)
    for c in np.unique(classes):
        mine = rng.permutation(np.flatnonzero(classes == c))
        ends = np.round(np.cumsum(shares) * len(mine)).astype(np.int64)
        fold_of[mine] = np.searchsorted(ends, np.arange(len(mine)), side="right")
    return fold_of
