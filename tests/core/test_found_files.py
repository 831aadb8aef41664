"""Folders of inputs: links, circles, what tools leave behind, names and files that no one reads."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from atypia.core.errors import InputError
from atypia.core.files import read_json
from atypia.core.found_files import entries_in, files_below, is_tool_made, require_utf8
from atypia.core.tables import read_table
from atypia.data.images import read_patch
from atypia.evaluation.predictions import read_predictions
from atypia.inference.patch_predictions import find_items
from atypia.slides import open_slide


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def names(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in files_below(folder)]


def test_links_to_folders_are_entered_and_circles_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "in" / "a" / "1.png", tmp_path / "else" / "2.png")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "else")
    (tmp_path / "else" / "back").symlink_to(tmp_path / "in" / "a")
    (tmp_path / "in" / "a" / "forth").symlink_to(tmp_path / "else")
    (tmp_path / "in" / "a" / "up").symlink_to("..")
    with caplog.at_level(logging.WARNING, "atypia"):
        found = names(tmp_path / "in")
    assert found == ["a/1.png", "a/forth/2.png", "b/2.png", "b/back/1.png"]
    (line,) = caplog.messages
    assert "4 left out, links to a folder above them" in line
    assert str(tmp_path / "in" / "a" / "up") in line


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "ok.png")
    (tmp_path / "amf_other").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"amf_other: expected .* link to nothing"):
        files_below(tmp_path)


def test_what_tools_leave_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = (".ipynb_checkpoints/ok.png", "@eaDir/ok.png/t.jpg", "._ok.png", ".DS_Store")
    left += ("Thumbs.db", "__MACOSX/._ok.png", "case/#recycle/ok.png", "desktop.ini")
    touch(tmp_path / "ok.png", *(tmp_path / name for name in left))
    with caplog.at_level(logging.WARNING, "atypia"):
        assert names(tmp_path) == ["ok.png"]
    assert f"{len(left)} left out, hidden, or made by the system or a tool" in caplog.text
    assert [path.name for path in entries_in(tmp_path)] == ["case", "ok.png"]
    assert not is_tool_made("thumbs.png")
    assert [item.patch_id for item in find_items([tmp_path], 0.25)] == ["ok"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing: expected a folder that can be read"):
        files_below(tmp_path / "nothing")


def test_names_that_are_not_utf8_are_to_be_renamed(tmp_path: Path) -> None:
    wrong = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Path(wrong).touch()
    for ask in (
        lambda: files_below(tmp_path),
        lambda: find_items([Path(wrong)], 0.25),
        lambda: entries_in(tmp_path),
    ):
        with pytest.raises(InputError, match=r"caf\\xe9\.png: expected a name in UTF-8\. Rename"):
            ask()
    require_utf8(["café.png"])


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    readers = (read_json, read_table, read_patch, read_predictions)
    with pytest.raises(InputError, match=r"pipe\.tif: expected a file"), open_slide(pipe):
        pass
    for read in (*readers, lambda path: find_items([path.parent], None)):
        with pytest.raises(InputError, match=r"pipe\.tif: expected a file but got a FIFO"):
            read(pipe)
