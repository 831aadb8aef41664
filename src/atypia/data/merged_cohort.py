"""Several cohorts as one: a folder like any other, whose patients are each one person."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from itertools import combinations
from typing import TYPE_CHECKING, Final

import pandas as pd

from atypia.core.errors import InputError
from atypia.data.cohort import MAJORITY_COLUMN, REQUIRED_COLUMNS, Cohort, column_order
from atypia.data.overlap import Shared, find_overlap, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Figure = tuple[str, str]
    """Name of its cohort, and patch id in it."""

log = logging.getLogger("atypia")

_UNSAFE: Final = re.compile(r"[^\w.+-]+")
_Patient = tuple[str, str]  # part and id in it


def open_cohorts(folders: Sequence[Path]) -> dict[str, Cohort]:
    """Cohorts by name, in the order given."""
    if len(folders) < 2:
        raise InputError(f"expected two or more cohorts but got {len(folders)}.")
    cohorts = [Cohort.open(folder, verify=True) for folder in folders]
    names = [_UNSAFE.sub("-", cohort.name).strip("-") for cohort in cohorts]
    if twice := sorted(name for name, n in Counter(names).items() if n > 1):
        raise InputError(
            f"expected cohorts of different names but got several of {twice}. Prepare one of them "
            "again with another --name."
        )
    return dict(zip(names, cohorts, strict=True))


def overlap_of_each_two(
    cohorts: dict[str, Cohort],
    allowed: bool,
    distinct_ids: bool,
    progress: Callable[[str, int, int], None] | None,
) -> dict[tuple[str, str], list[Shared]]:
    """Patients that every two cohorts have in common."""
    overlap = {}
    for first, second in combinations(cohorts, 2):

        def step(done: int, total: int, what: str = f"{first} and {second}") -> None:
            if progress is not None:
                progress(what, done, total)

        shared = find_overlap(cohorts[first], cohorts[second], step)
        if distinct_ids:
            shared = [entry for entry in shared if not entry.by_id_alone]
        if not allowed:
            remedy = "Leave one of them out, or take them as one patient each: --allow-overlap."
            refuse(first, second, shared, remedy)
        if alone := sum(entry.by_id_alone for entry in shared):
            log.warning(
                "%s and %s: %d patients are taken as one each because of an equal id alone. If "
                "they are different people: --distinct-ids",
                *(first, second, alone),
            )
        overlap[first, second] = shared
    return overlap


def one_of_each_person(
    cohorts: dict[str, Cohort], overlap: dict[tuple[str, str], list[Shared]]
) -> dict[_Patient, _Patient]:
    """Find the first of those who are one person, for every patient."""
    patients = [
        (part, p) for part, c in cohorts.items() for p in sorted(set(c.manifest["patient_id"]))
    ]
    first = {patient: patient for patient in patients}

    def root(patient: _Patient) -> _Patient:
        while first[patient] != patient:
            patient = first[patient]
        return patient

    rank = {patient: i for i, patient in enumerate(patients)}
    for (one, other), shared in overlap.items():
        for entry in shared:
            roots = {root((one, entry.first)), root((other, entry.second))}
            leader = min(roots, key=rank.__getitem__)
            for follower in roots:
                first[follower] = leader
    return {patient: root(patient) for patient in patients}


def joined_manifest(cohorts: dict[str, Cohort], groups: dict[_Patient, _Patient]) -> pd.DataFrame:
    """Make one manifest of all cohorts', whose patients are each one person."""
    names = _names(set(groups.values()))
    domains: dict[_Patient, str] = {}
    for part, cohort in cohorts.items():
        table = cohort.manifest
        for patient, domain in zip(table["patient_id"], table["domain"], strict=True):
            domains.setdefault((part, patient), domain)
    parts = []
    for part, cohort in cohorts.items():
        table = cohort.manifest.copy()
        patients = [(part, patient) for patient in table["patient_id"]]
        table["patch_id"] = [patch_name(part, patch) for patch in table["patch_id"]]
        table["file"] = [patch_file(part, file) for file in table["file"]]
        table["patient_id"] = [names[groups[patient]] for patient in patients]
        if "slide" in table.columns:  # two cohorts may have slides of one name
            table["slide"] = [f"{part}/{slide}" if slide else "" for slide in table["slide"]]
        # Two of one cohort may be one person by a third cohort, and have domains of their own.
        table["domain"] = [
            domain if groups[patient] == patient else domains[groups[patient]]
            for patient, domain in zip(patients, table["domain"], strict=True)
        ]
        parts.append(table)
    joined = pd.concat(parts, ignore_index=True)
    answers = sorted(set(joined.columns) - set(REQUIRED_COLUMNS), key=column_order)
    return joined[[*REQUIRED_COLUMNS, *answers]].fillna("")


def _names(people: set[_Patient]) -> dict[_Patient, str]:
    """Patient ids of the merged cohort: their own, and with that of the cohort where two are equal.

    Raises:
        InputError: Such a name is that of another patient.
    """
    held = Counter(patient for _, patient in people)
    names = {
        (part, patient): patient if held[patient] == 1 else f"{part}/{patient}"
        for part, patient in people
    }
    if twice := sorted(name for name, n in Counter(names.values()).items() if n > 1):
        raise InputError(
            f"--distinct-ids: expected no patient to be called {twice} already. Prepare one of the "
            "cohorts again with another --name."
        )
    return names


def patch_name(part: str, patch: str) -> str:
    """Return the id of a patch in the merged cohort."""
    return f"{part}/{patch}"


def patch_file(part: str, file: str) -> str:
    """Return the path of a patch in the merged cohort."""
    return f"patches/{part}/{file.removeprefix('patches/')}"


def about_parts(
    cohorts: dict[str, Cohort],
    overlap: dict[tuple[str, str], list[Shared]],
    dropped: Counter[str],
) -> dict[str, object]:
    """Describe the parts and whom they share, for ``cohort.json``."""
    return {
        "kind": "merged",
        "parts": [
            {
                "name": name,
                "n": len(cohort),
                "copies_left_out": dropped[name],
                "sha256": cohort.sha256,
                "source": dict(cohort.source),
            }
            for name, cohort in cohorts.items()
        ],
        "shared_patients": [
            {"cohorts": list(pair), "patients": [str(entry) for entry in shared]}
            for pair, shared in overlap.items()
            if shared
        ],
    }


# --- Copies -------------------------------------------------------------------------------------


def find_copies(
    order: Sequence[str], overlap: Mapping[tuple[str, str], Sequence[Shared]]
) -> dict[Figure, Figure]:
    """Find the figures that an earlier cohort has a picture of, and the one that stands for each.

    Pictures of one cohort are never copies of each other: that it holds both is its own matter.

    Args:
        order: Names of the cohorts; the first one's pictures are kept.
        overlap: What every two of them have in common.

    Returns:
        The figure that stands for each copy, in the order of the cohorts.
    """
    same: defaultdict[Figure, list[Figure]] = defaultdict(list)
    for (one, other), shared in overlap.items():
        for entry in shared:
            for a, b in [*entry.same_pixels, *entry.alike]:
                same[one, a].append((other, b))
                same[other, b].append((one, a))
    rank = {name: i for i, name in enumerate(order)}

    def place(figure: Figure) -> tuple[int, str]:
        return rank[figure[0]], figure[1]

    copies: dict[Figure, Figure] = {}
    seen: set[Figure] = set()
    for start in sorted(same, key=place):
        if start in seen:
            continue
        group, front = {start}, [start]
        while front:  # a copy of a copy is one, too
            new = set(same[front.pop()]) - group
            group |= new
            front += new
        seen |= group
        copies |= {figure: start for figure in group if figure[0] != start[0]}
    return {figure: copies[figure] for figure in sorted(copies, key=place)}


def without_copies(manifest: pd.DataFrame, kept: Mapping[str, str]) -> pd.DataFrame:
    """Drop copies, and give their labels to the figure that stands for them.

    A rater's answers are taken over where the figure has none of that rater, and a majority where
    it has no votes at all: labels of two are never mixed.

    Args:
        manifest: Of all cohorts; an empty cell is ``""``.
        kept: Patch id of each copy, in the order of the cohorts, to that of the figure that stays.
    """
    raters: defaultdict[str, list[str]] = defaultdict(list)
    for column in manifest.columns:
        if column.startswith(("label_", "atypical_")):
            raters[column.partition("_")[2]].append(column)
    votes = [column for column in manifest.columns if column.startswith("atypical_")]
    answers = [(columns, columns) for columns in raters.values()]
    if MAJORITY_COLUMN in manifest.columns:
        # First, while the votes are still the figure's own.
        answers.insert(0, ([MAJORITY_COLUMN], [MAJORITY_COLUMN, *votes]))
    table = manifest.set_index("patch_id", drop=False)
    for copy, figure in kept.items():
        for columns, asked in answers:
            if (table.loc[figure, asked] == "").all():
                table.loc[figure, columns] = table.loc[copy, columns]
    return table.drop(index=list(kept)).reset_index(drop=True)
