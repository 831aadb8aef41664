"""From tables of classified slides to the biomarker: per slide, per patient, one page each."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atypia.biomarker import (
    HotspotChoice,
    ModelErrors,
    areas_of,
    as_json,
    audit_plan,
    biomarkers,
    by_patient,
    cohort_table,
    column_meanings,
    images_of,
    log_unknown_areas,
    model_errors,
    open_image,
    read_audit,
    read_patients,
    read_regions,
    read_slides,
    slides_table,
)
from atypia.core.files import building_folder, write_json, write_text
from atypia.core.progress import OnDone, silent
from atypia.core.tables import csv_text
from atypia.reports.biomarker_page import BiomarkerPage, render_summary
from atypia.reports.pdf import check_pdf, write_pdf
from atypia.slides.slide_names import file_names
from atypia.slides.tissue import tissue_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atypia.biomarker import PatientBiomarkers, SlideBiomarkers

log = logging.getLogger("atypia")


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
    audit: Path | None = None,
    audit_plan_n: int | None = None,
    pdf: bool = False,
    count_all: bool = False,
    on_start: OnDone = silent,
    on_done: OnDone = silent,
) -> tuple[list[SlideBiomarkers], list[PatientBiomarkers]]:
    """Measure slides and patients; write tables, outlines and a page per slide into a new folder.

    ``cohort.csv`` (a row per patient), ``slides.csv``, ``columns.csv`` (their meanings),
    ``biomarkers.json`` (everything), ``slides/NAME.html``, ``.pdf``, ``NAME-hotspot.geojson``.

    Args:
        tables: CSV files as ``atypia slide`` writes them.
        out: The folder to make.
        area: See :func:`atypia.biomarker.areas_of`.
        regions: Annotated regions; see :func:`atypia.biomarker.read_regions`.
        choice: Which hot-spot.
        patients: CSV with ``slide`` and ``patient_id``.
        model: Which one classified the figures: its errors are corrected for; see
            :func:`atypia.biomarker.model_errors`.
        label: By whose eyes: the rater, majority or latent truth that values are corrected by.
        images: Folder with the slides, for their tissue and the gallery.
        audit: What people found among the figures; see :func:`atypia.biomarker.read_audit`.
        audit_plan_n: Also write ``audit.csv``: see :func:`atypia.biomarker.audit_plan`.
        pdf: Also write each page as a PDF.
        count_all: See :meth:`atypia.biomarker.SlideFigures.counted`.
        on_start: With `on_done`, called with numbers of slides.

    Raises:
        InputError: Lists every problem of an input; nothing is written.
        MissingExtraError: The extra ``pdf`` is not installed, and asked for.
        AtypiaError: A process that was to read a slide ended at once, or PDF cannot be written.
    """
    if pdf:
        check_pdf()
    found = read_slides(tables, read_patients(patients) if patients else None)
    sources = [source.counted(count_all=count_all) for source in found]
    names = [source.slide for source in sources]
    errors = model_errors(model, label) if model is not None else ModelErrors()
    if errors.errors is None:
        log.warning("No errors of a model are known: values are plain counts, not corrected.")
    errors = errors.check_calls(sources)
    correction = errors.at_site(sources)
    mpp_of = {source.slide: source.mpp for source in sources}
    region_of = read_regions(regions, names, mpp_of) if regions else {}
    area_of = areas_of(names, area)
    choice = choice or HotspotChoice()
    audited = read_audit(audit, sources) if audit else None
    on_start(len(sources))
    slides: list[SlideBiomarkers] = []
    with building_folder(out) as folder:
        for source, name in zip(sources, file_names(names), strict=True):
            with open_image(images, source) as image:
                origin = image.info.origin if image else source.origin
                region = region_of.get(source.slide)
                slide = biomarkers(
                    source,
                    area_of.get(source.slide),
                    region.moved(*origin) if region else None,
                    image.info.mpp if image else None,
                    choice,
                    correction,
                    tissue=tissue_of(image) if image else None,
                )
                slide = audited.corrected(slide, source.patient) if audited else slide
                patches = images_of(image, source) if image else None
                page = render_summary(BiomarkerPage(slide, patches, errors.errors, errors.facts))
            write_text(folder / "slides" / f"{name}.html", page)
            if pdf:
                write_pdf(folder / "slides" / f"{name}.pdf", page)
            if (outline := slide.hotspot_outline(origin)) is not None:
                write_json(folder / "slides" / f"{name}-hotspot.geojson", outline)
            slides.append(slide)
            on_done(1)
        log_unknown_areas(slides)
        cohort = by_patient(slides, correction, choice.of)
        if audited is not None:
            audited.check_hotspots(slides)
            cohort = [audited.corrected(patient, patient.patient) for patient in cohort]
        written = {
            "cohort.csv": cohort_table(cohort),
            "slides.csv": slides_table(slides),
            "columns.csv": column_meanings(),
        }
        if audit_plan_n is not None:
            written["audit.csv"] = audit_plan(slides, audit_plan_n)
        for name, table in written.items():
            write_text(folder / name, csv_text(table, float_format="%.6g"))
        everything = as_json(slides, cohort, choice, errors, correction, audited)
        write_json(folder / "biomarkers.json", everything)
    return slides, cohort
