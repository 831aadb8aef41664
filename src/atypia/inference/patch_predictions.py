"""Classify patches from files, folders, multi-page stacks, cohorts and arrays."""

from __future__ import annotations

import json
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from atypia.classifiers.answers import Answers, joined
from atypia.classifiers.decision import p_atypical
from atypia.core.errors import InputError, Problem
from atypia.core.files import write_json, write_text
from atypia.core.found_files import files_below, refuse_special, require_utf8
from atypia.core.labels import (
    N_ATYPICAL,
    PROBABILITY_COLUMNS,
    SUBTYPES,
    subtype_index,
)
from atypia.core.progress import OnDone, silent
from atypia.core.tables import csv_text
from atypia.data.cohort import Cohort
from atypia.data.images import IMAGE_SUFFIXES, read_pages
from atypia.evaluation.predictions import in_order, predictions_from_table, write_predictions
from atypia.slides.reader import mpp_problems
from atypia.slides.tiff_reader import tiff_mpp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.classifiers.answers import Explanation
    from atypia.classifiers.postprocessing import Postprocessing
    from atypia.classifiers.protocol import SubtypeModel

CHUNK = 128
_DECISION = (
    "p_atypical",
    "threshold",
    "operating_point",
    "predicted_atypical",
    "predicted_subtype",
    "conformal_set",
)
"""Keys of a record, in the order in which one follows from the other."""

log = logging.getLogger("atypia")


@dataclass(frozen=True)
class PatchFile:
    """One image file to classify; a stack gives one patch per page."""

    patch_id: str
    path: Path
    mpp: float
    about: dict[str, Any]
    """Further cells of its row: patient, domain, labels."""


@dataclass(frozen=True)
class _DecodedPatch:
    """One decoded patch."""

    pixels: npt.NDArray[np.uint8]
    """(H, W, 3)."""
    mpp: float
    about: dict[str, Any]
    """Cells of its row, its id first."""


def find_items(inputs: Sequence[Path], mpp: float | None) -> list[PatchFile]:
    """List what to classify: images, stacks, folders (read recursively) or cohort folders.

    `mpp` is that of everything that is not in a cohort; None where each such file carries its own,
    see :func:`atypia.slides.tiff_reader.tiff_mpp`.

    Raises:
        InputError: Lists every input that does not exist, holds no image or has no known
            resolution, and every patch id that occurs twice.
    """
    items: list[PatchFile] = []
    problems = mpp_problems(mpp)
    require_utf8(inputs)
    for path in inputs:
        if (path / "cohort.json").is_file():
            items += cohort_items(Cohort.open(path, verify=True))
        elif not path.exists():
            problems.append(Problem("does not exist.", str(path)))
        else:
            found, faults = _file_items(path, mpp)
            items += found
            problems += faults
    first: dict[str, Path] = {}
    for item in items:
        if item.patch_id in first:
            problems.append(
                Problem(
                    f"has the patch id {item.patch_id!r}, like {first[item.patch_id]}. Rename one, "
                    "or give the folder above both.",
                    str(item.path),
                )
            )
        first.setdefault(item.patch_id, item.path)
    if problems:
        raise InputError(problems)
    return items


def _file_items(path: Path, mpp: float | None) -> tuple[list[PatchFile], list[Problem]]:
    """Items of an image or of a folder of images, and what is wrong with them."""
    files, names = [path], [path.stem]
    if path.is_dir():
        every = files_below(path)
        files = [p for p in every if p.suffix.lower() in IMAGE_SUFFIXES]
        if len(files) < len(every):
            log.warning("%s: %d files are no images", path, len(every) - len(files))
        if not files:
            return [], [Problem("expected images in this folder but found none.", str(path))]
        names = [file.relative_to(path).with_suffix("").as_posix() for file in files]
    items, problems, unknown = [], [], 0
    for name, file in zip(names, files, strict=True):
        try:
            refuse_special(file)
            own = tiff_mpp(file) if mpp is None else mpp
        except InputError as error:
            problems += error.problems
            continue
        if own is None:
            unknown += 1
        else:
            items.append(PatchFile(name, file, own, {"patient_id": "", "domain": ""}))
    if unknown:
        who = f"{unknown:,} of {len(files):,} images do" if path.is_dir() else "the file does"
        what = f"{who} not tell the µm per pixel, which a model must know. Give --mpp."
        problems.append(Problem(what, str(path)))
    return items, problems


def cohort_items(cohort: Cohort) -> Iterator[PatchFile]:
    """Give every patch of a cohort, in the order of the manifest."""
    columns = [c for c in cohort.manifest.columns if c not in ("patch_id", "file", "mpp")]
    for row, path in zip(cohort.manifest.to_dict("records"), cohort.image_paths(), strict=True):
        yield PatchFile(row["patch_id"], path, row["mpp"], {c: row[c] for c in columns})


def predict_items(
    model: SubtypeModel,
    items: Sequence[PatchFile],
    *,
    skip_bad: bool = False,
    batch_size: int = 64,
    on_done: OnDone = silent,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Classify items: a row per patch in the columns of ``predictions.csv``, and what was skipped.

    Decoded in threads and classified in chunks, so memory does not grow with their number.

    Args:
        model: To classify with.
        items: From :func:`find_items`.
        skip_bad: Leave out what cannot be read instead of raising, and report it.
        batch_size: Patches per step; predictions do not depend on it.
        on_done: Called with the number of items done since the last call.

    Raises:
        InputError: Lists every image that cannot be read or is too small for the model.
    """
    tables: list[pd.DataFrame] = []
    problems: list[Problem] = []
    mirrored = 0
    with ThreadPoolExecutor() as pool:
        remaining = iter(items)
        chunk = list(islice(remaining, CHUNK))
        waiting = [pool.submit(_decode, item, model) for item in chunk]
        while chunk:
            following = list(islice(remaining, CHUNK))
            # The next chunk is decoded while the network works on this one.
            next_waiting = [pool.submit(_decode, item, model) for item in following]
            decoded = [future.result() for future in waiting]
            problems += [p for _, faults in decoded for p in faults]
            patches = [patch for found, _ in decoded for patch in found]
            mirrored += _n_mirrored(model, patches)
            if patches and (skip_bad or not problems):
                tables.append(_classify(model, patches, batch_size))
            on_done(len(chunk))
            chunk, waiting = following, next_waiting
    if problems and not skip_bad:
        raise InputError(problems)
    if not tables:
        raise InputError([*problems, Problem("Nothing is left to classify.")])
    _warn_of_mirrored(model, mirrored)
    return pd.concat(tables, ignore_index=True), problems


def predict_arrays(
    model: SubtypeModel,
    arrays: Sequence[npt.NDArray[np.uint8]],
    mpp: float,
    *,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Classify (H, W, 3) RGB uint8 arrays of any sizes; ``patch_id`` counts from 0.

    Other arguments and columns as for :func:`predict_items`.

    Raises:
        InputError: Lists every array that is no patch or too small for the model.
    """
    if problems := mpp_problems(mpp):
        raise InputError(problems)
    patches = []
    for i, array in enumerate(arrays):
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            what = f"expected shape (H, W, 3) and type uint8 but got {array.shape}, {array.dtype}."
            problems.append(Problem(f"patch {i}: {what}"))
            continue
        fault = model.size_problem(min(array.shape[:2]), mpp)
        if fault:
            problems.append(Problem(f"patch {i}: {fault}"))
        about = {"patch_id": str(i), "patient_id": "", "domain": ""}
        patches.append(_DecodedPatch(_central_part(array, model, mpp), mpp, about))
    if len(arrays) == 0:
        problems.append(Problem("expected at least one patch but got none."))
    if problems:
        raise InputError(problems)
    _warn_of_mirrored(model, _n_mirrored(model, patches))
    return _classify(model, patches, batch_size)


def _decode(item: PatchFile, model: SubtypeModel) -> tuple[list[_DecodedPatch], list[Problem]]:
    """Pages of one file, each large enough for the model, or what is wrong with them."""
    try:
        pages = read_pages(item.path)
    except InputError as error:
        return [], error.problems
    faults = [model.size_problem(min(page.shape[:2]), item.mpp) for page in pages]
    for fault in filter(None, faults):
        return [], [Problem(fault, str(item.path))]
    names = [item.patch_id]
    if len(pages) > 1:
        names = [f"{item.patch_id}/{number}" for number in range(len(pages))]
    patches = [
        _DecodedPatch(
            _central_part(page, model, item.mpp), item.mpp, {"patch_id": name, **item.about}
        )
        for name, page in zip(names, pages, strict=True)
    ]
    return patches, []


def _central_part(
    page: npt.NDArray[np.uint8], model: SubtypeModel, mpp: float
) -> npt.NDArray[np.uint8]:
    """Cut a page down to what the networks see, so that pages of many sizes share a batch.

    A margin stays for the smoothing before a coarser sampling; an odd rest stays, too, as the
    centre must not move.
    """
    step = max(spec.field_of_view_um / spec.size_px for spec in model.specs or ()) / mpp
    side = math.ceil(model.field_of_view_um / mpp) + 2 * math.ceil(1.5 * step + 2)
    height, width, _ = page.shape
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return np.ascontiguousarray(page[top : height - top, left : width - left])


def _n_mirrored(model: SubtypeModel, patches: Iterable[_DecodedPatch]) -> int:
    needed = model.field_of_view_um * 0.999
    return sum(min(patch.pixels.shape[:2]) * patch.mpp < needed for patch in patches)


def _warn_of_mirrored(model: SubtypeModel, n: int) -> None:
    if n:
        log.warning(
            "%d %s smaller than the model's field of view, %g µm: what lies beyond the edge is "
            "mirrored. Answers on whole patches are better.",
            n,
            "patch is" if n == 1 else "patches are",
            model.field_of_view_um,
        )


def _classify(
    model: SubtypeModel, patches: Sequence[_DecodedPatch], batch_size: int
) -> pd.DataFrame:
    # Patches of one shape and resolution go through the network together.
    groups: dict[tuple[tuple[int, ...], float], list[int]] = {}
    for i, patch in enumerate(patches):
        groups.setdefault((patch.pixels.shape, patch.mpp), []).append(i)
    parts = [
        model.answer(np.stack([patches[i].pixels for i in members]), mpp, batch_size)
        for (_, mpp), members in groups.items()
    ]
    order = np.argsort(np.concatenate([np.array(members) for members in groups.values()]))
    about = pd.DataFrame([patch.about for patch in patches])
    return prediction_table(about, joined(parts).take(order), model.postprocessing)


def with_reasons(table: pd.DataFrame, reasons: Sequence[Explanation]) -> pd.DataFrame:
    """Add the columns ``reason`` and ``measures`` (JSON), where a model gives reasons."""
    if not reasons:
        return table
    measures = [
        json.dumps({name: float(f"{value:.4g}") for name, value in reason.measures.items()})
        for reason in reasons
    ]
    return table.assign(reason=[reason.reason for reason in reasons], measures=measures)


def with_abstained(table: pd.DataFrame, minimum: float) -> pd.DataFrame:
    """Add the column ``abstained``: whether the named subtype is less probable than `minimum`.

    It is False where no subtype is named.

    Raises:
        InputError: `minimum` is no probability.
    """
    from atypia.evaluation.uncertainty_scores import (
        abstain,  # with scipy, which no other answer needs
    )

    named = (table["predicted_subtype"] != "").to_numpy()
    predicted = table["predicted_subtype"].where(named, SUBTYPES[0]).map(subtype_index)
    probabilities = table[list(PROBABILITY_COLUMNS)].to_numpy(dtype=np.float64)
    unsure = abstain(probabilities, minimum, predicted.to_numpy(dtype=np.int64))
    return table.assign(abstained=unsure & named)


def prediction_table(
    about: pd.DataFrame,
    answers: Answers,
    postprocessing: Postprocessing,
    fold: Any = "",
    *,
    sets: bool = True,
    count_all: bool = False,
) -> pd.DataFrame:
    """Join what is known of N patches with a model's answers, as ``predictions.csv`` has them.

    Args:
        about: (N rows) at least ``patch_id``; labels and votes are kept.
        answers: On the patches.
        postprocessing: From probabilities to subtypes, calls and prediction sets.
        fold: Of each row, or of all.
        sets: Whether prediction sets are wanted, in ``conformal_set``: the named subtype, then
            others by falling score, joined by ``|``.
        count_all: Call what is not answered, too.

    Returns:
        N rows. Where the answers have a status, so has each row, with ``p_mitosis``, and what is
        not answered has probabilities alone: no subtype, no call (NA), no set. The table's
        ``attrs`` hold ``threshold`` and ``operating_point``.
    """
    probabilities = answers.probabilities
    table = about.drop(columns=["file", "mpp"], errors="ignore").reset_index(drop=True)
    table["fold"] = fold
    table[list(PROBABILITY_COLUMNS)] = probabilities
    table["p_atypical"] = p_atypical(probabilities)
    subtypes = postprocessing.subtypes(probabilities)
    table["predicted_subtype"] = np.array(SUBTYPES)[subtypes]
    table["predicted_atypical"] = subtypes < N_ATYPICAL
    if sets and postprocessing.conformal is not None:
        table["conformal_set"] = postprocessing.conformal.names(probabilities, subtypes)
    if answers.status is not None:
        table["predicted_atypical"] = table["predicted_atypical"].astype("boolean")
        uncalled = ~answers.answered & (not count_all)
        table.loc[uncalled, "predicted_atypical"] = pd.NA
        for column in {"predicted_subtype", "conformal_set"} & set(table.columns):
            table.loc[uncalled, column] = ""
        table["p_mitosis"] = answers.p_mitosis
        table["status"] = answers.status
    table.attrs = {
        "threshold": postprocessing.threshold,
        "operating_point": postprocessing.operating_point,
    }
    return with_reasons(table, answers.reasons)


def prediction_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One object per row: probabilities by subtype, sets as lists, the rest as it is.

    Threshold and operating point stand beside ``p_atypical``. What has no call has None for call
    and subtype.
    """
    table = table.assign(**{str(key): value for key, value in table.attrs.items()})
    columns = [c for c in table.columns if c not in PROBABILITY_COLUMNS]
    plain = columns[: columns.index("p_atypical")] + [c for c in _DECISION if c in columns]
    plain += [c for c in columns if c not in plain]
    probabilities = table[list(PROBABILITY_COLUMNS)].to_numpy(dtype=np.float64)
    records = []
    for row, p in zip(table[plain].to_dict("records"), probabilities, strict=True):
        if "conformal_set" in row:
            row["conformal_set"] = [s for s in row["conformal_set"].split("|") if s in SUBTYPES]
        if "measures" in row:
            row["measures"] = json.loads(row["measures"])
        if "status" in row:
            row["p_mitosis"] = None if np.isnan(row["p_mitosis"]) else _rounded(row["p_mitosis"])
            if not row["predicted_subtype"]:
                row |= {"predicted_subtype": None, "predicted_atypical": None}
        row["p_atypical"] = _rounded(row["p_atypical"])
        row["probabilities"] = {s: _rounded(v) for s, v in zip(SUBTYPES, p, strict=True)}
        records.append({str(key): value for key, value in row.items()})
    return records


def write_table(out: Path, table: pd.DataFrame) -> None:
    """Write predictions as ``.csv``, or as ``.json`` with what is too much for a cell.

    A table of figures that were looked for and not found has a header and no row.

    Raises:
        InputError: Lists every problem of the table; nothing is written.
    """
    if out.suffix.lower() == ".json":
        predictions_from_table(table.assign(patient_id="unknown"), str(out))
        write_json(out, prediction_records(table))
        return
    plain = table.drop(columns="measures", errors="ignore")
    if plain.empty:
        write_text(out, csv_text(plain[in_order(plain.columns)]))
    else:
        write_predictions(out, plain, patients_known=False)


def _rounded(value: float) -> float:
    """Nine significant digits, which is all of a float32."""
    return float(f"{value:.9g}")
