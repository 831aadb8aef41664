"""Classify the candidates of a slide and write the predictions in the forms that people open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from atypia.biomarker import ModelErrors, NoErrorsError, images_of, measure_table, model_errors
from atypia.classifiers.bundle import HEADER
from atypia.classifiers.loading import find_model, load_ensemble
from atypia.core.choices import BALANCED, BEST, RELEASED
from atypia.core.errors import InputError, Problem
from atypia.core.files import overwriting, write_json, write_text, wrong_suffix
from atypia.core.labels import left_out
from atypia.core.progress import OnDone, silent
from atypia.inference.patch_predictions import prediction_records, write_table
from atypia.inference.slide_predictions import SlidePredictions, classify_slide
from atypia.reports.biomarker_page import BiomarkerPage, render_summary
from atypia.reports.pdf import check_pdf, write_pdf
from atypia.slides.dicom_annotations import check_dicom_output, write_dicom_annotations
from atypia.slides.geojson_writer import write_geojson
from atypia.slides.read_candidates import read_candidates
from atypia.slides.reader import mpp_problems
from atypia.slides.slide_pool import SlidePool
from atypia.slides.tissue import tissue_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atypia.slides.read_candidates import Units

FORMS: Final = (".geojson", ".csv", ".json", ".dcm", ".html", ".pdf")


def slide(
    path: Path,
    candidates: Path,
    outs: Sequence[Path],
    model: Path | str = RELEASED,
    *,
    quality: str = BEST,
    operating_point: str = BALANCED,
    mpp: float | None = None,
    units: Units | None = None,
    backend: str = "auto",
    device: str = "auto",
    skip_bad: bool = False,
    all_classes: bool = False,
    count_all: bool = False,
    on_start: OnDone = silent,
    on_done: OnDone = silent,
) -> SlidePredictions:
    """Classify the candidates of a slide.

    A file of candidates that holds none gives tables without a row: nothing was found there.
    Nothing is written where the slide, the candidates or the options are wrong.

    Args:
        path: The slide; see :func:`atypia.slides.open_slide`.
        candidates: Where figures were found; see :func:`read_candidates`.
        outs: What to write: ``.geojson`` for QuPath, ``.csv``, ``.json``, ``.dcm`` (DICOM
            annotations, for a DICOM slide), or the summary page: ``.html``, ``.pdf``.
        model: With `quality` to `device` as for :func:`load_ensemble`.
        mpp: µm per pixel, where that of the slide is missing or wrong.
        units: ``px`` or ``um``, where the file of candidates does not name them.
        skip_bad: With `all_classes` as for :func:`read_candidates`; what is bad is returned.
        count_all: Call and count what the model does not answer for, too.
        on_start: With `on_done`, called with numbers of candidates.

    Raises:
        InputError: Lists every problem of the slide, of the candidates or of the options.
        MissingExtraError: What reads the slide or writes DICOM or PDF is not installed.
        AtypiaError: Not one of the candidates could be read.
    """
    _check(path, candidates, outs, mpp)
    forms = {out: out.suffix.lower() for out in outs}
    if ".pdf" in forms.values():
        check_pdf()
    folder = find_model(model)
    with SlidePool(path, mpp=mpp) as pool:
        info = pool.info
        found = read_candidates(
            candidates, info, units=units, skip_bad=skip_bad, all_classes=all_classes
        )
        check_dicom_output([o for o in outs if forms[o] == ".dcm"], info, len(found.candidates))
        info.log_oddities(mpp)
        on_start(len(found.candidates))
        # Only now: the errors above need not wait for the model.
        ensemble = load_ensemble(
            folder, quality, backend=backend, device=device, operating_point=operating_point
        )
        errors = _errors_of(folder, quality)
        table, unread = classify_slide(
            ensemble, pool, found.candidates, count_all=count_all, on_done=on_done
        )
        for out, form in forms.items():  # first: what follows cannot lose the answers
            if form == ".geojson":
                write_geojson(out, table, found.candidates, info, ensemble.field_of_view_um)
            elif form == ".csv":
                write_table(out, table)
            elif form == ".dcm":
                write_dicom_annotations(out, table, info)
            elif form == ".json":
                content = {
                    "slide": info.path.name,
                    "width_px": info.width,
                    "height_px": info.height,
                    "mpp": info.mpp,
                    "figures": prediction_records(table),
                    "not_answered": left_out(table.get("status", ())),
                    "left_out": found.left_out,
                    "problems": [str(problem) for problem in (*found.problems, *unread)],
                }
                write_json(out, content)
        outlines = [region.geometry for region in found.regions]
        measured = measure_table(
            table, outlines, info, errors, tissue_of(pool), count_all=count_all
        )
        if pages := [out for out, form in forms.items() if form in (".html", ".pdf")]:
            images = images_of(pool, measured.source)
            missing = len(unread) + len(found.problems)
            called = f"{ensemble.threshold:.3f} ({operating_point})"
            facts = errors.facts | {"Called atypical from p": called}
            page = render_summary(BiomarkerPage(measured, images, errors.errors, facts, missing))
            for out in pages:
                (write_pdf if forms[out] == ".pdf" else write_text)(out, page)
    return SlidePredictions(table, found, unread, info, measured)


def _check(path: Path, candidates: Path, outs: Sequence[Path], mpp: float | None) -> None:
    problems = [problem for out in outs for problem in wrong_suffix("--out", out, *FORMS)]
    problems += overwriting(outs, [path, candidates], "--out")
    if len({out.resolve() for out in outs}) < len(outs):
        problems.append(Problem("--out: expected each file once."))
    problems += mpp_problems(mpp)
    if problems:
        raise InputError(problems)


def _errors_of(folder: Path, quality: str) -> ModelErrors:
    """Find the model's errors, where it has them; an export has none."""
    if not (folder / HEADER).is_file():
        return ModelErrors()
    try:
        return model_errors(folder, quality=quality)
    except NoErrorsError:
        return ModelErrors()
