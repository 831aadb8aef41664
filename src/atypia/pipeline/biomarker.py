"""From tables of classified slides to the biomarker: per slide, per patient, one page each."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.biomarker import (
    ErrorModel,
    HotspotChoice,
    biomarkers,
    by_patient,
    cohort_table,
    column_meanings,
    read_areas,
    read_patients,
    read_regions,
    read_slides,
    slides_table,
)
from atypia.classifiers.bundle import HEADER, find_bundle
from atypia.core.choices import BEST
from atypia.core.errors import InputError, Problem
from atypia.core.files import building_folder, read_json, write_json, write_text
from atypia.core.progress import OnDone, silent
from atypia.evaluation.intervals import LEVEL
from atypia.evaluation.predictions import read_predictions
from atypia.reports.biomarker_page import BiomarkerPage, render_summary
from atypia.reports.pdf import check_pdf, write_pdf
from atypia.slides.slide_pool import SlidePool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    import pandas as pd

    from atypia.biomarker import PatientBiomarkers, SlideBiomarkers, SlideFigures
    from atypia.reports.report_input import Patches

log = logging.getLogger("atypia")

FIELD_UM: Final = 32.0
"""Side of the images in the gallery."""
_IMAGE_MPP: Final = 0.25
_ROUNDING: Final = 1e-6
"""A table holds p_atypical with fewer digits than a model.json its threshold."""


@dataclass(frozen=True)
class ModelErrors:
    """A model's errors, and what a page tells of the model."""

    errors: ErrorModel | None = None
    facts: dict[str, str] = field(default_factory=dict)
    threshold: float | None = None
    """The model calls a figure atypical from this p_atypical on; None where it is not known."""


def biomarker(
    tables: Sequence[Path],
    out: Path,
    *,
    area: float | Path | None = None,
    regions: Path | None = None,
    choice: HotspotChoice | None = None,
    patients: Path | None = None,
    model: str | Path | None = None,
    label: str | None = None,
    images: Path | None = None,
    pdf: bool = False,
    on_start: OnDone = silent,
    on_done: OnDone = silent,
) -> tuple[list[SlideBiomarkers], list[PatientBiomarkers]]:
    """Measure slides and patients; write tables, outlines and a page per slide into a new folder.

    ``cohort.csv`` (a row per patient), ``slides.csv``, ``columns.csv`` (what the columns mean),
    ``biomarkers.json`` (everything), ``slides/NAME.html``, with `pdf` also ``slides/NAME.pdf``,
    and ``slides/NAME-hotspot.geojson``.

    Args:
        tables: CSV files as ``atypia slide`` writes them.
        out: The folder to make.
        area: mm² in which candidates were searched, on every slide, or a CSV with ``slide`` and
            ``area_mm2``.
        regions: Annotated regions; see :func:`atypia.biomarker.read_regions`.
        choice: Which hot-spot.
        patients: CSV with ``slide`` and ``patient_id``.
        model: Whose errors to correct for: the bundle or run folder of the model that classified
            the figures, a table of its out-of-fold predictions, or a JSON of its errors.
        label: What the model is compared with, where `model` does not tell it.
        images: Folder with the slides, for the gallery.
        pdf: Also write each page as a PDF of one sheet.
        on_start: Called with the number of slides.
        on_done: Called with the number of slides done since the last call.

    Raises:
        InputError: Lists every problem of an input; nothing is written.
        MissingExtraError: The extra ``pdf`` is not installed, and asked for.
        AtypiaError: A process that was to read a slide ended at once, or PDF cannot be written.
    """
    if pdf:
        check_pdf()
    sources = read_slides(tables, read_patients(patients) if patients else None)
    names = [source.slide for source in sources]
    known = model_errors(model, label) if model is not None else ModelErrors()
    if known.errors is None:
        log.warning("No errors of a model are known: values are plain counts, not corrected.")
    _check_calls(sources, known)
    rates = known.errors.rates() if known.errors else None
    mpp_of = {source.slide: source.mpp for source in sources}
    region_of = read_regions(regions, names, mpp_of) if regions else {}
    area_of = _areas(area, names)
    choice = choice or HotspotChoice()
    on_start(len(sources))
    slides: list[SlideBiomarkers] = []
    without_density: list[str] = []
    with building_folder(out) as folder:
        for source, file in zip(sources, _file_names(names), strict=True):
            with _open_image(images, source) as image:
                region = region_of.get(source.slide)
                origin = image.info.origin if image else source.origin
                slide = biomarkers(
                    source,
                    area_of.get(source.slide),
                    region.moved(*origin) if region else None,
                    image.info.mpp if image else None,
                    choice,
                    rates,
                )
                if region is not None and slide.mpp is None:
                    without_density.append(source.slide)
                page = render_summary(
                    BiomarkerPage(
                        slide,
                        images_of(image, source) if image else None,
                        known.errors,
                        known.facts,
                    )
                )
                write_text(folder / "slides" / f"{file}.html", page)
                if pdf:
                    write_pdf(folder / "slides" / f"{file}.pdf", page)
                if (outline := _outline(slide, origin)) is not None:
                    write_json(folder / "slides" / f"{file}-hotspot.geojson", outline)
            slides.append(slide)
            on_done(1)
        if without_density:
            log.warning(
                "%d slides have a region but no figure that tells their µm per pixel: no area, and "
                "so no density, though nothing was found there. Give --slides. They are: %s",
                len(without_density),
                ", ".join(without_density),
            )
        joined = by_patient(slides, rates, choice.of)
        _write_table(folder / "cohort.csv", cohort_table(joined))
        _write_table(folder / "slides.csv", slides_table(slides))
        _write_table(folder / "columns.csv", column_meanings())
        write_json(folder / "biomarkers.json", _everything(slides, joined, choice, known))
    return slides, joined


def model_errors(model: str | Path, label: str | None = None, quality: str = BEST) -> ModelErrors:
    """Find the errors of a model, out of fold.

    Args:
        model: A bundle with errors; a run folder, whose out-of-fold predictions are counted; such
            a table; or a JSON of :meth:`ErrorModel.to_json`.
        label: What the model is compared with; None is what the bundle says, else ``expert1``.
        quality: ``best``, or ``fast``, whose errors only a bundle may tell.

    Raises:
        InputError: There is no such file, or it holds no errors.
    """
    path = Path(model)
    if path.suffix == ".csv":
        return ModelErrors(ErrorModel.fit(read_predictions(path), label or "expert1"))
    if path.suffix == ".json":
        return ModelErrors(ErrorModel.from_json(read_json(path), str(path)))
    bundle = find_bundle(model)
    header = read_json(bundle / HEADER)
    told = header.get("provenance", {})
    facts = {"Model": f"{bundle.resolve().parent.name}/{bundle.name}"}
    facts |= {
        name: str(told[key])
        for name, key in (("Trained on", "cohort"), ("Learned from", "label"))
        if told.get(key)
    }
    answers = header if quality == BEST else header.get(quality) or {}
    threshold = float(answers.get("thresholds", header["thresholds"])["atypical"])
    facts["Called atypical from p"] = f"{threshold:.3f}"
    facts["Intended use"] = str(header.get("intended_use", ""))
    if answers.get("errors") is not None:
        errors = ErrorModel.from_json(answers["errors"], str(bundle / HEADER))
        if "teacher_sha256" in told:  # of a student
            facts["Its errors"] = (
                "counted on patients whose labels its teachers had seen: a little optimistic"
            )
        return ModelErrors(errors, facts, threshold)
    if quality != BEST:
        return ModelErrors(None, facts, threshold)
    table = bundle.parent / "predictions-oof.csv"
    if not table.is_file():
        raise InputError(
            f"{bundle} holds no errors and has no out-of-fold predictions beside it. Give the "
            "run folder, or the table predictions-oof.csv of the run."
        )
    compared = label or str(told.get("label") or "expert1")
    return ModelErrors(ErrorModel.fit(read_predictions(table), compared), facts, threshold)


def _check_calls(sources: Sequence[SlideFigures], known: ModelErrors) -> None:
    """Check that the figures are called as the model whose errors are known calls them.

    A bundle's quality ``fast`` has a threshold and errors of its own.

    Raises:
        InputError: They are not.
    """
    if known.threshold is None:
        return
    other = total = 0
    for source in sources:
        p, called = source.figures.p_atypical, source.figures.predicted_atypical
        clear = np.abs(p - known.threshold) > _ROUNDING
        other += int((clear & (called != (p >= known.threshold))).sum())
        total += len(p)
    if other:
        raise InputError(
            f"--model: expected figures that are called atypical from p = {known.threshold:.3f} on,"
            f" as the model does, but {other:,} of {total:,} are not called so. Were they "
            "classified by another model, or with --quality fast? Give the errors of what "
            "classified them, or leave out --model for plain counts."
        )


def _areas(area: float | Path | None, names: Sequence[str]) -> dict[str, float]:
    if area is None:
        return {}
    if isinstance(area, (int, float)):
        if not (np.isfinite(area) and area > 0):
            raise InputError(f"expected an area of more than 0 mm² but got {area:g}.")
        return dict.fromkeys(names, area)
    areas = read_areas(area)
    if missing := [name for name in names if name not in areas]:
        log.warning("%s has no area of %d slides: their densities are empty", area, len(missing))
    return areas


@contextmanager
def _open_image(folder: Path | None, source: SlideFigures) -> Iterator[SlidePool | None]:
    """Open the image of a slide in a process of its own, if there is a folder that has it."""
    path = None
    if folder is not None:
        if not folder.is_dir():
            raise InputError(Problem("expected a folder with slides.", str(folder)))
        exact = folder / source.slide
        same = [p for p in sorted(folder.iterdir()) if p.is_file() and p.stem == source.slide]
        path = exact if exact.exists() else same[0] if len(same) == 1 else None
        if path is None:
            found = f"{len(same)} files of that name" if same else "no such file"
            log.warning("Slide %s: %s in %s, its page has no images", source.slide, found, folder)
    if path is None:
        yield None
        return
    with SlidePool(path, mpp=source.mpp, readers=1) as slide:
        yield slide


def images_of(image: SlidePool, source: SlideFigures) -> Patches:
    """Make what reads the images of figures; one that cannot be read is white, and logged."""
    place = dict(zip(map(str, source.figures.patch_ids), source.centres_px, strict=True))

    def read(names: Sequence[str]) -> list[npt.NDArray[np.uint8]]:
        centres = np.array([place[name] for name in names]).reshape(-1, 2)
        read = image.read(centres, FIELD_UM, _IMAGE_MPP)
        return [checked(name, answer) for name, answer in zip(names, read, strict=True)]

    def checked(name: str, answer: npt.NDArray[np.uint8] | Problem) -> npt.NDArray[np.uint8]:
        if not isinstance(answer, Problem):
            return answer
        # It costs an image, not the measures of a whole cohort.
        log.warning("Slide %s, figure %s has no image: %s", source.slide, name, answer)
        side = round(FIELD_UM / _IMAGE_MPP)
        return np.full((side, side, 3), 255, np.uint8)

    return read


def _outline(slide: SlideBiomarkers, origin: tuple[int, int]) -> dict[str, Any] | None:
    """GeoJSON of the hot-spot in pixels, counted as QuPath does; None if there is none."""
    if slide.hotspot is None or slide.mpp is None:
        return None
    ring = slide.hotspot.outline_um / slide.mpp - np.array(origin)
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [np.round(ring, 2).tolist()]},
        "properties": {
            "objectType": "annotation",
            "name": f"Hot-spot, {slide.hotspot.area_mm2:.3g} mm²",
            "slide": slide.source.slide,
        },
    }
    return {"type": "FeatureCollection", "features": [feature]}


def _everything(
    slides: Sequence[SlideBiomarkers],
    patients: Sequence[PatientBiomarkers],
    choice: HotspotChoice,
    known: ModelErrors,
) -> dict[str, Any]:
    errors = known.errors
    return {
        "hotspot": asdict(choice),
        "interval": {"level": LEVEL},
        "model": known.facts,
        "errors": None
        if errors is None
        else {
            "label": errors.label,
            "n_figures": errors.n_figures,
            "n_patients": errors.n_patients,
            "atypical": errors.atypical.sum(axis=0).tolist(),
        },
        "slides": [
            {
                "slide": slide.source.slide,
                "patient_id": slide.source.patient,
                "mpp": slide.mpp,
                "hotspot_centre_um": slide.hotspot.centre_um if slide.hotspot else None,
                "hotspot_outline_um": np.round(slide.hotspot.outline_um, 2).tolist()
                if slide.hotspot
                else None,
                "hotspot_share_in_region": slide.hotspot_in_region,
                "measures": {k: asdict(m) if m else None for k, m in slide.measures.items()},
            }
            for slide in slides
        ],
        "patients": [
            asdict(replace(patient, measures={}))
            | {"measures": {k: asdict(m) if m else None for k, m in patient.measures.items()}}
            for patient in patients
        ],
    }


def _file_names(names: Sequence[str]) -> list[str]:
    """File names for slides: what no file system minds, each once."""
    taken: set[str] = set()
    files = []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "_", name).strip("._") or "slide"
        file, number = plain, 2
        while file.lower() in taken:
            file, number = f"{plain}-{number}", number + 1
        taken.add(file.lower())
        files.append(file)
    return files


def _write_table(path: Path, table: pd.DataFrame) -> None:
    write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
