"""What is not answered, in the app: kept, apart, in no count."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from web_folders import make_slide

from atypia.core.errors import InputError
from atypia.core.labels import SUBTYPES, left_out
from atypia.evaluation.predictions import UNKNOWN
from atypia.web.slide_view import SlideView
from atypia.web.source import open_source

APART = {2: "no_tissue", 5: "not_a_mitosis", 9: "not_a_mitosis"}


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A slide, its results, and the same with three figures that are not answered."""
    slide, results = make_slide(tmp_path_factory.mktemp("unanswered") / "slides")
    table = pd.read_csv(results, dtype=str, keep_default_na=False)
    status = np.full(len(table), "answered", "U20")
    status[[*APART]] = [*APART.values()]
    table = table.assign(p_mitosis="0.25", status=status)
    called = results.with_name("called.csv")
    table.to_csv(called, index=False)
    table.loc[[*APART], ["predicted_subtype", "predicted_atypical"]] = ""
    uncalled = results.with_name("uncalled.csv")
    table.to_csv(uncalled, index=False)
    return slide, results, called, uncalled


def test_a_figure_without_a_call_has_its_status_and_no_subtype(slide):
    path, _, called, uncalled = slide
    for results in (called, uncalled):
        with open_source(path, results=results) as found:
            columns = found.figures.columns()["answers"]
            record = found.figures.record(2)["answer"]
        for number, status in APART.items():
            assert columns["predicted"][number] == columns["called"][number] == UNKNOWN
            assert columns["status"]["names"][columns["status"]["codes"][number]] == status
        assert min(p for i, p in enumerate(columns["predicted"]) if i not in APART) >= 0
        assert sum(record["probabilities"]) == pytest.approx(1)
        assert record["called_atypical"] is None
        assert record["set"] is None
        assert (record["status"], record["p_mitosis"]) == ("no_tissue", 0.25)


def test_density_and_hot_spot_leave_them_out(slide, monkeypatch):
    # The slide is smaller than a hot-spot.
    monkeypatch.setattr("atypia.web.slide_view.tissue_of", lambda _: None)
    path, plain, _, uncalled = slide
    views = []
    for results in (plain, uncalled):
        with open_source(path, results=results) as found:
            view = SlideView(found.pool, found.found)
            views.append((view.about(), sum(view.density()["per_mm2"])))
    (before, every), (about, fewer) = views
    assert about["places"] == before["places"]
    n = len(before["places"])
    assert about["hotspot"]["figures"] + about["hotspot"]["left_out"] == n
    assert about["hotspot"]["left_out"] == len(APART)
    assert fewer < every


def test_all_count_where_it_is_asked_for(slide):
    path, plain, called, uncalled = slide
    with (
        open_source(path, results=plain) as before,
        open_source(path, results=called, count_all=True) as found,
    ):
        first, second = (shown.figures.columns()["answers"] for shown in (before, found))
        assert first["predicted"] == second["predicted"]
        assert left_out(found.found.figures.status.tolist()) == {}
        assert {SUBTYPES[k] for k in second["predicted"]} <= set(SUBTYPES)
    with (
        pytest.raises(InputError, match="but 3 have none"),
        open_source(path, results=uncalled, count_all=True),
    ):
        pass
