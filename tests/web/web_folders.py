"""Cohorts, runs and slides to show, with names that somebody chose to do harm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from slide_files import write_pyramid

from atypia.core.labels import N_ATYPICAL, PROBABILITY_COLUMNS, SUBTYPES
from atypia.data.cohort import Cohort
from atypia.evaluation.predictions import write_predictions

HOSTILE = (
    "<script>document.title='broken'</script>",
    '"><img src=x onerror="document.title=1">',
    "'; DROP TABLE event; --",
    "safe\u202egnp.exe",
    "x" * 300,
    "{{7*7}} ${7*7} &lt;b&gt;",
    "العربية עברית",
    "a/b\\c?d#e%00",
)
RATER = "<i>expert</i>"


def make_cohort(folder: Path, n: int = 96, *, size: int = 80, hostile: bool = True) -> Cohort:
    """A cohort whose patches differ in colour, labelled by two raters who mostly agree."""
    rng = np.random.default_rng(0)
    (folder / "patches").mkdir(parents=True)
    rows = []
    for i in range(n):
        subtype = i % 8
        pixels = rng.normal((230, 190, 215), 6, (size, size, 3))
        reach = size // 2 - 6 * (1 + subtype % 4)
        pixels[reach:-reach, reach:-reach] = (30 * subtype, 40, 120 + 10 * (i % 10))
        name = f"patches/{i}.png"
        if hostile and i == 3:
            name = "patches/\"><svg onload='1'>.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
        second = (subtype + (i % 5 == 0)) % 8
        rows.append(
            {
                "patch_id": HOSTILE[i] if hostile and i < len(HOSTILE) else f"cell-{i:05}",
                "file": name,
                "patient_id": HOSTILE[0] if hostile and i < 4 else f"P{i % 12:02}",
                "domain": "A" if i % 2 else "B",
                "scanner": HOSTILE[1] if hostile and i % 3 == 0 else "S1",
                "mpp": "0.25",
                "label_expert1": SUBTYPES[subtype],
                f"label_{RATER if hostile else 'expert2'}": SUBTYPES[second],
                "atypical_expert1": str(subtype < N_ATYPICAL),
            }
        )
    Cohort.write(folder, HOSTILE[0] if hostile else "plain", pd.DataFrame(rows), {"kind": "test"})
    return Cohort.open(folder)


def make_cut(folder: Path) -> Cohort:
    """A cohort whose manifest tells from where on two slides its patches were cut."""
    cohort = make_cohort(folder, 24, hostile=False)
    number = np.arange(len(cohort))
    manifest = cohort.manifest.assign(
        slide=np.where(number % 2, HOSTILE[4][:100] + ".svs", "case 1.svs"),
        x_px=(100 * number + 50).astype(str),
        y_px="75.5",
    )
    Cohort.write(folder, "cut", manifest, {"kind": "test"})
    return Cohort.open(folder)


def predictions(cohort: Cohort, seed: int = 0, skill: float = 4.0) -> pd.DataFrame:
    """Answers that are right more often than not."""
    rng = np.random.default_rng(seed)
    truth = [SUBTYPES.index(s) for s in cohort.manifest["label_expert1"]]
    scores = rng.normal(0, 1.5, (len(cohort), 8)) + skill * np.eye(8)[truth]
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    table = cohort.manifest[["patch_id", "patient_id", "domain", "scanner"]].copy()
    table["fold"] = "0"
    table[list(PROBABILITY_COLUMNS)] = p
    table["p_atypical"] = p[:, :N_ATYPICAL].sum(1)
    table["predicted_subtype"] = [SUBTYPES[i] for i in p.argmax(1)]
    table["predicted_atypical"] = table["p_atypical"] >= 0.5
    table["conformal_set"] = ["|".join(np.array(SUBTYPES)[row > 0.05]) or "empty" for row in p]
    labels = [c for c in cohort.manifest.columns if c.startswith("label_")]
    return table.join(cohort.manifest[labels])


def make_run(folder: Path, cohort: Cohort, seed: int = 0, skill: float = 4.0) -> Path:
    """The files of a finished run: the first two thirds out of fold, the rest the test part."""
    folder.mkdir(parents=True)
    table = predictions(cohort, seed, skill)
    cut = len(table) * 2 // 3
    write_predictions(folder / "predictions-oof.csv", table[:cut].drop(columns="conformal_set"))
    write_predictions(folder / "predictions-test.csv", table[cut:])
    where = {"name": cohort.name, "sha256": cohort.sha256, "path": str(cohort.path.resolve())}
    (folder / "run.json").write_text(json.dumps({"cohort": where}), encoding="utf-8")
    (folder / "metrics.json").write_text('{"label": "expert1"}', encoding="utf-8")
    return folder


def make_slide(folder: Path, n: int = 40) -> tuple[Path, Path]:
    """A slide of four levels, and results of `n` figures on it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:1200, 0:1600]
    pixels = np.stack([200 + 0 * x, 120 + x // 20, 160 + y // 20], -1).astype(np.uint8)
    pixels = (pixels + rng.integers(0, 20, pixels.shape)).clip(0, 255).astype(np.uint8)
    slide = write_pyramid(folder / "slide.tif", pixels, 0.25, levels=4)
    places = rng.uniform((100, 100), (1500, 1100), (n, 2))
    p = rng.dirichlet(np.full(8, 0.4), n)
    table = pd.DataFrame(
        {
            "patch_id": [HOSTILE[i] if i < len(HOSTILE) else f"c{i}" for i in range(n)],
            "patient_id": "case",
            "domain": "",
            "fold": "",
            **dict(zip(PROBABILITY_COLUMNS, p.T, strict=True)),
            "p_atypical": p[:, :N_ATYPICAL].sum(1),
            "predicted_subtype": [SUBTYPES[i] for i in p.argmax(1)],
            "predicted_atypical": p[:, :N_ATYPICAL].sum(1) >= 0.5,
            "slide": "slide.tif",
            "x_px": places[:, 0],
            "y_px": places[:, 1],
            "x_um": places[:, 0] * 0.25,
            "y_um": places[:, 1] * 0.25,
        }
    )
    write_predictions(folder / "figures.csv", table)
    return slide, folder / "figures.csv"
