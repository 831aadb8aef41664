"""Rows without a call: read, kept, and in no measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from atypia.biomarker import ErrorModel
from atypia.classifiers.answers import Answers, joined
from atypia.classifiers.conformal import ConformalSets
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.errors import InputError
from atypia.core.labels import ANSWERED, PROBABILITY_COLUMNS, STATUSES, SUBTYPES
from atypia.evaluation.comparison import compare, comparison_table
from atypia.evaluation.label_audit import audit
from atypia.evaluation.predictions import UNKNOWN, predictions_from_table, read_predictions
from atypia.evaluation.scores import evaluate
from atypia.inference.patch_predictions import (
    prediction_records,
    prediction_table,
    with_abstained,
    write_table,
)
from atypia.reports.report_input import ReportInput

if TYPE_CHECKING:
    from pathlib import Path

EVERY = [ANSWERED, "no_tissue", "not_a_mitosis", ANSWERED, "poor_image", "unlike_training"]


def answered_table(table: pd.DataFrame, statuses: list[str]) -> pd.DataFrame:
    """The table as the model with a guard would have written it."""
    status = np.array([*statuses, *[ANSWERED] * (len(table) - len(statuses))])
    answers = Answers(
        table[list(PROBABILITY_COLUMNS)].to_numpy(np.float32),
        status,
        np.where(status == ANSWERED, 0.97, np.nan).astype(np.float32),
    )
    about = table.drop(columns=["p_atypical", "predicted_subtype", "predicted_atypical", "fold"])
    about = about.drop(columns=list(PROBABILITY_COLUMNS))
    labels = table["label_expert1"].map(SUBTYPES.index).to_numpy()
    sets = ConformalSets.fit(answers.probabilities, labels, 0.1)
    model = Postprocessing(conformal=sets)
    return prediction_table(about, answers, model, "test")


def test_what_is_not_answered_keeps_its_probabilities_and_has_no_call(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    made = answered_table(table, EVERY)
    write_table(tmp_path / "p.csv", made)
    header, *lines = (tmp_path / "p.csv").read_text().splitlines()
    columns = header.split(",")
    at = columns.index("p_atypical")
    assert columns[at : at + 6] == [
        "p_atypical",
        "predicted_subtype",
        "predicted_atypical",
        "conformal_set",
        "p_mitosis",
        "status",
    ]
    assert lines[0].split(",")[at + 2] in ("True", "False")
    assert lines[1].split(",")[at + 1 : at + 6] == ["", "", "", "", "no_tissue"]
    read = read_predictions(tmp_path / "p.csv")
    np.testing.assert_allclose(read.probabilities, made[list(PROBABILITY_COLUMNS)], rtol=1e-6)
    assert read.status.tolist()[:6] == EVERY
    assert read.left_out == dict.fromkeys(STATUSES[1:], 1) | {"no_tissue": 1}
    assert (read.predicted[~read.answered] == UNKNOWN).all()
    assert (read.predicted[read.answered] >= 0).all()
    assert not read.predicted_atypical[~read.answered].any()
    assert not read.has_set[~read.answered].any()
    assert read.has_set[read.answered].all()
    assert np.isnan(read.p_mitosis[1])
    assert read.p_mitosis[0] == pytest.approx(0.97)


def test_records_have_null_where_there_is_no_call(table: pd.DataFrame, tmp_path: Path) -> None:
    made = answered_table(table, EVERY)
    first, second, *_ = prediction_records(made)
    decision = ["p_atypical", "threshold", "operating_point", "predicted_atypical"]
    decision += ["predicted_subtype", "conformal_set"]
    start = list(first).index("p_atypical")
    assert list(first)[start : start + 6] == decision
    assert (first["predicted_atypical"], first["operating_point"]) == (
        first["p_atypical"] >= first["threshold"],
        "balanced",
    )
    assert first["predicted_atypical"] in (True, False)
    assert first["p_mitosis"] == pytest.approx(0.97)
    assert second["status"] == "no_tissue"
    assert second["p_mitosis"] is None
    assert second["predicted_atypical"] is None
    assert second["predicted_subtype"] is None
    assert second["conformal_set"] == []
    assert sum(second["probabilities"].values()) > 0.99
    write_table(tmp_path / "p.json", made)  # strict JSON
    unsure = with_abstained(made, 1.0)["abstained"]
    assert unsure.tolist()[:6] == [status == ANSWERED for status in EVERY]


def test_measures_are_those_of_the_answered_rows(table: pd.DataFrame) -> None:
    made = predictions_from_table(answered_table(table, EVERY))
    alone = predictions_from_table(answered_table(table, EVERY).iloc[[0, 3, *range(6, 240)]])
    scored, expected = (evaluate(t, resamples=50) for t in (made, alone))
    assert scored.pop("left_out") == made.left_out
    assert expected.pop("left_out") == {}
    assert scored == expected
    audited, expected = (audit(t, resamples=50).summary for t in (made, alone))
    assert audited.pop("left_out") == made.left_out
    assert expected.pop("left_out") == {}
    assert audited == expected
    counted = [ErrorModel.fit(t).to_json() for t in (made, alone)]
    assert counted[0] == counted[1]
    shown = ReportInput("made", scored, predictions=made).scored
    assert shown is not None
    assert shown[0].answered.all()
    assert len(shown[0]) == len(alone)
    with pytest.raises(InputError, match="expected rows with a call but got 1 no tissue, 1 not"):
        evaluate(made.take(np.array([1, 2])))


def test_patches_are_compared_that_every_table_answers(table: pd.DataFrame) -> None:
    first = predictions_from_table(answered_table(table, EVERY))
    second = predictions_from_table(answered_table(table, [*EVERY[:1], ANSWERED, *EVERY[1:]]))
    found = compare({"A": first, "B": second}, resamples=50)
    both = first.answered & second.answered
    assert found["n"] == both.sum() == 234
    assert found["left_out"] == {"A": 0, "B": 0}
    assert found["not_answered"] == {"A": first.left_out, "B": second.left_out}
    assert "as A has no call: 1 no tissue, 1 poor image" in comparison_table(found)
    assert found["measures"]["A"] == pytest.approx(
        compare({"A": first.take(both), "B": second.take(both)}, resamples=50)["measures"]["A"]
    )


def test_repeats_without_a_call_count_where_there_is_no_other(table: pd.DataFrame) -> None:
    once = table[:6]
    repeats = [
        answered_table(once, EVERY).assign(fold="a"),
        answered_table(once, []).assign(fold="b"),
    ]
    repeats[1].loc[1, ["status", "predicted_subtype", "predicted_atypical", "conformal_set"]] = [
        "poor_image", "", None, ""
    ]  # fmt: skip
    joint = predictions_from_table(pd.concat(repeats, ignore_index=True)).averaged()
    other = predictions_from_table(repeats[1])
    assert joint.answered.tolist() == [True, False, *[True] * 4]
    assert joint.status[1] == "no_tissue"
    assert joint.predicted[1] == UNKNOWN
    np.testing.assert_array_equal(joint.predicted[2:], other.predicted[2:])
    np.testing.assert_array_equal(joint.sets[2:], other.sets[2:])


def test_a_status_is_checked_and_an_empty_one_is_an_answer(table: pd.DataFrame) -> None:
    made = answered_table(table, EVERY)
    wrong = made.assign(p_mitosis=[1.5, *made["p_mitosis"][1:]])
    wrong.loc[3, "status"] = "unlike_trainings"
    wrong.loc[6, "predicted_subtype"] = ""
    with pytest.raises(InputError) as caught:
        predictions_from_table(wrong)
    assert [(p.row, p.column) for p in caught.value.problems] == [
        (2, "p_mitosis"),
        (5, "status"),
        (8, "predicted_subtype"),
    ]
    made.loc[0, "status"] = ""
    assert predictions_from_table(made).answered[0]
    assert predictions_from_table(table).answered.all()


def test_nothing_joined_is_an_empty_table_with_every_column(table: pd.DataFrame) -> None:
    columns = prediction_table(table[[]].iloc[:0], joined([]), Postprocessing()).columns
    assert {"p_mitosis", "status"} <= set(columns)


@pytest.mark.usefixtures("undrawn")
def test_commands_print_what_was_left_out(
    table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from atypia.cli.judging import evaluate as command

    write_table(tmp_path / "p.csv", answered_table(table, EVERY))
    command(tmp_path / "p.csv", tmp_path / "out", resamples=20)
    assert "4 left out, as they have no call: 1 no tissue, 1 poor image" in capsys.readouterr().err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Left out, as the model gave no call: 1 no tissue" in page
