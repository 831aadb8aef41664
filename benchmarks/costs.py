"""CPU time and disk of each step from slide to biomarker, and what so many slides would cost.

    python benchmarks/costs.py [--slide SLIDE] [--model released] [--export EXPORT]
        [--slides 100000] [--candidates 500]

Every step is that of ``atypia slides`` and ``atypia biomarker``, done alone on one slide: to open
the slide in a reader, to list its candidates, to read a field (through the reader, as a job does),
the network with each quality that the model has (torch; with ``--export`` ONNX, too), to write the
answers, the measures and the page. Times are CPU time of this process and of its readers, one
thread, so that other work on the machine disturbs little. The plan is their sum: core hours for the
slides, by quality and backend, and bytes. Without ``--slide``, an invented pyramid of 20,000 px by
20,000 px stands for the slides; hardly two candidates share a tile there, the dearest case.
Prints JSON, and the tables of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from slide import write_slide

from atypia.classifiers.answers import Answers
from atypia.classifiers.bundle import find_bundle, read_header
from atypia.classifiers.loading import load_ensemble
from atypia.core.errors import InputError
from atypia.core.files import describe_machine
from atypia.inference.job import ITEM_SIZE, write_rows
from atypia.inference.job_parts import FinishedPart, encode_part
from atypia.inference.slide_list import SlideRow
from atypia.inference.slide_predictions import classify_slide, field_to_read, reading_order
from atypia.inference.slide_work import ListCandidates, Listing
from atypia.pipeline import biomarker
from atypia.slides import open_slide
from atypia.slides.candidates import Candidate
from atypia.slides.slide_pool import SlidePool

OPENINGS = 5
PATCHES = {"best": 48, "fast": 384}


def cpu_seconds() -> float:
    """CPU time of this process and of the readers that have ended."""
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


class Clock:
    """CPU seconds since the last look."""

    def __init__(self) -> None:
        self._last = cpu_seconds()

    def __call__(self) -> float:
        """Look at it."""
        now = cpu_seconds()
        passed, self._last = now - self._last, now
        return passed


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--mpp", type=float, help="where the slide does not say it")
    parser.add_argument("--model", default="released")
    parser.add_argument("--export", type=Path, help="of that model; with int8, that as well")
    parser.add_argument("--slides", type=int, default=100_000)
    parser.add_argument("--candidates", type=int, default=500, help="of each slide")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.slide is None:
            options.slide = Path(name) / "slide.tif"
            write_slide(options.slide)
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Do every step on one slide."""
    n = options.candidates
    slide = options.slide.absolute()
    figures: dict[str, Any] = dict(describe_machine())
    clock = Clock()
    for _ in range(OPENINGS):
        with SlidePool(slide, mpp=options.mpp, readers=1) as pool:
            info = pool.info
    opening = clock() / OPENINGS
    places = np.random.default_rng(0).random((n, 2)) * (info.width, info.height)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        listed = scratch / "c.csv"
        pd.DataFrame(places, columns=["x_px", "y_px"]).to_csv(listed, index=False)
        row = SlideRow(slide.name, slide, listed, options.mpp, None, "")
        clock()
        ListCandidates(ITEM_SIZE, False)(Listing("", row))
        listing = clock() - opening

        network, side = network_costs(options, info.mpp or 0.25)
        candidates = [Candidate(str(i), x, y) for i, (x, y) in enumerate(places.tolist())]
        model = Untaught(load_ensemble(options.model, threads=1))
        read_bytes = bytes_to_read(options, places, model.specs)
        clock()
        with SlidePool(slide, mpp=options.mpp, readers=1) as pool:
            table, _ = classify_slide(model, pool, candidates)
        reading = (clock() - opening) / n
        part = scratch / "part.parquet"
        clock()
        content = encode_part(FinishedPart(table, len(table)))
        part.write_bytes(content)
        writing = clock() / n
        write_rows(scratch / "answers.csv", [part], list(table.columns))
        clock()
        biomarker([scratch / "answers.csv"], scratch / "biomarker", area=100.0)
        measuring = clock()
        page = sum(f.stat().st_size for f in (scratch / "biomarker").rglob("*.html"))

    steps = {
        "open the slide, s, twice a slide": opening,
        "list the candidates, s a slide": listing,
        "read a field, ms": 1e3 * reading,
        "write an answer, ms": 1e3 * writing,
        "measures and page, s a slide": measuring,
    }
    figures["steps, CPU time"] = {name: round(value, 4) for name, value in steps.items()}
    figures["network, CPU ms a figure"] = {k: round(1e3 * v, 3) for k, v in network.items()}
    figures["fields"] = {"side_px": side, "slide": slide.name, "candidates": n}
    figures["read from the slide, kB a figure"] = round(read_bytes / n / 1e3, 1)
    each = 2 * opening + listing + measuring + n * (reading + writing)
    figures["plan"] = {
        "slides": options.slides,
        "candidates": options.slides * n,
        "core hours without the network": round(options.slides * each / 3600, 1),
        "core hours": {
            name: round(options.slides * (each + n * seconds) / 3600, 1)
            for name, seconds in network.items()
        },
        "read, TB": round(options.slides * read_bytes / 1e12, 2),
        "answers, GB": round(options.slides * len(content) / 1e9, 2),
        "pages, GB": round(options.slides * page / 1e9, 2),
    }
    print(json.dumps(figures, indent=2))
    print("\n| step | CPU time |\n|---|---:|")
    for step, value in figures["steps, CPU time"].items():
        print(f"| {step} | {value:g} |")
    for kind, value in figures["network, CPU ms a figure"].items():
        print(f"| network ({kind}), ms | {value:g} |")
    print("\n| network | core hours | days on 64 cores |\n|---|---:|---:|")
    for kind, hours in figures["plan"]["core hours"].items():
        print(f"| {kind} | {hours:,.0f} | {hours / 64 / 24:.2g} |")


def bytes_to_read(options: argparse.Namespace, places: Any, specs: Any) -> int:
    """Bytes that a reader takes from the file for all candidates (Linux)."""

    def so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    with open_slide(options.slide, mpp=options.mpp) as opened:
        before = so_far()
        field_um, out_mpp = field_to_read(specs, opened.info.mpp or 0.25)
        for x, y in places[reading_order(places)]:
            opened.read_field(x, y, field_um, out_mpp)
        return so_far() - before


class Untaught:
    """A model that answers without looking, so that what is left is the reading."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def answer(self, patches: Any, *_: Any) -> Answers:
        """All subtypes alike."""
        return Answers(np.full((len(patches), 8), 1 / 8, np.float32))


def network_costs(options: argparse.Namespace, mpp: float) -> tuple[dict[str, float], int]:
    """CPU seconds for a figure by quality and backend; the side of a field, px."""
    backends = ["torch"] + (["onnx", "onnx-int8"] if options.export else [])
    costs = {}
    for quality in read_header(find_bundle(options.model)).qualities:
        for backend in backends:
            folder = options.model if backend == "torch" else options.export
            try:
                model = load_ensemble(folder, quality, backend=backend, device="cpu", threads=1)
            except InputError:  # the export lacks it
                continue
            field_um, out_mpp = field_to_read(model.specs or (), mpp)
            side = round(field_um / out_mpp)
            count = PATCHES[quality]
            noise = np.random.default_rng(0).integers(0, 255, (count, side, side, 3), np.uint8)
            model.predict_proba(noise[:64], out_mpp)  # what is set up once
            clock = Clock()
            model.predict_proba(noise, out_mpp)
            costs[f"{quality}, {backend}"] = clock() / count
    return costs, side


if __name__ == "__main__":
    main()
