"""Photograph the running app for the documentation.

python docs/make_screenshots.py --run runs/all --cohort cohorts/ami-br \
    --against runs/quick [--slide SLIDE --results ANSWERS.csv]

Needs Chromium (``apt install chromium``, or its path in ATYPIA_CHROMIUM) and Playwright (extra
``dev``). Most of a picture is tissue, hence JPEG.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES = Path(__file__).parent / "images"
VIEW = {"width": 1180, "height": 760}
FIGURE = "TUPAC16_1324"
"""A segregation abnormality by both experts, of which the model is not sure."""
PATIENCE_MS = 300_000
QUALITY = 55


@contextmanager
def serving(source: Path, *options: str) -> Iterator[str]:
    """Start the app on a source; gives its address, and ends it."""
    with TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        reviews = str(Path(folder) / "reviews.sqlite")
        command = [sys.executable, "-m", "atypia", "serve", str(source), "--port", "0"]
        process = subprocess.Popen([*command, "--reviews", reviews, *options], stderr=log)
        try:
            found = None
            while found is None:
                if process.poll() is not None:
                    raise SystemExit((Path(folder) / "log").read_text("utf-8"))
                time.sleep(0.5)
                told = (Path(folder) / "log").read_text("utf-8")
                found = re.search(r"answers on (http://\S+)", told)
            yield found[1]
        finally:
            process.terminate()
            process.wait()


def save(page: Any, name: str, height: int = VIEW["height"]) -> None:
    """Photograph a page once it stands still."""
    page.set_viewport_size({**VIEW, "height": height})
    page.wait_for_timeout(1500)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    file = IMAGES / f"app-{name}.webp"
    image.save(file, quality=QUALITY, method=6)
    print(f"{file.name}: {file.stat().st_size / 1024:.0f} KB", flush=True)


def photograph_run(page: Any, address: str) -> None:
    """Show the explorer, one figure with what speaks for its label, and the review."""
    ids = json.load(urllib.request.urlopen(f"{address}/web/figures"))["ids"]
    page.goto(f"{address}/#/explorer?sort=loss")
    page.locator(".confusion").wait_for()
    page.wait_for_timeout(5000)  # the tiles come in sheets
    save(page, "explorer")
    page.goto(f"{address}/#/figure/{ids.index(FIGURE)}")
    page.get_by_label("Heat map").select_option("2")
    page.locator("img.heat").wait_for(state="visible")
    save(page, "figure", 726)
    page.goto(f"{address}/#/review")
    page.get_by_role("textbox").fill("expert4")
    page.get_by_role("button", name="Begin").click()
    page.get_by_role("group", name="Subtypes").wait_for()
    for key in "6736":
        page.keyboard.press(key)
        page.wait_for_timeout(500)
    save(page, "review", 640)


def photograph_comparison(page: Any, address: str) -> None:
    """Show two runs, and where they differ."""
    page.goto(f"{address}/#/compare")
    page.locator("table").first.wait_for()
    page.get_by_text("Comparing by patients").wait_for(state="hidden")
    page.wait_for_timeout(5000)
    save(page, "compare")


def photograph_slide(page: Any, address: str) -> None:
    """Show a slide with its classified candidates."""
    page.goto(f"{address}/#/slide")
    page.locator("canvas").first.wait_for()
    page.wait_for_timeout(8000)
    save(page, "slide")


def main() -> None:
    """Start the app on what is given, and photograph its pages."""
    parser = argparse.ArgumentParser(description="Photograph the running app.")
    parser.add_argument("--run", type=Path, required=True, help="Of AMi-Br.")
    parser.add_argument("--cohort", type=Path, required=True, help="Its cohort.")
    parser.add_argument("--against", type=Path, help="Another run.")
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--results", type=Path, help="Of the slide: CSV of atypia slide.")
    given = parser.parse_args()
    if (given.slide is None) != (given.results is None):
        parser.error("--slide and --results belong together")

    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("ATYPIA_CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=VIEW, color_scheme="light")
        page.set_default_timeout(PATIENCE_MS)
        cohort = ("--cohort", str(given.cohort))
        with serving(given.run, *cohort) as address:
            photograph_run(page, address)
        if given.slide:
            with serving(given.slide, "--results", str(given.results)) as address:
                photograph_slide(page, address)
        if given.against:
            with serving(given.run, *cohort, "--against", str(given.against)) as address:
                photograph_comparison(page, address)
        browser.close()


if __name__ == "__main__":
    main()
