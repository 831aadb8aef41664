"""The summary page: what it says, and that it stands alone."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pytest

from atypia.biomarker import ModelErrors, biomarkers
from atypia.reports.biomarker_page import GALLERY, BiomarkerPage, render_summary
from atypia.reports.words import per_mm2, share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from atypia.biomarker import ErrorModel, SlideFigures

    Table = Callable[..., pd.DataFrame]
    ReadOne = Callable[[pd.DataFrame], SlideFigures]


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data.replace("\n", " ")


def grey(names: Sequence[str]) -> list[np.ndarray]:
    return [np.full((64, 64, 3), 128, np.uint8) for _ in names]


@pytest.fixture
def source(table: Table, read_one: ReadOne) -> SlideFigures:
    subtypes = ["amf_other"] * 20 + ["nmf_metaphase"] * 40
    places = [(50.0 * i, 40.0 * (i % 7)) for i in range(60)]
    return read_one(table(subtypes, places, slide="<case> & 1"))


def test_the_page_tells_numbers_in_words(source: SlideFigures, error_model: ErrorModel) -> None:
    slide = biomarkers(source, area_mm2=10.0, correction=ModelErrors(error_model).at_site([]))
    page = render_summary(BiomarkerPage(slide, grey, error_model, {"Model": "runs/one/model"}))
    parsed = Page(page)
    assert parsed.open == []
    hotspot = slide.measures["hotspot"]
    assert hotspot is not None
    n, k = hotspot.counts.figures, hotspot.counts.atypical
    assert f"The model calls {k} of the {n} mitotic figures in the hot-spot (2.37 mm²)" in (
        parsed.text
    )
    assert hotspot.atypical_fraction is not None
    assert f"atypical share is {share(hotspot.atypical_fraction.value or 0)} (" in parsed.text
    assert "<case> & 1" in parsed.text
    assert "Not a medical device" in parsed.text
    assert f"on {error_model.chosen.n_figures:,} figures of 60 patients" in parsed.text
    assert "runs/one/model" in parsed.text
    assert f"The {GALLERY} surest of 20" in parsed.text
    images = [attrs for tag, attrs in parsed.tags if tag == "img"]
    assert len(images) == GALLERY
    kinds = [attrs.get("class") for tag, attrs in parsed.tags if tag == "path"]
    assert {"normal", "atypical", "hotspot"} <= set(kinds)
    assert page == render_summary(
        BiomarkerPage(slide, grey, error_model, {"Model": "runs/one/model"})
    )


def test_it_asks_for_nothing_outside_and_runs_no_script(
    source: SlideFigures, error_model: ErrorModel
) -> None:
    slide = biomarkers(source, correction=ModelErrors(error_model).at_site([]))
    parsed = Page(render_summary(BiomarkerPage(slide, grey, error_model)))
    for tag, attrs in parsed.tags:
        assert tag not in ("script", "link", "iframe")
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert (value or "").startswith(("data:", "#"))


def test_without_errors_area_or_images_it_says_so(source: SlideFigures) -> None:
    text = Page(render_summary(BiomarkerPage(biomarkers(source)))).text
    assert "plain count" in text
    assert "no images of the figures were given" in text
    assert "as called, not corrected" in text
    assert "Atypical fraction, as called" in text


def test_a_slide_without_figures_has_a_page(source: SlideFigures) -> None:
    nothing = type(source)(
        "none", "P", source.figures.take(np.empty(0, np.int64)), np.empty((0, 2)), np.empty((0, 2))
    )
    text = Page(render_summary(BiomarkerPage(biomarkers(nothing)))).text
    assert "There is no mitotic figure in the hot-spot" in text
    assert "no figure was found" in text


def test_40_000_figures_make_a_page_of_reasonable_size(source: SlideFigures) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 60, 40_000)
    places = rng.uniform(0, 20_000, (40_000, 2))
    many = type(source)("many", "P", source.figures.take(rows), places * 4, places)
    page = render_summary(BiomarkerPage(biomarkers(many, choice=None)))
    assert len(page) < 1_200_000


@pytest.mark.parametrize(
    ("value", "density", "percent"),
    [
        (0.0, "0.0", "0 %"),
        (0.034, "0.03", "3.4 %"),
        (1.0, "1.0", "100 %"),
        (0.0996, "0.10", "10 %"),
    ],
)
def test_numbers_are_as_exact_as_they_deserve(value: float, density: str, percent: str) -> None:
    assert (per_mm2(value), share(value)) == (density, percent.replace(" ", "\N{NO-BREAK SPACE}"))
