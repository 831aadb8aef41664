"""Slides over HTTP: registered by id, candidates from the client."""

from __future__ import annotations

import gzip
import json
import multiprocessing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_server import FakeModel
from server_client import Server, fake
from slide_files import noise, spoil_tile, write_pyramid

from atypia.core.errors import InputError
from atypia.inference.patch_predictions import prediction_records
from atypia.inference.slide_predictions import classify_slide
from atypia.server.registered_slides import OpenSlides, register_slides
from atypia.slides.read_candidates import read_candidates
from atypia.slides.slide_pool import SlidePool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

ID = "case 7 <b>"
PREDICT = "/v1/slides/case%207%20%3Cb%3E/predict"
CENTRES = [{"id": "a", "x": 60, "y": 70}, {"id": "<i>\u202e\0", "x": 200.5, "y": 150}]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret folder") / "patient name.tif"
    return write_pyramid(path, noise(300, 400), 0.25)


@pytest.fixture(scope="module")
def server(slide: Path) -> Iterator[Server]:
    damaged = write_pyramid(slide.parent / "damaged.tif", noise(300, 400), 0.25)
    spoil_tile(damaged, 8)  # columns 64..128, rows 64..128
    (slide.parent / "text.svs").write_text("no slide")
    unknown = write_pyramid(slide.parent / "unknown.tif", noise(300, 400), 40)
    slides = {ID: slide, "damaged": damaged, "text": slide.parent / "text.svs", "unknown": unknown}
    named = [f"slide:{key}={path}" for key, path in slides.items()]
    with fake(*named, patches=20) as running:
        yield running


def test_answers_are_those_of_the_command_line(server: Server, slide: Path, tmp_path: Path) -> None:
    assert server.get("/v1/slides").json == {"slides": [ID, "damaged", "text", "unknown"]}
    listed = tmp_path / "c.csv"
    rows = [f"{i},{c['x']},{c['y']}" for i, c in enumerate(CENTRES)]
    listed.write_text("\n".join(["id,x_px,y_px", *rows]))
    with SlidePool(slide, readers=1) as pool:
        found = read_candidates(listed, pool.info)
        table, _ = classify_slide(FakeModel(), pool, found.candidates)
    expected = prediction_records(table.assign(slide=ID))
    by_file = server.post_form(PREDICT, [("candidates", ("c.csv", listed.read_bytes()))]).json
    assert by_file["figures"] == expected
    assert (by_file["slide"], by_file["width_px"], by_file["mpp"]) == (ID, 400, 0.25)
    for record, centre in zip(expected, CENTRES, strict=True):
        record["patch_id"] = centre["id"]
    as_px = server.post_json(PREDICT, {"units": "px", "candidates": CENTRES}).json
    assert as_px["figures"] == expected
    um = [{**c, "x": c["x"] * 0.25, "y": c["y"] * 0.25} for c in CENTRES]  # type: ignore[operator]
    assert server.post_json(PREDICT, {"units": "um", "candidates": um}).json == as_px
    geojson = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "id": c["id"],
                "geometry": {"type": "Point", "coordinates": [c["x"], c["y"]]},
            }
            for c in CENTRES
        ],
    }
    sent = server.post_form(PREDICT, [("candidates", ("c", json.dumps(geojson).encode()))])
    assert sent.json == as_px


def test_slides_are_known_by_their_ids_alone(server: Server, slide: Path) -> None:
    for address in (
        "nothing",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "patient%20name.tif",
        "x" * 5000,
        str(slide).replace("/", "%2f").replace(" ", "%20"),
    ):
        reply = server.post_json(
            f"/v1/slides/{address}/predict", {"units": "px", "candidates": CENTRES}
        )
        assert reply.status == 404
    for body in ({"units": "px", "candidates": CENTRES}, {"candidates": CENTRES, "slide": "x"}):
        for address in (PREDICT, "/v1/slides/text/predict", "/v1/slides/unknown/predict"):
            data = server.post_json(address, body).data.decode()
            assert "secret" not in data
            assert "patient name" not in data


def test_what_is_wrong_with_candidates_is_listed(server: Server) -> None:
    bad = [*CENTRES, {"id": "far", "x": 900, "y": 70}, {"id": "twice", "x": 60, "y": 70}]
    refused = server.post_json(PREDICT, {"units": "px", "candidates": bad})
    assert refused.status == 422
    assert [p.partition(": ")[2].partition(":")[0] for p in refused.problems] == [
        "feature 3 ('far')",
        "feature 4 ('twice')",
    ]
    reply = server.post_json(PREDICT, {"units": "px", "candidates": bad, "skip_bad": True})
    assert reply.status == 200
    assert len(reply.json["figures"]) == 2
    assert reply.problems == refused.problems
    many = [{"x": i * 10, "y": 50} for i in range(21)]
    assert server.post_json(PREDICT, {"units": "px", "candidates": many}).status == 413


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "expected a header line"),
        (b"x,y\n1,2\n", "expected the units"),
        (b"\x89PNG\r\n\x1a\n\0\0", "UTF-16 or binary"),
        (gzip.compress(b"x_px,y_px\n1,2\n", mtime=0), "uncompressed"),
        (b"[" * 5_000, "cannot be read"),
        (b"x_px,y_px\n900,10\n", "inside the slide"),
        (b'{"images": [], "annotations": [{"image_id": {}}]}', "c.csv: "),
        (b'{"images": [{"id": []}], "annotations": [], "categories": [{"id": []}]}', "c.csv: "),
        (b'[{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1e999, 2]}}]',
         "finite numbers"),
    ],
)  # fmt: skip
def test_files_that_hold_something_else_are_explained(
    server: Server, data: bytes, told: str
) -> None:
    reply = server.post_form(PREDICT, [("candidates", ("c.csv", data))])
    assert reply.status == 422
    assert any(told in problem for problem in reply.problems), reply.problems


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"candidates": CENTRES}, "units: Field required"),
        ({"candidates": [{"x": 1}], "units": "px"}, "candidates.0.y: Field required"),
        (b'{"candidates": [{"x": 1e999, "y": 1}], "units": "px"}', "candidates.0.x: "),
        ({"candidates": CENTRES, "units": "px", "path": "/etc"}, "path: Extra inputs"),
    ],
)
def test_lists_that_cannot_be_meant_are_explained(server: Server, content: Any, told: str) -> None:
    reply = server.post_json(PREDICT, content)
    assert reply.status == 422
    assert any(told in problem for problem in reply.problems), reply.problems


def test_a_slide_on_which_nothing_was_found_has_no_figures(server: Server) -> None:
    for reply in (
        server.post_form(PREDICT, [("candidates", ("c.csv", b"x_px,y_px\n"))]),
        server.post_form(PREDICT, [("candidates", ("c.json", b"[]"))]),
        server.post_json(PREDICT, {"units": "px", "candidates": []}),
    ):
        assert (reply.status, reply.json["figures"], reply.problems) == (200, [], [])


@pytest.mark.parametrize(
    "data",
    [b"x_px,y_px\n" + b"1,1\n" * 2000, b"x_px,y_px\r" * 2000, b"[" + b"{}," * 10_000 + b"{}]"],
)
def test_a_file_that_would_take_too_much_memory_is_not_read(server: Server, data: bytes) -> None:
    reply = server.post_form(PREDICT, [("candidates", ("c", data))])
    assert reply.status == 413
    assert "at most 20 candidates" in reply.problems[0]


def test_forms_about_slides_are_checked(server: Server) -> None:
    file = ("candidates", ("c.csv", b"x,y\n60,70\n"))
    assert server.post_form(PREDICT, [file, ("units", "px")]).status == 200
    for parts, told in (
        ([file, ("units", "inch")], "units: Input should be 'px' or 'um'"),
        ([file, file], "candidates: Input should be one file."),
        ([file, ("units", "px"), ("units", "um")], "units: Input should be 'px' or 'um'"),
        ([file, ("mpp", "-1")], "mpp: Input should be greater than"),
    ):
        reply = server.post_form(PREDICT, parts)  # type: ignore[arg-type]
        assert (reply.status, reply.problems[0][: len(told)]) == (422, told)


def test_slides_that_are_damaged_do_not_make_the_server_fail(server: Server) -> None:
    spoilt = {"id": "spoilt", "x": 96, "y": 96}
    sound = {"id": "sound", "x": 250, "y": 200}
    address = "/v1/slides/damaged/predict"
    reply = server.post_json(address, {"units": "px", "candidates": [spoilt, sound]})
    assert [figure["patch_id"] for figure in reply.json["figures"]] == ["sound"]
    assert reply.problems[0].startswith("damaged: candidate 'spoilt' at x = 96, y = 96 px: ")
    alone = server.post_json(address, {"units": "px", "candidates": [spoilt]})
    assert alone.status == 422
    assert "not one candidate could be read" in alone.problems[0]
    reply = server.post_json("/v1/slides/text/predict", {"units": "px", "candidates": [sound]})
    assert reply.status == 422
    unknown = "/v1/slides/unknown/predict"
    reply = server.post_json(unknown, {"units": "px", "candidates": [sound]})
    assert (reply.status, reply.problems) == (
        422,
        ["unknown: the file does not say its µm per pixel. Give mpp."],
    )
    told = server.post_json(unknown, {"units": "px", "candidates": [sound], "mpp": 0.25})
    assert told.status == 200


def test_slides_stay_open_a_while(slide: Path, tmp_path: Path) -> None:
    copies = [tmp_path / f"{i}.tif" for i in range(3)]
    for copy in copies:
        copy.write_bytes(slide.read_bytes())
    with OpenSlides(2) as shelf:
        pools = []
        for copy in copies:
            with shelf.borrow(copy.name, copy) as pool:
                pools.append(pool)
                assert str(pool.info.path) == copy.name
        with shelf.borrow("2.tif", copies[2]) as again, shelf.borrow("2.tif", copies[2]) as other:
            assert again is pools[2]
            assert other is not again
            field = again.read(np.array([[60.0, 70.0]]), 20, 0.25)[0]
            assert field.shape == (80, 80, 3)  # type: ignore[union-attr]
        with shelf.borrow("0.tif", copies[0]) as reopened:
            assert reopened is not pools[0]  # it had to go for the third one
        copies[0].touch()
        with shelf.borrow("0.tif", copies[0]) as changed:
            assert changed is not reopened
        with pytest.raises(InputError), shelf.borrow("none", tmp_path / "none"):
            pass
    assert not [p for p in multiprocessing.active_children() if p.is_alive()]


def test_slides_are_registered_by_name_or_by_folder(
    slide: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.svs", "b.NDPI", "notes.txt", ".hidden.svs"):
        (tmp_path / name).touch()
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "level-0.dcm").touch()
    (tmp_path / "empty").mkdir()
    registered = register_slides(tmp_path, [("mine", slide)])
    assert registered == {
        "a.svs": tmp_path / "a.svs",
        "b.NDPI": tmp_path / "b.NDPI",
        "dicom": tmp_path / "dicom",
        "mine": slide,
    }
    assert "2 entries are no slides" in caplog.text
    assert register_slides() == {}
    named = [("x", tmp_path / "none"), ("a.svs", slide), ("a/b", slide), ("..", slide), ("", slide)]
    with pytest.raises(InputError) as refused:
        register_slides(tmp_path, named)
    assert len(refused.value.problems) == 5
    with pytest.raises(InputError, match="found none"):
        register_slides(tmp_path / "empty")
    with pytest.raises(InputError, match="there is none"):
        register_slides(tmp_path / "nothing")
