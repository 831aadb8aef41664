from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import yaml

from atypia.core.labels import PROBABILITY_COLUMNS, SUBTYPES
from atypia.evaluation.predictions import predictions_from_table
from atypia.evaluation.scores import evaluate
from atypia.reports import ReportInput, build_report, image_panels, render_report
from atypia.reports import published_results as reference
from atypia.reports.checklist import checklist_table
from atypia.reports.image_panels import EXAMPLES_PER_CLASS, MISTAKES_SHOWN, one_patient_each
from atypia.reports.page_templates import environment
from atypia.reports.plot_panels import HINTS_PER_CURVE
from atypia.reports.run_report import SECTIONS, render_section

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.evaluation.predictions import Predictions

HOSTILE = "<img src=x onerror=alert(1)>&\"'$title"
VOID = {"br", "hr", "img", "link", "meta"}


class Page(HTMLParser):
    """Reads a page as a browser would and notes what a strict reader objects to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        if self.open:
            self.faults.append(f"never closed: {self.open}")

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing at {self.getpos()}")

    def handle_data(self, data):
        self.text += re.sub(r"\s*\n\s*", " ", data) if data.strip() else ""

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def one_line(markup: str) -> str:
    """Markup without the line breaks of its template."""
    return re.sub(r"\s*\n\s*", " ", markup).replace("> <", "><").strip()


def some_predictions(n: int, part: str, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    truth, other = np.arange(n) % 8, rng.integers(0, 8, n)
    other[::2] = truth[::2]
    scores = np.exp(rng.normal(0, 1, (n, 8)) + 2 * np.eye(8)[truth])
    table = pd.DataFrame(
        {
            "patch_id": [f"{part}/{i}" for i in range(n)],
            "patient_id": [f"{part}-{i % 12}" for i in range(n)],
            "domain": np.where(np.arange(n) % 3, "A", HOSTILE),
            "scanner": np.where(np.arange(n) % 3, "S", ""),
            "label_expert1": np.array(SUBTYPES)[truth],
            "label_expert2": np.array(SUBTYPES)[other],
            "majority_atypical": np.where(truth < 4, "True", "False"),
        }
    )
    table[list(PROBABILITY_COLUMNS)] = scores / scores.sum(1, keepdims=True)
    table.loc[0, "patch_id"] = HOSTILE
    table["conformal_set"] = np.where(np.arange(n) % 4, table["label_expert1"], "empty")
    table.loc[1, "conformal_set"] = ""
    # The first patch is the most confident mistake, so that its name is shown.
    table.loc[0, list(PROBABILITY_COLUMNS)] = np.eye(8)[7]
    return predictions_from_table(table)


def red_patches(names) -> list[np.ndarray]:
    return [np.full((16, 16, 3), (200, 0, 0), np.uint8) for _ in names]


def history() -> pd.DataFrame:
    return pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.0], "valid_loss": [2.0, 1.5]})


@pytest.fixture(scope="module")
def full() -> ReportInput:
    test, training = some_predictions(240, "test"), some_predictions(240, "training", seed=1)
    patients = [f"training-{i}" for i in range(12)]
    return ReportInput(
        title=f"Run {HOSTILE}",
        metrics=evaluate(test, "expert1", resamples=20),
        cohort=HOSTILE,
        date="1 May 2026",
        predictions=test,
        out_of_fold=training,
        histories=[history()] * 3,
        splits={
            "kind": "table1",
            "seed": 7,
            "outer": [
                {
                    "test": [f"test-{i}" for i in range(12)],
                    "inner": [patients[:4], patients[4:8], patients[8:]],
                }
            ],
        },
        config_yaml=f"label: expert1\nnote: {HOSTILE}\n",
        run={"command": ["atypia", "train", HOSTILE], "versions": {"torch": "2.8.0"}},
        patches=red_patches,
    )


@pytest.fixture(scope="module")
def text(full: ReportInput) -> str:
    return render_report(full)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def section(report: ReportInput, key: str) -> str:
    """One section alone, on one line: a whole page takes seconds to draw."""
    return one_line(render_section(report, key))


def test_page_is_well_formed(page: Page) -> None:
    assert page.faults == []
    assert {"h1", "main", "nav", "footer"} <= {tag for tag, _ in page.tags}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {(attributes["href"] or "")[1:] for attributes in page.all("a")}
    assert set(SECTIONS) <= links <= set(ids)
    assert any(link.startswith("cell-") for link in links)


def test_page_asks_for_nothing_outside_itself(text: str, page: Page) -> None:
    assert not re.findall(r"https?://|@import|<link|<iframe", text)
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    policy = [a["content"] for a in page.all("meta") if a.get("http-equiv")]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == [
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'"
    ]
    # Nothing of the script makes markup out of text, or asks for anything.
    assert not re.findall(r"innerHTML|insertAdjacent|document\.write|fetch|eval|import\(", script)


def test_pages_without_a_script_allow_none() -> None:
    page = (
        '{% extends "base.html" %}{% block title %}T{% endblock %}{% block body %}x{% endblock %}'
    )
    text = environment().from_string(page).render(script="", style="")
    assert "script" not in text
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in text


def test_everything_is_named_for_readers_who_do_not_see(page: Page) -> None:
    assert all(image.get("alt") for image in page.all("img"))
    assert all(svg.get("aria-label") for svg in page.all("svg"))
    assert all(link.get("aria-label") for link in page.all("a") if "cell-" in link["href"])
    assert all(cell.get("scope") in ("row", "col", "colgroup") for cell in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption"))


def test_hostile_names_stay_text(page: Page) -> None:
    # Title (twice), cohort, domain, command, configuration and the patch are all shown as they are.
    assert page.text.count(HOSTILE) >= 7
    assert all("onerror" not in attributes for attributes in page.all("img"))


def test_published_figures_stand_beside_ours(full: ReportInput) -> None:
    text = section(full, "table-1")
    for row in reference.TABLE_1.values():
        for value in row.values():
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
            assert f'<span class="published">{shown}</span>' in text
    ours = full.metrics["per_class"]["nmf_ring"]["auc"]["value"]
    assert f"{100 * ours:.1f} <span" in text
    assert "This run uses that split" in text
    assert "79 figures" in text
    assert "0.375 %" in text


def test_published_table_agrees_with_itself() -> None:
    rows = reference.TABLE_1
    total = sum(row["n"] for row in rows.values())
    assert total == 1342
    assert np.mean([r["auc"] for r in rows.values()]) / 100 == pytest.approx(
        reference.MEAN_AUC, abs=5e-5
    )
    assert np.mean([r["sensitivity"] for r in rows.values()]) / 100 == pytest.approx(
        reference.BALANCED_ACCURACY, abs=5e-4
    )
    for row in rows.values():
        # True positives are a whole number, and give the printed NPV: both misprints would not.
        true_positive = row["sensitivity"] / 100 * row["n"]
        assert true_positive == pytest.approx(round(true_positive), abs=0.02)
        true_negative = row["specificity"] / 100 * (total - row["n"])
        npv = true_negative / (true_negative + row["n"] - true_positive)
        assert 100 * npv == pytest.approx(row["npv"], abs=0.02)


def test_published_results_stand_beside_runs_on_their_split_alone(full: ReportInput) -> None:
    other = dataclasses.replace(full, splits={**full.splits, "kind": "holdout"})
    unknown = dataclasses.replace(full, splits=None)
    for key in ("table-1", "overall", "binary"):
        assert 'class="published"' in section(full, key)
        for report in (other, unknown):
            text = section(report, key)
            assert Page(text).faults == []
            assert not re.search(r"[Pp]aper|published", text)


def test_summary_says_model_and_second_expert_in_words(full: ReportInput, text: str) -> None:
    lead = re.search(r'<p class="lead">(.*?)</p>', one_line(text))
    assert lead is not None
    metrics = full.metrics
    for measure in (
        metrics["overall"]["mean_auc"],
        metrics["overall"]["balanced_accuracy"],
        metrics["raters"]["expert2"]["overall"]["balanced_accuracy"],
        metrics["binary"]["against"]["expert1"]["at_operating_point"]["balanced_accuracy"],
        metrics["raters"]["expert2"]["binary"]["balanced_accuracy"],
    ):
        shown = f"{measure['value']:.3f} ({measure['low']:.3f}–{measure['high']:.3f})"
        assert shown in lead[1]
    assert "240 mitotic figures of 12 patients" in lead[1]


def test_figures_out_of_fold_are_named_as_such(full: ReportInput, text: str) -> None:
    assert "There is no test part" not in text
    assert ">Test<" in section(full, "splits")
    without_test = dataclasses.replace(
        full,
        metrics={**full.metrics, "part": "out of fold"},
        splits={"kind": "all", "seed": 0, "outer": [{**full.splits["outer"][0], "test": []}]},
    )
    assert "There is no test part" in render_report(without_test)
    table = section(without_test, "splits")
    assert "Validation of member 1" in table
    assert ">Test<" not in table


def test_a_second_rater_has_a_share_or_scores_of_its_own(full: ReportInput) -> None:
    def learned(target: dict) -> str:
        config = yaml.safe_dump({"label": "expert1", "target": target})
        page = one_line(render_report(dataclasses.replace(full, config_yaml=config)))
        return page.partition("Learned from: ")[2].partition(" · ")[0]

    target = {"second_rater": "expert2", "second_rater_mass": 0.35}
    assert "with 35% of the weight, " in learned(target)
    apart = learned({**target, "per_rater": True})
    assert "with scores of its own, " in apart
    assert "%" not in apart


def test_confusion_counts_of_model_and_expert_are_drawn(full: ReportInput, text: str) -> None:
    text = text.partition('<section id="confusion">')[2].partition("</section>")[0]
    assert text.count("<svg") == 4
    for counts in (full.metrics["confusion"], full.metrics["raters"]["expert2"]["confusion"]):
        for value in {value for row in counts for value in row}:
            assert f">{value}</text>" in text


def test_each_cell_leads_to_its_figures(full: ReportInput) -> None:
    matrix, walls = section(full, "confusion"), section(full, "gallery")
    counts = np.array(full.metrics["confusion"])
    links = re.findall(r'<a href="#(cell-(\d)-(\d))" aria-label="([^"]*)"', matrix)
    assert "_blank" not in matrix
    filled = {(r, c) for r, c in np.ndindex(8, 8) if counts[r, c]}
    assert {(int(r), int(c)) for _, r, c, _ in links} == filled
    for name, row, column, label in links:
        n = counts[int(row), int(column)]
        assert f": {n} of {counts[int(row)].sum()} (" in label
        # The target lies inside what is folded up: a browser unfolds it without a script.
        block = re.search(
            rf'<details class="[^"]*"><summary>([^<]*)</summary><div id="{name}"', walls
        )
        assert block is not None
        assert block[1] == label
    every = re.findall(r"<figure>.*?<code>(.*?)</code></figcaption></figure>", walls)
    assert len(every) == len(set(every)) == 240


def test_mistakes_come_with_the_surest_first(full: ReportInput) -> None:
    cells = image_panels.cells_of(full)
    predictions, truth = full.scored
    for cell in cells:
        sure = predictions.probabilities[list(cell.figures), cell.column]
        assert (np.diff(sure) <= 0).all() if cell.is_mistake else (np.diff(sure) >= 0).all()
        assert (truth[list(cell.figures)] == cell.row).all()
    assert sum(len(cell.figures) for cell in cells) == 240


def test_pictures_are_bounded_and_what_is_left_out_is_told(
    full: ReportInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = section(full, "gallery")
    assert whole.count("<img") == 240
    assert "0 were left out" in whole
    budget = 20_000
    monkeypatch.setattr(image_panels, "IMAGE_BYTES", budget)
    text = section(full, "gallery")
    pictures = re.findall(r'src="(data:[^"]*)"', text)
    assert 0 < len(pictures) < 240
    assert budget * 0.9 < sum(map(len, pictures)) <= budget
    assert f"{len(pictures)} figures are shown; {240 - len(pictures)} were left out" in text
    hidden = sum(int(n) for n in re.findall(r">(\d+) (?:more )?not shown\.<", text))
    assert hidden == 240 - len(pictures)
    # Without pictures the names remain, as many as a cell lists.
    monkeypatch.setattr(image_panels, "MOST_PER_CELL", 3)
    text = section(dataclasses.replace(full, patches=None), "gallery")
    assert "Not available" in text
    assert all(block.count("<code>") <= 3 for block in text.split("<details")[1:])


def test_curves_tell_thresholds_where_a_pointer_rests(full: ReportInput) -> None:
    text = section(full, "curves")
    first = text.partition("</svg>")[0]
    hints = re.findall(
        r"<title>Bipolar, called from ([\d.]+) on: specificity ([\d.]+), sensitivity ([\d.]+)<",
        first,
    )
    assert 5 < len(hints) <= HINTS_PER_CURVE
    predictions, truth = full.scored
    p = predictions.probabilities[:, 0]
    for threshold, specificity, sensitivity in hints:
        near = np.abs(p - float(threshold)).argmin()
        called = p >= p[near]
        assert called[truth == 0].mean() == pytest.approx(float(sensitivity), abs=0.02)
        assert (~called)[truth != 0].mean() == pytest.approx(float(specificity), abs=0.02)
    # The dots lie on the drawing: the first hint of a curve from (0, 0) to (1, 1) is low, left.
    box = [float(v) for v in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', first).groups()]
    dots = np.array(re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', first), dtype=float)
    assert ((dots > 0) & (dots < box)).all()


def test_tables_of_classes_may_be_sorted(full: ReportInput) -> None:
    assert section(full, "table-1").count("data-sortable") == 2
    assert section(full, "groups").count("data-sortable") == 2


def test_checklists_are_filled_with_what_is_known(full: ReportInput) -> None:
    claim, tripod = ([i[0] for i in g["items"]] for g in checklist_table()["guidelines"])
    assert claim == [str(i) for i in range(1, 45)]
    assert {re.sub(r"\D", "", number) for number in tripod} == {str(i) for i in range(1, 28)}
    assert len(tripod) == len(set(tripod)) == 52

    def row(report: ReportInput, number: str) -> list[str]:
        text = section(report, "checklist").partition("</details>")[0]
        found = re.search(rf'<th scope="row">{number}</th>(.*?)</tr>', text)
        state, text = re.search(
            r'<span class="state[^"]*">(.*?)</span>(.*?)</td>', found[1]
        ).groups()
        return [number, state, re.sub(r"<[^>]*>", "", text)]

    assert row(full, "19")[1:] == [
        "Reported",
        "Split “table1”, seed 7: one test part, 3 folds of the training part; see splits.",
    ]
    assert row(full, "20")[1:] == ["Reported", "Patients; see splits."]
    assert row(full, "23")[1:] == ["Reported", "torch 2.8.0; see provenance."]
    assert row(full, "44")[1:] == ["Not reported", ""]
    assert "95 % intervals, jackknife over patients" in row(full, "29")[2]
    config = {
        "model": {"backbone": HOSTILE},
        "ensemble": {"members": 3, "tta": True},
        "optim": {"select": "best"},
    }
    known = dataclasses.replace(full, config_yaml=yaml.safe_dump(config))
    assert row(known, "26")[2].startswith("Of each network the epoch with the lowest")
    assert "&lt;img src=x" in row(known, "22")[2]
    alone = ReportInput("Only measures", full.metrics)
    for number in ("7", "9", "19", "22", "24", "25", "26", "27", "39"):
        assert row(alone, number)[1] == "Not reported", number
    rules = dataclasses.replace(full, config_yaml="kind: rules\n")
    assert "Hand-written rules" in row(rules, "22")[2]


def test_checklists_count_what_they_show(full: ReportInput) -> None:
    for block in section(full, "checklist").split("<details>")[1:]:
        heading = re.search(r"(\d+) of (\d+) items reported, (\d+) in part, (\d+) not", block)
        whole, every, part, nothing = map(int, heading.groups())
        assert block.count(">Reported<") == whole
        assert block.count(">In part<") == part
        assert block.count(">Not reported<") == nothing
        assert whole + part + nothing == every


def test_splits_count_patients_figures_and_classes(full: ReportInput) -> None:
    text = section(full, "splits")
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)[1:]]
    assert cells[0] == ["12", "240", *["30"] * 8]
    assert [row[:2] for row in cells[1:]] == [["4", "80"]] * 3


def test_abstention_and_prediction_sets_are_shown(full: ReportInput) -> None:
    text = section(full, "selective")
    assert text.count("<svg") == 1
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th><td>(.*?)</td><td>(.*?) <", text)
    assert [row[1] for row in rows] == ["100 % (240)", "90 % (216)", "80 % (192)", "70 % (168)"] * 2
    measured = full.metrics["selective"]
    assert rows[0][2] == f"{measured['subtypes']['at_coverage'][0]['accuracy']['value']:.3f}"
    assert f">Subtype {measured['subtypes']['aurc']['value']:.3f}</text>" in text
    assert f">Atypical or normal {measured['binary']['aurc']['value']:.3f}</text>" in text

    text = section(full, "sets")
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th><td>(.*?)</td><td>(.*?) <", text)
    assert len(rows) == 9
    # Every fourth set is empty: those of two classes; one figure has none.
    assert rows[0] == ("Bipolar asymmetric", "30", "0.0")
    assert rows[-1] == ("All", "239", "74.9")
    assert "for 74.9 % of the figures, none for 25.1 %." in text
    assert "Figures without a set: 1." in text
    promised = {**full.metrics, "conformal": {**full.metrics["conformal"], "alpha": 0.1}}
    assert "the label of 90 % of" in section(dataclasses.replace(full, metrics=promised), "sets")


def test_measures_of_an_earlier_version_still_make_a_report(full: ReportInput) -> None:
    new = {"calibration", "selective", "conformal"}
    earlier = {name: value for name, value in full.metrics.items() if name not in new}
    report = dataclasses.replace(full, metrics=earlier)
    for key in ("selective", "sets"):
        assert "Not available" in section(report, key)
    assert "ECE" not in section(report, "reliability")
    assert "ECE 0." in section(full, "reliability")


def test_mistakes_and_examples_are_shown(full: ReportInput) -> None:
    mistakes = section(full, "mistakes")
    assert mistakes.count("<img") == MISTAKES_SHOWN
    assert mistakes.index("Ring 100\N{NO-BREAK SPACE}%") < mistakes.index("<code>test/")
    strips = section(full, "classes").split("<h3>")[1:]
    assert [strip.partition("<")[0] for strip in strips][::7] == [
        "Bipolar asymmetric (AMF)",
        "Ring shape (NMF)",
    ]
    assert all(0 < strip.count("<img") <= EXAMPLES_PER_CLASS for strip in strips)


def test_examples_are_agreed_on_and_of_as_many_patients_as_possible() -> None:
    patients = {f"{patient}/{i}": patient for patient in "abc" for i in range(5)}
    order = one_patient_each(patients)
    assert sorted(order) == sorted(patients)
    rounds = [{name[0] for name in order[i : i + 3]} for i in range(0, 15, 3)]
    assert rounds == [{"a", "b", "c"}] * 5


def test_mistakes_that_another_rater_shares_are_counted(full: ReportInput) -> None:
    predictions = full.predictions
    truth, other = predictions.labels["expert1"], predictions.labels["expert2"]
    wrong = predictions.predicted != truth
    shared = (wrong & (other == predictions.predicted)).sum()
    text = section(full, "mistakes")
    assert f"{wrong.sum()} of 240 figures" in text
    assert f"In {shared} of them expert 2 gives the model" in text


@pytest.mark.parametrize(
    ("missing", "key"),
    [
        ({"predictions": None, "out_of_fold": None}, "curves"),
        ({"predictions": None, "out_of_fold": None}, "reliability"),
        ({"predictions": None, "out_of_fold": None}, "selective"),
        ({"predictions": None, "out_of_fold": None}, "mistakes"),
        ({"predictions": None, "out_of_fold": None}, "classes"),
        ({"patches": None}, "classes"),
        ({"patches": None}, "mistakes"),
        ({"patches": None}, "gallery"),
        ({"predictions": None, "out_of_fold": None}, "gallery"),
        ({"histories": ()}, "training"),
        ({"splits": None}, "splits"),
        ({"out_of_fold": None}, "splits"),
        ({"config_yaml": None}, "configuration"),
        ({"run": None}, "provenance"),
    ],
)
def test_what_is_missing_is_said(full: ReportInput, missing: dict, key: str) -> None:
    text = section(dataclasses.replace(full, **missing), key)
    assert Page(text).faults == []
    assert "Not available" in text


def test_measures_alone_make_a_report(full: ReportInput) -> None:
    text = render_report(ReportInput(title="Only measures", metrics=full.metrics))
    assert Page(text).faults == []
    for key, title in SECTIONS.items():
        assert f'<section id="{key}"><h2>{title}</h2>' in text


def only_rater(label: str) -> ReportInput:
    """A report of someone's table with one rater, no domain, scanner or vote."""
    predictions = some_predictions(80, "x")
    names = {"label_mine": np.array(SUBTYPES)[predictions.labels["expert1"]]}
    votes = {"majority_atypical": np.where(predictions.labels["expert1"] < 4, "True", "False")}
    table = pd.DataFrame(
        {
            "patch_id": predictions.patch_ids,
            "patient_id": predictions.patients,
            **dict(zip(PROBABILITY_COLUMNS, predictions.probabilities.T, strict=True)),
            **(names if label == "mine" else votes),
        }
    )
    read = predictions_from_table(table)
    return ReportInput("T", evaluate(read, label, resamples=10), predictions=read)


def test_a_single_rater_is_enough() -> None:
    report = only_rater("mine")
    for key in ("table-1", "binary", "classes", "mistakes"):
        assert Page(section(report, key)).faults == []
    for key in ("groups", "curves", "overall"):
        assert "Not available" in section(report, key)


def test_votes_without_subtypes_are_enough() -> None:
    report = only_rater("majority_atypical")
    assert Page(render_report(report)).faults == []
    for key in (
        "table-1",
        "overall",
        "size",
        "confusion",
        "curves",
        "reliability",
        "sets",
        "mistakes",
        "gallery",
    ):
        assert "Not available" in section(report, key)
    assert "Model, against the majority vote" in section(report, "binary")


def test_classes_without_figures_and_undefined_measures_are_dashes() -> None:
    predictions = some_predictions(240, "test")
    some = predictions.take(predictions.labels["expert1"] != SUBTYPES.index("amf_bipolar"))
    metrics = evaluate(some, "expert1", resamples=20)
    assert metrics["per_class"]["amf_bipolar"]["auc"]["value"] is None
    report = ReportInput("T", metrics, predictions=some)
    for key in ("table-1", "overall", "binary", "groups", "size", "curves"):
        text = section(report, key)
        assert Page(text).faults == []
        assert not re.search(r"\b(nan|None)\b", text)


def test_no_mistake_is_said() -> None:
    predictions = some_predictions(80, "x")
    right = predictions.take(predictions.predicted == predictions.labels["expert1"])
    metrics = evaluate(right, "expert1", resamples=10)
    report = ReportInput("T", metrics, predictions=right)
    assert "The model made no mistake." in section(report, "mistakes")


def test_report_is_written_whole_and_the_same_each_time(tmp_path: Path) -> None:
    report, out = only_rater("majority_atypical"), tmp_path / "new" / "report.html"
    build_report(report, out)
    assert out.read_text("utf-8") == render_report(report)
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_every_fact_of_the_checklists_is_used_and_every_used_one_is_there() -> None:
    table = checklist_table()
    used = {fact for g in table["guidelines"] for _, _, *facts in g["items"] for fact in facts}
    assert used == set(table["facts"])
