"""Classify the candidates of a slide and write the answers in the forms that people open."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from atypia.biomarker import biomarkers, region_of, slide_figures
from atypia.classifiers.loading import find_model, load_ensemble
from atypia.core.choices import BEST, RELEASED
from atypia.core.errors import InputError, MissingExtraError, Problem
from atypia.core.files import write_json, write_text
from atypia.core.progress import OnDone, silent
from atypia.evaluation.predictions import in_order, write_predictions
from atypia.inference.patch_predictions import prediction_records
from atypia.inference.slide_predictions import classify_slide
from atypia.pipeline.biomarker import ModelErrors, images_of, model_errors
from atypia.reports.biomarker_page import BiomarkerPage, render_summary
from atypia.reports.pdf import check_pdf, write_pdf
from atypia.slides.candidates import read_candidates
from atypia.slides.dicom_annotations import find_base_image, is_slide_image, write_dicom_annotations
from atypia.slides.geojson_writer import write_geojson
from atypia.slides.slide_pool import SlidePool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from atypia.biomarker import SlideBiomarkers
    from atypia.slides import SlideInfo
    from atypia.slides.candidates import CandidateList
    from atypia.slides.candidates.read_candidates import Units

FORMS: Final = (".geojson", ".csv", ".json", ".dcm", ".html", ".pdf")

log = logging.getLogger("atypia")


@dataclass(frozen=True)
class SlidePredictions:
    """What was found on a slide."""

    table: pd.DataFrame
    """One row per figure; see :func:`atypia.inference.slide_predictions.classify_slide`."""
    found: CandidateList
    """The candidates and annotated regions, and what was skipped."""
    unread: Sequence[Problem]
    """One for each candidate whose place on the slide cannot be read."""
    info: SlideInfo
    biomarkers: SlideBiomarkers
    """Densities and atypical fraction of the annotated regions, the hot-spot, and of all."""


def slide(
    path: Path,
    candidates: Path,
    outs: Sequence[Path],
    model: Path | str = RELEASED,
    *,
    quality: str = BEST,
    mpp: float | None = None,
    units: Units | None = None,
    backend: str = "auto",
    device: str = "auto",
    skip_bad: bool = False,
    on_start: OnDone = silent,
    on_done: OnDone = silent,
) -> SlidePredictions:
    """Classify the candidates of a slide.

    A file of candidates that holds none gives tables without a row: nothing was found there.

    Args:
        path: The slide; see :func:`atypia.slides.open_slide`.
        candidates: Where figures were found; see :func:`read_candidates`.
        outs: What to write: ``.geojson`` for QuPath, ``.csv``, ``.json``, ``.dcm`` (DICOM
            annotations, for a DICOM slide), or the summary page: ``.html``, ``.pdf``.
        model: ``released`` for the model in the package, a bundle, a run folder, or an export.
        quality: ``best``, or ``fast`` where the model has it.
        mpp: µm per pixel, where the slide does not say it or says it wrongly.
        units: ``px`` or ``um``, where the file of candidates does not say it.
        backend: ``auto``, ``torch``, ``onnx`` or ``onnx-int8``; see
            :func:`atypia.classifiers.loading.load_ensemble`.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        skip_bad: Leave out bad candidates, and return what is wrong with them.
        on_start: Called with the number of candidates.
        on_done: Called with the number of candidates done since the last call.

    Raises:
        InputError: Lists every problem of the slide, of the candidates or of the options; nothing
            is written.
        MissingExtraError: What reads the slide or writes DICOM or PDF is not installed.
        AtypiaError: Not one of the candidates could be read.
    """
    _check(path, candidates, outs, mpp)
    forms = [_form(out) for out in outs]
    if ".pdf" in forms:
        check_pdf()
    folder = find_model(model)
    with SlidePool(path, mpp=mpp) as pool:
        info = pool.info
        found = read_candidates(candidates, info, units=units, skip_bad=skip_bad)
        _check_dicom([out for out in outs if _form(out) == ".dcm"], info, len(found.candidates))
        if info.origin != (0, 0):
            log.info(
                "%s: the scanned part begins at %d, %d px; QuPath, and so GeoJSON, counts from "
                "there, everything else from the corner of level 0",
                path,
                *info.origin,
            )
        if mpp is not None and info.stated_mpp and abs(info.stated_mpp / mpp - 1) > 0.02:
            log.warning(
                "%s says %.4g µm per pixel, but --mpp %.4g is taken", path, info.stated_mpp, mpp
            )
        on_start(len(found.candidates))
        # Only now, with torch: errors above need not wait for it.
        ensemble = load_ensemble(folder, quality, backend=backend, device=device)
        table, unread = classify_slide(ensemble, pool, found.candidates, on_done=on_done)
        known = _known_errors(folder, quality)
        answers = SlidePredictions(table, found, unread, info, _measure(table, found, info, known))
        page = ""
        if {".html", ".pdf"} & set(forms):
            images = images_of(pool, answers.biomarkers.source)
            missing = len(unread) + len(found.problems)
            page = render_summary(
                BiomarkerPage(answers.biomarkers, images, known.errors, known.facts, missing)
            )
    for out in outs:
        _write(out, answers, ensemble.field_of_view_um, page)
    return answers


def _known_errors(folder: Path, quality: str) -> ModelErrors:
    """Find the model's errors, where it has them; an export, for one, has none."""
    try:
        return model_errors(folder, quality=quality)
    except InputError:
        return ModelErrors()


def _measure(
    table: pd.DataFrame, found: CandidateList, info: SlideInfo, known: ModelErrors
) -> SlideBiomarkers:
    region = None
    try:
        region = region_of([region.geometry for region in found.regions])
    except MissingExtraError as error:
        log.warning("The annotated regions are not measured. %s", error)
    rates = known.errors.rates() if known.errors else None
    source = slide_figures(table, info.path.name)
    extent = None if info.mpp is None else info.width * info.height * info.mpp**2 / 1e6
    return biomarkers(source, region=region, mpp=info.mpp, errors=rates, extent_mm2=extent)


def _form(out: Path) -> str:
    return out.suffix.lower()


def _check(path: Path, candidates: Path, outs: Sequence[Path], mpp: float | None) -> None:
    problems = [
        Problem(f"--out: expected a name that ends in one of {list(FORMS)} but got {out.name!r}.")
        for out in outs
        if _form(out) not in FORMS
    ]
    taken = {path.resolve(): "the slide", candidates.resolve(): "the candidates"}
    for out in outs:
        if out.resolve() in taken:
            what = f"--out: expected a file of its own but {out} is {taken[out.resolve()]}."
            problems.append(Problem(what))
        taken.setdefault(out.resolve(), "another --out")
    if mpp is not None and not 0.01 <= mpp <= 10:
        problems.append(Problem(f"--mpp: expected µm per pixel (0.01 to 10) but got {mpp:g}."))
    if problems:
        raise InputError(problems)


def _check_dicom(outs: Sequence[Path], info: SlideInfo, n_candidates: int) -> None:
    """Tell what is wrong with DICOM as a form before the work, not after it."""
    if not outs:
        return
    find_base_image(info)
    if slides := [out for out in outs if is_slide_image(out)]:
        raise InputError(f"--out: {slides[0]} is a part of a DICOM slide. Choose another name.")
    if not n_candidates:
        what = "--out: DICOM annotations hold at least one figure and there is none to classify."
        raise InputError(f"{what} Leave out {outs[0].name}.")


def _write(out: Path, answers: SlidePredictions, field_um: float, page: str) -> None:
    table, info = answers.table, answers.info
    kind = _form(out)
    if kind == ".html":
        write_text(out, page)
    elif kind == ".pdf":
        write_pdf(out, page)
    elif kind == ".geojson":
        write_geojson(out, table, answers.found.candidates, info, field_um)
    elif kind == ".csv" and table.empty:
        write_text(out, table[in_order(table.columns)].to_csv(index=False, lineterminator="\n"))
    elif kind == ".csv":
        write_predictions(out, table, patients_known=False)
    elif kind == ".dcm":
        write_dicom_annotations(out, table, info)
    else:
        content = {
            "slide": info.path.name,
            "width_px": info.width,
            "height_px": info.height,
            "mpp": info.mpp,
            "figures": prediction_records(table),
            "problems": [str(p) for p in (*answers.found.problems, *answers.unread)],
        }
        write_json(out, content)
