"""``audit.html``: the patches whose label is probably wrong, to be looked at by a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from atypia._version import __version__
from atypia.core.labels import DISPLAY_NAMES, SUBTYPES
from atypia.evaluation.label_audit import EVIDENCE, NEITHER
from atypia.evaluation.predictions import AGREED
from atypia.reports.html import Html, document, figure, join, resource, table, tag
from atypia.reports.plot_panels import data_uris
from atypia.reports.plots import SHORT_NAMES
from atypia.reports.words import (
    capital,
    disclaimer,
    estimate,
    estimate_cell,
    level,
    missing,
    number,
    rater_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.evaluation.label_audit import AuditResult
    from atypia.evaluation.metrics import FloatArray
    from atypia.reports.report_input import Patches

TOP: Final = 200
_LABEL, _VOTE = "label_", "atypical_"
_MEASURES: Final = {
    "accuracy": "Accuracy",
    "kappa": "Cohen's κ",
    "balanced_accuracy": "Balanced accuracy",
    "binary_balanced_accuracy": "Balanced accuracy, atypical or normal",
}


def render_audit(
    audit: AuditResult, title: str, patches: Patches | None = None, top: int = TOP
) -> str:
    """Render the page. Equal inputs give equal bytes.

    Args:
        audit: What was found.
        title: Names the run or the table.
        patches: Reads the images, where they are at hand.
        top: How many issues to show, by rank.
    """
    sections = (
        ("patches", "Patches to look at", _patches(audit, patches, top)),
        ("pairs", "Pairs of label and suggestion", _pairs(audit.summary)),
        ("cells", "Where the raters agree, and where they do not", _cells(audit.summary)),
        ("noise", "Estimated share of wrong labels", _noise(audit.summary)),
        ("referees", "A third opinion", _referees(audit.summary)),
        ("reading", "How to read this page", _reading()),
    )
    contents = (tag("li", tag("a", name, href=f"#{key}")) for key, name, _ in sections)
    shown = (tag("section", tag("h2", name), text, id=key) for key, name, text in sections)
    body = join(
        _header(audit, title),
        tag("nav", tag("ol", *contents), aria_label="Contents"),
        tag("main", *shown),
        tag("footer", disclaimer(), tag("p", f"Made with Atypia {__version__}.", class_="note")),
    )
    return document(f"Label audit: {title}", body, resource("audit.css"), _filter_rules(audit))


def _header(audit: AuditResult, title: str) -> Html:
    summary, rater = audit.summary, rater_name(audit.label)
    confirmed, agreed = summary["evidence"]["confirmed"], summary["cells"]["agreed"]
    told = (
        f"{summary['n']:,} labels of {rater} were held against a model, which must not have "
        f"learned from these figures. Of {summary['n_issues']:,} it is confident that another "
        f"subtype fits better; in {confirmed:,} of these the other raters side with the model: "
        "look at those first. Among the rest there are more of the model's own mistakes."
    )
    if agreed:
        told += (
            f" Where the raters agree ({agreed['n']:,} figures), the model gives their subtype at "
            f"a rate of {estimate(agreed['against'][AGREED]['accuracy'])}."
        )
    return tag(
        "header",
        tag("h1", "Label audit: ", title),
        tag(
            "p",
            f"Labels of {rater} · {summary['n_patients']:,} patients · {level(summary)} intervals "
            "from resampling patients",
            class_="facts",
        ),
        tag("p", told, class_="lead"),
        disclaimer(),
    )


def _patches(audit: AuditResult, patches: Patches | None, top: int) -> Html:
    issues = audit.issues.head(top)
    if issues.empty:
        return tag("p", "The model is nowhere confident of another subtype than the label.")
    names = [str(name) for name in issues["patch_id"]]
    images = data_uris(patches, names) if patches is not None else {}
    cards = [
        _card(audit, row, probabilities, images.get(str(row["patch_id"])))
        for row, probabilities in zip(
            issues.to_dict("records"), audit.probabilities[: len(issues)], strict=True
        )
    ]
    return join(
        tag(
            "p",
            f"The first {len(issues):,} of {audit.summary['n_issues']:,} issues, by rank: first by "
            "evidence, then by the quality of the label. All of them, and every other patch, are "
            "in audit.csv.",
        ),
        None if images else missing("no images beside the predictions"),
        _filters(audit),
        tag("div", *cards, class_="cards"),
    )


def _filters(audit: AuditResult) -> Html:
    """Two menus that narrow the cards down; the rules that do it need no script."""
    pairs = [
        tag("option", f"{_pair_name(pair)} ({pair['n']:,})", value=_pair_class(pair))
        for pair in audit.summary["pairs"]
    ]
    kinds = [
        tag("option", f"{kind} ({n:,})", value=f"evidence-{kind}")
        for kind, n in audit.summary["evidence"].items()
        if n
    ]
    menus = (
        tag("label", f"{title} ", tag("select", tag("option", "all", value=""), *options))
        for title, options in (("Label → suggestion", pairs), ("Evidence", kinds))
    )
    return tag("div", *menus, class_="filters")


def _filter_rules(audit: AuditResult) -> str:
    """Style rules: an option that is chosen hides the cards that are not of its class."""
    classes = [_pair_class(pair) for pair in audit.summary["pairs"]]
    classes += [f"evidence-{kind}" for kind in EVIDENCE]
    return "".join(
        f'main:has(option[value="{name}"]:checked) .card:not(.{name}) {{ display: none; }}\n'
        for name in classes
    )


def _pair_class(pair: Mapping[str, Any]) -> str:
    given, suggested = (SUBTYPES.index(pair[side]) for side in ("given", "suggested"))
    return f"pair-{given}-{suggested}"


def _pair_name(pair: Mapping[str, Any]) -> str:
    return f"{SHORT_NAMES[pair['given']]} → {SHORT_NAMES[pair['suggested']]}"


def _card(
    audit: AuditResult, row: Mapping[Any, Any], probabilities: FloatArray, image: str | None
) -> Html:
    """Show one patch with everyone's answer."""
    given, suggested = row["given_subtype"], row["suggested_subtype"]
    answers = []
    for column in row:
        if column.startswith(_LABEL):
            rater, subtype = column.removeprefix(_LABEL), row[column]
            name = capital(rater_name(rater)) + (" (audited)" if rater == audit.label else "")
            answers.append((name, SHORT_NAMES[subtype] if subtype else "no label"))
        elif column.startswith(_VOTE):
            vote = {"True": "atypical", "False": "normal"}.get(row[column], "no vote")
            answers.append((capital(rater_name(column.removeprefix(_VOTE))), vote))
    answers.append(("Model's answer", SHORT_NAMES[row["predicted_subtype"]]))
    answers.append(("Suggestion", SHORT_NAMES[suggested]))
    bars = [
        tag(
            "li",
            tag("span", SHORT_NAMES[subtype]),
            tag("span", tag("span", style=f"width: {100 * p:.1f}%"), class_="bar"),
            tag("span", number(p, percent=True)),
            class_={given: "given", suggested: "suggested"}.get(subtype),
        )
        for subtype, p in zip(SUBTYPES, probabilities.tolist(), strict=True)
    ]
    about = (row["patient_id"], row["domain"])
    caption = join(
        tag("p", f"{row['rank']:,}. {capital(row['evidence'])}", class_="rank"),
        tag("dl", *(join(tag("dt", who), tag("dd", what)) for who, what in answers)),
        tag("ol", *bars, class_="bars", aria_label="Probabilities in percent"),
        tag("code", row["patch_id"]),
        tag("br"),
        " · ".join(fact for fact in about if fact),
    )
    return figure(
        tag("img", src=image, alt=f"Patch {row['patch_id']}", loading="lazy") if image else join(),
        caption,
        class_=f"card {_pair_class({'given': given, 'suggested': suggested})} "
        f"evidence-{row['evidence']}",
    )


def _pairs(summary: Mapping[str, Any]) -> Html:
    if not summary["pairs"]:
        return missing("there are no issues")
    rows = [
        [_pair_name(pair), f"{pair['n']:,}", *(f"{pair[kind]:,}" for kind in EVIDENCE)]
        for pair in summary["pairs"]
    ]
    every = ["All", f"{summary['n_issues']:,}", *(f"{n:,}" for n in summary["evidence"].values())]
    return table(
        "Number of issues, by what the other raters say",
        ["Label → suggestion", "Issues", *(capital(kind) for kind in EVIDENCE)],
        [*rows, every],
    )


def _cells(summary: Mapping[str, Any]) -> Html:
    agreed, disagreed = summary["cells"]["agreed"], summary["cells"]["disagreed"]
    if not agreed and not disagreed:
        return missing("no figures that two raters labelled")
    rows = [
        [
            f"They {'agree' if cells is agreed else 'disagree'}; the model against "
            f"{'their label' if name == AGREED else rater_name(name)}",
            f"{against['n']:,}",
            *(estimate_cell(against[measure]) for measure in _MEASURES),
        ]
        for cells in (agreed, disagreed)
        if cells
        for name, against in cells["against"].items()
    ]
    parts = [
        table(
            f"The model's answers, with {level(summary)} intervals from resampling patients",
            ["Figures on which", "n", *_MEASURES.values()],
            rows,
            class_="wide",
        )
    ]
    if disagreed:
        sides = "; ".join(
            f"with {name if name == NEITHER else rater_name(name)} in {side['n']:,}, a share of "
            f"{estimate(side['share'])}"
            for name, side in disagreed["sides"].items()
        )
        parts.append(
            tag(
                "p",
                f"On the {disagreed['n']:,} figures on which they disagree, the model sides "
                f"{sides}. A model sides more often with the rater whose labels it learned from.",
            )
        )
    return join(*parts)


def _noise(summary: Mapping[str, Any]) -> Html:
    rows = [
        [
            DISPLAY_NAMES[subtype],
            *(f"{of_class[name]:,}" for name in ("n", "n_issues", "n_suggested")),
            number(of_class["threshold"]),
            estimate_cell(of_class["given_wrong"]),
            estimate_cell(of_class["true_missed"]),
        ]
        for subtype, of_class in summary["per_class"].items()
    ]
    return join(
        tag(
            "p",
            f"In all, a share of {estimate(summary['noise'])} of the labels is estimated to be "
            "wrong. The estimate takes every confident answer of the model for the truth, so that "
            "it is rather too high, most of all in rare subtypes.",
        ),
        table(
            f"By confident learning, with {level(summary)} intervals from resampling patients",
            [
                "Subtype",
                "Labels",
                "Issues with this label",
                "Issues with this suggestion",
                "Confident from",
                "Labels that are of another subtype",
                "Figures of the subtype with another label",
            ],
            rows,
            class_="subtypes",
        ),
    )


def _referees(summary: Mapping[str, Any]) -> Html:
    rows = [
        [f"{capital(rater_name(referee))}, {kind}", f"{share['n']:,} of {share['of']:,}",
         estimate_cell(share["share"])]
        for referee, kinds in summary["referees"].items()
        for kind, share in kinds.items()
    ]  # fmt: skip
    if not rows:
        return missing("no votes of a rater who gave no subtypes")
    return join(
        tag(
            "p",
            "Who voted atypical or normal but gave no subtype had no part in the ranking. In the "
            "issues in which one of label and suggestion is atypical and the other normal, such a "
            "vote shows how far each kind of evidence can be trusted.",
        ),
        table(
            "Votes that side with the suggestion, against the label",
            ["Voter, evidence", "Votes", "Share"],
            rows,
        ),
    )


def _reading() -> Html:
    kinds = (tag("li", tag("b", capital(kind)), f": {told}.") for kind, told in EVIDENCE.items())
    return join(
        tag(
            "p",
            "An issue is a figure of which the model is confident that it is of another subtype "
            "than its label. Confident means: the probability is at least its mean among all "
            "figures with that label (confident learning; Northcutt et al., Journal of Artificial "
            "Intelligence Research 70, 2021), so that rare subtypes are held to their own "
            "standard. The suggestion is the most probable of the subtypes that the model is "
            "confident of; the model's answer may be another one.",
        ),
        tag(
            "p",
            "The model alone is a weak witness, since a confident mistake of its own looks the "
            "same as a wrong label. The other raters therefore come first in the ranking:",
        ),
        tag("ul", *kinds),
        tag(
            "p",
            "Within these, the ranking is by the quality of the label: half of one plus the "
            "difference between the probability of the label and that of the best other subtype. "
            "Bars show the probabilities in percent, the label's striped and the suggestion's in "
            "full colour. A suggestion is a reason to look again, not a new label.",
        ),
    )
