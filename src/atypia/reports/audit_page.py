"""``audit.html``: the patches whose label is probably wrong, to be looked at by a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from atypia.core.labels import SUBTYPES
from atypia.evaluation.label_audit import EVIDENCE, NEITHER
from atypia.evaluation.predictions import AGREED
from atypia.reports.image_panels import data_uris
from atypia.reports.page_templates import render
from atypia.reports.words import SHORT_NAMES, capital, rater_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.evaluation.label_audit import AuditResult
    from atypia.reports.report_input import Patches

TOP: Final = 200
SECTIONS: Final = {
    "patches": "Patches to look at",
    "pairs": "Pairs of label and suggestion",
    "cells": "Where the raters agree, and where they do not",
    "noise": "Estimated share of wrong labels",
    "referees": "A third opinion",
    "reading": "How to read this page",
}
_LABEL, _VOTE = "label_", "atypical_"


def render_audit(
    audit: AuditResult, title: str, patches: Patches | None = None, top: int = TOP
) -> str:
    """Render the page of the first `top` issues, by rank. Equal inputs give equal bytes."""
    issues = audit.issues.head(top)
    names = [str(name) for name in issues["patch_id"]]
    return render(
        "audit.html",
        styles=["audit.css"],
        title=title,
        audit=audit,
        metrics=audit.summary,
        sections=SECTIONS.items(),
        images=data_uris(patches, names) if patches is not None else {},
        cards=[
            (row, _labels(audit.label, row), list(zip(SUBTYPES, probabilities, strict=True)))
            for row, probabilities in zip(
                issues.to_dict("records"), audit.probabilities[: len(issues)].tolist(), strict=True
            )
        ],
        pair_class=_pair_class,
        AGREED=AGREED,
        EVIDENCE=EVIDENCE,
        NEITHER=NEITHER,
    )


def _pair_class(given: str, suggested: str) -> str:
    """Name a pair of label and suggestion in the style rules of the filter."""
    return f"pair-{SUBTYPES.index(given)}-{SUBTYPES.index(suggested)}"


def _labels(audited: str, row: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """Every rater's label or vote on a patch, the model's prediction and the suggestion."""
    labels = []
    for column in row:
        if column.startswith(_LABEL):
            rater, subtype = column.removeprefix(_LABEL), row[column]
            name = capital(rater_name(rater)) + (" (audited)" if rater == audited else "")
            labels.append((name, SHORT_NAMES[subtype] if subtype else "no label"))
        elif column.startswith(_VOTE):
            vote = {"True": "atypical", "False": "normal"}.get(row[column], "no vote")
            labels.append((capital(rater_name(column.removeprefix(_VOTE))), vote))
    labels.append(("Model's answer", SHORT_NAMES[row["predicted_subtype"]]))
    labels.append(("Suggestion", SHORT_NAMES[row["suggested_subtype"]]))
    return labels
