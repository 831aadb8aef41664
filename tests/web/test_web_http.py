"""The app over HTTP, as a browser or something worse asks it."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from web_folders import HOSTILE

from atypia.core.labels import SUBTYPES
from atypia.data.cohort import Cohort
from atypia.web.app_routes import read_assets
from atypia.web.source import open_source


@pytest.fixture(scope="module")
def server(shown, tmp_path_factory):
    sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
    from server_client import running

    folder = tmp_path_factory.mktemp("served")
    script = Path(__file__).parent / "web_server.py"
    with ExitStack() as stack:
        yield stack.enter_context(
            running(
                script,
                shown / "run",
                folder / "reviews.sqlite",
                folder,
                f"against={shown / 'other'}",
            )
        )


def test_the_page_lets_nothing_in_from_elsewhere(server):
    reply = server.get("/")
    assert reply.status == 200
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert reply.headers["x-frame-options"] == "DENY"


def test_no_asset_holds_a_script_or_style_in_itself_or_names_another_host():
    for path, (content, kind) in read_assets().items():
        text = content.decode()
        if path.startswith("vendor/"):
            continue
        if kind.startswith("text/html"):
            assert "<style" not in text
            assert text.count("<script") == text.count('<script type="module" src="/static/')
            assert " style=" not in text
        for scheme in ("http://", "https://"):
            assert not text.replace("http://www.w3.org/2000/svg", "").count(scheme), path
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in text, f"{path}: {way}"


def test_the_viewer_is_the_file_whose_hash_is_written_beside_it():
    assets = read_assets()
    content, _ = assets["vendor/openseadragon.min.js"]
    recorded = assets["vendor/openseadragon.sha256.txt"][0].decode().split()[0]
    assert hashlib.sha256(content).hexdigest() == recorded
    assert "Redistribution" in assets["vendor/openseadragon.LICENSE.txt"][0].decode()


@pytest.mark.browser  # not in the default run: it needs npm and the network
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_viewer_is_that_of_the_version_at_npm():
    script = Path(__file__).parents[2] / "dev" / "vendor.py"
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_the_colours_are_those_that_qupath_shows():
    from atypia.slides.geojson_writer import COLOURS

    assets = read_assets()
    for i, subtype in enumerate(SUBTYPES):
        colour = "#{:02x}{:02x}{:02x}".format(*COLOURS[subtype])
        assert (
            f'[data-subtype="{i}"] {{ --subtype: {colour}; }}' in assets["css/base.css"][0].decode()
        )
        assert colour in assets["js/subtypes.js"][0].decode()


@pytest.mark.parametrize(
    "path",
    [
        "/static/../run.py",
        "/static/%2e%2e/run.py",
        "/static/nothing.js",
        "/static/",
        "/static//etc",
    ],
)
def test_only_files_of_the_app_are_given_out(server, path):
    assert server.get(path).status == 404


def test_names_come_as_they_are_for_the_page_to_show_as_text(server):
    table = server.get("/web/figures").json
    assert table["ids"][: len(HOSTILE)] == list(HOSTILE)
    assert table["n"] == len(table["ids"]) == 96
    for number in range(len(HOSTILE)):
        assert server.get(f"/web/figures/{number}").json["patch_id"] == HOSTILE[number]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/web/figures/96", 404),
        ("/web/figures/-1", 404),
        ("/web/figures/x", 422),
        ("/web/figures/96/image.png", 404),
        ("/web/figures/0/heat/gradcam/9.png", 404),
        ("/web/figures/0/heat/gradcam/-1.png", 404),
        ("/web/figures/0/heat/nosuch/0.png", 404),
        ("/web/figures/0/heat/occlusion/0.png", 500),
        ("/web/figures/0/neighbours?label=who", 422),
        ("/web/figures/0/neighbours", 422),
        ("/web/tiles/large/2.jpg", 404),
        ("/web/tiles/huge/0.jpg", 404),
        ("/web/slide", 404),
        ("/web/reviews/who", 404),
        ("/web/reviews/who/qupath.geojson", 404),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(server, path, status):
    reply = server.get(path)
    assert reply.status == status
    assert reply.problems


def test_pictures_are_those_of_the_cohort(server, shown):
    with open_source(shown / "cohort") as found:
        expected = found.pictures.patch(3)
    reply = server.get("/web/figures/3/image.png")
    assert reply.headers["content-type"] == "image/png"
    assert (np.asarray(Image.open(io.BytesIO(reply.data))) == expected).all()
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"


def test_neighbours_are_the_nearest_of_all_labelled_figures(server, shown):
    with open_source(shown / "cohort") as found:
        features = np.stack([found.pictures.patch(i).mean((0, 1)) - 128 for i in range(96)])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    for _ in range(100):
        answer = server.get("/web/figures/5/neighbours?label=expert1").json
        if answer["state"] != "reading":
            break
        time.sleep(0.1)
    assert answer["state"] == "ready"
    similarity = features @ features[5]
    similarity[5] = -1
    found_similarity = [near["similarity"] for near in answer["neighbours"]]
    assert found_similarity == pytest.approx(np.sort(similarity)[::-1][:12], abs=1e-3)
    assert 5 not in [near["number"] for near in answer["neighbours"]]


def test_the_comparison_has_the_second_runs_answers(server, shown):
    second = server.get("/web/comparison").json
    assert second["name"] == "other"
    with open_source(shown / "run") as found:
        first = found.figures.columns()["answers"]["predicted"]
    differ = [i for i in range(96) if second["answers"]["predicted"][i] != first[i]]
    assert 0 < len(differ) < 96
    number = differ[0]
    record = server.get(f"/web/figures/{number}").json
    assert record["second"]["predicted"] == second["answers"]["predicted"][number]
    measures = server.get("/web/comparison/measures").json
    assert measures["n"] == 32
    assert "kappa" in measures["differences"][0]["measures"]


@pytest.mark.parametrize("name", ["expert1", "agreed"])
def test_a_reviewer_cannot_be_called_as_a_rater(server, name):
    refused = server.post_json("/web/reviews", {"name": name, "blind": True})
    assert refused.status == 422
    assert "take another name" in str(refused.json)
    assert server.get(f"/web/reviews/{name}").status == 404


def test_a_blind_reviewer_gets_pictures_and_own_labels_and_nothing_else(server):
    joined = server.post_json("/web/reviews", {"name": "blind_one", "blind": True})
    assert set(joined.json) == {"name", "blind", "order", "labels"}
    assert sorted(joined.json["order"]) == list(range(96))
    assert joined.json["order"] != list(range(96))
    server.post_json("/web/reviews", {"name": "open_one", "blind": False})
    server.post_json("/web/reviews/open_one/labels", {"number": 2, "subtype": 1})
    again = server.get("/web/reviews/blind_one")
    assert again.json["labels"] == [-1] * 96
    for path in ("others/2", "agreement"):
        assert server.get(f"/web/reviews/blind_one/{path}").status == 403
    seen = server.get("/web/reviews/open_one/others/2").json
    assert seen["labels"]["expert1"] == 2
    assert seen["answer"]["predicted"] in range(8)


def test_kappa_follows_every_label(server):
    for name in ("k1", "k2"):
        server.post_json("/web/reviews", {"name": name, "blind": False})
    for number, subtype in ((0, 0), (1, 1), (2, 2)):
        for name in ("k1", "k2"):
            server.post_json(f"/web/reviews/{name}/labels", {"number": number, "subtype": subtype})

    def kappa() -> float:
        pairs = server.get("/web/reviews/k1/agreement").json["pairs"]
        return next(p["kappa"] for p in pairs if p["raters"] == ["k1", "k2"])

    assert kappa() == 1
    server.post_json("/web/reviews/k2/labels", {"number": 2, "subtype": 7})
    assert kappa() < 1
    server.post_json("/web/reviews/k2/undo", {})
    assert kappa() == 1
    pairs = server.get("/web/reviews/k1/agreement").json["pairs"]
    assert ["k1", "model (answers)"] in [pair["raters"] for pair in pairs]


@pytest.mark.parametrize(
    "label",
    [
        {"number": 96, "subtype": 0},
        {"number": -1, "subtype": 0},
        {"number": 0, "subtype": 8},
        {"number": 0},
        {"number": 0, "subtype": 1, "x": 1},
        [],
        {"number": "a", "subtype": 1},
    ],
)
def test_a_label_that_is_none_is_refused(server, label):
    server.post_json("/web/reviews", {"name": "strict", "blind": True})
    reply = server.post_json("/web/reviews/strict/labels", label)
    assert reply.status in (404, 422)
    assert reply.problems
    assert server.get("/web/reviews/strict").json["labels"] == [-1] * 96


def test_pages_of_other_sites_cannot_label(server):
    server.post_json("/web/reviews", {"name": "mine", "blind": True})
    evil = server.post_json(
        "/web/reviews/mine/labels", {"number": 0, "subtype": 0}, Origin="https://evil.example"
    )
    assert evil.status == 403
    assert server.get("/web/reviews/mine").json["labels"][0] == -1
    assert server.get("/web/figures", Host="evil.example").status == 421


def test_an_export_says_where_the_new_cohort_is(server, shown):
    server.post_json("/web/reviews", {"name": "exporter", "blind": True})
    assert server.post_json("/web/reviews/exporter/cohort", {}).status == 422
    server.post_json("/web/reviews/exporter/labels", {"number": 4, "subtype": 6})
    made = [server.post_json("/web/reviews/exporter/cohort", {}).json for _ in range(2)]
    assert made[0]["folder"] != made[1]["folder"]
    cohort = Cohort.open(made[0]["folder"], verify=True)
    assert cohort.manifest["label_exporter"].tolist()[4] == "nmf_prometaphase"
    assert "label_exporter" not in Cohort.open(shown / "cohort").manifest
    refused = server.post_json("/web/reviews/exporter/qupath", {})
    assert refused.status == 422
    assert "where its figures lie" in refused.problems[0]
    assert server.get("/web/reviews/exporter/qupath.geojson").status == 422


def test_labels_survive_the_death_of_the_server(shown, start):
    with start(shown / "run") as server:
        server.post_json("/web/reviews", {"name": "ann", "blind": True})
        for number in range(5):
            answer = server.post_json(
                "/web/reviews/ann/labels", {"number": number, "subtype": number}
            )
            assert answer.json == {"saved": True}
        server.process.kill()  # SIGKILL: nothing of the process runs any more
        server.process.wait()
    with start(shown / "run") as server:
        assert server.get("/web/reviews/ann").json["labels"][:6] == [0, 1, 2, 3, 4, -1]
        assert server.post_json("/web/reviews/ann/undo", {}).json == {"number": 4, "subtype": -1}


def test_a_blind_server_tells_no_answers_to_anybody(shown, start):
    with start(shown / "run", f"against={shown / 'other'}", "blind=1") as server:
        about = server.get("/web/about").json
        assert about["pages"] == ["review"]
        for path in ("figures", "figures/0", "figures/0/reading", "figures/0/neighbours?label=a"):
            assert server.get(f"/web/{path}").status == 403
        assert server.get("/web/comparison").status == 404
        assert server.post_json("/web/reviews", {"name": "eve", "blind": False}).status == 403
        state = server.post_json("/web/reviews", {"name": "ann", "blind": True})
        assert "by_doubt" not in state.json
        assert server.get("/web/figures/0/image.png").status == 200


def test_a_model_without_features_or_explanations_says_so(shown, start):
    with start(shown / "run", "plain=1") as server:
        record = server.get("/web/figures/0").json
        assert record["can"]["neighbours"] is False
        for what in ("neighbours?label=expert1", "heat/gradcam/0.png"):
            reply = server.get(f"/web/figures/0/{what}")
            assert reply.status == 404
            assert "not available" in reply.problems[0]


def test_a_slide_is_shown_in_tiles_that_fit_together(shown, start):
    slides = shown / "slides"
    with start(slides / "slide.tif", f"results={slides / 'figures.csv'}") as server:
        about = server.get("/web/slide").json
        assert (about["width"], about["height"], about["max_level"]) == (1600, 1200, 11)
        assert len(about["places"]) == 40
        assert about["hotspot"] is None  # the slide is smaller than one
        last = server.get("/web/slide/tiles/11/6_4.jpg")
        with Image.open(io.BytesIO(last.data)) as tile:
            assert tile.size == (1600 - 6 * 256, 1200 - 4 * 256)
        with Image.open(io.BytesIO(server.get("/web/slide/tiles/8/0_0.jpg").data)) as tile:
            assert tile.size == (200, 150)
            # The slide's own colours, which change from left to right.
            pixels = np.asarray(tile).astype(int)
            assert pixels[75, 190, 1] - pixels[75, 10, 1] == pytest.approx(72, abs=12)
        for path in ("11/7_0", "11/0_5", "12/0_0", "11/-1_0"):
            assert server.get(f"/web/slide/tiles/{path}.jpg").status == 404
        grid = server.get("/web/slide/density").json
        cell = grid["cell_px"]
        middle = (np.array([grid["columns"], grid["rows"]]) // 2 + 0.5) * cell
        away = (np.array(about["places"]) - middle) * 0.25
        kernel = np.exp(-(away**2).sum(1) / 2 / 150**2) / (2 * np.pi * 0.15**2)
        found = grid["per_mm2"][grid["rows"] // 2 * grid["columns"] + grid["columns"] // 2]
        assert found == pytest.approx(kernel.sum(), rel=0.02)
        server.post_json("/web/reviews", {"name": "ann", "blind": False})
        server.post_json("/web/reviews/ann/labels", {"number": 2, "subtype": 3})
        exported = server.get("/web/reviews/ann/qupath.geojson")
        (feature,) = json.loads(exported.data)["features"]
        assert feature["geometry"]["coordinates"] == pytest.approx(about["places"][2], abs=0.1)
        assert server.get("/web/figures/2").json["place"] == about["places"][2]
        assert server.post_json("/web/reviews/ann/cohort", {}).status == 422
