"""The record of a run's splits, ``splits.json``: written once, checked whenever it is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any, Final

from atypia.core.config import LEAK
from atypia.core.errors import InputError, LeakError, Problem
from atypia.core.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

FORMAT_VERSION: Final = 1


@dataclass(frozen=True)
class Outer:
    """One test part, which may be empty, and the other patients dealt into inner folds.

    Member `i` of the ensemble trains on every inner fold but `i` and validates on fold `i`.
    """

    test: tuple[str, ...]
    inner: tuple[tuple[str, ...], ...]

    @property
    def training(self) -> tuple[str, ...]:
        """Every patient outside the test part, sorted."""
        return tuple(sorted(chain.from_iterable(self.inner)))

    def member(self, i: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Patients that member `i` trains on, and those that it validates on."""
        others = (fold for j, fold in enumerate(self.inner) if j != i)
        return tuple(sorted(chain.from_iterable(others))), self.inner[i]


@dataclass(frozen=True)
class Splits:
    """Every outer split of a run. Made by :func:`make_splits` or :meth:`read`."""

    kind: str
    """``table1``, ``benchmark``, ``holdout``, ``cv``, ``monte_carlo``, ``all``, ``domains``,
    ``file``, or ``leak_by_figure``, whose "patients" are figures."""
    seed: int
    cohort_sha256: str
    outer: tuple[Outer, ...]

    def write(self, path: Path) -> None:
        """Write ``splits.json``, once: the same content again is fine, another is not.

        Raises:
            InputError: `path` holds other splits.
            AtypiaError: The folder cannot be written.
        """
        value = {
            "format": FORMAT_VERSION,
            "kind": self.kind,
            "seed": self.seed,
            "cohort_sha256": self.cohort_sha256,
            "outer": [{"test": [*o.test], "inner": [*map(list, o.inner)]} for o in self.outer],
        }
        if not path.exists():
            write_json(path, value)
        elif read_json(path) != value:
            raise InputError(
                f"{path} already holds other splits, and splits are written only once. "
                "Choose another --out, or give the split and the seed that the run began with."
            )

    @classmethod
    def read(cls, path: Path, manifest: pd.DataFrame, cohort_sha256: str) -> Splits:
        """Read ``splits.json`` and check it against the cohort it is used with.

        Raises:
            LeakError: A patient stands on both sides of a boundary; lists every other problem too.
            InputError: The file is not sound, is for another cohort, or does not name exactly the
                patients of this one.
        """
        splits = _parse(read_json(path), str(path))
        problems = []
        if splits.cohort_sha256 != cohort_sha256:
            what = (
                f"expected splits of the cohort with hash {cohort_sha256[:12]}… but got those of "
                f"{splits.cohort_sha256[:12]}…. Use the cohort that the splits were made for, or "
                "make new ones."
            )
            problems.append(Problem(what, str(path)))
        without_test = splits.kind == "all"
        unit = "patch_id" if splits.kind == LEAK else "patient_id"
        leaks, others = _patient_problems(
            splits.outer, manifest[unit], str(path), without_test=without_test
        )
        problems += leaks + others
        if problems:
            raise (LeakError if leaks else InputError)(problems)
        return splits


def rows(manifest: pd.DataFrame, patients: Collection[str]) -> NDArray[np.bool_]:
    """(N,) which rows of a manifest belong to the patients."""
    return manifest["patient_id"].isin(patients).to_numpy(dtype=bool)


def foreign_patients(named: Iterable[str], cohort: Iterable[str], place: str) -> list[Problem]:
    """Patients that the splits name but the cohort lacks, and the other way round."""
    named, cohort = set(named), set(cohort)
    problems = []
    if named - cohort:
        what = f"names {len(named - cohort)} patients that the cohort lacks: "
        problems.append(Problem(f"{what}{sorted(named - cohort)}.", place))
    if cohort - named:
        what = f"does not name {len(cohort - named)} patients of the cohort: "
        problems.append(Problem(f"{what}{sorted(cohort - named)}.", place))
    return problems


def _patient_problems(
    outer: Sequence[Outer], cohort: Iterable[str], place: str, *, without_test: bool
) -> tuple[list[Problem], list[Problem]]:
    """Patients on both sides of a boundary, and everything else that is wrong with them."""
    leaks, others = [], []
    cohort = set(cohort)
    for i, split in enumerate(outer):
        parts = {"the test part": split.test}
        parts |= {f"inner fold {j}": fold for j, fold in enumerate(split.inner)}
        where = f"{place}, outer split {i}"
        for (one, a), (other, b) in combinations(parts.items(), 2):
            if both := sorted(set(a) & set(b)):
                what = f"expected no patient in both {one} and {other} but got {both}."
                leaks.append(Problem(what, where))
        if without_test and split.test:
            what = f"expected no test part in splits of kind 'all' but got {list(split.test)}."
            others.append(Problem(what, where))
        for name, patients in parts.items():
            if not patients and not (without_test and name == "the test part"):
                others.append(Problem(f"expected patients in {name} but got none.", where))
            if twice := sorted(patient for patient, n in Counter(patients).items() if n > 1):
                others.append(Problem(f"{name} names patients more than once: {twice}.", where))
        others += foreign_patients(chain(split.test, *split.inner), cohort, where)
    return leaks, others


def _parse(value: Any, place: str) -> Splits:
    def strings(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)

    problems = []
    if not isinstance(value, dict) or value.get("format") != FORMAT_VERSION:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise InputError(
            Problem(f"expected splits of format {FORMAT_VERSION} but got {found!r}.", place)
        )
    for key, expected in (("kind", str), ("seed", int), ("cohort_sha256", str), ("outer", list)):
        if not isinstance(value.get(key), expected):
            what = f"expected {key!r} as {expected.__name__} but got {value.get(key)!r}."
            problems.append(Problem(what, place))
    outer = value.get("outer")
    if outer == []:
        problems.append(Problem("expected at least one outer split but got none.", place))
    for i, split in enumerate(outer if isinstance(outer, list) else []):
        sound = (
            isinstance(split, dict)
            and strings(split.get("test"))
            and isinstance(split.get("inner"), list)
            and len(split["inner"]) >= 2
            and all(strings(fold) for fold in split["inner"])
        )
        if not sound:
            what = 'expected {"test": [patients], "inner": [[patients], [patients], ...]}.'
            problems.append(Problem(what, f"{place}, outer split {i}"))
    if problems:
        raise InputError(problems)
    return Splits(
        kind=value["kind"],
        seed=value["seed"],
        cohort_sha256=value["cohort_sha256"],
        outer=tuple(
            Outer(tuple(split["test"]), tuple(tuple(fold) for fold in split["inner"]))
            for split in value["outer"]
        ),
    )


@dataclass(frozen=True)
class MissingClass:
    """A class that a part of the splits has no figure of."""

    outer: int
    part: str
    """``test``, or ``training`` or ``validation`` of a member."""
    label: str

    def __str__(self) -> str:
        """Render as ``outer split 0, validation of member 2: no figure of nmf_ring``."""
        return f"outer split {self.outer}, {self.part}: no figure of {self.label}"


def missing_classes(
    splits: Splits, manifest: pd.DataFrame, label: str, classes: Iterable[str] | None = None
) -> list[MissingClass]:
    """Classes that a test, training or validation part of a cohort's splits has no figure of.

    The manifest's column `label` has the class of each figure, empty where there is none; `classes`
    are by default those that occur there.
    """
    labelled = manifest[manifest[label] != ""]
    wanted = sorted(set(labelled[label])) if classes is None else list(classes)
    classes_of = labelled.groupby("patient_id")[label].agg(set).to_dict()
    missing = []
    for i, outer in enumerate(splits.outer):
        parts = {"test": outer.test} if outer.test else {}
        for m in range(len(outer.inner)):
            parts[f"training of member {m}"], parts[f"validation of member {m}"] = outer.member(m)
        for part, patients in parts.items():
            found = set().union(*(classes_of.get(patient, set()) for patient in patients))
            missing += [MissingClass(i, part, name) for name in wanted if name not in found]
    return missing
