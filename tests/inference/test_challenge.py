"""A container for MIDOG 2025, track 2, as a plain process under the platform's constraints."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from atypia import pipeline
from atypia.classifiers.decision import p_atypical
from atypia.core.errors import InputError, MissingExtraError
from atypia.core.files import sha256_file
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.inference.challenge_stacks import ANSWER_FILE, SOCKET, answers, find_stack, read_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Export


def inputs_json(slug: str = SOCKET, key: str = "interface") -> list[dict[str, object]]:
    """What the platform writes, as in the challenge's template."""
    socket = {"slug": slug, "kind": "Image", "relative_path": f"images/{SOCKET}"}
    return [{"file": None, "image": {"name": "stack.tiff"}, "value": None, key: socket}]


def write_tiff_stack(path: Path, pages: np.ndarray) -> None:
    first, *more = (Image.fromarray(page) for page in pages)
    first.save(path, save_all=True, append_images=more, dpi=(300, 300))


def write_mha(path: Path, pages: np.ndarray, *, compressed: bool = True) -> None:
    itk = pytest.importorskip("SimpleITK")
    image = itk.GetImageFromArray(pages, isVector=True)
    image.SetSpacing([0.00025] * image.GetDimension())  # mm
    itk.WriteImage(image, str(path), useCompression=compressed)


@pytest.fixture(scope="module")
def pages(cohort_folder: Path) -> np.ndarray:
    """Five real crops, each unlike the others."""
    return np.stack([read_patch(path) for path in Cohort.open(cohort_folder).image_paths()[:5]])


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """An input folder without its stack."""
    folder = tmp_path / "input"
    (folder / "images" / SOCKET).mkdir(parents=True)
    (folder / "inputs.json").write_text(json.dumps(inputs_json()))
    return folder


@pytest.mark.parametrize("name", ["a.tif", "b.tiff", "c.mha", "plain.mha"])
@pytest.mark.parametrize("n", [5, 1])
def test_every_page_is_answered_in_order(
    exported: Export, case: Path, pages: np.ndarray, tmp_path: Path, name: str, n: int
) -> None:
    file = case / "images" / SOCKET / name
    if file.suffix == ".mha":
        write_mha(file, pages[:n], compressed=name != "plain.mha")
    else:
        write_tiff_stack(file, pages[:n])
    given = pipeline.challenge(case, tmp_path / "output", exported.folder, device="cpu")
    expected = p_atypical(exported.ensemble.predict_proba(pages[:n], 0.25))
    np.testing.assert_allclose([a["confidence"] for a in given], expected, atol=1e-4)
    calls = ["atypical" if p >= exported.ensemble.threshold else "normal" for p in expected]
    assert [a["class"] for a in given] == calls
    assert json.loads((tmp_path / "output" / ANSWER_FILE).read_text()) == given


def test_the_resolution_can_be_told(
    exported: Export, case: Path, pages: np.ndarray, tmp_path: Path
) -> None:
    write_tiff_stack(case / "images" / SOCKET / "s.tif", pages)
    given = pipeline.challenge(case, tmp_path, exported.folder, mpp=0.2, device="cpu")
    expected = p_atypical(exported.ensemble.predict_proba(pages, 0.2))
    np.testing.assert_allclose([a["confidence"] for a in given], expected, atol=1e-4)


def test_answers_are_floats_even_where_they_are_whole_numbers() -> None:
    """The challenge's evaluation refuses an integer."""
    given = json.loads(json.dumps(answers(np.array([0, 1, 0.25], np.float32), 0.25)))
    assert given == [
        {"class": "normal", "confidence": 0.0},
        {"class": "atypical", "confidence": 1.0},
        {"class": "atypical", "confidence": 0.25},
    ]
    assert all(type(answer["confidence"]) is float for answer in given)


def test_a_newer_platform_calls_an_interface_a_socket(case: Path, pages: np.ndarray) -> None:
    (case / "inputs.json").write_text(json.dumps(inputs_json(key="socket")))
    write_tiff_stack(case / "images" / SOCKET / "s.tif", pages)
    assert find_stack(case).name == "s.tif"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist"),
        ("{", "expected JSON"),
        ('{"a": 1}', "list of sockets"),
        ("[1]", "list of sockets"),
        ('[{"interface": null}]', "list of sockets"),
        (json.dumps(inputs_json("histopathology-roi-cropout")), SOCKET),
        ("[]", SOCKET),
    ],
)
def test_another_task_s_input_is_refused(case: Path, content: str | None, told: str) -> None:
    if content is None:
        (case / "inputs.json").unlink()
    else:
        (case / "inputs.json").write_text(content)
    with pytest.raises(InputError, match=re.escape(told)):
        find_stack(case)


def test_there_must_be_one_stack(case: Path, pages: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"expected one stack .* but got nothing"):
        find_stack(case)
    (case / "images" / SOCKET / "a.png").touch()
    with pytest.raises(InputError, match=r"but got a\.png"):
        find_stack(case)
    for name in ("a.tif", "b.tif"):
        write_tiff_stack(case / "images" / SOCKET / name, pages)
    with pytest.raises(InputError, match=r"a\.tif, b\.tif"):
        find_stack(case)


def test_bad_stacks_are_refused(
    exported: Export, case: Path, pages: np.ndarray, tmp_path: Path
) -> None:
    pytest.importorskip("SimpleITK")
    folder = case / "images" / SOCKET
    write_mha(tmp_path / "grey.mha", pages[..., :2])
    write_mha(tmp_path / "deep.mha", pages.astype(np.uint16))
    write_mha(tmp_path / "short.mha", pages, compressed=False)
    content = (tmp_path / "short.mha").read_bytes()
    (tmp_path / "short.mha").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.mha").write_text("no image")
    (tmp_path / "text.tif").write_text("no image")
    Image.new("L", (128, 128)).save(tmp_path / "grey.tif")
    write_tiff_stack(tmp_path / "small.tif", pages[:, :40, :40])
    for bad in [*tmp_path.glob("*.mha"), *tmp_path.glob("*.tif")]:
        file = Path(shutil.copy(bad, folder))
        with pytest.raises(InputError) as caught:
            pipeline.challenge(case, tmp_path / "output", exported.folder, device="cpu")
        assert {problem.file for problem in caught.value.problems} == {str(file)}, bad
        file.unlink()
    assert not (tmp_path / "output").exists()


def test_mha_needs_an_extra(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(MissingExtraError, match=r"atypia\[challenge\]"):
        read_stack(case / "s.mha")


# The process drops its rights only after a first run: what it imports may lie where only the
# person who started the tests can read.
CONTAINER = """
import os, socket, sys
from atypia.cli import main
base, *arguments = sys.argv[1:]
sys.argv = ["atypia", "challenge", *arguments, "--output", base + "/warm"]
main()

def refuse(*_, **__):
    raise OSError("no network")

socket.socket = socket.create_connection = socket.getaddrinfo = refuse
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    try:
        open(base + "/input/new", "w")
    except PermissionError:
        print("read-only, as user", os.getuid())
sys.argv[-1] = base + "/output"
main()
"""


@pytest.fixture
def box(exported: Export, pages: np.ndarray) -> Iterator[Path]:
    """Mounts of a container: /input and the model read-only, /output not."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        base = Path(name)
        stack = base / "input" / "images" / SOCKET / "0123-4567.tif"
        stack.parent.mkdir(parents=True)
        (base / "input" / "inputs.json").write_text(json.dumps(inputs_json()))
        write_tiff_stack(stack, pages)
        shutil.copytree(exported.folder, base / "model")
        (base / "output").mkdir()
        base.chmod(0o755)
        (base / "output").chmod(0o777)
        mounts = [base / "input", base / "model"]
        inside = [path for mount in mounts for path in (mount, *mount.rglob("*"))]
        for path in inside:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield base
        for path in inside:
            path.chmod(0o755)


def test_the_container_s_command_under_the_platform_s_constraints(
    exported: Export, box: Path, pages: np.ndarray
) -> None:
    def state() -> dict[str, str]:
        files = (f for mount in ("input", "model") for f in (box / mount).rglob("*"))
        return {str(f): sha256_file(f) for f in files if f.is_file()}

    before = state()
    options = ["--input", f"{box}/input", "--model", f"{box}/model"]
    done = subprocess.run(
        [sys.executable, "-c", CONTAINER, str(box), *options],
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "MPLCONFIGDIR": f"{box}/output"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if os.getuid() == 0:
        assert "read-only, as user 65534" in done.stdout
    given = json.loads((box / "output" / ANSWER_FILE).read_text())
    expected = p_atypical(exported.ensemble.predict_proba(pages, 0.25))
    np.testing.assert_allclose([a["confidence"] for a in given], expected, atol=1e-4)
    assert state() == before


def test_a_case_that_fails_says_why_and_fails(exported: Export, case: Path, tmp_path: Path) -> None:
    options = ["--input", case, "--output", tmp_path / "output", "--model", exported.folder]
    done = subprocess.run(
        [sys.executable, "-m", "atypia", "challenge", *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "expected one stack" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "output").exists()
