"""What chance alone gives, against every permutation, and where it stands."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from atypia.biomarker import HotspotChoice, biomarkers, by_patient, cohort_table, slides_table
from atypia.biomarker.hotspot_chance import DRAWS, Chance, shuffled_calls
from atypia.reports.biomarker_page import BiomarkerPage, render_summary
from atypia.reports.words import measures_in_words

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
        assert chance.p_value(found) == pytest.approx(share, abs=2.6 * np.sqrt(0.25 / DRAWS))
    assert chance.p_value(4) == pytest.approx(2 / 70, abs=0.03)
    assert chance.expected == pytest.approx(np.mean(fullest), abs=0.12)
    assert chance.p_value(5) == 1 / (DRAWS + 1)


def test_a_hotspot_of_atypical_figures_has_a_density_and_chance_but_no_share(
    table: Table, read_one: ReadOne, error_model: ErrorModel
) -> None:
    source = read_one(table(SUBTYPES_HERE, PLACES))
    rates = error_model.rates(50)
    slide = biomarkers(source, 50.0, choice=ATYPICAL, errors=rates)
    row = slides_table([slide]).iloc[0]
    assert row["hotspot_atypical_called_n"] == 4
    assert row["hotspot_atypical_called_per_mm2"] == pytest.approx(4 / 2.37)
    shares = [c for c in row.index if c.startswith("hotspot_") and "fraction" in c]
    assert len(shares) >= 6
    assert row[shares].isna().all()
    assert row["hotspot_chance_p"] < 0.08
    assert 2 / 2.37 < row["hotspot_chance_per_mm2"] < 3 / 2.37
    patient = cohort_table(by_patient([slide], rates, "atypical")).iloc[0]
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
