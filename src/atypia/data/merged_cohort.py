"""Several cohorts as one: a folder like any other, whose patients are each one person."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from functools import partial
from itertools import chain, combinations
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from atypia.core.errors import InputError
from atypia.data.cohort import MAJORITY_COLUMN, REQUIRED_COLUMNS, Cohort, column_order
from atypia.data.overlap import Shared, find_overlap, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Figure = tuple[str, str]
    """Name of its cohort, and patch id in it."""

log = logging.getLogger("atypia")

_NO_WORD: Final = re.compile(r"\W+", re.ASCII)
_UNSAFE: Final = re.compile(r"[^\w.+-]+")
_Patient = tuple[str, str]  # part and id in it


def open_cohorts(folders: Sequence[Path]) -> dict[str, Cohort]:
    """Cohorts by name, in the order given."""
    if len(folders) < 2:
        raise InputError(f"expected two or more cohorts but got {len(folders)}.")
    cohorts = [Cohort.open(folder, verify=True, look_alikes=True) for folder in folders]
    names = [_UNSAFE.sub("-", cohort.name).strip("-") for cohort in cohorts]
    if twice := sorted(name for name, n in Counter(names).items() if n > 1):
        raise InputError(
            f"expected cohorts of different names but got several of {twice}. Prepare one of them "
            "again with another --name."
        )
    return dict(zip(names, cohorts, strict=True))


def raters_of_parts(
    cohorts: Mapping[str, Cohort], same_raters: bool | None
) -> dict[str, dict[str, str]]:
    """Columns to rename in each part, so that two raters of one name stay two people.

    The first cohort that has the name keeps it; the others put the name of the cohort before it.

    Raises:
        InputError: There are such raters, and `same_raters`, whether they are one person, is None.
    """
    first: dict[str, str] = {}
    shared: dict[str, list[str]] = {}
    renamed: dict[str, dict[str, str]] = {part: {} for part in cohorts}
    for part, cohort in cohorts.items():
        for column in cohort.manifest.columns:
            kind, _, rater = column.partition("_")
            if kind in ("label", "atypical") and first.setdefault(rater, part) != part:
                shared.setdefault(rater, [first[rater]])
                shared[rater] += [part] * (part not in shared[rater])
                renamed[part][column] = f"{kind}_{_NO_WORD.sub('_', part)}_{rater}"
    if shared and same_raters is None:
        found = "; ".join(f"{rater!r} in {' and '.join(parts)}" for rater, parts in shared.items())
        raise InputError(
            f"expected raters of different names but got {found}. Say whether they are one person "
            "(--same-raters) or several (--distinct-raters: all but the first cohort's get the "
            "name of their cohort)."
        )
    return {} if same_raters else renamed


def overlap_of_each_two(
    cohorts: dict[str, Cohort],
    allowed: bool,
    distinct_ids: bool,
    progress: Callable[[str, int, int], None],
) -> dict[tuple[str, str], list[Shared]]:
    """Patients that every two cohorts have in common."""
    overlap = {}
    for first, second in combinations(cohorts, 2):
        step = partial(progress, f"{first} and {second}")
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
    links = [
        ((one, entry.first), (other, entry.second))
        for (one, other), shared in overlap.items()
        for entry in shared
    ]
    return _first_of_linked(patients, links)


def _first_of_linked(
    nodes: Sequence[tuple[str, str]], links: Sequence[tuple[tuple[str, str], tuple[str, str]]]
) -> dict[tuple[str, str], tuple[str, str]]:
    """For each node, the first of those that it is linked to, directly or by way of others."""
    number = {node: i for i, node in enumerate(nodes)}
    ends = [number[a] for a, _ in links], [number[b] for _, b in links]
    graph = sparse.coo_array((np.ones(len(links)), ends), shape=(len(nodes), len(nodes)))
    _, components = connected_components(graph, directed=False)
    first: dict[int, tuple[str, str]] = {}
    pairs = zip(components.tolist(), nodes, strict=True)
    return {node: first.setdefault(component, node) for component, node in pairs}


def joined_manifest(
    cohorts: dict[str, Cohort],
    groups: dict[_Patient, _Patient],
    raters: Mapping[str, Mapping[str, str]],
) -> pd.DataFrame:
    """Make one manifest of all, whose patients are each one person; `raters` are renamed."""
    names = _names(set(groups.values()))
    domains: dict[_Patient, str] = {}
    for part, cohort in cohorts.items():
        table = cohort.manifest
        for patient, domain in zip(table["patient_id"], table["domain"], strict=True):
            domains.setdefault((part, patient), domain)
    parts = []
    for part, cohort in cohorts.items():
        table = cohort.manifest.rename(columns=raters.get(part, {}))
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
    """Patient ids of the merged cohort; two that are equal get their cohort before them."""
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


def find_copies(
    order: Sequence[str], overlap: Mapping[tuple[str, str], Sequence[Shared]]
) -> dict[Figure, Figure]:
    """Find the figures that an earlier cohort has a picture of, and the one that stands for each.

    Pictures of one cohort are never copies of each other: that it holds both is its own matter.
    `order` has the names of the cohorts, in which the copies are returned, too; the first one's
    pictures are kept.
    """
    links = [
        ((one, a), (other, b))
        for (one, other), shared in overlap.items()
        for entry in shared
        for a, b in [*entry.same_pixels, *entry.alike]
    ]
    rank = {name: i for i, name in enumerate(order)}
    figures = sorted(set(chain.from_iterable(links)), key=lambda f: (rank[f[0]], f[1]))
    first = _first_of_linked(figures, links)
    return {figure: kept for figure, kept in first.items() if figure[0] != kept[0]}


def without_copies(manifest: pd.DataFrame, kept: Mapping[str, str]) -> pd.DataFrame:
    """Drop copies, and give their labels to the figure that stands for them.

    A rater's answers are taken over where the figure has none of that rater, and a majority where
    it has no votes at all: labels of two are never mixed. `kept` is from the patch id of each copy,
    in the order of the cohorts, to that of the figure that stays.
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
