from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from functools import cache

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from atypia.evaluation.curves import Reliability
from atypia.reports import plots
from atypia.reports.plots import Curve

COUNTS = np.diag([11, 8, 35, 47, 52, 480, 312, 0])
COUNTS[5, 2] = 37
SLOPE = np.linspace(0, 1, 5)
EMPTY_BIN = Reliability(
    edges=np.array([0, 0.5, 1]),
    confidence=np.array([np.nan, 0.75]),
    accuracy=np.array([np.nan, 0.5]),
    count=np.array([0, 12]),
)
HISTORY = pd.DataFrame(
    {"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0], "valid_loss": [np.nan, 1.0, 2.0]}
)


def matrix(*, normalised: bool = False, rows: str = "expert 1") -> str:
    return plots.confusion_matrix(
        COUNTS, normalised=normalised, row_title=rows, column_title="Model"
    )


FIGURES = {
    "confusion": matrix,
    "roc": lambda: plots.roc_curves([Curve("Ring 0.912", SLOPE, SLOPE**0.5, (0.2, 0.7))]),
    "pr": lambda: plots.pr_curves([Curve("Ring 0.912", SLOPE, 1 - SLOPE)]),
    "no curve": lambda: plots.pr_curves([]),
    "coverage": lambda: plots.accuracy_against_coverage([Curve("Subtype 0.2", SLOPE, 1 - SLOPE)]),
    "reliability": lambda: plots.reliability_diagram(EMPTY_BIN, "Largest", "Right"),
    "size": lambda: plots.size_against_sensitivity({"nmf_ring": 16}, {"nmf_ring": (0.5, 0.2, 0.7)}),
    "training": lambda: plots.training_curves([HISTORY], {"valid_loss": "validation"}),
}


DRAWN = {name: cache(draw) for name, draw in FIGURES.items()}
EVERY_FIGURE = pytest.mark.parametrize("name", FIGURES)


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@EVERY_FIGURE
def test_every_figure_is_small_sound_svg_that_never_changes(name: str) -> None:
    svg = DRAWN[name]()
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox")
    assert svg == FIGURES[name]()
    assert len(svg) < 60_000
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg\")", svg)
    assert "nan" not in svg.lower()
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not tags & {"script", "style", "metadata", "image", "foreignObject"}


@EVERY_FIGURE
def test_ink_follows_the_page_and_references_stay_inside_the_figure(name: str) -> None:
    svg = DRAWN[name]()
    assert "currentColor" in svg
    assert plots._INK not in svg
    assert plots._FAINT not in svg
    ids = re.findall(r' id="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"#([a-z][0-9a-f]{10}[^\")]*)", svg)) <= set(ids)


def test_different_figures_share_no_id() -> None:
    ids = [set(re.findall(r' id="([^"]+)"', draw())) for draw in DRAWN.values()]
    assert sum(map(len, ids)) == len(set.union(*ids))


def test_confusion_matrix_writes_counts_or_shares_of_rows() -> None:
    raw, shares = texts(matrix()), texts(matrix(normalised=True))
    assert {"480", "312", "37"} <= set(raw)
    assert raw.count("0") == 8 * 8 - 9 - 7  # the row of a class without figures has dashes
    assert raw.count("–") == shares.count("–") == 8
    assert {"93", "7", "100"} <= set(shares)  # 480 and 37 of 517
    for title in ("expert 1", "Model", "Metaphase", "Ring"):
        assert title in raw
    assert raw.count("AMF") == raw.count("NMF") == 2


def test_hostile_names_are_text_not_markup_nor_mathematics() -> None:
    name = "<script>&\"$x^2$'"
    assert name in texts(matrix(rows=name))


def test_curves_carry_their_key_and_the_marker_of_a_rater() -> None:
    assert "Ring 0.912" in texts(DRAWN["roc"]())
    without = plots.roc_curves([Curve("Ring 0.912", SLOPE, SLOPE**0.5)])
    assert DRAWN["roc"]().count("<use") == without.count("<use") + 1


def test_training_curves_take_what_columns_there_are() -> None:
    both = {"valid_loss": "validation", "train_loss": "training", "missing": "nothing"}
    shown = texts(plots.training_curves([HISTORY, HISTORY], both, lowest="valid_loss"))
    assert {"member 1, validation", "member 2, training"} <= set(shown)
    assert not any("nothing" in text for text in shown)


def test_figures_leave_the_settings_of_matplotlib_alone() -> None:
    before = dict(matplotlib.rcParams)
    FIGURES["roc"]()
    assert dict(matplotlib.rcParams) == before


def test_patch_is_shrunk_but_keeps_its_colours() -> None:
    patch = np.full((256, 256, 3), (180, 40, 120), np.uint8)
    image = Image.open(io.BytesIO(plots.patch_jpeg(patch)))
    assert image.size == (128, 128)
    assert np.abs(np.asarray(image).astype(int) - (180, 40, 120)).max() <= 4
