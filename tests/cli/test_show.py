"""What a person reads of answers and plans, on a terminal of 80 columns."""

from __future__ import annotations

import pandas as pd
import pytest

from atypia.cli import models, show
from atypia.cli.app import out_console
from atypia.core.labels import SUBTYPES
from atypia.evaluation.sampling_plan import Conclusion


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_the_call_comes_first_and_the_set_in_its_own_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answered = {f"p_{subtype}": 0.1 for subtype in SUBTYPES} | {
        "patch_id": "one",
        "p_atypical": 0.33,
        "predicted_subtype": "amf_multipolar",
        "predicted_atypical": True,
        "conformal_set": "amf_multipolar|nmf_ring|amf_bipolar",
        "status": "answered",
    }
    refused = answered | {"patch_id": "two", "predicted_subtype": "", "status": "no_tissue"}
    frame = pd.DataFrame([answered, refused])
    frame.attrs = {"threshold": 0.19, "operating_point": "balanced"}
    show.show_predictions(frame)
    text = capsys.readouterr().out
    words = " ".join(text.split())
    assert "figure p_atypical call subtype p prediction set" in words
    assert "one 0.33 atypical Multipolar 0.10 Multipolar, Ring" in words
    assert text.index("Ring") < text.index("Bipolar")
    assert "two not answered:" in words
    assert words.count("threshold 0.19 (balanced)") == 1


def test_a_plan_is_whole_on_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Conclusion(400, 40, 101, (0.68, 0.91), (0.87, 0.9), (0.46, 0.62), (0.15, 0.23))
    models._show_plan({400: (shown, shown)})
    text = capsys.readouterr().out
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= out_console.width == 80
    assert text.count("0.68–0.91   0.87–0.90   0.46–0.62 0.15–0.23") == 2
