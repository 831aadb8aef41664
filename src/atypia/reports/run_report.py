"""``report.html`` of a run: its head, its sections in order, and the numbers that they show."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from markupsafe import Markup

from atypia.core.config import LEAK
from atypia.core.files import read_json, write_text
from atypia.core.labels import SUBTYPES
from atypia.evaluation.predictions import UNKNOWN
from atypia.reports import image_panels, plot_panels, published_results
from atypia.reports.checklist import checklists
from atypia.reports.mitosis_page import MITOSIS, render_mitosis_page
from atypia.reports.page_templates import environment, render
from atypia.reports.report_input import ReportInput, cohort_of, patch_reader, read_run
from atypia.reports.words import capital

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from atypia.data.cohort import Cohort

SECTIONS: Final = {
    "table-1": "Eight subtypes, in the layout of the reference paper’s Table 1",
    "overall": "All subtypes together",
    "binary": "Atypical or normal",
    "raters": "The model among the raters",
    "stages": "In two stages: the side, then the subtype",
    "groups": "By domain and scanner",
    "size": "Class size and sensitivity",
    "confusion": "Confusion matrices",
    "curves": "ROC and precision-recall curves",
    "reliability": "Reliability of the probabilities",
    "selective": "Accuracy against coverage",
    "sets": "Prediction sets",
    "training": "Training",
    "classes": "The eight classes",
    "mistakes": "Most confident mistakes",
    "gallery": "Gallery: the figures behind each cell",
    "splits": "Splits",
    "configuration": "Configuration",
    "provenance": "Versions, seed and hashes",
    "checklist": "Reporting checklists: CLAIM 2024 and TRIPOD+AI",
    "reading": "How to read the measures",
}
"""Anchor, which is also the name of the template in ``templates/run/``, to title."""


def write_report(folder: Path, cohort: Cohort | None = None) -> None:
    """Write ``report.html`` of a run folder from the files in it.

    Without a cohort, patches are looked for where they were when the run began.

    Raises:
        InputError: The folder holds no finished run.
    """
    if read_json(folder / "metrics.json").get("kind") == MITOSIS:
        write_text(folder / "report.html", render_mitosis_page(folder))
        return
    report = read_run(folder)
    cohort = cohort or cohort_of(folder, report.run or {})
    if cohort is not None:
        report = dataclasses.replace(report, patches=patch_reader(cohort))
    build_report(report, folder / "report.html")


def build_report(report: ReportInput, out: Path) -> None:
    """Write `report` as one HTML file.

    Raises:
        AtypiaError: `out` cannot be written.
    """
    write_text(out, render_report(report))


def render_report(report: ReportInput) -> str:
    """Render the page. Equal inputs give equal bytes."""
    return render(
        "run.html",
        script="report.js",
        report=report,
        metrics=report.metrics,
        paper=_paper(report),
        sections=SECTIONS.items(),
        shown=[(key, title, render_section(report, key)) for key, title in SECTIONS.items()],
    )


def render_section(report: ReportInput, key: str) -> Markup:
    """Render one section."""
    context = _CONTEXT[key](report) if key in _CONTEXT else {}
    template = environment().get_template(f"run/{key}.html")
    shared = {"report": report, "metrics": report.metrics, "paper": _paper(report)}
    return Markup(template.render(shared | context))


def _paper(report: ReportInput) -> Any:
    """Give the published results, for a run on the split that reproduces them."""
    return published_results if report.split_kind == published_results.SPLIT else None


def _hanging(report: ReportInput) -> dict[str, Any]:
    """Classes of which a measure has a value with all patients, but none without one of them."""
    return {
        "hanging": [
            subtype
            for subtype, measures in report.metrics["per_class"].items()
            if any(m["undefined"] == 1 for m in measures.values() if isinstance(m, dict))
        ]
    }


def _parts(report: ReportInput) -> dict[str, Any]:
    """Patients, figures and figures of each class in each part of the split."""
    counts = _subtypes_by_patient(report)
    outer = (report.splits or {}).get("outer", [])
    parts = []
    for i, split in enumerate(outer):
        prefix = f"Split {i + 1}, " if len(outer) > 1 else ""
        named = [("test", split["test"])] if split["test"] else []
        named += [(f"validation of member {j + 1}", p) for j, p in enumerate(split["inner"])]
        for name, patients in named:
            total = sum((counts.get(str(p), Counter()) for p in patients), Counter())
            figures = [total[c] if total else None for c in (None, *range(len(SUBTYPES)))]
            parts.append((capital(prefix + name), [len(patients), *figures]))
    return {"parts": parts, "LEAK": LEAK}


def _subtypes_by_patient(report: ReportInput) -> dict[str, Counter[int | None]]:
    """Patient to the number of patches per subtype index, and under None of all patches."""
    label = report.metrics["label"]
    subtype_of: dict[tuple[str, str], int] = {}
    for predictions in report.tables:
        subtypes = (
            predictions.subtypes_of(label)
            if predictions.vote_column(label) is None and label in predictions.label_choices
            else np.full(len(predictions), UNKNOWN)
        )
        for patient, patch, c in zip(
            predictions.patients, predictions.patch_ids, subtypes, strict=True
        ):
            subtype_of[str(patient), str(patch)] = int(c)
    counts: defaultdict[str, Counter[int | None]] = defaultdict(Counter)
    for (patient, _), subtype in subtype_of.items():
        counts[patient].update([None, subtype])
    return counts


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as pairs: ``("versions.torch", "2.8")``."""
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield prefix + str(key), " ".join(map(str, inner)) if isinstance(inner, list) else inner


_CONTEXT: Final[dict[str, Callable[[ReportInput], dict[str, Any]]]] = {
    "table-1": _hanging,
    "size": plot_panels.class_size,
    "confusion": plot_panels.confusion,
    "curves": plot_panels.curves,
    "raters": plot_panels.raters,
    "reliability": plot_panels.reliability,
    "selective": plot_panels.selective,
    "training": plot_panels.training,
    "classes": image_panels.examples,
    "mistakes": image_panels.mistakes,
    "gallery": image_panels.gallery,
    "splits": _parts,
    "provenance": lambda report: {"facts": list(_flat(report.run or {}))},
    "checklist": lambda report: {"checklists": checklists(report)},
}
"""Section to what its template shows besides the measures."""
