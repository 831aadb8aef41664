"""The label audit: its ranking, its figures and its page."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from test_report import HOSTILE, Page, red_patches

from atypia.core.errors import InputError
from atypia.core.labels import PROBABILITY_COLUMNS, SUBTYPES, parse_subtype
from atypia.evaluation.label_audit import audit, rater_cells
from atypia.evaluation.predictions import Predictions, predictions_from_table
from atypia.evaluation.scores import evaluate
from atypia.reports.audit_page import render_audit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from atypia.evaluation.label_audit import AuditResult

META, PRO, RING, OTHER = (
    SUBTYPES.index(name) for name in ("nmf_metaphase", "nmf_prometaphase", "nmf_ring", "amf_other")
)


def table_of(rows: list[tuple[int, int | None, int, float]]) -> pd.DataFrame:
    """Rows of first and second rater, the model's subtype and its probability."""
    table = pd.DataFrame(
        {
            "patch_id": [f"p{i:02}" for i in range(len(rows))],
            "patient_id": [f"patient{i % 5}" for i in range(len(rows))],
            "label_expert1": [SUBTYPES[first] for first, *_ in rows],
            "label_expert2": ["" if second is None else SUBTYPES[second] for _, second, *_ in rows],
        }
    )
    probabilities = np.full((len(rows), 8), 0.0)
    for i, (*_, subtype, p) in enumerate(rows):
        probabilities[i] = (1 - p) / 7
        probabilities[i, subtype] = p
    table[list(PROBABILITY_COLUMNS)] = probabilities
    return table


# Most labels are right, so that the thresholds lie below the probabilities of the issues.
RIGHT = [(META, META, META, 0.9)] * 20 + [(PRO, PRO, PRO, 0.9)] * 20 + [(RING, RING, RING, 0.9)] * 9
DOUBTFUL = [
    (META, META, PRO, 0.99),  # the other rater defends the label
    (META, None, PRO, 0.97),  # nobody else looked
    (META, RING, PRO, 0.98),  # a third subtype
    (META, PRO, PRO, 0.95),  # the other rater says what the model says
    (PRO, META, META, 0.96),  # the same, and the label is less probable
    (META, PRO, PRO, 0.3),  # the model is not confident
]


@pytest.fixture(scope="module")
def small() -> AuditResult:
    return audit(predictions_from_table(table_of([*DOUBTFUL, *RIGHT])), resamples=20)


@pytest.fixture(scope="module")
def many(make_table: Callable[..., pd.DataFrame]) -> Predictions:
    table = make_table(240, skill=1.5)
    table["atypical_expert3"] = np.where(np.arange(240) % 3, table["atypical_expert1"], "")
    table["domain"] = HOSTILE
    table.loc[0, "patch_id"] = HOSTILE
    # The first patch is the first issue, so that its name is shown.
    table.loc[0, "label_expert2"] = "nmf_ring"
    table.loc[0, "label_expert1"] = "amf_other"
    table.loc[0, "predicted_subtype"] = "nmf_metaphase"  # the table's own answer is told as it is
    table.loc[0, list(PROBABILITY_COLUMNS)] = np.eye(8)[RING]
    return predictions_from_table(table)


@pytest.fixture(scope="module")
def found(many: Predictions) -> AuditResult:
    return audit(many, resamples=20)


def test_ranking_is_by_what_the_other_rater_says_and_then_by_quality(small: AuditResult) -> None:
    issues = small.issues
    assert issues["patch_id"].tolist() == ["p04", "p03", "p02", "p01", "p00"]
    assert issues["evidence"].tolist() == [
        *["confirmed"] * 2,
        "contested",
        "alone",
        "defended",
    ]
    assert small.table["rank"].tolist() == list(range(1, 56))
    assert small.table["is_issue"].tolist() == [True] * 5 + [False] * 50
    assert small.table["patch_id"][5] == "p05"  # of no issue, the lowest quality
    assert small.table["evidence"][5] == "none"


def test_a_row_tells_the_label_the_suggestion_and_their_probabilities(small: AuditResult) -> None:
    row = small.table.iloc[1]
    assert row["given_subtype"] == row["label_expert1"] == "nmf_metaphase"
    assert row["suggested_subtype"] == row["predicted_subtype"] == "nmf_prometaphase"
    assert row["p_suggested"] == pytest.approx(0.95)
    assert row["p_given"] == pytest.approx(0.05 / 7)
    assert row["quality"] == pytest.approx((1 + 0.05 / 7 - 0.95) / 2)
    assert not row["crosses_atypical"]
    np.testing.assert_allclose(small.probabilities[1, PRO], 0.95)
    agree = dict(zip(small.table["patch_id"], small.table["raters_agree"], strict=True))
    assert [agree[name] for name in ("p00", "p01", "p02", "p10")] == ["True", "", "False", "True"]


def test_issues_are_counted_by_pair_evidence_and_class(small: AuditResult) -> None:
    summary = small.summary
    assert summary["pairs"][0] == {
        "given": "nmf_metaphase",
        "suggested": "nmf_prometaphase",
        **{"n": 4, "confirmed": 1, "contested": 1, "alone": 1, "defended": 1},
    }
    assert summary["evidence"] == {"confirmed": 2, "contested": 1, "alone": 1, "defended": 1}
    assert summary["n_issues"] == sum(pair["n"] for pair in summary["pairs"]) == 5
    joint = np.array(summary["confident_joint"])
    assert (joint[META, PRO], joint[PRO, META]) == (4, 1)
    assert joint.sum() - np.trace(joint) == 5
    metaphase = summary["per_class"]["nmf_metaphase"]
    assert (metaphase["n"], metaphase["n_issues"], metaphase["n_suggested"]) == (25, 4, 1)
    # 20 sure of metaphase, 4 of prometaphase; the 25th is sure of none.
    assert metaphase["given_wrong"]["value"] == pytest.approx(4 / 24)
    assert metaphase["given_wrong"]["low"] <= 4 / 24 <= metaphase["given_wrong"]["high"]
    assert summary["per_class"]["amf_other"]["threshold"] is None
    assert summary["per_class"]["amf_other"]["given_wrong"]["value"] is None


def test_wrong_labels_that_were_planted_come_first(make_table: Callable[..., pd.DataFrame]) -> None:
    table = make_table(400, skill=5)
    table["label_expert2"] = table["label_expert1"]  # the second rater is always right
    planted = np.random.default_rng(5).choice(400, 40, replace=False)
    codes = np.array([SUBTYPES.index(name) for name in table["label_expert1"]])
    table.loc[planted, "label_expert1"] = np.array(SUBTYPES)[(codes[planted] + 3) % 8]
    result = audit(predictions_from_table(table), resamples=10)
    names = set(table["patch_id"][planted])
    assert len(names & set(result.table["patch_id"][:40])) >= 36
    assert result.summary["noise"]["value"] == pytest.approx(0.1, abs=0.03)


def test_the_other_rater_can_be_audited_and_what_both_agree_on(many: Predictions) -> None:
    second = audit(many, "expert2", resamples=10)
    assert (second.table["given_subtype"] == second.table["label_expert2"]).all()
    agreed = audit(many, "agreed", resamples=10)
    assert len(agreed.table) == (many.labels["expert1"] == many.labels["expert2"]).sum()
    assert agreed.summary["n_without_label"] == len(many) - len(agreed.table)
    assert set(agreed.issues["evidence"]) == {"defended"}
    assert agreed.summary["cells"] == second.summary["cells"]


def test_cells_are_those_of_the_evaluation_on_what_the_raters_agree_on(many: Predictions) -> None:
    cells = rater_cells(many, resamples=10, seed=3)
    theirs = evaluate(many, "agreed", resamples=10, seed=3)
    ours = cells["agreed"]["against"]["agreed"]
    assert ours["n"] == cells["agreed"]["n"] == theirs["n"]
    for name in ("accuracy", "kappa", "balanced_accuracy"):
        assert ours[name] == pytest.approx(theirs["overall"][name])
    binary = theirs["binary"]["against"]["agreed"]["at_operating_point"]["balanced_accuracy"]
    assert ours["binary_balanced_accuracy"] == pytest.approx(binary)
    assert cells["agreed"]["n"] + cells["disagreed"]["n"] == len(many)


def test_sides_where_raters_disagree_are_counted() -> None:
    rows = [(META, PRO, META, 0.9)] * 3 + [(META, PRO, PRO, 0.9)] * 2 + [(META, PRO, RING, 0.9)]
    rows += [(PRO, PRO, PRO, 0.9)] * 2 + [(PRO, None, PRO, 0.9)]
    cells = rater_cells(predictions_from_table(table_of(rows)), resamples=20)
    assert (cells["agreed"]["n"], cells["disagreed"]["n"]) == (2, 6)
    sides = cells["disagreed"]["sides"]
    assert {name: side["n"] for name, side in sides.items()} == {
        "expert1": 3,
        "expert2": 2,
        "neither": 1,
    }
    assert sides["expert1"]["share"]["value"] == pytest.approx(0.5)
    assert cells["disagreed"]["against"]["expert2"]["accuracy"]["value"] == pytest.approx(2 / 6)


def test_a_referee_s_votes_count_only_across_the_line() -> None:
    rows = [(META, OTHER, OTHER, 0.99)] * 4 + [(META, PRO, PRO, 0.99)] * 3
    rows += [*RIGHT, *[(OTHER, OTHER, OTHER, 0.9)] * 9]
    table = table_of(rows)
    table["atypical_expert3"] = ["True", "True", "False", ""] + ["False"] * (len(rows) - 4)
    table["atypical_expert1"] = "False"  # has given subtypes: no referee
    result = audit(predictions_from_table(table), resamples=20)
    share = result.summary["referees"]["expert3"]["confirmed"]
    assert (share["n"], share["of"]) == (2, 3)
    assert share["share"]["value"] == pytest.approx(2 / 3)
    assert set(result.summary["referees"]) == {"expert3"}
    assert set(result.table["atypical_expert3"]) == {"True", "False", ""}


def test_a_single_rater_is_enough() -> None:
    table = table_of([*DOUBTFUL, *RIGHT]).drop(columns="label_expert2")
    result = audit(predictions_from_table(table), resamples=10)
    assert set(result.issues["evidence"]) == {"alone"}
    assert result.summary["cells"] == {"agreed": None, "disagreed": None}
    text = render_audit(result, "one")
    assert Page(text).faults == []
    assert "Not available: no figures that two raters labelled" in text


def test_no_issue_is_said() -> None:
    result = audit(predictions_from_table(table_of(RIGHT)), resamples=10)
    assert result.summary["n_issues"] == 0
    assert "nowhere confident" in render_audit(result, "clean")


@pytest.mark.parametrize("label", ["expert9", "majority_atypical", "expert2"])
def test_a_label_that_is_not_there_is_refused(label: str) -> None:
    table = table_of(RIGHT).assign(label_expert2="", majority_atypical="True")
    with pytest.raises(InputError, match="expert1"):
        audit(predictions_from_table(table), label)


def test_a_patch_that_is_there_twice_is_refused() -> None:
    table = table_of(RIGHT)
    twice = pd.concat([table.assign(fold="a"), table.assign(fold="b")], ignore_index=True)
    with pytest.raises(InputError, match="49 several times, such as 'p00'"):
        audit(predictions_from_table(twice))


def test_page_is_well_formed_asks_for_nothing_and_has_no_script(found: AuditResult) -> None:
    text = render_audit(found, f"Run {HOSTILE}", red_patches)
    page = Page(text)
    assert page.faults == []
    assert not re.findall(r"https?://|@import|<link|<script|<iframe|url\(", text)
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert all(image.get("alt") for image in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert {a["href"] for a in page.all("a")} == {f"#{key}" for key in ids}
    assert page.text.count(HOSTILE) >= 5  # tab, heading, patch, domain of every patch
    assert not re.search(r"\b(nan|None)\b", page.text)


def test_page_shows_the_first_issues_with_everyone_s_answer(found: AuditResult) -> None:
    page = Page(render_audit(found, "run", red_patches, top=7))
    cards = [a for a in page.all("figure") if (a.get("class") or "").startswith("card")]
    assert len(cards) == len(page.all("img")) == 7 < found.summary["n_issues"]
    assert f"The first 7 of {found.summary['n_issues']} issues" in page.text
    first = page.text.partition("1. Confirmed")[2].partition("2. Confirmed")[0]
    assert HOSTILE in first
    for answer in (
        "Expert 1 (audited)Other",
        "Expert 2Ring",
        "Model's answerMetaphase",
        "SuggestionRing",
        "Ring100.0",
    ):
        assert answer in first


def test_filters_name_the_classes_of_the_cards(found: AuditResult) -> None:
    text = render_audit(found, "run", top=10_000)
    page = Page(text)
    on_cards = {
        name
        for attributes in page.all("figure")
        for name in (attributes.get("class") or "").split()[1:]
    }
    options = {a["value"] for a in page.all("option")} - {""}
    rules = set(re.findall(r'option\[value="([\w-]+)"\]:checked\) \.card:not\(\.\1\)', text))
    assert on_cards == options <= rules


def test_page_tells_the_figures_of_the_summary(found: AuditResult) -> None:
    text = Page(render_audit(found, "run")).text
    cells = found.summary["cells"]
    accuracy = cells["agreed"]["against"]["agreed"]["accuracy"]
    shown = f"{accuracy['value']:.3f} ({accuracy['low']:.3f}–{accuracy['high']:.3f})"
    assert text.count(shown) == 2  # summary and table
    for name in ("expert1", "neither"):
        assert f"in {cells['disagreed']['sides'][name]['n']}, a share of" in text
    assert "Not available: no images" in text


def test_page_is_the_same_each_time(found: AuditResult) -> None:
    assert render_audit(found, "run", red_patches) == render_audit(found, "run", red_patches)


@pytest.mark.realdata
def test_experts_of_ami_br_agree_on_2628_figures(ami_br: Path) -> None:
    with (ami_br / "AMI-BR.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    first, second = (
        np.array([SUBTYPES.index(parse_subtype(row[f"expert{i}_label"]) or "") for row in rows])
        for i in (1, 2)
    )
    table = pd.DataFrame(
        {
            "patch_id": [f"{row['dataset']}_{row['uid']}" for row in rows],
            "patient_id": [f"{row['dataset']}_{row['slide']}" for row in rows],
            "label_expert1": np.array(SUBTYPES)[first],
            "label_expert2": np.array(SUBTYPES)[second],
            "atypical_expert3": [row["expert3_atypical"] for row in rows],
        }
    )
    # A model that says what the second expert says, always as sure.
    table[list(PROBABILITY_COLUMNS)] = 0.02 + 0.84 * np.eye(8)[second]
    result = audit(predictions_from_table(table), resamples=10)
    cells = result.summary["cells"]
    assert (cells["agreed"]["n"], cells["disagreed"]["n"]) == (2628, 3720 - 2628)
    assert cells["agreed"]["against"]["agreed"]["accuracy"]["value"] == 1
    assert cells["disagreed"]["sides"]["expert2"]["n"] == 1092
    assert result.summary["n_issues"] == result.summary["evidence"]["confirmed"]
    assert (result.issues["raters_agree"] == "False").all()
