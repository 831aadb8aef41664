"""What the cases of field.py share: commands run in this process, pictures, judgements."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence  # noqa: TC003
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import shape

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from drawn_figures import EOSIN, FIGURES, HAEMATOXYLIN  # type: ignore[import-not-found]

from atypia.cli import main as command_line
from atypia.core.labels import PROBABILITY_COLUMNS, SUBTYPES

Picture: TypeAlias = NDArray[np.uint8]
PLACES: Final = {
    "A": (300, 300),
    "B": (700, 500),
    "C": (1100, 900),
    "D": (400, 1100),
    "E": (1600, 400),
}
"""Where the drawn slide of 2000 x 1500 px has figures, in px of 0.25 µm."""
SMALL: Final = ((120, 120), (500, 300))
"""Where its part of 640 x 480 px has two."""
FAST: Final = ("--quality", "fast")
LIMIT_S: Final = 60


class Fault(Exception):  # noqa: N818
    """A case that is not right: its outcome and why."""

    def __init__(self, outcome: str, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    text: str

    @property
    def last(self) -> str:
        """Return the end of what was printed."""
        return " ".join(self.text.split())[-220:]


@contextlib.contextmanager
def deadline(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(*arguments: object, within: int = LIMIT_S) -> Ran:
    """Run ``atypia`` in this process; whatever it and its readers print is caught."""
    sys.stdout.flush()
    sys.stderr.flush()
    before, kept = sys.argv, (os.dup(1), os.dup(2))
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 1)
        os.dup2(caught.fileno(), 2)
        try:
            sys.argv = ["atypia", *map(str, arguments)]
            code = 0
            with deadline(within):
                command_line()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = -1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.argv = before
            for kept_fd, fd in zip(kept, (1, 2), strict=True):
                os.dup2(kept_fd, fd)
                os.close(kept_fd)
        caught.seek(0)
        ran = Ran(code, caught.read().decode(errors="replace"))
    if "Traceback (most" in ran.text or "fault of Atypia" in " ".join(ran.text.split()):
        raise Fault("TRACEBACK", ran.last)
    return ran


def refused(ran: Ran, output: Path | None = None) -> str:
    """Make sure that the command refused its input by a sentence and wrote nothing."""
    if ran.code == 0:
        raise Fault("SILENT" if not re.search("arning|left out", ran.text) else "WRONG", ran.last)
    if not ran.text.strip():
        raise Fault("SILENT", f"exit code {ran.code} without a word")
    if output is not None and output.exists():
        raise Fault("WRONG", f"refused, but {output.name} was written")
    return "refused"


def counted(ran: Ran, number: int) -> None:
    """Make sure that a line says how many were left out."""
    lines = [s for s in ran.text.splitlines() if not re.match(r"\d+ figures,", s)]
    by_kind = sum(int(n) for n in re.findall(r"(\d+) left out", "\n".join(lines)))
    words = rf"(?<![\d.]){number}(?![\d.])|\b{['no', 'one', 'two', 'three'][number]}\b"
    if by_kind != number and not re.search(words, "\n".join(lines)):
        raise Fault("SILENT", f"{number} left out, not counted: {ran.last}")


def equal(got: object, right: object, ran: Ran | None = None) -> None:
    if got != right:
        silent = ran is not None and ran.code == 0 and not re.search("arning|left out", ran.text)
        raise Fault(
            "SILENT" if silent else "WRONG", f"{got} for {right}. {ran.last if ran else ''}"
        )


class Bench:
    """The folder of one case, and pictures that all cases share."""

    def __init__(self, shared: Bench | None, folder: Path, slide: Path | None = None) -> None:
        self.shared, self.folder, self.slide_file = shared or self, folder, slide

    def file(self, name: str, content: Any = "") -> Path:
        """Write a file of the case; objects as JSON."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, (dict, list)):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    @cached_property
    def picture(self) -> Picture:
        """Return the pixels of the drawn slide."""
        if self.slide_file is not None:
            from atypia.slides import open_slide

            with open_slide(self.slide_file, mpp=0.25) as opened:
                cropped: Picture = opened.crop(1000, 1000, 2000)
                return cropped[:1500]
        light = 255 * 10 ** -(0.1 * HAEMATOXYLIN + 0.25 * EOSIN)
        noise = np.random.default_rng(0).normal(0, 3, (1500, 2000, 1))
        image: Picture = np.clip(light + noise, 0, 255).astype(np.uint8)
        drawn = [draw(30).patch(noise=0.01) for draw, _ in FIGURES.values()]
        for (x, y), patch in zip((*PLACES.values(), *SMALL), drawn[2:9], strict=True):
            half = len(patch) // 2
            image[y - half : y + half, x - half : x + half] = patch[: 2 * half, : 2 * half]
        return image

    @property
    def small(self) -> Picture:
        """Return its upper left part."""
        return self.shared.picture[:480, :640]

    @cached_property
    def whole(self) -> Path:
        """Write the drawn slide."""
        return tiff(self.folder / "drawn.tif", self.shared.picture)

    @cached_property
    def reference(self) -> list[float]:
        """p(atypical) of the two figures of the small picture, from a plain TIFF."""
        with tempfile.TemporaryDirectory() as scratch:
            other = Bench(self, Path(scratch))
            path = tiff(other.folder / "plain.tif", self.small)
            table = other.answers(path, other.centres())[1]
            assert table is not None
            return [float(p) for p in table["p_atypical"]]

    def centres(self, places: Sequence[tuple[float, float]] = SMALL) -> Path:
        """Write a table of centres."""
        return self.file("found.csv", "x_px,y_px\n" + "".join(f"{x},{y}\n" for x, y in places))

    def answers(self, slide: Path, found: Path, *args: object) -> tuple[Ran, pd.DataFrame | None]:
        """Classify the candidates of a slide; without a table where it is refused."""
        out = self.folder / "a.csv"
        ran = run("slide", slide, "--candidates", found, *FAST, "--out", out,
                  "--out", self.folder / "a.geojson", *args)  # fmt: skip
        if not out.exists():
            refused(ran, self.folder / "a.geojson")
            return ran, None
        return ran, pd.read_csv(out, dtype={"slide": str, "patch_id": str})

    def places(
        self, found: Path, right: str, *args: object, left: int = 0, area: float | None = None,
        slide: Path | None = None, near: float = 2.0,
    ) -> str:  # fmt: skip
        """Classify; `right` names the figures, "-" wants a refusal, "?" allows one."""
        ran, table = self.answers(slide or self.shared.whole, found, *args)
        if table is None:
            if right[0] != "-" and "?" not in right:
                raise Fault("WRONG", f"refused: {ran.last}")
            return "refused"
        if right == "-":
            raise Fault("SILENT", f"answered {len(table)}: {ran.last}")
        got = [(float(x), float(y)) for x, y in zip(table["x_px"], table["y_px"], strict=True)]
        want = [PLACES[c] for c in right if c in PLACES]
        if len(got) != len(want) or not all(
            any(np.hypot(x - u, y - v) <= near for u, v in got) for x, y in want
        ):
            equal(sorted(got), sorted(want), ran)
        if left:
            counted(ran, left)
        if area is not None:
            self.check_area(ran, area)
        self.check_outlines()
        return "right"

    def check_area(self, ran: Ran, area: float) -> None:
        """Make sure that the area of the region is printed."""
        said = re.search(r"region\w*, ([\d.]+)\s*mm", " ".join(ran.text.split()))
        if said is None or abs(float(said[1]) - area) > 0.002:
            raise Fault("SILENT", f"area {said and said[1]} for {area}: {ran.last}")

    def check_outlines(self) -> None:
        """Make sure that the outlines written are closed, valid and of different ids."""
        features = json.loads((self.folder / "a.geojson").read_text())["features"]
        rings = [
            r
            for f in features
            for r in f["geometry"]["coordinates"]
            if f["geometry"]["type"] == "Polygon"
        ]
        valid = all(shape(f["geometry"]).is_valid for f in features)
        if (
            not valid
            or any(r[0] != r[-1] for r in rings)
            or len({f["id"] for f in features}) != len(features)
        ):
            raise Fault("WRONG", "outlines written are open, invalid or of one id")

    def pixels(
        self, slide: Path, right: str, *args: object, scale: float = 1, near: float = 0.03
    ) -> str:
        """Classify the two figures of a picture in another encoding; as in the plain one."""
        places = [(x * scale, y) for x, y in SMALL]
        ran, table = self.answers(slide, self.centres(places), *args)
        if table is None:
            if right == "same":
                raise Fault("WRONG", f"refused: {ran.last}")
            return "refused"
        if right == "-":
            raise Fault("SILENT", f"answered: {ran.last}")
        got = list(table["p_atypical"])
        off = [abs(p - q) for p, q in zip(got, self.shared.reference, strict=True)]
        if max(off) > near:
            equal(np.round(got, 3).tolist(), np.round(self.shared.reference, 3).tolist(), ran)
        return "right"

    def patches(self, folder: str = "p", count: int = 6) -> Path:
        """Make a folder of drawn patches, all different."""
        path = self.folder / folder
        path.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(patch(i)).save(path / f"c{i}.png")
        return path

    def predict(self, source: Path, right: int | str, *args: object, left: int = 0) -> str:
        """Expect a number of rows, "-" for a refusal, "N?" for either."""
        out = self.folder / "p.csv"
        ran = run("predict", source, "--mpp", 0.25, *FAST, "--out", out, *args)
        if str(right)[0] == "-" or ("?" in str(right) and not out.exists()):
            return refused(ran, out)
        if not out.exists():
            raise Fault("WRONG", f"refused: {ran.last}")
        equal(len(pd.read_csv(out)), int(str(right).strip("?")), ran)
        if left:
            counted(ran, left)
        return "right"

    def prepare(
        self,
        source: Path,
        right: int | str,
        *args: object,
        patients: int | None = None,
        left: int = 0,
    ) -> str:
        """Expect a number of rows of the manifest, and of patients; "-" and "?" as above."""
        out = self.folder / "cohort"
        ran = run("prepare", source, "--out", out, *args)
        if right == "-" or ("?" in str(right) and ran.code):
            return refused(ran, out)
        if not out.exists():
            raise Fault("WRONG", f"refused: {ran.last}")
        rows = pd.read_csv(out / "manifest.csv", dtype=str, keep_default_na=False)
        equal(len(rows), int(str(right).strip("?")), ran)
        if patients is not None:
            equal(rows["patient_id"].nunique(), patients, ran)
        if left:
            counted(ran, left)
        return "right"

    def listed(self, rows: Sequence[tuple[str, str]], right: int | str, **options: Any) -> str:
        """Prepare a table of patients and labels, each with a picture of its own."""
        self.patches(count=len(rows))
        table = "path,case,diagnosis\n" + "".join(
            f'p/c{i}.png,"{p}",{d}\n' for i, (p, d) in enumerate(rows)
        )
        return self.prepare(self.file("list.csv", table), right, *LISTED, **options)

    def evaluate(
        self, content: str | bytes, right: int | str, *args: object, auc: bool = True
    ) -> str:
        """Expect a number of patients of a table; its mean AUC is that of the plain one."""
        out = self.folder / "e"
        shutil.rmtree(out, ignore_errors=True)
        ran = run("evaluate", self.file("e.csv", content), "--out", out, "--resamples", 100, *args)
        if right == "-" or ("?" in str(right) and ran.code):
            return refused(ran, out / "metrics.json")
        if ran.code:
            raise Fault("WRONG", f"refused: {ran.last}")
        measured = json.loads((out / "metrics.json").read_text())
        equal(measured["n_patients"], int(str(right).strip("?")), ran)
        if auc:
            value = measured["overall"]["mean_auc"]["value"]
            equal(round(value, 2), round(self.shared.plain_auc, 2), ran)
        return "right"

    @cached_property
    def plain_auc(self) -> float:
        """Return the mean AUC of the plain table, by scikit-learn."""
        from sklearn.metrics import roc_auc_score

        table = predictions()
        truth = [table["label_expert1"] == s for s in SUBTYPES]
        pairs = zip(truth, PROBABILITY_COLUMNS, strict=True)
        return float(np.mean([roc_auc_score(t, table[c]) for t, c in pairs]))


LISTED: Final = ("--file-column", "path", "--label-column", "expert1=diagnosis", "--patient-column",
                 "case", "--mpp", 0.25)  # fmt: skip
FOLDERS: Final = ("--mpp", 0.25, "--patient-per-patch")
CASES: Final[dict[str, tuple[str, Callable[[Bench], str]]]] = {}


def case(name: str, kind: str) -> Callable[[Callable[[Bench], str]], None]:
    def add(action: Callable[[Bench], str]) -> None:
        assert name not in CASES, name
        CASES[name] = (kind, action)

    return add


def patch(seed: int) -> Picture:
    draw = list(FIGURES.values())[seed % len(FIGURES)][0]
    pixels: Picture = draw(17.0 * seed).patch(noise=0.02, seed=seed)
    return pixels


def png(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def predictions() -> pd.DataFrame:
    """96 figures of twelve patients with labels and plausible probabilities."""
    rng = np.random.default_rng(3)
    truth = np.arange(96) % 8
    p = rng.gamma(0.5, size=(96, 8)) + np.eye(8)[truth]
    table = pd.DataFrame(p / p.sum(1, keepdims=True), columns=list(PROBABILITY_COLUMNS))
    table.insert(0, "patch_id", [f"f{i}" for i in range(96)])
    table.insert(1, "patient_id", [f"P{i // 8:02d}" for i in range(96)])
    return table.assign(label_expert1=[SUBTYPES[t] for t in truth])


def tiff(
    path: Path, pixels: Any, mpp: float | tuple[float, float] | None = 0.25, **options: Any
) -> Path:
    """Write a tiled TIFF; options are those of tifffile."""
    if mpp is not None:
        both = mpp if isinstance(mpp, tuple) else (mpp, mpp)
        options = {"resolution": tuple(1e4 / m for m in both), "resolutionunit": 3, **options}
    plain = {"tile": (256, 256), "compression": "zlib", "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, pixels, **{**plain, **options})
    return path


def retag(path: Path, **tags: Any) -> Path:
    with tifffile.TiffFile(path, mode="r+") as opened:
        for name, value in tags.items():
            opened.pages.first.tags[name].overwrite(value)
    return path
