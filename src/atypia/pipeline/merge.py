"""``atypia merge``: several cohorts as one, whose patients are each one person.

Leaves a cohort folder like any other; ``cohort.json`` lists its parts and the patients they share.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from typing import TYPE_CHECKING

from atypia.core.files import building_folder
from atypia.core.progress import silent
from atypia.data.cohort import Cohort
from atypia.data.merged_cohort import (
    about_parts,
    find_copies,
    joined_manifest,
    one_of_each_person,
    open_cohorts,
    overlap_of_each_two,
    patch_file,
    patch_name,
    raters_of_parts,
    without_copies,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

log = logging.getLogger("atypia")


def merge(
    folders: Sequence[Path],
    out: Path,
    name: str | None = None,
    *,
    allow_overlap: bool = False,
    distinct_ids: bool = False,
    same_raters: bool | None = None,
    progress: Callable[[str, int, int], None] = silent,
) -> Cohort:
    """Make one cohort of several.

    Patches get the name of their cohort before their own. A patient who is in several cohorts is
    one patient of the new one, with the id and the domain of the first; so no split can tear the
    figures apart. Of a figure that is in several, the first copy is kept, with the labels of all.

    Args:
        folders: Two or more cohorts.
        out: The cohort folder to make; it must not exist yet, or be empty.
        name: Of the new cohort; None: that of the folder.
        allow_overlap: Take cohorts that have patients in common.
        distinct_ids: Equal ids that name no public case are of different people, unless they have a
            picture in common: they get the name of their cohort before their own.
        same_raters: Whether raters of one name in two cohorts are one person, with one column;
            False puts the name of the cohort before those of all but the first; None refuses them.
        progress: Called with what is being done, and patches done and in all.

    Raises:
        LeakError: A patient is in two cohorts; lists all of them.
        InputError: Fewer than two cohorts, cohorts or raters of one name, or damaged ones.
    """
    cohorts = open_cohorts(folders)
    raters = raters_of_parts(cohorts, same_raters)
    overlap = overlap_of_each_two(cohorts, allow_overlap, distinct_ids, progress)
    copies = find_copies(list(cohorts), overlap)
    manifest = without_copies(
        joined_manifest(cohorts, one_of_each_person(cohorts, overlap), raters),
        {patch_name(*copy): patch_name(*figure) for copy, figure in copies.items()},
    )
    dropped = Counter(part for part, _ in copies)
    for part, n in dropped.items():
        log.info("%s: %d figures are in an earlier cohort, too; they are taken once", part, n)
    with building_folder(out) as folder:
        sources = {
            patch_file(part, file): path
            for part, cohort in cohorts.items()
            for path, file in zip(cohort.image_paths(), cohort.manifest["file"], strict=True)
        }
        for done, file in enumerate(manifest["file"], start=1):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sources[file], folder / file)
            progress("patches", done, len(manifest))
        Cohort.write(folder, name or out.name, manifest, about_parts(cohorts, overlap, dropped))
    return Cohort.open(out)
