from __future__ import annotations

import numpy as np
import pytest
from web_folders import make_cohort, make_run, predictions

from atypia.core.errors import InputError
from atypia.core.labels import SUBTYPES
from atypia.evaluation.label_audit import audit
from atypia.evaluation.predictions import (
    UNKNOWN,
    predictions_from_table,
    read_predictions,
    write_predictions,
)
from atypia.web.figure_rows import AlignedPredictions, coded
from atypia.web.source import kind_of, open_source, run_tables


def test_a_source_is_recognised_by_what_lies_there(shown, tmp_path):
    assert kind_of(shown / "run") == "run"
    assert kind_of(shown / "cohort") == "cohort"
    assert kind_of(shown / "slides" / "slide.tif") == "slide"
    for nothing in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="expected a run"):
            kind_of(nothing)


def test_answers_stand_beside_their_figures_whatever_the_order_of_the_tables(shown):
    with open_source(shown / "run") as found:
        figures = found.figures
        assert figures.answers is not None
        for part, table in run_tables(shown / "run").items():
            for row in (0, len(table) // 2, len(table) - 1):
                i = list(figures.patch_ids).index(table.patch_ids[row])
                record = figures.record(i)["answer"]
                assert record["part"] == part
                assert record["probabilities"] == pytest.approx(table.probabilities[row], abs=1e-6)
                assert record["predicted"] == table.predicted[row]
                members = np.flatnonzero(table.sets[row]).tolist()
                assert record["set"] == (members if table.has_set[row] else None)


def test_the_columns_hold_what_the_records_hold(shown):
    with open_source(shown / "run") as found:
        columns = found.figures.columns()
        for i in range(len(found.figures)):
            record = found.figures.record(i)
            assert columns["ids"][i] == record["patch_id"]
            patient = columns["patient"]
            assert patient["names"][patient["codes"][i]] == record["patient"]
            sent = columns["answers"]["probabilities"][8 * i : 8 * i + 8]
            assert np.array(sent) / 1e4 == pytest.approx(
                record["answer"]["probabilities"], abs=1e-4
            )
            for rater, label in record["labels"].items():
                assert columns["labels"][rater][i] == label


def test_the_rank_is_that_of_the_label_audit(shown):
    expected = audit(read_predictions(shown / "run" / "predictions-oof.csv"), resamples=2).table
    with open_source(shown / "run") as found:
        figures = found.figures
        assert figures.doubt is not None
        for row in expected.to_dict("records"):
            doubt = figures.record(list(figures.patch_ids).index(row["patch_id"]))["doubt"]
            assert doubt["rank"] == row["rank"]
            assert SUBTYPES[doubt["suggested"]] == row["suggested_subtype"]
        # What the members have not answered out of fold has no rank.
        assert (figures.doubt.rank > 0).sum() == len(expected)


def test_a_table_that_was_given_has_no_audit_since_its_model_may_have_learned_from_it(
    shown, tmp_path
):
    with open_source(shown / "cohort") as found:
        assert found.figures.answers is None
    table = tmp_path / "given.csv"
    table.write_bytes((shown / "run" / "predictions-oof.csv").read_bytes())
    with open_source(shown / "cohort", results=table) as found:
        assert found.figures.answers is not None
        assert found.figures.doubt is None
        assert (found.figures.answers.predicted != UNKNOWN).sum() == len(read_predictions(table))
        last = found.figures.record(len(found.figures) - 1)
        assert last["answer"] is None
    columns = found.figures.columns()["answers"]
    assert columns["predicted"][-1] == UNKNOWN


def test_figures_that_are_predicted_twice_or_unknown_are_all_told(tmp_path):
    cohort = make_cohort(tmp_path / "c", 8, hostile=False)
    table = predictions_from_table(predictions(cohort))
    with pytest.raises(InputError) as caught:
        AlignedPredictions.align(["cell-00000"], {"a": table, "b": table})
    assert len(caught.value.problems) == 2


def test_options_of_another_source_are_refused(shown, tmp_path):
    with (
        pytest.raises(InputError, match="belongs to a run"),
        open_source(shown / "cohort", cohort=shown / "cohort"),
    ):
        pass
    with (
        pytest.raises(InputError, match="belongs to a cohort"),
        open_source(shown / "run", results=tmp_path),
    ):
        pass


def test_a_run_whose_cohort_is_gone_asks_for_it(shown, tmp_path):
    import json
    import shutil

    run = tmp_path / "moved"
    shutil.copytree(shown / "run", run)
    content = json.loads((run / "run.json").read_text("utf-8"))
    content["cohort"]["path"] = "../nowhere"
    (run / "run.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match="--cohort"), open_source(run):
        pass
    with open_source(run, cohort=shown / "cohort") as found:
        assert len(found.figures) == 96


def test_groups_are_names_and_codes():
    assert coded(["b", "a", "b"]) == {"names": ["a", "b"], "codes": [1, 0, 1]}


def test_a_run_whose_figures_nobody_labelled_is_shown_without_an_audit(tmp_path):
    cohort = make_cohort(tmp_path / "cohort", 12, hostile=False)
    table = predictions(cohort).assign(label_expert1="")
    run = make_run(tmp_path / "run", cohort)
    write_predictions(run / "predictions-oof.csv", table[:8])
    write_predictions(run / "predictions-test.csv", table[8:])
    with open_source(run) as found:
        assert found.figures.doubt is None
        assert found.figures.answers is not None
