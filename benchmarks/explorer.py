"""First paint of the explorer, and blank tiles while its wall is scrolled, in a real browser.

    python benchmarks/explorer.py --run RUN
    python benchmarks/explorer.py --cohort COHORT --results predictions.csv [--figures 10000]

Starts ``atypia serve`` with an empty cache in a process of its own and opens it in Chromium
(``apt install chromium``, or its path in ATYPIA_CHROMIUM; needs the extra dev). With ``--figures``
the cohort is repeated under new names until it has so many.

First paint is counted from the navigation: to the browser's first contentful paint, and to the
moment when every tile on the screen has its picture. Blank tiles are looked for in what the browser
shows, not in what the page believes: every frame of a screencast is searched for places of tiles
that have the colour of the page or of the placeholder. A blank time runs from the first frame with
such a place to the next frame without. The page is dark, as tissue never is. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image
from playwright.async_api import async_playwright

from atypia.core.files import describe_machine
from atypia.data.cohort import Cohort

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.async_api import Browser, Page

SIZE = {"width": 1360, "height": 860}
LOADS = 7
PAPER = (20, 24, 30)
PLACEHOLDER = (39, 43, 48)
TOLERANCE = 9
"""Of a frame's JPEG."""
LEAST = 0.45
"""Share of a tile's height that has to be empty; the gap between tiles is less."""
JUMPS = 40
WHEELS = {"wheel, 3,000 px/s": 3000, "wheel, 20,000 px/s": 20_000}

WATCH = """
(() => {
  const look = () => {
    const wall = document.querySelector('.wall');
    const rows = [...document.querySelectorAll('.wall .tiles')];
    const box = wall?.getBoundingClientRect();
    const seen = rows.filter((row) => {
      const at = row.getBoundingClientRect().top;
      return at < box.bottom && at > box.top - 80;
    });
    if (seen.length && seen.every((row) => row.dataset.blank === '0')) {
      requestAnimationFrame(() => { window.painted = performance.now(); });
    } else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})()
"""


def repeat(cohort: Cohort, results: Path, figures: int, out: Path) -> tuple[Path, Path]:
    """Write a cohort of so many figures, and its results, by repeating."""
    table = pd.read_csv(results, dtype=str, keep_default_na=False)
    rounds = -(-figures // len(cohort))

    def again(rows: pd.DataFrame, number: int) -> pd.DataFrame:
        return rows.assign(patch_id=[f"{name}-{number}" for name in rows["patch_id"]])

    folder = out / "cohort"
    parts = []
    for number in range(rounds):
        (folder / str(number)).mkdir(parents=True)
        files = [f"{number}/{i}{Path(name).suffix}" for i, name in enumerate(cohort.manifest.file)]
        for file, path in zip(files, cohort.image_paths(), strict=True):
            (folder / file).symlink_to(path.resolve())
        parts.append(again(cohort.manifest.assign(file=files), number))
    manifest = pd.concat(parts).head(figures)
    Cohort.write(folder, f"{cohort.name}, repeated", manifest, {"kind": "benchmark"})
    answers = pd.concat([again(table, number) for number in range(rounds)])
    answers = answers[answers["patch_id"].isin(set(manifest["patch_id"]))]
    answers.to_csv(out / "predictions.csv", index=False)
    return folder, out / "predictions.csv"


@contextmanager
def serving(source: Path, results: Path | None, folder: Path) -> Iterator[int]:
    """Start the app with an empty cache; gives its port."""
    command = [sys.executable, "-m", "atypia", "serve", source, "--port", "0", "--quality", "fast"]
    command += ["--reviews", folder / "reviews.sqlite"]
    command += [] if results is None else ["--results", results]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    process = subprocess.Popen(
        [str(word) for word in command], stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    try:
        told = []
        for line in process.stderr:
            told.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found:
                yield int(found[1])
                return
        sys.exit("".join(told))
    finally:
        process.terminate()
        process.wait()


async def first_paint(browser: Browser, address: str) -> dict[str, float]:
    """Open the page anew; ms from the navigation."""
    context = await browser.new_context(viewport=SIZE, color_scheme="dark")  # type: ignore[arg-type]
    page = await context.new_page()
    await page.add_init_script(WATCH)
    await page.goto(address)
    # Not wait_for_function, which is eval: the page's policy forbids it.
    while await page.evaluate("window.painted") is None:
        await asyncio.sleep(0.1)
    found: dict[str, float] = await page.evaluate(
        """() => ({
          contentful: performance.getEntriesByName('first-contentful-paint')[0].startTime,
          every_tile: window.painted })"""
    )
    await context.close()
    return found


def of_loads(loads: list[dict[str, float]]) -> dict[str, dict[str, int]]:
    """Median and worst of several loads."""
    return {
        key: {
            "median": round(statistics.median(load[key] for load in loads)),
            "worst": round(max(load[key] for load in loads)),
        }
        for key in loads[0]
    }


class Screencast:
    """Frames that the browser shows, with their times."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.frames: list[tuple[float, str]] = []

    async def __aenter__(self) -> Screencast:
        self._session = await self._page.context.new_cdp_session(self._page)
        self._session.on("Page.screencastFrame", self._take)
        await self._session.send("Page.startScreencast", {"format": "jpeg", "quality": 80})
        return self

    async def _take(self, frame: dict[str, Any]) -> None:
        self.frames.append((frame["metadata"]["timestamp"], frame["data"]))
        await self._session.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0.3)
        self._session.remove_listener("Page.screencastFrame", self._take)
        await self._session.send("Page.stopScreencast")

    def summary(self, wall: dict[str, Any]) -> dict[str, Any]:
        """Search every frame for blank tiles; times in ms."""
        times = [at for at, _ in self.frames]
        blank = [count_blank(base64.b64decode(data), wall) for _, data in self.frames]
        longest, since = 0.0, None
        for at, count in zip(times, blank, strict=True):
            if count and since is None:
                since = at
            elif since is not None:
                longest = max(longest, at - since)  # the first frame without, or one more with
                since = since if count else None
        gaps = [b - a for a, b in itertools.pairwise(times)]
        return {
            "frames": len(times),
            "longest_blank_ms": round(1000 * longest),
            "most_blank_tiles": max(blank),
            "frames_with_blank_tiles": sum(count > 0 for count in blank),
            "median_between_frames_ms": round(1000 * statistics.median(gaps)),
        }


def count_blank(jpeg: bytes, wall: dict[str, Any]) -> int:
    """Count the places of tiles that show nothing in a frame."""
    with Image.open(io.BytesIO(jpeg)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    tile = wall["tile"]
    top, bottom = int(wall["top"]), int(wall["bottom"])
    empty = np.zeros(pixels.shape[:2], bool)
    for colour in (PAPER, PLACEHOLDER):
        empty |= (abs(pixels - colour) <= TOLERANCE).all(axis=2)
    blank = 0
    for left in wall["columns"]:
        strip = empty[top:bottom, int(left + tile * 0.2) : int(left + tile * 0.8)].all(axis=1)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], strip.astype(int), [0]])))
        runs = edges[1::2] - edges[::2]
        blank += int(np.ceil(runs[runs >= LEAST * tile] / tile).sum())
    return blank


async def check_search(page: Page, wall: dict[str, Any]) -> None:
    """Stop where blank tiles would not be found: with every picture hidden, all are blank."""
    seen = count_blank(await page.screenshot(type="jpeg", quality=80), wall)
    canvases = "document.querySelectorAll('.wall canvas')"
    await page.evaluate(f"{canvases}.forEach((c) => {{ c.style.visibility = 'hidden'; }})")
    hidden = count_blank(await page.screenshot(type="jpeg", quality=80), wall)
    await page.evaluate(f"{canvases}.forEach((c) => {{ c.style.visibility = ''; }})")
    rows = (wall["bottom"] - wall["top"]) / (wall["tile"] + 9)
    if seen or hidden < (rows - 1) * len(wall["columns"]):
        sys.exit(f"blank tiles are not told from others: {seen} with pictures, {hidden} without")


async def scroll(page: Page, wall: dict[str, Any], way: str) -> dict[str, Any]:
    """Scroll from the top nearly to the end: the last row may be short."""
    await page.evaluate("document.querySelector('.wall').scrollTop = 0")
    await asyncio.sleep(0.5)
    async with Screencast(page) as cast:
        if way in WHEELS:
            await page.mouse.move(wall["columns"][2], wall["top"] + 200)
            begun, done = time.perf_counter(), 0.0
            while done < wall["distance"]:
                wanted = min((time.perf_counter() - begun) * WHEELS[way], wall["distance"])
                await page.mouse.wheel(0, wanted - done)
                done = wanted
                await asyncio.sleep(1 / 60)
        else:
            chance = random.Random(0)
            for _ in range(JUMPS):
                to = chance.uniform(0, wall["distance"])
                await page.evaluate(f"document.querySelector('.wall').scrollTop = {to}")
                await asyncio.sleep(0.15)
    return cast.summary(wall)


async def measure(port: int) -> dict[str, Any]:
    """Measure the page that is served there."""
    address = f"http://127.0.0.1:{port}/#/explorer"
    async with async_playwright() as playwright:
        chromium = os.environ.get("ATYPIA_CHROMIUM", "/usr/bin/chromium")
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--force-color-profile=srgb"]
        )
        cold = await first_paint(browser, address)
        context = await browser.new_context(viewport=SIZE, color_scheme="dark")  # type: ignore[arg-type]
        page = await context.new_page()
        about = await (await page.request.get(f"http://127.0.0.1:{port}/web/about")).json()
        begun = time.perf_counter()
        for number in range(about["tiles"]["small"]["sheets"]):
            await page.request.get(
                f"http://127.0.0.1:{port}/web/tiles/small/{number}.jpg", timeout=300_000
            )
        sheets = time.perf_counter() - begun
        warm = [await first_paint(browser, address) for _ in range(LOADS)]
        by_loss = [await first_paint(browser, f"{address}?sort=loss") for _ in range(LOADS)]
        await page.goto(address)
        await page.wait_for_selector(".wall .tiles[data-blank='0'] canvas")
        await asyncio.sleep(2)
        wall = await page.evaluate(
            """() => {
              const wall = document.querySelector('.wall'), box = wall.getBoundingClientRect();
              const links = [...document.querySelector('.wall .tiles').querySelectorAll('a')];
              const columns = links.map((a) => a.getBoundingClientRect().left);
              const tile = links[0].getBoundingClientRect().width;
              const distance = wall.scrollHeight - wall.clientHeight - 3 * tile;
              return { top: box.top, bottom: box.bottom, columns, tile, distance };
            }"""
        )
        await check_search(page, wall)
        passes = {}
        for order in ("table", "loss"):
            if order == "loss":  # neighbours on the wall are of different sheets
                await page.get_by_label("Sort").select_option("loss")
                await asyncio.sleep(2)
            for way in [*WHEELS, "jumps"]:
                passes[f"order of the {order}, {way}"] = await scroll(page, wall, way)
        version = browser.version
        await browser.close()
    return {
        "figures": about["n"],
        "chromium": version,
        "machine": describe_machine(),
        "first_paint_empty_cache_ms": {k: round(v) for k, v in cold.items()},
        "thumbnails_made_s": round(sheets, 1),
        "first_paint_ms": of_loads(warm),
        "first_paint_by_loss_ms": of_loads(by_loss),
        "scrolling": passes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--figures", type=int, help="repeat the cohort until it has so many")
    options = parser.parse_args()
    if (options.run is None) == (options.cohort is None):
        parser.error("expected --run, or --cohort with --results")
    if options.cohort is not None and options.results is None:
        parser.error("--cohort needs --results")
    if options.figures is not None and options.cohort is None:
        parser.error("--figures needs --cohort")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source, results = options.run or options.cohort, options.results
        if options.figures is not None:
            cohort = Cohort.open(options.cohort)
            source, results = repeat(cohort, results, options.figures, folder)
        with serving(source, results, folder) as port:
            print(json.dumps(asyncio.run(measure(port)), indent=2))


if __name__ == "__main__":
    main()
