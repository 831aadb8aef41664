"""The page of a search: what it says of a study, and of one without results."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd

from atypia.reports.plots import search_history
from atypia.reports.search_page import StudyInput, history_svg, importance_svg, render_study

TRIALS = pd.DataFrame(
    {
        "trial": [0, 1, 2, 4],
        "state": ["complete", "complete", "pruned", "failed"],
        "value": [1.5, 1.25, 900.0, None],
        "model.backbone": ["a", "<b>", "a", "a"],
        "share_done": [1.0, 1.0, 0.3, 0.0],
        "seconds": [3.0, 4.0, 1.0, 0.5],
        "note": ["", "", "", "the loss is not finite"],
    }
)
STUDY = StudyInput(
    title="mine",
    cohort="AMi-Br",
    split="table1",
    measure="log_loss",
    minimised=True,
    folds=1,
    trials=TRIALS,
    preset={"model.backbone": "a"},
    best={"model.backbone": "<b>"},
    values=(1.5, 1.25),
    importances={"model.backbone": 1.0},
)


def test_the_page_tells_counts_values_and_reasons() -> None:
    page = render_study(STUDY)
    text = " ".join(page.split())
    for part in (
        "4 trials: 2 complete, 1 stopped early, 1 failed",
        "one inner fold",
        "the loss is not finite",
        "&lt;b&gt;",
        "From 2 trials",
        "model.backbone",
    ):
        assert part in text
    assert "<b>" not in page
    assert page.count("<svg") == 2
    assert page == render_study(STUDY)


def test_a_study_without_results_says_what_is_missing() -> None:
    empty = replace(STUDY, trials=TRIALS[3:], best=None, values=(None, None), importances={})
    page = render_study(empty)
    assert history_svg(empty) is importance_svg(empty) is None
    assert page.count("Not available") == 3
    assert "the loss is not finite" in page


def test_the_best_so_far_goes_down_or_up() -> None:
    """Steps of the line, from the SVG: their heights must be those of the best values."""
    rising = TRIALS[:2].assign(value=[0.5, 0.75])
    for minimised, expected in ((True, 1), (False, 2)):
        svg = search_history(rising, "AUC", minimised=minimised)
        (path,) = re.findall(r'<path d="([^"]*)"[^>]*stroke: #D55E00', svg, re.IGNORECASE)[:1]
        heights = {y for _, y in re.findall(r"[ML] ?([\d.]+) ([\d.]+)", path)}
        assert len(heights) == expected


def test_what_was_stopped_early_does_not_set_the_scale() -> None:
    far = search_history(TRIALS, "log loss", minimised=True)
    near = search_history(TRIALS.assign(value=[1.5, 1.25, 1.4, None]), "log loss", minimised=True)
    ticks = [re.findall(r">(1\.\d+)<", svg) for svg in (far, near)]
    assert ticks[0] == ticks[1] != []
