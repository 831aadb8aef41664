"""A cohort: a folder of patches with one manifest and the hash of every file.

``manifest.csv`` has one row per patch:

=====================  ============================================================================
``patch_id``           unique name
``file``               path of the image below the cohort folder
``patient_id``         the unit of every split and of every interval
``domain``             where the patch comes from (data set, hospital)
``scanner``            may be empty
``mpp``                µm per pixel
``label_<rater>``      one subtype per rater, empty where the rater gave none
``atypical_<rater>``   one vote per rater: ``True``, ``False`` or empty
``majority_atypical``  the majority of the votes, where the source has one
``mitosis``            ``False``: the cell is a look-alike, no mitotic figure, and has no label
=====================  ============================================================================
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from atypia._version import __version__
from atypia.core import labels
from atypia.core.errors import InputError, Problem
from atypia.core.files import read_json, sha256_file, write_json, write_text
from atypia.core.tables import csv_text, read_table
from atypia.data.patient_names import spelling_problems

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT_VERSION = 1
REQUIRED_COLUMNS = ("patch_id", "file", "patient_id", "domain", "scanner", "mpp")
MAJORITY_COLUMN = "majority_atypical"
MITOSIS_COLUMN = "mitosis"
PLACE_COLUMNS = ("slide", "x_px", "y_px", *labels.ORIGIN_COLUMNS)
"""Where a patch was cut from, if Atypia cut it: the slide's file, the centre on its level 0, and,
where that is not the corner, the beginning of the scanned part."""


@dataclass(frozen=True)
class Cohort:
    """A cohort that has been read and checked. Made by :meth:`open`."""

    path: Path
    name: str
    manifest: pd.DataFrame = field(repr=False)
    """Strings throughout, except ``mpp`` (float); a missing label or vote is ``""``."""
    source: Mapping[str, Any] = field(repr=False)
    sha256: str
    """One hash over the manifest and every patch: two cohorts with it are the same bytes."""
    patches_sha256: str = ""
    """One hash over the patches alone: it stays when the manifest gets another rater's column."""

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def raters(self) -> tuple[str, ...]:
        """Names of the raters who gave subtypes, in the order of the columns."""
        prefix = "label_"
        return tuple(c.removeprefix(prefix) for c in self.manifest.columns if c.startswith(prefix))

    @property
    def vote_columns(self) -> tuple[str, ...]:
        """Columns with atypical/normal votes, the majority last where there is one."""
        columns = [c for c in self.manifest.columns if c.startswith("atypical_")]
        return (*columns, *([MAJORITY_COLUMN] if MAJORITY_COLUMN in self.manifest.columns else []))

    def image_paths(self) -> list[Path]:
        """Absolute path of every patch, in the order of the manifest."""
        return [self.path / name for name in self.manifest["file"]]

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = False, look_alikes: bool = False) -> Cohort:
        """Read and check a cohort folder; `verify` also compares the hash of every patch.

        Look-alikes are left out, with the column that marks them, unless they are asked for: a
        model of subtypes, a biomarker and a label audit are of mitotic figures.

        Raises:
            InputError: Lists every problem of the folder, the manifest and the files.
        """
        folder = Path(path)
        if not (folder / "cohort.json").is_file():
            raise InputError(
                f"{folder} is not a cohort: it has no cohort.json. "
                "Make one with: atypia prepare SOURCE --out COHORT"
            )
        header = read_json(folder / "cohort.json")
        if not isinstance(header, dict) or header.get("format") != FORMAT_VERSION:
            found = header.get("format") if isinstance(header, dict) else type(header).__name__
            raise InputError(
                f"{folder / 'cohort.json'}: expected format {FORMAT_VERSION} but got {found!r}. "
                "Prepare the cohort again with this version of Atypia."
            )
        files = header.get("files")
        if not isinstance(files, dict) or "name" not in header:
            raise InputError(
                f"{folder / 'cohort.json'}: expected a name and the hash of every file but they "
                "are missing. Prepare the cohort again."
            )
        manifest = read_manifest(folder / "manifest.csv")
        problems = []
        if sha256_file(folder / "manifest.csv") != files.get("manifest.csv"):
            what = (
                "expected the SHA-256 that cohort.json gives but the file has changed. "
                "Prepare the cohort again."
            )
            problems.append(Problem(what, str(folder / "manifest.csv")))
        for name in manifest["file"]:
            image = folder / name
            if not image.is_file():
                problems.append(Problem("expected a patch but the file is missing.", str(image)))
            elif name not in files:
                problems.append(Problem("is not listed in cohort.json.", str(image)))
            elif verify and sha256_file(image) != files[name]:
                what = "expected the SHA-256 that cohort.json gives; it differs."
                problems.append(Problem(what, str(image)))
        if problems:
            raise InputError(problems)
        if not look_alikes and MITOSIS_COLUMN in manifest.columns:
            figures = manifest[manifest[MITOSIS_COLUMN] != "False"]
            manifest = figures.drop(columns=MITOSIS_COLUMN).reset_index(drop=True)
            if manifest.empty:
                raise InputError(f"{folder}: expected mitotic figures but all are look-alikes.")
        return cls(
            path=folder,
            name=str(header["name"]),
            manifest=manifest,
            source=header.get("source", {}),
            sha256=_hash_of(files),
            patches_sha256=_hash_of({n: h for n, h in files.items() if n != "manifest.csv"}),
        )

    @staticmethod
    def write(folder: Path, name: str, manifest: pd.DataFrame, source: Mapping[str, Any]) -> None:
        """Finish a cohort folder whose patches are in place: manifest and ``cohort.json``.

        ``cohort.json`` is written last; a folder without it is no cohort.
        """
        write_text(folder / "manifest.csv", csv_text(manifest))
        files = {"manifest.csv": sha256_file(folder / "manifest.csv")}
        files |= {file: sha256_file(folder / file) for file in manifest["file"]}
        mpps = sorted(set(manifest["mpp"].astype(float)))
        write_json(
            folder / "cohort.json",
            {
                "format": FORMAT_VERSION,
                "name": name,
                "created_with": f"atypia {__version__}",
                "mpp": mpps[0] if len(mpps) == 1 else mpps,
                "n_patches": len(manifest),
                "n_patients": int(manifest["patient_id"].nunique()),
                "source": dict(source),
                "files": files,
            },
        )


def _hash_of(files: Mapping[str, str]) -> str:
    listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def column_order(column: str) -> tuple[int, str]:
    """Sort columns: subtypes, votes, their majority, each by rater; then where a patch is from."""
    if column in PLACE_COLUMNS:
        return 3 + PLACE_COLUMNS.index(column), column
    if column in (MAJORITY_COLUMN, MITOSIS_COLUMN):
        return 2, column
    return (0 if column.startswith("label_") else 1), column


def read_manifest(path: Path) -> pd.DataFrame:
    """Read ``manifest.csv`` and check every cell.

    Raises:
        InputError: Lists every problem with row and column.
    """
    rows = read_table(path)
    table = pd.DataFrame([row.cells for row in rows.rows], columns=rows.columns, dtype=str)
    problems = [row.problem for row in rows.rows if row.problem]
    problems += manifest_problems(table, str(path))
    if problems:
        raise InputError(problems)
    table["mpp"] = table["mpp"].astype(float)
    return table


def manifest_problems(table: pd.DataFrame, file: str) -> list[Problem]:
    """Every problem of a manifest whose cells are all strings; an empty list if it is sound."""
    if missing := [column for column in REQUIRED_COLUMNS if column not in table.columns]:
        what = f"expected the columns {missing} but got {list(table.columns)}."
        return [Problem(what, file, row=1)]
    problems = [] if len(table) else [Problem("expected at least one row but got none.", file)]

    def each(column: str, wrong: pd.Series, what: str) -> None:
        for i in table.index[wrong]:
            value = table[column][i]
            problems.append(Problem(what.format(value=value), file, int(i) + 2, column))

    again = table["patch_id"].duplicated()
    each("patch_id", again, "expected a unique id but got {value!r} again.")
    for column in ("patch_id", "file", "patient_id"):
        each(column, table[column].str.strip() == "", "expected a value but the cell is empty.")
    problems += spelling_problems(table["patient_id"], file)
    outside = table["file"].map(lambda f: Path(f).is_absolute() or ".." in Path(f).parts)
    each("file", outside.astype(bool), "expected a path below the cohort folder but got {value!r}.")
    for column in PLACE_COLUMNS[1:]:
        if column in table.columns:
            given = table[column] != ""
            number = pd.to_numeric(table[column], errors="coerce")
            wrong = given & ~np.isfinite(number.to_numpy(dtype=float))
            each(column, wrong, "expected px on level 0, or nothing, but got {value!r}.")
    mpp = pd.to_numeric(table["mpp"], errors="coerce")
    each("mpp", ~mpp.between(0.01, 10), "expected µm per pixel (0.01 to 10) but got {value!r}.")
    for column in table.columns:
        if column.startswith("label_"):
            wrong = ~table[column].isin(["", *labels.SUBTYPES])
            each(column, wrong, f"expected one of {list(labels.SUBTYPES)} but got {{value!r}}.")
        elif column.startswith("atypical_") or column in (MAJORITY_COLUMN, MITOSIS_COLUMN):
            wrong = ~table[column].isin(["", "True", "False"])
            each(column, wrong, "expected True, False or an empty cell but got {value!r}.")
    answers = [c for c in table.columns if c.startswith(("label_", "atypical_"))]
    if MITOSIS_COLUMN in table.columns and answers:
        labelled = (table[MITOSIS_COLUMN] == "False") & (table[answers] != "").any(axis=1)
        each(MITOSIS_COLUMN, labelled, "expected no label of a look-alike but there is one.")
    return sorted(problems, key=lambda p: p.row or 0)
