"""The app in a real browser: every page and action, by mouse, by keyboard alone, on a phone.

``pytest -m browser``; needs Chromium (``apt install chromium``, or its path in ATYPIA_CHROMIUM).
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from web_folders import HOSTILE, RATER

from atypia.core.labels import DISPLAY_NAMES, SUBTYPES

pytestmark = pytest.mark.browser

NAMES = list(DISPLAY_NAMES.values())
PHONE = {"width": 390, "height": 780}
DESKTOP = {"width": 1360, "height": 860}
PATIENCE_S = 60
"""A busy machine is no fault of the page."""


def chromium() -> str:
    path = os.environ.get("ATYPIA_CHROMIUM", "/usr/bin/chromium")
    if not Path(path).is_file():
        pytest.fail(f"no Chromium at {path}: apt install chromium, or set ATYPIA_CHROMIUM")
    return path


@pytest.fixture(scope="session")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("Playwright is not installed: pip install 'atypia[dev]'")
    path = chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


class Watched:
    """A page of which every request and every error is noted."""

    def __init__(self, page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.urls: list[str] = []
        self.faults: list[str] = []
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._console)
        page.on("dialog", lambda dialog: (self.faults.append(dialog.message), dialog.dismiss()))

    def _console(self, message) -> None:
        # That the server refused something is told to people in a sentence; Chromium logs it, too.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def open(self, address: str = "") -> None:
        self.page.goto(f"{self.origin}/{address}")
        self.page.wait_for_selector("main .waiting", state="detached")

    def check(self) -> None:
        assert not self.faults
        hosts = {urlsplit(url).hostname for url in self.urls if not url.startswith("blob:")}
        assert hosts <= {"127.0.0.1"}, hosts


@pytest.fixture
def look(browser):
    """Open pages; at the end nothing may have failed or left the machine."""

    @contextmanager
    def look(server, size=DESKTOP, scheme="light", **options):
        context = browser.new_context(viewport=size, color_scheme=scheme, **options)
        try:
            watched = Watched(context.new_page(), f"http://127.0.0.1:{server.port}")
            yield watched
            watched.check()
        finally:
            context.close()

    return look


@pytest.fixture(scope="module")
def servers(shown, tmp_path_factory):
    """The app on a run (compared with another) and on a slide."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
    from server_client import running

    script = Path(__file__).parent / "web_server.py"
    slides = shown / "slides"
    options = {
        "run": (shown / "run", f"against={shown / 'other'}"),
        "slide": (slides / "slide.tif", f"results={slides / 'figures.csv'}"),
        "cohort": (shown / "cut",),
    }
    with ExitStack() as stack:
        started = {}
        for name, (source, *more) in options.items():
            folder = tmp_path_factory.mktemp(name)
            command = (script, source, folder / "reviews.sqlite", folder, *more)
            started[name] = stack.enter_context(running(*command))
        yield started


def until(page, script: str, **argument) -> None:
    """Wait until a script is true; Playwright's own way to wait is eval, which the page forbids."""
    end = time.monotonic() + PATIENCE_S
    while not page.evaluate(script, **argument):
        assert time.monotonic() < end, script
        page.wait_for_timeout(20)


def shown_figures(page) -> int:
    return int(re.match(r"[\d,]+", page.inner_text(".count"))[0].replace(",", ""))


def painted(page) -> None:
    """Wait until every tile that exists has its picture."""
    until(
        page,
        "() => document.querySelectorAll('.tiles').length > 0 && "
        "[...document.querySelectorAll('.tiles')].every((row) => row.dataset.blank === '0')",
    )


def test_the_explorer_shows_filters_and_sorts(servers, look):
    with look(servers["run"]) as seen:
        page = seen.page
        seen.open()
        painted(page)
        assert shown_figures(page) == 96
        assert page.locator(".wall a:visible").count() == 96
        table = page.request.get(f"{seen.origin}/web/figures").json()
        truth, predicted = table["labels"]["expert1"], table["answers"]["predicted"]
        pairs = list(zip(truth, predicted, strict=True))

        def only(label: str, value: str, expected: int) -> None:
            page.get_by_role("combobox", name=label, exact=True).select_option(value)
            until(page, f"document.querySelector('.count').textContent.startsWith('{expected}')")
            assert shown_figures(page) == expected
            page.get_by_role("button", name="Clear filters").click()
            assert shown_figures(page) == 96

        only("Label", "2", truth.count(2))
        only("Label", "atypical", sum(t < 4 for t in truth))
        only("Prediction", "5", predicted.count(5))
        only("Disagreement", "wrong", sum(t != p for t, p in pairs))
        only("Disagreement", "crosses", sum((t < 4) != (p < 4) for t, p in pairs))
        only(
            "Disagreement",
            "raters",
            sum(a != b for a, b in zip(truth, table["labels"][RATER], strict=True)),
        )
        only("Part", "test", 32)
        only("Domain", "A", 48)
        only("Scanner", HOSTILE[1], 32)
        only("Label audit", "1", sum(table["doubt"]["issue"]))
        page.get_by_label("Patient").fill(HOSTILE[0])
        page.get_by_label("Patient").press("Enter")
        assert shown_figures(page) == 4
        page.get_by_role("button", name="Clear filters").click()
        page.get_by_label("Name contains").fill("CELL-0009")
        until(page, "document.querySelector('.count').textContent.startsWith('6 of')")
        page.get_by_role("button", name="Clear filters").click()
        best = [max(table["answers"]["probabilities"][8 * i : 8 * i + 8]) / 100 for i in range(96)]
        page.get_by_label("Confidence from, %").fill("90")
        expected = sum(p >= 90 for p in best)
        until(page, f"document.querySelector('.count').textContent.startsWith('{expected} of')")
        # The address keeps the filters.
        page.reload()
        painted(page)
        assert shown_figures(page) == expected
        page.get_by_role("button", name="Clear filters").click()

        losses = [
            -np.log(max(table["answers"]["probabilities"][8 * i + t], 0.5))
            for i, t in enumerate(truth)
        ]
        page.get_by_label("Sort").select_option("loss")
        first = page.locator("#tile-0").get_attribute("href")
        assert first == f"#/figure/{int(np.argmax(losses))}"
        page.get_by_label("Sort").select_option("doubt")
        first = page.locator("#tile-0").get_attribute("href")
        assert first == f"#/figure/{table['doubt']['rank'].index(1)}"
        # Experts against each other.
        page.get_by_role("combobox", name="against", exact=True).select_option(RATER)
        assert page.locator(".confusion caption").inner_text().count(RATER) == 1


def test_a_cell_of_the_confusion_matrix_shows_its_figures(servers, look):
    with look(servers["run"]) as seen:
        page = seen.page
        seen.open()
        painted(page)
        cells = page.locator(".confusion button.some")
        for k in (0, cells.count() - 1):
            cell = page.locator(".confusion button.some").nth(k)
            count = int(cell.inner_text())
            cell.click()
            assert shown_figures(page) == count
            assert page.locator(".wall a:visible").count() == count
            page.locator(".confusion button[aria-pressed=true]").click()
            assert shown_figures(page) == 96


def test_nothing_that_passes_the_filters_is_told(servers, look):
    with look(servers["run"]) as seen:
        seen.open("#/explorer?search=nosuchthing")
        seen.page.get_by_text("No figure passes these filters.").wait_for()
        assert not seen.page.locator(".wall").is_visible()


def test_one_figure_tells_everything(servers, look):
    with look(servers["run"]) as seen:
        page = seen.page
        seen.open("#/figure/90")
        record = page.request.get(f"{seen.origin}/web/figures/90").json()
        assert page.locator("h1").inner_text() == record["patch_id"]
        rows = page.locator("table.bars").first.locator("tbody tr")
        assert rows.count() == 8
        for s in range(8):
            text = rows.nth(s).inner_text()
            p = record["answer"]["probabilities"][s]
            assert NAMES[s] in text
            assert (f"{100 * p:.1f} %" if 0.001 <= p < 0.9995 else "%") in text
            assert ("●" in text) == (s in record["answer"]["set"])
            assert ("expert1" in text) == (record["labels"]["expert1"] == s)
            assert (RATER in text) == (record["labels"][RATER] == s)
        assert page.locator("table.bars").count() == 2  # the second run's
        page.locator(".neighbours li").first.wait_for()
        assert page.locator(".neighbours li").count() == 12
        # The rules: words, and outlines on the picture, all of it as text.
        page.get_by_text("Metaphase: one plate. <img src=x onerror=1>").wait_for()
        page.locator(".view svg path").first.wait_for(state="attached")
        assert page.locator(".view svg text").text_content() == "<b>3.1 µm</b>"
        page.get_by_label("Draw the measurements").uncheck()
        assert not page.locator(".view svg").is_visible()
        # The heat map.
        heat = page.locator(".view img.heat")
        assert not heat.is_visible()
        page.get_by_label("Heat map").select_option(label="Metaphase")
        heat.wait_for(state="visible")
        page.get_by_label("Opacity").focus()
        before = heat.evaluate("(e) => Number(e.style.opacity)")
        page.keyboard.press("ArrowRight")
        assert heat.evaluate("(e) => Number(e.style.opacity)") > before
        # A method that fails says why; the other one still works.
        method = page.get_by_role("combobox", name="Method")
        method.select_option("occlusion")
        page.get_by_text("<b>No</b> map of this network.").wait_for()
        assert not heat.is_visible()
        method.select_option("gradcam")
        heat.wait_for(state="visible")
        page.get_by_label("Heat map").select_option("")
        heat.wait_for(state="hidden")
        page.locator(".neighbours a").first.click()
        until(page, f"document.querySelector('h1').textContent !== {record['patch_id']!r}")


def test_everything_is_done_by_keyboard_alone(servers, look):
    with look(servers["run"]) as seen:
        page = seen.page
        seen.open()
        painted(page)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        focused = "document.activeElement"
        for _ in range(140):
            page.keyboard.press("Tab")
            if page.evaluate(f"{focused}.getAttribute('role')") == "listbox":
                break
            outline = page.evaluate(f"getComputedStyle({focused}).outlineStyle")
            assert outline != "none", page.evaluate(f"{focused}.outerHTML.slice(0, 200)")
        for key in ("ArrowRight", "ArrowDown", "End", "Home", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
        assert page.evaluate(f"{focused}.getAttribute('aria-activedescendant')") == "tile-2"
        page.keyboard.press("Enter")
        page.wait_for_selector("table.bars")
        assert page.url.endswith("#/figure/2")
        page.keyboard.press("ArrowRight")
        until(page, "location.hash === '#/figure/3'")
        until(page, f"document.querySelector('h1').textContent === {HOSTILE[3]!r}")
        page.keyboard.press("Escape")
        painted(page)
        # Back on the wall, at the figure that was looked at.
        assert page.evaluate(f"{focused}.getAttribute('role')") == "listbox"
        assert page.evaluate(f"{focused}.getAttribute('aria-activedescendant')") == "tile-3"
        # A cell of the matrix.
        cell = page.locator(".confusion button.some").first
        cell.focus()
        page.keyboard.press("Enter")
        assert shown_figures(page) < 96
        assert page.evaluate(f"{focused}.getAttribute('aria-pressed')") == "true"
        # The theme.
        page.locator("#theme").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_names_that_mean_harm_are_text(servers, look, size):
    with look(servers["run"], size) as seen:
        page = seen.page
        for number, name in enumerate(HOSTILE):
            seen.open(f"#/figure/{number}")
            page.wait_for_selector("table.bars")
            until(page, "(n) => document.querySelector('h1').textContent === n", arg=name)
            assert "broken" not in page.title()
            wide = page.evaluate("[document.querySelector('main').scrollWidth, innerWidth]")
            assert wide[0] <= wide[1], name
            page.goto("about:blank")
        assert page.locator("script:not([src])").count() == 0
        seen.open()
        painted(page)
        assert page.locator("#tile-0").get_attribute("title").startswith(HOSTILE[0])
        assert (
            page.locator("main img, main svg, main script, main i:not([aria-hidden])").count() == 0
        )


def png(colour=(120, 60, 150), side: int = 80) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(stream, "PNG")
    return stream.getvalue()


def stack(pages: int) -> bytes:
    stream = io.BytesIO()
    images = [Image.new("RGB", (80, 80), (20 * i, 90, 120)) for i in range(pages)]
    images[0].save(stream, "TIFF", save_all=True, append_images=images[1:])
    return stream.getvalue()


def file(name: str, content: bytes) -> dict[str, object]:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def test_what_is_dropped_is_answered(servers, look, tmp_path):
    with look(servers["run"]) as seen:
        page = seen.page
        seen.open("#/drop")
        page.get_by_label("µm per pixel").fill("0.25")
        hostile = "<img src=x onerror=alert(1)>.png"
        page.set_input_files("#files", [file(hostile, png()), file("stack.tif", stack(3))])
        page.get_by_text("4 figures in 2 files.").wait_for()
        assert page.locator(".answers li").count() == 4
        assert page.locator(".answers h2").first.inner_text() == hostile.removesuffix(".png")
        assert page.locator(".answers img").count() == 1
        # One is bad: it is told, and the others are answered.
        page.set_input_files("#files", [file("good.png", png()), file("bad.png", b"not an image")])
        page.get_by_text("1 figure in 2 files.").wait_for()
        assert "expected a PNG" in page.locator(".problems").inner_text()
        # A folder.
        (tmp_path / "folder" / "below").mkdir(parents=True)
        (tmp_path / "folder" / "a.png").write_bytes(png())
        (tmp_path / "folder" / "below" / "a.png").write_bytes(png((1, 2, 3)))
        (tmp_path / "folder" / ".hidden").write_bytes(b"x")
        page.set_input_files("#folder", tmp_path / "folder")
        page.get_by_text("2 figures in 2 files.").wait_for()
        ids = page.locator(".answers h2").all_inner_texts()
        assert sorted(ids) == ["folder/a", "folder/below/a"]
        # A drop itself.
        data = page.evaluate_handle(
            """(bytes) => { const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], 'dropped.png', { type: 'image/png' }));
            return data; }""",
            list(png()),
        )
        page.dispatch_event(".drop", "drop", {"dataTransfer": data})
        page.get_by_text("1 figure in 1 file.").wait_for()
        assert page.locator(".answers h2").inner_text() == "dropped"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("text.txt", b"hello", "expected a PNG"),
        ("empty.png", b"", "expected a PNG"),
        ("cut.png", png(side=400)[:200], "damaged or truncated"),
        ("tiny.png", png(side=8), "px"),
        ("x" * 250 + ".png", b"\0" * 50, "expected a PNG"),
        ("bomb.png", png(side=5000), "pixels"),
    ],
)
def test_bad_input_gets_a_sentence(servers, look, name, content, told):
    with look(servers["run"]) as seen:
        page = seen.page
        seen.open("#/drop")
        page.get_by_label("µm per pixel").fill("0.25")
        page.set_input_files("#files", [file(name, content)])
        problems = page.locator(".problems")
        problems.wait_for()
        text = problems.inner_text()
        assert told in text
        assert "Traceback" not in text
        assert "/tmp" not in text
        assert page.locator(".answers li").count() == 0


def test_the_drop_zone_refuses_nothing_and_a_wrong_resolution_in_words(servers, look):
    with look(servers["run"]) as seen:
        page = seen.page
        seen.open("#/drop")
        page.get_by_label("µm per pixel").fill("0.25")
        data = page.evaluate_handle(
            "() => { const d = new DataTransfer(); d.setData('text/plain', 'x'); return d; }"
        )
        page.dispatch_event(".drop", "drop", {"dataTransfer": data})
        page.get_by_text("There was no file in what you dropped").wait_for()
        page.get_by_label("µm per pixel").fill("99")
        page.set_input_files("#files", [file("a.png", png())])
        page.get_by_text("expected a number from 0.01 to 10").wait_for()


def test_a_tiff_that_says_its_resolution_needs_none_and_a_png_does(servers, look):
    stream = io.BytesIO()
    per_cm = 1e4 / 0.25
    Image.new("RGB", (80, 80), (90, 90, 120)).save(stream, "TIFF", dpi=(per_cm * 2.54,) * 2)
    with look(servers["run"]) as seen:
        page = seen.page
        seen.open("#/drop")
        page.set_input_files("#files", [file("a.tif", stream.getvalue()), file("b.png", png())])
        page.get_by_text("does not tell its µm per pixel").wait_for()
        page.get_by_text("1 figure in 2 files.").wait_for()


def test_an_upload_beyond_the_limit_is_told(shown, start, look):
    with start(shown / "run", "body_bytes=20000") as server, look(server) as seen:
        page = seen.page
        seen.open("#/drop")
        page.get_by_label("µm per pixel").fill("0.25")
        noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
        stream = io.BytesIO()
        Image.fromarray(noise).save(stream, "PNG")
        page.set_input_files("#files", [file("large.png", stream.getvalue())])
        page.get_by_text("large.png: expected a file of at most 0.02 MB").wait_for()
        assert page.locator(".answers li").count() == 0
        # Many small files are sent in several requests.
        page.set_input_files("#files", [file(f"{i}.png", png((i, 60, 150))) for i in range(70)])
        page.get_by_text("70 figures in 70 files.").wait_for()


def test_a_slide_is_looked_at_and_its_figures_lead_to_their_pages(servers, look):
    with look(servers["slide"]) as seen:
        page = seen.page
        seen.open()
        page.locator(".found li").first.wait_for()
        assert page.locator(".found li").count() == 40
        assert "40 figures" in page.locator(".slide aside").inner_text()
        colourful = """() => { const c = document.querySelector('canvas.over');
            if (!c || !c.width) return 0;
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; }"""
        until(page, f"({colourful})() > 2000")
        page.get_by_text("figures per mm²").wait_for()  # of the density map, which comes later
        assert page.locator(".ruler").inner_text().endswith("µm")
        assert any("/web/slide/tiles/" in url for url in seen.urls)
        everything = page.evaluate(colourful)
        page.get_by_label("Density map").fill("0")
        without_density = page.evaluate(colourful)
        assert without_density < everything
        page.get_by_label("Hot-spot").uncheck()
        page.get_by_role("combobox", name="Figures", exact=True).select_option("atypical")
        assert page.evaluate(colourful) < without_density
        n_atypical = page.locator(".found li").count()
        assert 0 < n_atypical < 40
        # The first press goes there, the second opens it; by keyboard.
        button = page.locator(".found button").first
        button.focus()
        page.keyboard.press("Enter")
        page.get_by_text("Press again to open the figure.").wait_for()
        page.keyboard.press("Enter")
        page.wait_for_selector("table.bars")
        assert "Place" in page.locator(".facts").inner_text()
        assert (
            page.locator(".view img.patch").evaluate("(e) => e.decode().then(() => e.naturalWidth)")
            == 128
        )


def test_a_click_on_the_slide_opens_the_figure_there(servers, look):
    with look(servers["slide"]) as seen:
        page = seen.page
        seen.open()
        page.locator(".found li").first.wait_for()
        page.wait_for_timeout(800)
        box = page.locator(".slide .viewer").bounding_box()
        places = page.request.get(f"{seen.origin}/web/slide").json()["places"]
        # The whole slide fits into the viewer, centred.
        zoom = min(box["width"] / 1600, box["height"] / 1200)
        left = box["x"] + (box["width"] - 1600 * zoom) / 2
        top = box["y"] + (box["height"] - 1200 * zoom) / 2
        far = [
            min(np.hypot(x - a, y - b) for j, (a, b) in enumerate(places) if j != i)
            for i, (x, y) in enumerate(places)
        ]
        lone = int(np.argmax(far))
        x, y = places[lone]
        page.mouse.click(left + x * zoom, top + y * zoom)
        until(page, f"location.hash === '#/figure/{lone}'")


def test_the_slide_is_zoomed_by_its_buttons(servers, look):
    with look(servers["slide"]) as seen:
        page = seen.page
        seen.open()
        page.locator(".found li").first.wait_for()
        page.wait_for_timeout(800)
        ruler = page.locator(".ruler")
        told = {}
        for name in ("Zoom in", "Zoom in", "Zoom out", "Whole slide"):
            before = ruler.inner_text(), ruler.bounding_box()["width"]
            page.get_by_role("button", name=name).click()
            until(
                page,
                "([text, width]) => { const r = document.querySelector('.ruler');"
                " return r.innerText !== text || Math.abs(r.getBoundingClientRect().width - width)"
                " > 1; }",
                arg=list(before),
            )
            page.wait_for_timeout(1500)  # the animation ends
            told[name] = um_per_px(ruler)
        assert told["Zoom in"] < told["Zoom out"] < told["Whole slide"]


def um_per_px(ruler) -> float:
    number, unit = ruler.inner_text().split()
    return float(number) * {"µm": 1, "mm": 1000}[unit] / ruler.bounding_box()["width"]


def test_a_review_on_a_slide_goes_to_qupath(servers, look, tmp_path):
    with look(servers["slide"], accept_downloads=True) as seen:
        page = seen.page
        seen.open("#/review")
        begin(page, "slider", blind=True)
        page.keyboard.press("2")
        page.get_by_text("Saved: Multipolar").wait_for()
        with page.expect_download() as made:
            page.get_by_role("button", name="Export GeoJSON for QuPath").click()
        made.value.save_as(tmp_path / "r.geojson")
        (feature,) = json.loads((tmp_path / "r.geojson").read_text())["features"]
        assert feature["properties"]["classification"]["name"] == "AMF multipolar"
        number = page.request.get(f"{seen.origin}/web/reviews/slider").json()["order"][0]
        place = page.request.get(f"{seen.origin}/web/slide").json()["places"][number]
        assert feature["geometry"]["coordinates"] == pytest.approx(place, abs=0.1)
        assert not page.get_by_role("button", name="Export as a cohort").count()


def test_a_cohort_by_itself_is_looked_at_and_labelled(servers, look):
    """No model has answered: labels alone are shown, and go to QuPath slide by slide."""
    with look(servers["cohort"]) as seen:
        page = seen.page
        seen.open()
        assert shown_figures(page) == 24
        assert not page.locator("nav").get_by_text("Compare").count()
        seen.open("#/review")
        begin(page, "looker", blind=True)
        page.get_by_role("button", name="Export GeoJSON for QuPath").click()
        page.get_by_text("has not labelled a figure").wait_for()
        for n, key in enumerate("123", start=1):
            page.keyboard.press(key)
            page.get_by_text(f"{n} of 24 labelled").wait_for()
        page.get_by_role("button", name="Export GeoJSON for QuPath").click()
        page.get_by_text("One GeoJSON for each of").wait_for()
        folder = Path(page.locator("[role=status] code").inner_text())
        files = list(folder.glob("*.geojson"))
        assert sum(len(json.loads(f.read_text())["features"]) for f in files) == 3


def begin(page, name: str, *, blind: bool) -> None:
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Blind").set_checked(blind)
    page.keyboard.press("Enter")
    page.wait_for_selector(".review")


def test_a_review_by_keyboard(servers, look):
    with look(servers["run"]) as seen:
        page = seen.page
        seen.open("#/review")
        begin(page, "keys", blind=False)
        order = page.request.get(f"{seen.origin}/web/reviews/keys").json()["order"]
        for n, key in enumerate("63", start=1):
            page.keyboard.press(key)
            page.get_by_text(f"{n} of 96 labelled").wait_for()
        saved = page.request.get(f"{seen.origin}/web/reviews/keys").json()["labels"]
        assert [saved[order[0]], saved[order[1]]] == [5, 2]
        page.keyboard.press("u")
        page.get_by_text("1 of 96 labelled").wait_for()
        page.keyboard.press("Control+z")
        page.get_by_text("0 of 96 labelled").wait_for()
        page.keyboard.press("u")
        page.get_by_text("There is nothing to undo.").wait_for()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("8")
        page.get_by_text("Saved: Ring shape").wait_for()
        page.keyboard.press("ArrowLeft")
        assert page.locator(".keys button[aria-pressed=true]").inner_text().endswith("Ring shape")
        page.keyboard.press("0")
        page.get_by_text("Label taken away.").wait_for()
        page.get_by_role("button", name="Multipolar").click()
        page.get_by_text("Saved: Multipolar").wait_for()
        # Others, and κ with them.
        page.get_by_text("keys – expert1 (cohort)").wait_for()
        # Somebody else labels at the same time: κ with them comes by itself.
        reviews = f"{seen.origin}/web/reviews"
        page.request.post(reviews, data={"name": "second", "blind": True})
        label = {"number": order[1], "subtype": 1}
        page.request.post(f"{reviews}/second/labels", data=label)
        page.get_by_text("keys – second").wait_for()
        page.get_by_label("Order").select_option("doubt")
        page.keyboard.press("n")
        page.get_by_role("button", name="Export as a cohort").click()
        page.get_by_text("1 labels are the column label_keys").wait_for()


def test_a_blind_review_is_sent_nothing_but_pictures(servers, look):
    with look(servers["run"]) as seen:
        page = seen.page
        bodies: list[str] = []
        page.on(
            "response",
            lambda r: (
                bodies.append(r.text())
                if "/web/" in r.url and "json" in r.headers.get("content-type", "")
                else None
            ),
        )
        seen.open("#/review")
        begin(page, "blinded", blind=True)
        for n, key in enumerate("12345678", start=1):
            page.keyboard.press(key)
            page.get_by_text(f"{n} of 96 labelled").wait_for()
        allowed = re.compile(
            r"/(static/.*|web/about|web/reviews(/blinded(/labels)?)?|web/figures/\d+/image\.png)?"
        )
        assert all(allowed.fullmatch(urlsplit(url).path) for url in seen.urls), seen.urls
        for body in bodies:
            assert "expert1" not in body
            assert "probabilities" not in body
            assert "cell-0" not in body
        assert "expert" not in page.locator("main").inner_text()


def test_labels_survive_a_kill_between_two_key_presses(shown, start, look):
    with start(shown / "run") as server:
        port = server.port
        with look(server) as seen:
            page = seen.page
            seen.open("#/review")
            begin(page, "ann", blind=True)
            page.keyboard.press("6")
            page.get_by_text("Saved: Metaphase").wait_for()
            server.process.kill()
            server.process.wait()
            page.keyboard.press("7")
            page.get_by_text("Not saved").wait_for()
            assert "1 of 96 labelled" in page.inner_text(".progress")
            with start(shown / "run", f"port={port}") as again:
                page.keyboard.press("7")
                page.get_by_text("2 of 96 labelled").wait_for()
                state = again.get("/web/reviews/ann").json
                assert [state["labels"][n] for n in state["order"][:3]] == [5, 6, -1]


def test_a_name_that_cannot_be_a_rater_is_refused_in_words(servers, look):
    with look(servers["run"]) as seen:
        page = seen.page
        seen.open("#/review")
        page.get_by_label("Your name").fill("<b>é</b>/..")
        page.keyboard.press("Enter")
        page.get_by_text("expected a name of 1 to 40 letters").wait_for()


def test_two_runs_are_compared(servers, look):
    with look(servers["run"]) as seen:
        page = seen.page
        seen.open("#/compare")
        painted(page)
        get = page.request.get
        first = get(f"{seen.origin}/web/figures").json()
        second = get(f"{seen.origin}/web/comparison").json()
        a, b = first["answers"]["predicted"], second["answers"]["predicted"]
        truth = first["labels"]["expert1"]
        rule = page.get_by_label("Figures where")
        for key, expected in {
            "differ": sum(x != y for x, y in zip(a, b, strict=True)),
            "gained": sum(x != t == y for x, y, t in zip(a, b, truth, strict=True)),
            "lost": sum(y != t == x for x, y, t in zip(a, b, truth, strict=True)),
            "all": 96,
        }.items():
            rule.select_option(key)
            assert shown_figures(page) == expected
        cell = page.locator(".confusion button.some").first
        count = int(cell.inner_text())
        cell.click()
        assert shown_figures(page) == count
        page.locator(".measures").wait_for()
        assert "Cohen's κ" in page.locator(".measures").inner_text()
        page.locator(".wall a").first.click()
        page.wait_for_selector("table.bars")
        page.keyboard.press("Escape")
        until(page, "location.hash === '#/compare'")


def test_an_address_that_is_none_is_told(servers, look):
    with look(servers["run"]) as seen:
        for address in ("#/nowhere", "#/figure/96", "#/figure/x", "#/slide"):
            seen.open(address)
            seen.page.locator(".problems").wait_for()
            seen.page.goto("about:blank")


PAGES = [
    ("run", "#/explorer", ".wall a"),
    ("run", "#/figure/90", ".neighbours li"),
    ("run", "#/drop", ".drop"),
    ("run", "#/review", ".begin"),
    ("run", "#/compare", ".measures"),
    ("slide", "#/slide", ".found li"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize(("source", "address", "ready"), PAGES, ids=[p[1][2:] for p in PAGES])
def test_axe_finds_nothing_serious(servers, look, source, address, ready, size, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with look(servers[source], size, scheme) as seen:
        page = seen.page
        seen.open(address)
        page.locator(ready).first.wait_for(state="attached")
        if address == "#/review":
            begin(page, f"axe_{scheme}_{size['width']}", blind=False)
            page.locator(".others table").first.wait_for()
        if address == "#/drop":
            page.get_by_label("µm per pixel").fill("0.25")
            page.set_input_files("#files", [file("a.png", png()), file("b.txt", b"x")])
            page.get_by_text("1 figure in 2 files.").wait_for()
        page.wait_for_timeout(200)
        found = [
            f"{fault['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
            for fault in Axe().run(page).response["violations"]
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]
        assert not found, "\n".join(found)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(20, 24, 30)" if scheme == "dark" else "rgb(255, 255, 255)")


def test_the_subtypes_are_those_of_the_package(servers, look):
    with look(servers["run"]) as seen:
        seen.open()
        module = "import('/static/js/subtypes.js').then((m) => [m.NAMES, m.KEYS])"
        assert seen.page.evaluate(module) == [NAMES, list(SUBTYPES)]
