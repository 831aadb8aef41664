"""``atypia prepare``: from what people have (a release, folders, a table, slides) to a cohort.

Leaves a cohort folder: patches as PNG, ``manifest.csv``, ``cohort.json`` with all hashes, and
``skipped.csv`` where bad records are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atypia.core.errors import InputError, Problem
from atypia.core.files import building_folder, write_text
from atypia.core.progress import silent
from atypia.data.cohort import Cohort
from atypia.data.cohort_builder import SKIPPED_FILE, manifest_of, problem_table, write_patches
from atypia.data.sources import PrepareOptions, read_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def prepare(
    source: Path,
    out: Path,
    options: PrepareOptions | None = None,
    *,
    progress: Callable[[int, int], None] = silent,
) -> Cohort:
    """Make a cohort folder from a source.

    Args:
        source: See :func:`atypia.data.sources.read_source`.
        out: The cohort folder to make; it must not exist yet, or be empty.
        options: What the source itself lacks.
        progress: Called with (patches done, patches in all).

    Returns:
        The cohort, read back from `out`. ``cohort.source["n_skipped"]`` counts what was left out.

    Raises:
        InputError: Lists every problem of the table and of the images; `out` is not made then.
        AtypiaError: `out` cannot be written.
    """
    options = options or PrepareOptions()
    found = read_source(source, options)
    name = options.name or found.name or out.name
    with building_folder(out) as folder:
        write_patches(found.records, folder / "patches", options, progress)
        good = [record for record in found.records if not record.problems]
        problems = [problem for record in found.records for problem in record.problems]
        if problems and not options.skip_bad:
            raise InputError(problems)
        if not good:
            raise InputError([*problems, Problem("nothing is left once the bad are skipped.")])
        if problems:
            write_text(folder / SKIPPED_FILE, problem_table(problems))
        about = {"kind": found.kind, **found.about, "n_skipped": len(found.records) - len(good)}
        Cohort.write(folder, name, manifest_of(good, name), about)
    return Cohort.open(out)
