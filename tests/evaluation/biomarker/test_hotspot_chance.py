"""What chance alone gives, against every permutation, and where it stands."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from atypia.biomarker import (
    HotspotChoice,
    ModelErrors,
    biomarkers,
    by_patient,
    cohort_table,
    region_of,
    slides_table,
)
from atypia.biomarker.hotspot_chance import Chance, scattered_places, shuffled_calls
from atypia.reports.biomarker_page import BiomarkerPage, render_summary
from atypia.reports.words import measures_in_words
from atypia.slides.tissue import Tissue

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from atypia.biomarker import ErrorModel, SlideFigures

    Table = Callable[..., pd.DataFrame]
    ReadOne = Callable[[pd.DataFrame], SlideFigures]

# Two groups of four figures, 9 mm apart; all four atypical ones stand in the first group.
PLACES = [(x + 50.0 * i, 40.0 * i) for x in (0.0, 9000.0) for i in range(4)]
SUBTYPES_HERE = ["amf_other"] * 4 + ["nmf_ring"] * 4
ATYPICAL = HotspotChoice(of="atypical")


def test_shuffled_calls_agree_with_all_permutations() -> None:
    """Of 70 ways to call four of eight, 2 put all four into one group, 32 three and 36 two."""
    fullest = [
        max(len([i for i in chosen if i // 4 == group]) for group in (0, 1))
        for chosen in combinations(range(8), 4)
    ]
    chance = shuffled_calls(np.array(PLACES), np.arange(8) < 4, 2.37, "circle")
    for found in (2, 3, 4):
        share = np.mean([most >= found for most in fullest])
        assert chance.p_value(found) == pytest.approx(share, abs=0.1)
    assert chance.p_value(4) == pytest.approx(2 / 70, abs=0.03)
    assert chance.expected == pytest.approx(np.mean(fullest), abs=0.12)
    assert chance.p_value(5) == 1 / 200


def test_a_hotspot_of_atypical_figures_has_a_density_and_chance_but_no_share(
    table: Table, read_one: ReadOne, error_model: ErrorModel
) -> None:
    source = read_one(table(SUBTYPES_HERE, PLACES))
    correction = ModelErrors(error_model).at_site([source])
    slide = biomarkers(source, 50.0, choice=ATYPICAL, correction=correction)
    row = slides_table([slide]).iloc[0]
    assert row["hotspot_atypical_called_n"] == 4
    assert row["hotspot_atypical_called_per_mm2"] == pytest.approx(4 / 2.37)
    shares = [c for c in row.index if c.startswith("hotspot_") and "fraction" in c]
    assert len(shares) >= 6
    assert row[shares].isna().all()
    assert row["hotspot_chance_p"] < 0.08
    assert 2 / 2.37 < row["hotspot_chance_per_mm2"] < 3 / 2.37
    patient = cohort_table(by_patient([slide], correction, "atypical")).iloc[0]
    assert patient[shares].isna().all()
    assert patient["hotspot_chance_p"] == row["hotspot_chance_p"]
    # The other areas keep theirs, and the page speaks of them.
    assert row["all_atypical_fraction"] > 0
    page = render_summary(BiomarkerPage(slide))
    assert "The model calls 4 of the 8 mitotic figures in all candidates" in page
    assert "by chance alone" in page
    assert "Their share in such a place is too high" in page
    (hotspot,) = [line for line in measures_in_words(slide) if line.startswith("Hot-spot")]
    assert "fraction" not in hotspot
    assert "by chance alone" in hotspot


def test_a_hotspot_of_all_figures_keeps_its_share(table: Table, read_one: ReadOne) -> None:
    slide = biomarkers(read_one(table(SUBTYPES_HERE, PLACES)))
    assert slide.chance is None
    row = slides_table([slide]).iloc[0]
    assert row["hotspot_atypical_called_fraction"] in (0, 1)


def test_chance_of_a_patient_is_that_of_the_fullest_slide() -> None:
    one, other = Chance("calls", np.array([3, 5, 2])), Chance("calls", np.array([4, 1, 2]))
    both = Chance.of_slides([one, other])
    assert both is not None
    assert both.fullest.tolist() == [4, 5, 2]
    assert both.p_value(5) == 0.5
    assert Chance.of_slides([one, None]) is None
    assert Chance.of_slides([]) is None


def box(width_mm: float, height_mm: float) -> Tissue:
    return Tissue(np.ones((round(height_mm * 50), round(width_mm * 50)), bool))


def test_scattered_figures_are_a_poisson_process() -> None:
    """On tissue as large as the hot-spot all lie in it; on a strip a sliding window counts them."""
    tiny = scattered_places(20, box(0.5, 0.5), 2.37, "circle")
    assert (tiny.fullest == 20).all()
    strip = scattered_places(30, box(30, 0.02), 1.5, "rectangle")  # windows of 1.41 mm
    rng = np.random.default_rng(5)
    window = np.sqrt(1.5 * 4 / 3)
    most = []
    for _ in range(2000):
        x = np.sort(rng.uniform(0, 30, 30))
        most.append((np.searchsorted(x, x + window, side="right") - np.arange(30)).max())
    assert strip.expected == pytest.approx(np.mean(most), abs=0.25)


def test_clustered_figures_are_denser_than_scattered_ones(table: Table, read_one: ReadOne) -> None:
    rng = np.random.default_rng(1)
    even = rng.uniform(0, [12_000, 8000], (60, 2))
    cluster = np.concatenate([even[:30], rng.normal([6000, 4000], 300, (30, 2))])
    p = []
    for places in (even, cluster):
        source = read_one(table(["nmf_ring"] * 60, [(x, y) for x, y in places]))
        slide = biomarkers(source, tissue=box(12, 8))
        assert slide.chance is not None
        row = slides_table([slide]).iloc[0]
        assert row["tissue_mm2"] == pytest.approx(96)
        assert row["hotspot_tissue_mm2"] == pytest.approx(2.37, rel=0.2)
        assert row["hotspot_chance_per_mm2"] > 60 / 96
        p.append(row["hotspot_chance_p"])
    assert p[0] > 0.05
    assert p[1] == 0.01


def test_tissue_smaller_than_the_hotspot_has_none(table: Table, read_one: ReadOne) -> None:
    source = read_one(table(["nmf_ring"] * 3, [(700.0, 700.0)] * 3))
    assert biomarkers(source, tissue=box(1.5, 1.5)).measures["hotspot"] is None
    found = biomarkers(source, tissue=box(2, 2)).measures["hotspot"]
    assert found is not None
    assert found.counts.figures == 3
    # Tissue without a figure has a hot-spot of nothing.
    shred = np.zeros((200, 200), bool)
    shred[100:, 100:] = True
    nothing = biomarkers(source, tissue=Tissue(shred)).measures["hotspot"]
    assert nothing is not None
    assert nothing.counts.figures == 0


def test_figures_are_scattered_in_the_region_alone() -> None:
    ring = [[0, 0], [4000, 0], [4000, 4000], [0, 4000], [0, 0]]
    region = region_of([{"type": "Polygon", "coordinates": [ring]}])
    assert region is not None
    whole = region.tissue(np.array([0.5, 0.5]))
    assert whole.area_mm2 == pytest.approx(4, rel=0.02)
    half = region.tissue(np.array([0.5, 0.5]), box(1, 5))
    assert half.area_mm2 == pytest.approx(2, rel=0.02)
    assert half.scattered(100).max(axis=0) == pytest.approx([1000, 2000], abs=80)
