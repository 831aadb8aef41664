"""The HTTP API as a client meets it: a server in a process of its own, asked over a socket."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_server import FakeModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from server_client import Reply, Server, b64, fake, form, image, stack

from atypia.inference.patch_predictions import find_items, predict_items, prediction_records

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

PREDICT = "/v1/predict"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with fake(body_bytes=2**20, patches=50, image_pixels=10**6) as running:
        yield running


def ask(server: Server, *names_and_images: tuple[str, bytes], mpp: str = "0.25") -> Reply:
    files = [("images", pair) for pair in names_and_images]
    return server.post_form(PREDICT, [*files, *([("mpp", mpp)] if mpp else [])])


# --- Answers ------------------------------------------------------------------------------------


def test_answers_are_the_records_of_the_command_line(server: Server, tmp_path: Path) -> None:
    files = {
        "a cell.png": image(seed=1),
        "b.jpg": image(seed=2, kind="JPEG"),
        "c.tif": stack(3, resolution=1e4 / 0.25, resolution_unit=3),
        "wide.png": image(seed=3, side=200),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    items = find_items([tmp_path / name for name in files], 0.25)
    expected = prediction_records(predict_items(FakeModel(), items)[0])
    assert ask(server, *files.items()).json["predictions"] == expected
    patches = [
        {"image": b64(data), "patch_id": Path(name).stem} | ({"mpp": 0.25} if "." in name else {})
        for name, data in files.items()
    ]
    assert server.post_json(PREDICT, {"patches": patches}).json["predictions"] == expected
    assert [record["patch_id"] for record in expected][2:5] == ["c/0", "c/1", "c/2"]


def test_the_resolution_is_that_of_all_of_each_or_of_the_file(server: Server) -> None:
    coarse, fine = image(seed=1), image(seed=1, side=160)
    one = ask(server, ("x.png", coarse), ("y.png", fine), mpp="0.25").json["predictions"]
    files = [("images", ("x.png", coarse)), ("images", ("y.png", fine))]
    each = server.post_form(PREDICT, [*files, ("mpp", "0.25"), ("mpp", "0.125")]).json
    assert each["predictions"][0] == one[0]
    assert each["predictions"][1]["probabilities"] != one[1]["probabilities"]
    own = ask(server, ("t.tif", stack(1, resolution=1e4 / 0.3, resolution_unit=3)), mpp="")
    told = ask(server, ("t.tif", stack(1)), mpp="0.3")
    assert own.status == 200
    assert own.json["predictions"] == told.json["predictions"]
    many = server.post_form(PREDICT, [*files, *[("mpp", "0.25")] * 3])
    assert (many.status, many.problems) == (
        422,
        ["mpp: expected one value, or 2 for as many images, but got 3."],
    )


def test_small_patches_are_answered_with_a_warning(server: Server) -> None:
    reply = ask(server, ("small.png", image(side=60)), ("large.png", image()))
    assert reply.json["warnings"][0].startswith("1 of 2 patches are smaller")


def test_good_ones_are_answered_and_bad_ones_listed_where_that_is_wanted(server: Server) -> None:
    parts: list[Any] = [
        ("images", ("good.png", image(seed=1))),
        ("images", ("bad.png", image(seed=2)[:-500])),
        ("images", ("huge.png", image(side=1100))),
        ("mpp", "0.25"),
    ]
    refused = server.post_form(PREDICT, parts)
    assert refused.status == 413
    assert [p.partition(":")[0] for p in refused.problems] == ["huge.png", "bad.png"]
    reply = server.post_form(PREDICT, [*parts, ("skip_bad", "true")])
    assert reply.status == 200
    assert [p["patch_id"] for p in reply.json["predictions"]] == ["good"]
    assert reply.problems == refused.problems
    nothing = server.post_form(PREDICT, [*parts[1:], ("skip_bad", "true")])
    assert (nothing.status, nothing.problems) == (413, refused.problems)


def test_health_and_version_tell_what_answers(server: Server) -> None:
    assert server.get("/health").json == {"status": "ok", "requests": 0, "waiting_patches": 0}
    version = server.get("/version").json
    assert version["thresholds"] == {"atypical": 0.5}


def test_the_openapi_document_is_true(server: Server) -> None:
    document = server.get("/openapi.json").json
    schemas = document["components"]["schemas"]
    assert server.post_json(PREDICT, schemas["PatchesRequest"]["example"]).status == 200
    assert set(document["paths"]) == {
        "/health",
        "/version",
        PREDICT,
        "/v1/slides",
        "/v1/slides/{slide_id}/predict",
    }
    references = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert references == set(schemas) | references  # none is left open
    assert references <= set(schemas)
    assert {"413", "415", "422", "503"} <= set(document["paths"][PREDICT]["post"]["responses"])
    # Pages of FastAPI's would load scripts from elsewhere.
    assert server.get("/docs").status == server.get("/redoc").status == 404


# --- Bad input ----------------------------------------------------------------------------------


def png(width: int, height: int, *further: tuple[bytes, bytes]) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = b"".join(chunk(*pair) for pair in further) + chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def grey() -> bytes:
    file = io.BytesIO()
    Image.new("L", (80, 80)).save(file, "PNG")
    return file.getvalue()


BOMBS = {
    "a flat image": image(side=1001),
    "a claim": png(60_000, 60_000),
    "a larger claim": png(2**31 - 1, 2**31 - 1),
    "an animation": png(80, 80, (b"acTL", struct.pack(">II", 2**30, 0))),
    "a stack": stack(3, side=600, compression="tiff_deflate"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(server: Server, bomb: str) -> None:
    before = server.resident_mb()
    reply = ask(server, ("bomb.png", BOMBS[bomb]))
    assert reply.status == 413
    assert reply.problems[0].startswith("bomb.png: expected at most 1,000,000 pixels")
    assert server.resident_mb() < before + 50


def test_many_pages_count_as_many_patches(server: Server) -> None:
    assert ask(server, ("s.tif", stack(50))).status == 200
    reply = ask(server, ("s.tif", stack(51)))
    assert (reply.status, reply.problems) == (
        413,
        ["expected at most 50 patches in a request but got more. Send several requests."],
    )
    assert ask(server, *[(f"{i}.png", image()) for i in range(51)]).status == 413


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "none of these"),
        (b"%PDF-1.7 and so on", "none of these"),
        (image(seed=1)[:-2000], "damaged or truncated"),
        (image(seed=1, kind="JPEG")[:700], "damaged or truncated"),
        (stack(3)[:-9000], "damaged or truncated"),
        (grey(), "got grayscale"),
        (image(side=10), "at least 16 px a side"),
        (image(side=20), "expected a patch of at least 13.5 µm"),
    ],
)
def test_what_is_no_patch_is_named(server: Server, data: bytes, told: str) -> None:
    reply = ask(server, ("my cell.png", data), ("good.png", image()))
    assert reply.status == 422
    assert len(reply.problems) == 1
    assert reply.problems[0].startswith("my cell.png: ")
    assert told in reply.problems[0]
    assert "--" not in reply.problems[0]  # options of the command line are fields here


def test_all_problems_are_listed_at_once(server: Server) -> None:
    reply = ask(
        server,
        ("a.png", image()),
        ("a.png", image()),
        ("b.png", image(seed=1)[:-500]),
        ("c.tif", b"II*\0 nothing"),
        mpp="",
    )
    assert reply.status == 422
    assert [p.partition(":")[0] for p in reply.problems] == ["a.png", "a.png", "b.png", "c.tif"]
    twice = ask(server, ("a.png", image()), ("a.tif", image()), ("b.png", grey()))
    assert twice.problems[0] == "a.tif: has the patch id 'a', like a.png. Rename one."
    assert twice.problems[1].startswith("b.png: page 1: expected an RGB image")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "body: Invalid JSON"),
        (b"{", "body: Invalid JSON"),
        (b"[" * 100_000, "body: Invalid JSON"),
        (b"\xff\xfe", "body: Invalid JSON"),
        (b'{"patches": [{"image": "", "patch_id": "\\ud800"}]}', "body: Invalid JSON"),
        ([], "body: Input should be an object"),
        ({"patches": []}, "patches: List should have at least 1 item"),
        ({"patches": [{}]}, "patches.0.image: Field required"),
        ({"patches": [{"image": "", "path": "/etc/passwd"}]}, "patches.0.path: Extra inputs"),
        ({"patches": [{"image": "!!"}]}, "patches.0 ('0'): expected an image in base64"),
        ({"patches": [{"image": b64(image())}]}, "does not tell its µm per pixel"),
        ({"patches": [{"image": ""}], "mpp": 99}, "mpp: Input should be less than"),
        (b'{"patches": [{"image": ""}], "mpp": NaN}', "mpp: Input should be"),
    ],
)
def test_json_that_cannot_be_meant_is_explained(server: Server, content: Any, told: str) -> None:
    reply = server.post_json(PREDICT, content)
    assert reply.status == 422
    assert any(told in problem for problem in reply.problems), reply.problems


def test_json_with_more_faults_than_could_be_listed_is_refused_whole(server: Server) -> None:
    reply = server.post_json(PREDICT, b'{"patches": [' + b"1," * 400_000 + b"1]}")
    assert reply.status == 413
    reply = server.post_json(PREDICT, b'{"patches": [' + b"1," * 1500 + b"1]}")
    assert (reply.status, len(reply.problems)) == (422, 1000)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([], "expected multipart/form-data but"),
        ([("mpp", "0.25")], "images: Field required."),
        ([("images", "text")], "images.0: Input should be one file."),
        ([("mpp", ("x", b"0.25"))], "mpp.0: Input should be a valid number"),
        ([("path", "/etc/passwd")], "path: Extra inputs are not permitted."),
        ([("images", ("a", b"")), ("mpp", "x")], "mpp.0: Input should be a valid number"),
        ([("images", ("a", b"")), ("mpp", "nan")], "mpp.0: Input should be less"),
        (
            [("images", ("a", b"")), ("skip_bad", "yes")],
            "skip_bad: Input should be a valid boolean",
        ),
    ],
)
def test_forms_that_cannot_be_meant_are_explained(server: Server, parts: Any, told: str) -> None:
    kind, body = form(parts)
    reply = server.ask("POST", PREDICT, body if parts else b"--x", {"Content-Type": kind})
    assert reply.status == 422
    assert any(told in problem for problem in reply.problems), reply.problems


NAMES = [
    "<script>alert(1)</script>",
    "\"quoted\" and 'quoted'",
    "\u202eevil.exe",
    "x" * 300,
    "../../../../etc/passwd",
    "C:\\windows\\system32",
    "%00 %2e%2e %s {0}",
    "名前 ü 🔬",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_text(server: Server, name: str) -> None:
    reply = ask(server, (f"{name}.png", image()))
    # As browsers send it; and of a path on Windows, which some old ones sent, forms keep the name.
    expected = name.replace('"', "%22").removeprefix("C:\\windows\\")
    assert reply.json["predictions"][0]["patch_id"] == expected
    assert reply.headers["x-content-type-options"] == "nosniff"
    bad = ask(server, (f"{name}.png", b"no image"))
    assert bad.status == 422
    assert bad.problems[0].startswith(f"{expected}.png: ")
    told = server.post_json(
        PREDICT, {"mpp": 0.25, "patches": [{"patch_id": name, "image": b64(image())}]}
    )
    assert told.json["predictions"][0]["patch_id"] == name


def test_other_kinds_of_content_are_refused(server: Server) -> None:
    for kind in ("", "image/png", "text/plain", "application/x-www-form-urlencoded"):
        reply = server.ask("POST", PREDICT, image(), {"Content-Type": kind})
        assert reply.status == 415
        assert "application/json" in reply.problems[0]
    reply = server.post_json(PREDICT, {}, **{"Content-Encoding": "gzip"})
    assert reply.status == 415


def test_bodies_have_a_limit_whether_they_announce_their_size_or_not(server: Server) -> None:
    reply = server.ask("POST", PREDICT, bytes(2**20 + 1), {"Content-Type": "application/json"})
    assert (reply.status, reply.problems) == (
        413,
        ["expected a body of at most 1,048,576 bytes but got more. Send several requests."],
    )
    pieces = (bytes(2**16) for _ in range(20))
    for kind in ("application/json", "multipart/form-data; boundary=boundary"):
        reply = server.ask("POST", PREDICT, pieces, {"Content-Type": kind})
        assert reply.status in (413, 422)
        pieces = iter([form([("images", ("a.png", bytes(2**20)))])[1]])
    assert reply.status == 413


def test_addresses_that_are_not_there(server: Server) -> None:
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/v1/../../etc/passwd", 404),
        ("GET", PREDICT, 405),
        ("PUT", PREDICT, 405),
        ("OPTIONS", PREDICT, 405),
        ("POST", "/v1/slides/x/predict/", 404),
        ("POST", "/%ff%00", 404),
    ):
        reply = server.ask(method, path)
        assert reply.status == status
        assert reply.problems
        assert "access-control-allow-origin" not in reply.headers


def test_pages_of_other_sites_and_names_are_refused(server: Server) -> None:
    assert server.get("/version", Host="evil.example").status == 421
    assert server.get("/version", Host="127.0.0.1.evil.example:80").status == 421
    assert server.get("/version", Host="[").status == 421
    assert server.get("/version", Host=f"localhost:{server.port}").status == 200
    assert server.get("/version", Host="[::1]").status == 200
    here = f"127.0.0.1:{server.port}"
    for origin, status in ((f"http://{here}", 422), ("https://evil.example", 403), ("null", 403)):
        assert server.post_json(PREDICT, {}, Origin=origin, Host=here).status == status


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.binary(max_size=300),
    at=st.integers(0, 600),
    kind=st.sampled_from(["application/json", "multipart/form-data; boundary=boundary", "x"]),
    wrap=st.sampled_from(["raw", "image", "json", "damaged"]),
)
def test_no_body_makes_the_server_fail(
    server: Server, data: bytes, at: int, kind: str, wrap: str
) -> None:
    sound = stack(1, side=16)
    damaged = sound[:at] + data + sound[at + len(data) :]
    body = {
        "raw": data,
        "image": form([("images", ("a", data)), ("mpp", "0.9")])[1],
        "json": json.dumps({"mpp": 0.9, "patches": [{"image": b64(damaged)}]}).encode(),
        "damaged": form([("images", ("a.tif", damaged)), ("mpp", "0.9")])[1],
    }[wrap]
    reply = server.ask("POST", PREDICT, body, {"Content-Type": kind})
    assert reply.status < 500, reply.data
    assert reply.json


def test_when_the_model_fails_others_are_answered(server: Server) -> None:
    reply = ask(server, ("thirteen.png", image((13, 13, 13))))
    assert reply.status == 500
    assert reply.problems == [
        "The server failed (RuntimeError). Its log says more. Please report it."
    ]
    assert ask(server, ("a.png", image())).status == 200


# --- Many at once -------------------------------------------------------------------------------


def test_many_at_once_each_get_their_own_answer() -> None:
    with fake() as server:

        def one(i: int) -> tuple[int, Reply]:
            good = image(seed=i, side=80 + i % 3)
            return i, ask(server, (f"{i}.png", good[:200] if i % 10 == 0 else good))

        alone = {i: one(i)[1].json for i in range(1, 100, 7)}
        with ThreadPoolExecutor(50) as clients:
            replies = dict(clients.map(one, range(200)))
        assert [i for i, reply in replies.items() if reply.status != 200] == list(range(0, 200, 10))
        assert {replies[i].status for i in range(0, 200, 10)} == {422}
        for i, expected in alone.items():
            if i % 10:
                assert replies[i].json == expected
        for i, reply in replies.items():
            if i % 10:
                assert reply.json["predictions"][0]["patch_id"] == str(i)
        assert server.get("/health").json["requests"] == 0


def in_background(work: Any, n: int) -> tuple[list[Reply], list[threading.Thread]]:
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda: replies.append(work())) for _ in range(n)]
    for thread in threads:
        thread.start()
    return replies, threads


def until(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def waiting(server: Server) -> int:
    return int(server.get("/health").json["waiting_patches"])


def test_too_many_are_told_when_to_come_again(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    with fake(hold=hold, requests=3, patches=4) as server:
        hold.touch()
        replies, threads = in_background(lambda: ask(server, ("a.png", image())), 3)
        until(lambda: waiting(server) == 3)
        refused = ask(server, ("a.png", image()))
        assert refused.status == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 120
        assert refused.problems[0].startswith("3 requests are under way already. Try again in")
        hold.unlink()
        for thread in threads:
            thread.join()
        assert [reply.status for reply in replies] == [200] * 3
        # Twice four patches may wait.
        hold.touch()
        four = [(f"{i}.png", image()) for i in range(4)]
        replies, threads = in_background(lambda: ask(server, *four), 2)
        until(lambda: waiting(server) == 8)
        refused = ask(server, ("a.png", image()))
        assert refused.status == 503
        assert refused.headers["retry-after"]
        assert "8 patches are waiting" in refused.problems[0]
        hold.unlink()
        for thread in threads:
            thread.join()
        assert [reply.status for reply in replies] == [200] * 2


def test_uploads_have_room_for_so_many_bytes_at_once() -> None:
    with fake(body_bytes=10**6, image_pixels=10**5, buffer_bytes=10**6) as server:
        half = open_request(server, b"--", 600_000)
        until(lambda: server.get("/health").json["requests"] == 1)
        refused = server.ask("POST", PREDICT, bytes(600_000))
        assert refused.status == 503
        assert "uploaded at once" in refused.problems[0]
        half.close()
        until(lambda: server.get("/health").json["requests"] == 0)
        assert server.ask("POST", PREDICT, bytes(600_000)).status == 415


def test_what_was_accepted_is_answered_before_the_server_ends(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    with fake(hold=hold) as server:
        hold.touch()
        replies, threads = in_background(lambda: ask(server, ("a.png", image())), 5)
        until(lambda: waiting(server) == 5)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "Shutting down" in "".join(server.log))
        hold.unlink()
        for thread in threads:
            thread.join()
        assert [reply.status for reply in replies] == [200] * 5
        assert server.process.wait(20) == 0
        with pytest.raises(ConnectionRefusedError):
            server.get("/health")


def open_request(server: Server, body: bytes, length: int, *headers: str) -> socket.socket:
    """Send the head of a request and a part of its body."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    kind, _ = form([])
    lines = (f"POST {PREDICT} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", *headers)
    head = "\r\n".join([*lines, f"Content-Length: {length}", "", ""])
    connection.sendall(head.encode() + body)
    return connection


def test_a_client_that_hangs_up_leaves_no_work_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, scratch = tmp_path / "hold", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    _, body = form([*[("images", (f"{i}.png", image())) for i in range(300)], ("mpp", "0.25")])
    with fake(hold=hold) as server:
        hold.touch()
        whole = open_request(server, body, len(body))
        half = open_request(server, body[: len(body) // 2], len(body))
        until(lambda: waiting(server) == 300)
        assert server.get("/health").json["requests"] == 2
        assert len(list(scratch.glob("*/*"))) == 2
        half.close()
        until(lambda: server.get("/health").json["requests"] == 1)
        until(lambda: "batch of 64" in "".join(server.log))
        whole.close()
        time.sleep(0.2)  # the server sees it while the model is at work
        hold.unlink()
        until(lambda: server.get("/health").json["requests"] == 0)
        assert ask(server, ("a.png", image())).status == 200
        batches = [int(n) for n in re.findall(r"batch of (\d+)", "".join(server.log))]
        assert batches == [1, 64, 1]  # to set up, what was at the model, and the one after
        until(lambda: not list(scratch.glob("*/*")))
        server.process.terminate()
        assert server.process.wait(20) == 0
        assert not list(scratch.iterdir())


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    with fake(seconds=1) as server:
        connection = open_request(server, b"--bound", 1000, "Connection: close")
        answer = b"".join(iter(lambda: connection.recv(10_000), b""))
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"expected the whole request within 1 s" in answer
        assert server.get("/health").json["requests"] == 0


def test_a_token_is_asked_for() -> None:
    with fake(token="0123456789abcdef") as server:
        assert server.get("/health").status == 200
        for given in ({}, {"Authorization": "Bearer x"}, {"Authorization": "0123456789abcdef"}):
            reply = server.get("/version", **given)
            assert reply.status == 401
            assert reply.headers["www-authenticate"] == "Bearer"
            assert "Bearer TOKEN" in reply.problems[0]
        assert server.get("/version", Authorization="bearer 0123456789abcdef").status == 200


def test_a_full_disk_is_the_server_s_fault_and_passes() -> None:
    with fake(largest_file=100_000) as server:
        reply = ask(server, ("a.png", image(seed=1, side=400)))
        assert reply.status == 503
        assert reply.headers["retry-after"]
        assert "could not store the request" in reply.problems[0]
        assert ask(server, ("a.png", image())).status == 200
