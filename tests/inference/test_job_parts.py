"""Files of answers: whole or not there, of one kind, and what failed beside the rows."""

from __future__ import annotations

import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest

from atypia.core.errors import AtypiaError, MissingExtraError
from atypia.core.files import write_bytes
from atypia.inference import job_parts
from atypia.inference.job_parts import (
    Failure,
    FinishedPart,
    encode_part,
    keys_in,
    load_pyarrow,
    part_path,
    read_rows,
    read_summary,
)

ROWS = pd.DataFrame(
    {
        "patch_id": ["a", "b", "c"],
        "x_px": [1.5, 2.0, 1e5 / 3],
        "p_atypical": [0.25, 0.5, 1.0],
        "predicted_atypical": [False, True, True],
        "label_x": ["", None, "nmf_ring"],
    }
)


def test_rows_and_failures_come_back(tmp_path):
    failures = [Failure("s", "d", "expected “sound” pixels"), Failure("s", "", "é")]
    path = part_path(tmp_path, "0a")
    write_bytes(path, encode_part(FinishedPart(ROWS, 3, failures)))
    summary = read_summary(path)
    assert (summary.rows, summary.answered, summary.atypical) == (3, 3, 2)
    assert summary.failures == tuple(failures)
    assert summary.columns == tuple(ROWS.columns)
    rows = read_rows(path)
    assert rows["x_px"].tolist() == ROWS["x_px"].tolist()  # to the bit
    assert rows["p_atypical"].tolist() == ROWS["p_atypical"].tolist()
    assert list(rows["patch_id"]) == ["a", "b", "c"]
    assert list(rows["label_x"].fillna("")) == ["", "", "nmf_ring"]
    assert keys_in(tmp_path) == {"0a"}


def test_columns_have_one_type_in_all_files(tmp_path):
    """Else whoever reads the folder as one table cannot."""
    write_bytes(part_path(tmp_path, "0"), encode_part(FinishedPart(ROWS.iloc[:0], 0)))
    write_bytes(part_path(tmp_path, "1"), encode_part(FinishedPart(ROWS.assign(label_x=None), 3)))
    write_bytes(part_path(tmp_path, "2"), encode_part(FinishedPart(ROWS.assign(label_x=1), 3)))
    schemas = {str(pq.read_schema(path).remove_metadata()) for path in tmp_path.iterdir()}
    assert len(schemas) == 1
    assert len(pd.read_parquet(tmp_path)) == 6


def test_groups_of_rows_are_read_apart(tmp_path):
    path = part_path(tmp_path, "0")
    write_bytes(path, encode_part(FinishedPart(ROWS, 3, group_size=2)))
    assert list(read_rows(path, 0, ["patch_id"])["patch_id"]) == ["a", "b"]
    assert list(read_rows(path, 1)["patch_id"]) == ["c"]


def test_a_damaged_or_missing_file_is_named(tmp_path):
    path = part_path(tmp_path, "0")
    with pytest.raises(AtypiaError, match=r"0\.parquet is missing"):
        read_rows(path)
    content = encode_part(FinishedPart(ROWS, 3))
    for damaged in (b"", content[:100], content[:-30], b"x" * 500):
        path.write_bytes(damaged)
        with pytest.raises(AtypiaError, match="Delete it"):
            read_summary(path)
    middle = len(content) // 4
    path.write_bytes(content[: middle - 40] + b"\xff" * 80 + content[middle + 40 :])
    with pytest.raises(AtypiaError, match="Delete it"):
        read_rows(path)


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'atypia\[cluster\]'"):
        load_pyarrow()
    assert job_parts.EXTRA == "cluster"
