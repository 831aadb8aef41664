"""``atypia serve`` beside ``atypia predict`` and ``atypia slide``: the same answers; options."""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from server_client import b64, image, running, stack
from slide_files import noise, write_pyramid
from untrained import untrained_ensemble

from atypia import cli
from atypia._version import __version__
from atypia.classifiers.bundle import read_header
from atypia.core.labels import SUBTYPES
from atypia.server.listener import bound, choose_access

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


def atypia(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of a verb that runs in this process."""
    monkeypatch.setattr("sys.argv", ["atypia", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def same(answers: list[dict[str, object]], expected: list[dict[str, object]]) -> None:
    """Compare records; probabilities to 1e-5."""
    for records in (answers, expected):
        for record in records:
            probabilities = record.pop("probabilities")
            record["p"] = [probabilities[s] for s in SUBTYPES] + [record.pop("p_atypical")]  # type: ignore[index]
    np.testing.assert_allclose(
        [record.pop("p") for record in answers],
        [record.pop("p") for record in expected],
        atol=1e-5,
    )
    assert answers == expected


@pytest.mark.slow
def test_probabilities_equal_the_command_line_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "my model"
    untrained_ensemble().save(model)
    files = {
        "a.png": image(seed=1, side=128),
        "b.jpg": image(seed=2, kind="JPEG"),
        "c.tif": stack(5),
        "small.png": image(seed=3, side=60),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    slide = write_pyramid(tmp_path / "slide.tif", noise(300, 400), 0.25)
    listed = tmp_path / "c.csv"
    listed.write_text("id,x_px,y_px\na,60,70\nb,190,140\n")
    paths = [tmp_path / name for name in files]
    use = ("--model", model, "--out")
    assert atypia(monkeypatch, "predict", *paths, "--mpp", 0.25, *use, tmp_path / "p.json") == 0
    assert (
        atypia(monkeypatch, "slide", slide, "--candidates", listed, *use, tmp_path / "s.json") == 0
    )
    command = ("-m", "atypia", "serve", "--model", model, "--port", 0)
    with running(*command, "--register", f"slide.tif={slide}") as server:
        version = server.get("/version").json
        assert version["atypia"] == __version__
        assert (version["model"], version["backend"]) == ("my model", "torch")
        assert version["files"] == {m.file: m.sha256 for m in read_header(model).members}
        assert version["thresholds"] == {"atypical": 0.5}
        expected = json.loads((tmp_path / "p.json").read_text())
        form = [*[("images", pair) for pair in files.items()], ("mpp", "0.25")]
        same(server.post_form("/v1/predict", form).json["predictions"], expected)  # type: ignore[arg-type]
        patches = [{"image": b64(d), "patch_id": n.partition(".")[0]} for n, d in files.items()]
        answers = server.post_json("/v1/predict", {"mpp": 0.25, "patches": patches}).json
        same(answers["predictions"], json.loads((tmp_path / "p.json").read_text()))
        on_slide = json.loads((tmp_path / "s.json").read_text())
        sent = [("candidates", ("c.csv", listed.read_bytes()))]
        answers = server.post_form("/v1/slides/slide.tif/predict", sent).json  # type: ignore[arg-type]
        same(answers["figures"], on_slide["figures"])
        server.process.terminate()
        assert server.process.wait(20) == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "nothing"], "nothing is not a model"),
        (["--host", "no such host."], "--host"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--register", "a", "--register", "=b"], "2 problems"),
        (["--register", "a=none.svs"], "no such file"),
        (["--slides", "none"], "expected a folder of slides"),
        (["--max-memory-mb", "10"], "--max-memory-mb"),
        (["--token-file", "none"], "--token-file none: expected a text file"),
        (["--port", "99999"], "65535"),
    ],
)
def test_wrong_options_end_with_2_before_anything_listens(
    options: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert atypia(monkeypatch, "serve", "--port", 0, *options) == 2
    assert told in capsys.readouterr().err


def test_a_port_in_use_and_a_short_token_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert atypia(monkeypatch, "serve", "--port", taken.getsockname()[1]) == 2
    assert "Choose another --port" in capsys.readouterr().err
    monkeypatch.setenv("ATYPIA_TOKEN", "short")
    assert atypia(monkeypatch, "serve", "--port", 0) == 2
    assert "token: expected at least 16" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: sys.modules.get(name))
    monkeypatch.delitem(sys.modules, "uvicorn", raising=False)
    assert atypia(monkeypatch, "serve") == 2
    assert "pip install 'atypia[serve]'" in capsys.readouterr().err


def test_only_this_machine_is_served_unless_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with bound("127.0.0.1", 0) as listener:
        access = choose_access(listener, "127.0.0.1", ["Gate.Example"])
        assert access.hosts == {"127.0.0.1", "localhost", "::1", "gate.example"}
    assert not caplog.text
    with bound("0.0.0.0", 0) as listener:
        assert choose_access(listener, "0.0.0.0").hosts is None
        assert "use the model and the registered slides" in caplog.text
        named = choose_access(listener, "0.0.0.0", ["a"], "t" * 16)
        assert named.hosts == {"a", "0.0.0.0"}
        assert "can ask with the token" in caplog.text
