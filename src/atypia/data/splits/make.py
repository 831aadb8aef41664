"""Make the splits of a run."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from atypia.core.config import LEAK
from atypia.core.errors import InputError, LeakError, Problem
from atypia.data.leak import deal_figures, require_figures
from atypia.data.splits.kinds import KINDS, PUBLISHED, SEEDED
from atypia.data.splits.record import Outer, Splits, foreign_patients
from atypia.data.splits.roles import published_roles, read_roles
from atypia.data.splits.stratify import stratify

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


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
            figures; see :mod:`atypia.data.leak`), ``all`` (no test part:
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

    if kind == LEAK:
        require_figures(manifest)
    deal = deal_figures if kind == LEAK else stratify
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
        problems.append(
            Problem(
                f"expected at least 2 inner folds, so that each member has patients to train on "
                f"and others to validate on, but got {inner_folds}."
            )
        )
    if not 0 < test_fraction < 1:
        problems.append(
            Problem(f"expected a test fraction between 0 and 1 but got {test_fraction}.")
        )
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
