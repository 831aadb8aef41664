"""The table of slides: what it may say, and everything that is wrong with it at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.core.errors import InputError
from atypia.inference.slide_list import SlideRow, read_slide_table
from atypia.inference.slide_work import Listing, cut_slide


def test_paths_count_from_the_table_and_what_is_not_said_is_none(tmp_path, caplog):
    path = tmp_path / "t.csv"
    path.write_text(
        "slide;candidates;mpp;units;slide_id;patient_id;note\n"
        "a.svs;c/a.csv;;;;;\n"
        f"{tmp_path}/x/b.svs;none;0.25;um;B 1;p1;seen\n"
    )
    assert read_slide_table(path) == [
        SlideRow("a.svs", tmp_path / "a.svs", tmp_path / "c/a.csv", None, None, ""),
        SlideRow("B 1", tmp_path / "x/b.svs", None, 0.25, "um", "p1"),
    ]
    assert "columns that are not used: note" in caplog.text


def test_all_problems_are_told_together(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "slide,candidates,mpp,units,slide_id\n"
        ",c.csv,,,\n"
        "a.svs,,25,,\n"
        "b.svs,c.csv,x,mm,../up\n"
        "x/c.svs,c.csv,,,\n"
        "y/c.svs,c.csv,,,\n"
        "d.svs,c.csv\n"
    )
    with pytest.raises(InputError) as error:
        read_slide_table(path)
    told = [(p.row, p.column) for p in error.value.problems]
    assert told == [
        (2, "slide"),
        (3, "candidates"),
        (3, "mpp"),
        (4, "mpp"),
        (4, "units"),
        (4, "slide_id"),
        (7, None),
        (None, None),
    ]
    assert "'c.svs' 2 times" in error.value.problems[-1].what


def test_missing_columns_are_named_with_what_is_near(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Slide,candidate\na.svs,c.csv\n")
    with pytest.raises(InputError, match=r"'slide'.*did you mean 'Slide'(.|\n)*'candidates'"):
        read_slide_table(path)


@settings(deadline=None)
@given(n=st.integers(0, 10_000), size=st.integers(1, 3_000))
def test_ranges_hold_every_candidate_once(n, size):
    row = SlideRow("a", None, None, None, None, "")  # type: ignore[arg-type]
    ranges = cut_slide(Listing("job", row), n, size)
    assert sum(item.size for item in ranges) == n
    assert all(0 < item.size <= size for item in ranges)
    assert all(item.size == size for item in ranges[:-1])
    assert [item.group for item in ranges] == list(range(len(ranges)))
    assert len({item.key for item in ranges}) == len(ranges)
