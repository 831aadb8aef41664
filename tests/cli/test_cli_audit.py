"""``atypia audit`` as a person meets it: files, words and exit codes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atypia import cli
from atypia.core.files import sha256_file, write_json
from atypia.core.labels import PROBABILITY_COLUMNS, SUBTYPES
from atypia.data.cohort import Cohort
from atypia.evaluation.predictions import write_predictions


@pytest.fixture
def atypia(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run a verb in this process; exit code and everything printed."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["atypia", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def predictions_of(cohort: Cohort) -> pd.DataFrame:
    """Out-of-fold predictions of a fair model: mostly right, sometimes confidently wrong."""
    rng = np.random.default_rng(0)
    columns = [c for c in cohort.manifest.columns if c.startswith(("label_", "atypical_"))]
    table = cohort.manifest[["patch_id", "patient_id", "domain", *columns]].copy()
    truth = [SUBTYPES.index(name) for name in table["label_expert1"]]
    scores = np.exp(rng.normal(0, 1, (len(table), 8)) + 2 * np.eye(8)[truth])
    table[list(PROBABILITY_COLUMNS)] = scores / scores.sum(1, keepdims=True)
    return table


@pytest.fixture
def finished(cohort_folder: Path, tmp_path: Path) -> Path:
    """What the audit reads of a finished run."""
    cohort = Cohort.open(cohort_folder)
    run = tmp_path / "my-run"
    write_predictions(run / "predictions-oof.csv", predictions_of(cohort))
    path = os.path.relpath(cohort_folder, run)
    write_json(run / "run.json", {"cohort": {"path": path, "sha256": cohort.sha256}})
    return run


def test_a_run_is_audited_with_images_of_its_cohort(atypia, finished: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "audit"
    code, text = atypia("audit", finished, "--out", out, "--resamples", "100", "--top", "5")
    assert code == 0, text
    assert sorted(path.name for path in out.iterdir()) == [
        "audit.csv",
        "audit.html",
        "audit.json",
    ]
    summary = json.loads((out / "audit.json").read_text("utf-8"))
    table = pd.read_csv(out / "audit.csv", keep_default_na=False)
    assert summary["n_issues"] == table["is_issue"].sum() > 5
    assert f"{summary['n_issues']} of 240 labels of expert1 are in doubt" in text
    assert summary["predictions"] == {
        "file": "predictions-oof.csv",
        "sha256": sha256_file(finished / "predictions-oof.csv"),
    }
    assert len(table) == 240
    assert table["rank"].tolist() == list(range(1, 241))
    page = (out / "audit.html").read_text("utf-8")
    assert page.count('<img src="data:image/jpeg;base64,') == 5
    assert "<h1>Label audit: my-run</h1>" in page


def test_a_table_needs_a_cohort_only_for_images(  # type: ignore[no-untyped-def]
    atypia, finished: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    table, out = finished / "predictions-oof.csv", tmp_path / "audit"
    options = ("--out", out, "--resamples", "100", "--top", "3")
    assert atypia("audit", table, *options)[0] == 0
    page = (out / "audit.html").read_text("utf-8")
    assert "<img" not in page
    assert "Not available: no images" in page
    assert atypia("audit", table, *options, "--cohort", cohort_folder)[0] == 0
    assert (out / "audit.html").read_text("utf-8").count("<img") == 3


def test_of_several_outer_folds_the_test_parts_are_audited(  # type: ignore[no-untyped-def]
    atypia, finished: Path, tmp_path: Path
) -> None:
    (finished / "outer-0").mkdir()
    (finished / "predictions-oof.csv").rename(finished / "predictions-test.csv")
    out = tmp_path / "audit"
    assert atypia("audit", finished, "--out", out, "--resamples", "100")[0] == 0
    summary = json.loads((out / "audit.json").read_text("utf-8"))
    assert summary["predictions"]["file"] == "predictions-test.csv"


def test_test_predictions_of_a_single_split_are_not_taken_instead(  # type: ignore[no-untyped-def]
    atypia, finished: Path, tmp_path: Path
) -> None:
    (finished / "predictions-oof.csv").rename(finished / "predictions-test.csv")
    code, text = atypia("audit", finished, "--out", tmp_path / "audit")
    assert code == 2
    assert "has no predictions-oof.csv" in text


def test_another_cohort_and_a_wrong_label_are_refused_before_anything_is_written(  # type: ignore[no-untyped-def]
    atypia, finished: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    table, out = finished / "predictions-oof.csv", tmp_path / "audit"
    renamed = predictions_of(Cohort.open(cohort_folder))
    renamed["patch_id"] = "other/" + renamed["patch_id"]
    write_predictions(table, renamed)
    options = ("--out", out, "--resamples", "100", "--cohort", cohort_folder)
    code, text = atypia("audit", table, *options)
    assert code == 2
    assert "to be shown are missing: other/" in text
    code, text = atypia("audit", table, *options, "--label", "expert3")
    assert code == 2
    assert "expert1" in text
    assert not out.exists()
