from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from atypia.core.errors import InputError
from atypia.core.labels import PROBABILITY_COLUMNS, SUBTYPES, subtype_index
from atypia.evaluation.comparison import compare
from atypia.evaluation.predictions import (
    REQUIRED_COLUMNS,
    UNKNOWN,
    predictions_from_table,
    read_predictions,
    write_predictions,
)
from atypia.evaluation.scores import evaluate


def problems_of(path):
    with pytest.raises(InputError) as caught:
        read_predictions(path)
    assert all(problem.file == str(path) for problem in caught.value.problems)
    return [(p.row, p.column, p.what) for p in caught.value.problems]


def save(table, path, **options):
    table.to_csv(path, index=False, **options)
    return path


def test_round_trip_in_the_agreed_order(table, tmp_path):
    shuffled = table[sorted(table.columns)]
    write_predictions(tmp_path / "predictions-test.csv", shuffled)
    header = (tmp_path / "predictions-test.csv").read_text().splitlines()[0].split(",")
    assert header[:4] == ["patch_id", "patient_id", "domain", "fold"]
    assert header[4:12] == list(PROBABILITY_COLUMNS)
    assert header[12:15] == ["p_atypical", "predicted_subtype", "predicted_atypical"]
    assert header[15:17] == ["label_expert1", "label_expert2"]
    assert set(header[17:]) == {
        "scanner",
        "atypical_expert1",
        "atypical_expert2",
        "majority_atypical",
    }
    read = read_predictions(tmp_path)  # a run folder
    np.testing.assert_allclose(read.probabilities, table[list(PROBABILITY_COLUMNS)], rtol=1e-8)
    np.testing.assert_allclose(read.p_atypical, table["p_atypical"], rtol=1e-8)
    assert [SUBTYPES[i] for i in read.predicted] == list(table["predicted_subtype"])
    assert list(read.predicted_atypical) == list(table["predicted_atypical"])
    assert list(read.patients) == list(table["patient_id"])
    assert list(read.scanners) == list(table["scanner"])
    assert set(read.labels) == {"expert1", "expert2"}
    assert list(read.votes["majority_atypical"] == 1) == list(table["majority_atypical"])


def test_a_run_stands_for_its_test_part_and_without_one_for_its_out_of_fold_table(table, tmp_path):
    save(table, tmp_path / "predictions-oof.csv")
    with pytest.raises(InputError, match=r"predictions-test\.csv: .* does not exist"):
        read_predictions(tmp_path)
    for kind in ("holdout", "cv", "domains"):  # stopped before it came to its test part
        (tmp_path / "splits.json").write_text(f'{{"format": 1, "kind": "{kind}"}}')
        with pytest.raises(InputError, match=r"predictions-test\.csv: .* does not exist"):
            read_predictions(tmp_path)
    (tmp_path / "splits.json").write_text('{"format": 1, "kind": "all"}')
    assert list(read_predictions(tmp_path).patch_ids) == list(table["patch_id"])


@pytest.mark.parametrize("packed", ["gz", "bz2"])
def test_a_compressed_table_is_read_like_a_plain_one(table, tmp_path, packed):
    for name in ("predictions-oof.csv", "predictions-test.csv"):  # that of the test part counts
        (tmp_path / "splits.json").write_text('{"format": 1, "kind": "all"}')
        path = save(table[::-1] if "oof" in name else table, tmp_path / f"{name}.{packed}")
        assert list(read_predictions(path).patch_ids) == list(read_predictions(tmp_path).patch_ids)
    assert list(read_predictions(tmp_path).patch_ids) == list(table["patch_id"])
    for broken in (path.read_bytes()[:-20], b"patch_id,patient_id", b""):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=rf"predictions-test\.csv\.{packed}"):
            read_predictions(path)


def test_only_ids_and_probabilities_are_needed(table, tmp_path):
    path = save(table[list(REQUIRED_COLUMNS)], tmp_path / "theirs.csv", encoding="utf-8-sig")
    read = read_predictions(path)
    probabilities = table[list(PROBABILITY_COLUMNS)].to_numpy()
    np.testing.assert_allclose(read.p_atypical, probabilities[:, :4].sum(1))
    assert (read.predicted == probabilities.argmax(1)).all()
    assert (read.predicted_atypical == (read.p_atypical >= 0.5)).all()
    assert read.label_choices == ()
    assert set(read.domains) == set(read.folds) == {""}


def test_labels_as_people_write_them(table, tmp_path):
    table["label_expert1"] = "AMF bipolar assymetric"
    table.loc[0, "label_expert1"] = None
    read = read_predictions(save(table, tmp_path / "p.csv"))
    assert read.labels["expert1"][0] == UNKNOWN
    assert set(read.labels["expert1"][1:]) == {subtype_index("amf_bipolar")}


def test_every_problem_is_told_at_once(table, tmp_path):
    table = table.astype(object)
    table.loc[0, "p_amf_other"] = float("nan")
    table.loc[1, "p_nmf_ring"] = -0.1
    table.loc[2, list(PROBABILITY_COLUMNS)] = 0.2
    table.loc[3, "p_atypical"] = 1.2
    table.loc[4, "predicted_subtype"] = "nmf_telephase"
    table.loc[5, "predicted_atypical"] = "perhaps"
    table.loc[6, "label_expert2"] = "mitosis"
    table.loc[7, "majority_atypical"] = "2"
    table.loc[8, "patch_id"] = "patch007"
    table.loc[9, "patient_id"] = " "
    table.loc[10, "p_nmf_ring"] = "0,3"
    found = problems_of(save(table, tmp_path / "p.csv"))
    places = [(row, column) for row, column, _ in found]
    assert places == [
        (2, "p_amf_other"),
        (3, "p_nmf_ring"),
        (4, None),
        (5, "p_atypical"),
        (6, "predicted_subtype"),
        (7, "predicted_atypical"),
        (8, "label_expert2"),
        (9, "majority_atypical"),
        (10, "patch_id"),
        (11, "patient_id"),
        (12, "p_nmf_ring"),
    ]
    what = [what for _, _, what in found]
    assert what[2] == "expected the eight probabilities to sum to 1 but got 1.6."
    assert what[6].endswith("or nothing but got 'mitosis'.")
    assert what[8] == "expected each patch_id and fold once but got 'patch007' again."


def test_the_same_patch_in_two_folds_is_no_problem(table, tmp_path):
    table.loc[1, "patch_id"] = table.loc[0, "patch_id"]
    table.loc[1, "fold"] = "1"
    assert len(read_predictions(save(table, tmp_path / "p.csv"))) == len(table)


def test_missing_and_repeated_columns(table, tmp_path):
    path = save(table.drop(columns=["patient_id", "p_nmf_ring"]), tmp_path / "p.csv")
    ((row, _, what),) = problems_of(path)
    assert row == 1
    assert "['patient_id', 'p_nmf_ring']" in what
    path.write_text(path.read_text().replace("scanner", "domain", 1))
    assert "each column name once but got 'domain' 2 times" in problems_of(path)[0][2]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_semicolons_tabs_and_decimal_commas(table, tmp_path, separator):
    plain = read_predictions(save(table, tmp_path / "plain.csv"))
    path = save(table, tmp_path / "p.csv", sep=separator, decimal=",")
    np.testing.assert_array_equal(read_predictions(path).probabilities, plain.probabilities)
    path.write_text(f"sep={separator}\n" + path.read_text())
    assert read_predictions(path).patch_ids.tolist() == plain.patch_ids.tolist()
    path.write_text(path.read_text().replace("0,", "0.7x,", 1))
    assert problems_of(path)[0][0] == 3


def test_rounded_probabilities_may_miss_1_by_what_their_decimals_allow(table, tmp_path):
    columns = list(PROBABILITY_COLUMNS)
    plain = table.drop(columns="p_atypical")
    plain[columns] = [0.126, 0.126, 0.126, 0.126, 0.125, 0.125, 0.125, 0.125]
    plain["p_amf_other"] -= 0.001
    plain[columns] = plain[columns].round(3)
    total = plain[columns].iloc[0].sum()
    assert 1.001 < total < 1.004
    read = read_predictions(save(plain, tmp_path / "p.csv"))
    np.testing.assert_allclose(read.probabilities.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(read.probabilities[0], plain[columns].iloc[0] / total)
    plain.loc[0, "p_nmf_ring"] = 0.1252  # four decimals may miss it by less
    found = problems_of(save(plain, tmp_path / "p.csv"))
    assert len(found) == len(plain)


def test_two_spellings_of_a_patient_are_an_error_that_names_both(table, tmp_path):
    for other in ("p07", "P07.svs", "P 07"):
        changed = table.assign(patient_id=["P07", other, *table["patient_id"][2:]])
        if other == "P 07":
            assert len(read_predictions(save(changed, tmp_path / "p.csv"))) == len(table)
            continue
        ((_, column, what),) = problems_of(save(changed, tmp_path / "p.csv"))
        assert column == "patient_id"
        assert f"but got 'P07' and {other!r}" in what
    blank = ["P07", " P07\u00a0", "P07\u200b"]
    changed = table.assign(patient_id=[*blank, *table["patient_id"][3:]])
    read = read_predictions(save(changed, tmp_path / "p.csv"))
    assert read.patients[:3].tolist() == ["P07"] * 3


def test_text_that_a_spreadsheet_would_run_is_written_so_that_it_does_not(table, tmp_path):
    ids = ["=1+1", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "'=2", "-5", "NA", "None", "null", "007"]
    table = table.assign(patch_id=[*ids, *table["patch_id"][len(ids) :]])
    write_predictions(tmp_path / "p.csv", table)
    written = (tmp_path / "p.csv").read_text()
    assert "\n'=1+1," in written
    assert "\n''=2," in written
    assert "\n-5," in written
    again = read_predictions(tmp_path / "p.csv")
    assert again.patch_ids[: len(ids)].tolist() == ids


def test_rows_of_another_length_and_other_faults_together(table, tmp_path):
    table.loc[5, "p_atypical"] = 7
    lines = save(table, tmp_path / "p.csv").read_text().splitlines()
    lines[2] += ",more"
    (tmp_path / "p.csv").write_text("\n".join([*lines, "cut", ""]))
    found = problems_of(tmp_path / "p.csv")
    assert [(row, column) for row, column, _ in found] == [
        (3, None),
        (7, "p_atypical"),
        (242, None),
    ]
    assert found[2][2] == "expected 21 cells as in the header but got 1."


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a" * 200_000 + b",b\n"])
def test_what_is_no_table(content, tmp_path):
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"p\.csv.*expected"):
        read_predictions(tmp_path / "p.csv")


def test_no_rows_and_no_file(table, tmp_path):
    with pytest.raises(InputError, match="at least one row"):
        read_predictions(save(table[:0], tmp_path / "p.csv"))
    with pytest.raises(InputError, match="does not exist"):
        read_predictions(tmp_path / "other.csv")


def test_a_bad_table_is_not_written(table, tmp_path):
    table.loc[0, "p_atypical"] = 2
    with pytest.raises(InputError, match="row 2, column 'p_atypical'"):
        write_predictions(tmp_path / "p.csv", table)
    assert list(tmp_path.iterdir()) == []


def test_named_labels(table):
    table.loc[0, "label_expert2"] = None
    table.loc[1, "majority_atypical"] = None
    read = predictions_from_table(table.astype(object).where(table.notna(), None))
    votes = ("atypical_expert1", "atypical_expert2", "majority_atypical")
    assert set(read.label_choices) == {"expert1", "expert2", "agreed", *votes}
    agreed = read.subtypes_of("agreed")
    same = (table["label_expert1"] == table["label_expert2"]).to_numpy()
    assert (agreed[same] == read.labels["expert1"][same]).all()
    assert (agreed[~same] == UNKNOWN).all()
    majority = read.atypical_of("majority_atypical")
    assert majority[1] == UNKNOWN
    assert (read.atypical_of("expert1") == (read.labels["expert1"] < 4)).all()
    assert (read.atypical_of("agreed")[~same] == UNKNOWN).all()
    with pytest.raises(InputError, match="says atypical or normal"):
        read.subtypes_of("majority_atypical")
    for label in ("soft", "expert3"):
        with pytest.raises(InputError, match=f"out of .'expert1'.* got {label!r}"):
            read.atypical_of(label)


def test_votes_are_labels_too(table):
    bare = table.drop(columns=[c for c in table.columns if c.startswith("label_")])
    read = predictions_from_table(bare)
    votes = [{"True": 1, "False": 0}.get(str(v), UNKNOWN) for v in bare["atypical_expert1"]]
    for label in ("expert1", "atypical_expert1"):  # a rater who gave no subtypes
        assert read.atypical_of(label).tolist() == votes
        measured = evaluate(read, label, resamples=20)
        assert list(measured["binary"]["against"]) == [label, "majority_atypical"]
        assert measured["overall"] == {}
        known = np.array(votes) != UNKNOWN
        auc = roc_auc_score(np.array(votes)[known], read.p_atypical[known])
        assert measured["binary"]["against"][label]["auc"]["value"] == pytest.approx(auc)
    with pytest.raises(InputError, match=r"'expert1' says atypical or normal, not the subtype"):
        read.subtypes_of("expert1")
    counted = predictions_from_table(bare.drop(columns="majority_atypical"))
    columns = ("atypical_expert1", "atypical_expert2")
    for first, second, majority in zip(
        *(counted.votes[c] for c in columns), counted.atypical_of("majority_atypical"), strict=True
    ):
        given = {vote for vote in (first, second) if vote != UNKNOWN}
        assert majority == (given.pop() if len(given) == 1 else UNKNOWN)
    both = predictions_from_table(table)
    assert (
        both.atypical_of("expert1") == (both.labels["expert1"] < 4)
    ).all()  # subtypes stand first
    assert compare({"a": read, "b": read}, "expert1", 20)["measures"]


def test_prediction_sets(table, tmp_path):
    assert not predictions_from_table(table).has_set.any()
    table["conformal_set"] = "nmf_ring"
    table.loc[0, "conformal_set"] = "amf_other|nmf_metaphase"
    table.loc[1, "conformal_set"] = "empty"
    table.loc[2, "conformal_set"] = None
    write_predictions(tmp_path / "p.csv", table)
    header = (tmp_path / "p.csv").read_text().splitlines()[0].split(",")
    assert header[14:16] == ["predicted_atypical", "conformal_set"]
    read = read_predictions(tmp_path / "p.csv")
    assert read.has_set.tolist() == [True, True, False, *[True] * 237]
    assert [SUBTYPES[i] for i in np.flatnonzero(read.sets[0])] == ["amf_other", "nmf_metaphase"]
    assert not read.sets[1:3].any()
    assert (read.sets[3:] == (np.arange(8) == 7)).all()
    part = read.take(np.array([1, 0]))
    assert np.array_equal(part.sets, read.sets[[1, 0]])
    table.loc[4, "conformal_set"] = "ring"
    (row, column, what), *others = problems_of(save(table, tmp_path / "q.csv"))
    assert (row, column, others) == (6, "conformal_set", [])
    assert what.endswith("joined by '|', 'empty' or nothing but got 'ring'.")


def test_missing_cells_of_a_table_in_memory(table):
    table["label_expert1"] = pd.array([pd.NA, *table["label_expert1"][1:]], dtype="string")
    assert predictions_from_table(table).labels["expert1"][0] == UNKNOWN
