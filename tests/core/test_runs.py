"""Writes that are whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atypia.core.errors import AtypiaError, InputError
from atypia.core.files import (
    atomic_write,
    building_folder,
    read_json,
    source_commit,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def fail_halfway(file: Path) -> None:
    with atomic_write(file) as stream:
        stream.write("half")
        raise RuntimeError


def fail_building(out: Path) -> None:
    with building_folder(out) as folder:
        (folder / "part").write_text("x")
        raise RuntimeError


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(RuntimeError):
        fail_halfway(file)
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full (Linux)")
def test_a_full_disk_is_told_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    monkeypatch.setattr(
        "tempfile.mkstemp", lambda **_: (os.open("/dev/full", os.O_WRONLY), str(tmp_path / "x"))
    )
    with pytest.raises(AtypiaError, match="free space"):
        write_text(file, "new")
    assert file.read_text() == "old"


def test_an_unwritable_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AtypiaError, match="could not be written"):
        write_text(tmp_path / "file" / "below.txt", "x")


def test_json_is_strict_and_bad_json_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert names(tmp_path) == []
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(InputError, match="expected JSON"):
        read_json(tmp_path / "b.json")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_a_checkout_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        return subprocess.run(
            ["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    module, installed = tmp_path / "runs.py", tmp_path / ".venv" / "runs.py"
    installed.parent.mkdir()
    for file in (module, installed):
        file.write_text("")
    monkeypatch.setattr("atypia.core.files.__file__", str(module))
    assert source_commit() is None
    git("init")
    git("add", "runs.py")
    git("commit", "-m", "first")
    assert source_commit() == git("rev-parse", "HEAD")
    module.write_text("changed")
    assert source_commit() == git("rev-parse", "HEAD") + "+"
    monkeypatch.setattr("atypia.core.files.__file__", str(installed))
    assert source_commit() is None


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError):
        fail_building(out)
    assert names(tmp_path) == []
    with building_folder(out) as folder:
        (folder / "whole").write_text("x")
        assert not out.exists()
    assert names(out) == ["whole"]
    with pytest.raises(InputError, match="already exists"), building_folder(out):
        pass


def test_what_a_killed_process_left_is_removed_and_a_living_one_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from atypia.core.files import building_folder\n"
        "with building_folder(Path(sys.argv[1])) as f:\n"
        "    (f / 'part').write_text('x'); print('there', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        maker.stdout.readline()
        (tmp_path / ".out.kept.by_user").mkdir()
        with pytest.raises(InputError, match="is being made by another process"):
            fail_building(out)
        assert len(names(tmp_path)) == 2
        maker.kill()
    assert len(names(tmp_path)) == 2
    with building_folder(out) as folder:
        (folder / "whole").write_text("x")
    assert names(tmp_path) == [".out.kept.by_user", "out"]
    assert names(out) == ["whole"]
