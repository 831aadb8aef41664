"""The summary page as a PDF: one sheet, with its colours, words and images."""

from __future__ import annotations

import builtins
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from atypia.biomarker import ModelErrors, biomarkers
from atypia.core.errors import AtypiaError, MissingExtraError
from atypia.reports import pdf
from atypia.reports.biomarker_page import BiomarkerPage, render_summary
from atypia.reports.pdf import write_pdf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from atypia.biomarker import ErrorModel, SlideFigures


def grey(names: Sequence[str]) -> list[np.ndarray]:
    return [np.full((64, 64, 3), 128, np.uint8) for _ in names]


def test_a_full_page_is_one_sheet_with_its_colours_and_words(
    table: Callable[..., pd.DataFrame],
    read_one: Callable[[pd.DataFrame], SlideFigures],
    error_model: ErrorModel,
    tmp_path: Path,
) -> None:
    pytest.importorskip("weasyprint")
    pdfium = pytest.importorskip("pypdfium2")
    source = read_one(
        table(
            ["amf_other"] * 20 + ["nmf_metaphase"] * 40,
            [(90.0 * i, 130.0 * (i % 17)) for i in range(60)],
            slide="a slide with quite a long name " * 3,
        )
    )
    slide = biomarkers(source, area_mm2=10.0, correction=ModelErrors(error_model).at_site([]))
    facts = {f"Fact {i}": "something that is told of the model " * 4 for i in range(5)}
    page = render_summary(BiomarkerPage(slide, grey, error_model, facts))
    write_pdf(tmp_path / "page.pdf", page)
    document = pdfium.PdfDocument(tmp_path / "page.pdf")
    assert len(document) == 1
    assert document[0].get_size() == pytest.approx((595.3, 841.9), abs=0.2)  # A4, points
    text = document[0].get_textpage().get_text_bounded()
    assert "Atypical figures per mm²" in text
    assert "Not a medical device" in text  # the last line of the page
    pixels = np.asarray(document[0].render(scale=1.5).to_pil().convert("RGB")).astype(int)
    for colour in ((213, 94, 0), (0, 114, 178), (128, 128, 128)):  # figures, hot-spot, images
        assert (np.abs(pixels - colour).max(axis=-1) <= 3).sum() > 50, colour


def test_nothing_is_fetched_and_what_is_far_too_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("weasyprint")
    secret = tmp_path / "secret.png"
    page = f'<p>text</p><img src="file://{secret}" alt="left out">'
    write_pdf(tmp_path / "a.pdf", page)
    once = (tmp_path / "a.pdf").read_bytes()
    write_pdf(tmp_path / "a.pdf", page)
    assert (tmp_path / "a.pdf").read_bytes() == once
    monkeypatch.setattr(pdf, "_LARGER", (1.0,))
    with pytest.raises(AtypiaError, match=r"b\.pdf: expected a page of one sheet"):
        write_pdf(tmp_path / "b.pdf", "<p>line</p>" * 100)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (ModuleNotFoundError("No module named 'weasyprint'"), MissingExtraError, r"atypia\[pdf\]"),
        (OSError("cannot load library 'libpango'"), AtypiaError, "apt install libpangoft2"),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception], told: str
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "weasyprint":
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "weasyprint", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(raised, match=told):
        pdf.check_pdf()
