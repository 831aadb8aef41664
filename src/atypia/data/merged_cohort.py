"""Several cohorts as one: a folder like any other, whose patients are each one person."""

from __future__ import annotations

import logging
import re
import shutil
from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING, Final

import pandas as pd

from atypia.core.errors import InputError
from atypia.core.files import building_folder
from atypia.data.cohort import REQUIRED_COLUMNS, Cohort, column_order
from atypia.data.copies import find_copies, without_copies
from atypia.data.overlap import Shared, find_overlap, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

log = logging.getLogger("atypia")

_UNSAFE: Final = re.compile(r"[^\w.+-]+")
_Patient = tuple[str, str]  # part and id in it


def merge(
    folders: Sequence[Path],
    out: Path,
    name: str | None = None,
    *,
    allow_overlap: bool = False,
    distinct_ids: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Cohort:
    """Make one cohort of several.

    Patches get the name of their cohort before their own. Raters keep their names, so that equal
    ones of two cohorts become one column. A patient who is in several cohorts is one patient of the
    new one, with the id and the domain of the first; so no split can tear the figures apart. Of a
    figure that is in several, the first copy is kept (:mod:`atypia.data.copies`).

    Args:
        folders: Two or more cohorts.
        out: The cohort folder to make; it must not exist yet, or be empty.
        name: Of the cohort; the name of the folder by default.
        allow_overlap: Take cohorts that have patients in common.
        distinct_ids: Equal ids that name no public case are of different people, unless they have a
            picture in common: they get the name of their cohort before their own.
        progress: Called with what is being done, and patches done and in all.

    Returns:
        The cohort, read back from `out`.

    Raises:
        LeakError: A patient is in two cohorts; lists all of them.
        InputError: Fewer than two cohorts, cohorts of one name, or damaged ones.
    """
    cohorts = _open(folders)
    overlap = _overlap(cohorts, allow_overlap, distinct_ids, progress)
    copies = find_copies(list(cohorts), overlap)
    manifest = without_copies(
        _joined(cohorts, _groups(cohorts, overlap)),
        {_patch(*copy): _patch(*figure) for copy, figure in copies.items()},
    )
    dropped = Counter(part for part, _ in copies)
    for part, n in dropped.items():
        log.info("%s: %d figures are in an earlier cohort, too; they are taken once", part, n)
    with building_folder(out) as folder:
        sources = {
            _file(part, file): path
            for part, cohort in cohorts.items()
            for path, file in zip(cohort.image_paths(), cohort.manifest["file"], strict=True)
        }
        for done, file in enumerate(manifest["file"], start=1):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sources[file], folder / file)
            if progress is not None:
                progress("patches", done, len(manifest))
        Cohort.write(folder, name or out.name, manifest, _about(cohorts, overlap, dropped))
    return Cohort.open(out)


def _open(folders: Sequence[Path]) -> dict[str, Cohort]:
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


def _overlap(
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


def _groups(
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


def _joined(cohorts: dict[str, Cohort], groups: dict[_Patient, _Patient]) -> pd.DataFrame:
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
        table["patch_id"] = [_patch(part, patch) for patch in table["patch_id"]]
        table["file"] = [_file(part, file) for file in table["file"]]
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


def _patch(part: str, patch: str) -> str:
    return f"{part}/{patch}"


def _file(part: str, file: str) -> str:
    return f"patches/{part}/{file.removeprefix('patches/')}"


def _about(
    cohorts: dict[str, Cohort],
    overlap: dict[tuple[str, str], list[Shared]],
    dropped: Counter[str],
) -> dict[str, object]:
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
