"""The leaderboard: what is found, what is compared, and what is listed as not run."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import balanced_accuracy_score

from atypia.core.files import write_json
from atypia.core.labels import PROBABILITY_COLUMNS, SUBTYPES
from atypia.evaluation.comparison import compare
from atypia.evaluation.predictions import read_predictions
from atypia.evaluation.scores import evaluate

FOLDER = Path(__file__).parents[1] / "docs"
APPROACHES = """
- {name: flat ensemble, about: first, reference: true, command: "train {cohort} {split}",
   runs: {table1: [missing, flat], cv: [flat-cv]}}
- {name: other, about: second, command: "other {runs}/x-{split}",
   runs: {table1: [other], cv: [other-cv]}}
- {name: stopped, about: third, command: "stopped", runs: {table1: [stopped]},
   without: {cv: not fair}, as_fast_as: flat}
"""


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_leaderboard", FOLDER / "make_leaderboard.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        spec.loader.exec_module(module)
    return module


def write_run(
    folder: Path, skill: float, status: str = "finished", cpu: float | None = 7200
) -> None:
    """A run folder of 160 figures of 16 patients, as far as the page reads it."""
    rng = np.random.default_rng(0)
    truth = np.arange(160) % 8
    p = rng.dirichlet(np.full(8, 0.5), 160) + skill * np.eye(8)[truth]
    p /= p.sum(axis=1, keepdims=True)
    table = pd.DataFrame(p, columns=list(PROBABILITY_COLUMNS))
    table.insert(0, "patch_id", [f"p{i}" for i in range(160)])
    table.insert(1, "patient_id", [f"P{i // 10}" for i in range(160)])
    table.insert(2, "domain", "D")
    table.insert(3, "fold", 0)
    table["p_atypical"] = p[:, :4].sum(axis=1)
    table["predicted_subtype"] = np.array(SUBTYPES)[p.argmax(axis=1)]
    table["predicted_atypical"] = table["p_atypical"] >= 0.5
    table["label_expert1"] = np.array(SUBTYPES)[truth]
    folder.mkdir(parents=True)
    table.to_csv(folder / "predictions-test.csv", index=False)
    measures = evaluate(read_predictions(folder), resamples=100)
    write_json(folder / "metrics.json", measures)
    write_json(folder / "metrics-oof.json", measures)  # all subtypes alike often
    session = {"seconds": 3600, "cpu_seconds": cpu} if cpu else {"seconds": 3600}
    write_json(
        folder / "run.json",
        {
            "status": status, "seed": 0, "cohort": {"sha256": "c"},
            "machine": {"threads": 2, "processor": "Intel(R) Xeon(R) Processor"},
            "sessions": [session, session], "models": [{"parameters": 500_000}],
        },
    )  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump({"ensemble": {"members": 5, "trained": 3}}))


def board(
    maker: ModuleType,
    folder: Path,
    approaches: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, dict[str, Any]]:
    """The page and its figures, of the runs in a folder."""
    file, out = folder / "approaches.yaml", folder / "board.md"
    file.write_text(yaml.safe_dump(approaches))
    monkeypatch.setattr(maker, "APPROACHES", file)
    monkeypatch.setattr("sys.argv", ["x", str(folder), "--out", str(out), "--resamples", "100"])
    maker.main()
    return out.read_text(), json.loads(out.with_suffix(".json").read_text())


def test_runs_are_found_compared_and_the_rest_listed(
    maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "board.md"
    write_run(runs / "flat", 0.3)
    write_run(runs / "other", 0.8, cpu=None)
    write_run(runs / "stopped", 0.8, status="failed")
    file = runs / "other" / "metrics.json"
    write_json(file, {**json.loads(file.read_text()), "optimistic": True})
    (tmp_path / "approaches.yaml").write_text(APPROACHES)
    monkeypatch.setattr(maker, "APPROACHES", tmp_path / "approaches.yaml")
    write_json(tmp_path / "speed.json", {"flat": {"patches_per_second": 41.7}})
    options = ["--out", str(out), "--speed", str(tmp_path / "speed.json"), "--resamples", "100"]
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "nothing"), str(runs), *options])
    maker.main()
    page, figures = out.read_text(), json.loads(out.with_suffix(".json").read_text())
    tables = {n: read_predictions(runs / n) for n in ("flat", "other")}
    expected = compare(tables, resamples=100)["differences"][0]["measures"]["balanced_accuracy"]
    told = figures["table1"]["other"]["differences"]["balanced accuracy"]
    assert told == maker.rounded(expected, 6)
    assert f"**{expected['value']:+.3f} ({expected['low']:+.3f} to" in page
    alike = figures["table1"]["other"]["balanced accuracy, decided alike"]
    for power in ("0", "0.25", "0.5", "1"):  # of frequencies that are all the same
        for name in ("value", "low", "high"):
            assert alike[f"{power}, difference"][name] == pytest.approx(expected[name], abs=1e-6)
    assert (
        "0, difference"
        not in figures["table1"]["flat ensemble"]["balanced accuracy, decided alike"]
    )
    assert "**better at every power**: other †." in page
    assert page.count("| **other †** |") == page.count("| **flat ensemble** |") == 5
    glance = page.partition("| CPU hours | patches/s |\n")[2].partition("\n\n")[0]
    first, second = glance.splitlines()[1:]
    assert first.startswith("| other † |")
    assert first.count("▲") == 5
    assert second.startswith("| flat ensemble |")
    assert "160 figures of 16 patients. They are unequal: the largest has 6 % " in page
    assert "weigh like 16 of one size" in page
    assert "| flat ensemble | `flat` | 1.50 M | 2.00 | 2 | 4.00 | Intel Xeon | 42 |" in page
    assert "| other | `other` | 1.50 M | 2.00 | 2 | – | Intel Xeon | – |" in page
    assert "- stopped (third): `stopped`" in page
    assert "- flat ensemble (first): `train COHORT cv`" in page  # no run tells of another kind
    assert "- other (second): `other runs/x-cv`" in page
    assert "- stopped: not fair" in page.partition("## Five-fold")[2]
    assert "`stopped`" not in page.partition("## Five-fold")[2]
    assert set(figures["table1"]) == {"flat ensemble", "other"}
    assert figures["cv"] == {}


def test_runs_of_another_kind_of_split_or_of_other_patches_are_not_compared(
    maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"flat": "cv", "members": "all", "same": "cv", "fewer": "cv"}
    for name, kind in kinds.items():
        write_run(tmp_path / name, 0.3)
        write_json(tmp_path / name / "splits.json", {"kind": kind})
    table = tmp_path / "fewer" / "predictions-test.csv"
    pd.read_csv(table).iloc[10:].to_csv(table, index=False)
    approaches = [
        {"name": n, "about": "", "command": "", "reference": n == "flat", "runs": {"cv": [n]}}
        for n in kinds
    ]
    page, figures = board(maker, tmp_path, approaches, monkeypatch)
    assert figures["cv"]["same"]["differences"]["mean AUC"]["value"] == 0
    assert figures["cv"]["members"]["differences"]["mean AUC"] is None
    assert "- members, `members`: no flat ensemble of the same split" in page
    assert "- fewer, `fewer`: " in page


def test_out_of_fold_another_number_of_folds_is_told(
    maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, folds in {"flat": 5, "alike": 5, "fewer": 3}.items():
        write_run(tmp_path / name, 0.3)
        outer = [{"test": [], "inner": [[]] * folds}]
        write_json(tmp_path / name / "splits.json", {"kind": "all", "outer": outer})
    approaches = [
        {"name": n, "about": "", "command": "", "reference": n == "flat", "runs": {"cv": [n]}}
        for n in ("flat", "alike", "fewer")
    ]
    page, _ = board(maker, tmp_path, approaches, monkeypatch)
    assert "‡ 3 folds: each member has learned from 67 % of the patients" in page
    assert "| fewer ‡ |" in page
    assert "| alike |" in page


def test_the_speed_of_the_same_networks_is_told_apart(maker: ModuleType, tmp_path: Path) -> None:
    speeds = {"flat": {"patches_per_second": 41.7}}
    entries = {n: maker.runs.Entry({"as_fast_as": "flat"}, tmp_path / n) for n in ("flat", "x")}
    assert maker.page.speed_of(entries["flat"], speeds) == "42"
    assert maker.page.speed_of(entries["x"], speeds) == "*42*"
    assert maker.page.speed_of(maker.runs.Entry({}, tmp_path / "x"), speeds) == "–"


def test_what_runs_of_one_recipe_differ_by_is_not_marked(
    maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skills = {"flat": 0.3, "again": 0.6, "more": 0.55, "much more": 3.0}
    for name, skill in skills.items():
        write_run(tmp_path / name, skill)
    approaches = [
        {"name": n, "about": "", "command": "", "runs": {"table1": [n]}}
        | {"reference": n == "flat", "repeat": n == "again"}
        for n in skills
    ]
    page, figures = board(maker, tmp_path, approaches, monkeypatch)
    assert figures["table1"]["more"]["differences"]["log-loss"]["high"] < 0
    glance = page.partition("| CPU hours | patches/s |\n")[2].partition("\n\n")[0]
    marks = {row.split(" |")[0].removeprefix("| "): row.count("▲") for row in glance.split("\n")}
    assert marks["again"] == 0  # beyond its interval, but it is what the others are measured by
    assert marks["much more"] == 5
    assert marks["more"] == 0
    assert "better at every power**: much more" in page
    assert "again" not in page.partition("[decided alike]")[2].partition("\n")[0]


def test_a_run_of_several_outer_splits_has_the_frequencies_of_all(
    maker: ModuleType, tmp_path: Path
) -> None:
    write_run(tmp_path / "run", 0.3)
    oof = json.loads((tmp_path / "run" / "metrics-oof.json").read_text())
    (tmp_path / "run" / "metrics-oof.json").unlink()
    for part, factor in enumerate((1, 3)):
        for i, subtype in enumerate(SUBTYPES):
            oof["per_class"][subtype]["n"] = factor * (i + 1)
        write_json(tmp_path / "run" / f"outer-{part}" / "metrics-oof.json", oof)
    found = maker.differences.frequencies_of(maker.runs.Entry({"name": "run"}, tmp_path / "run"))
    np.testing.assert_allclose(found, np.arange(1, 9) / 36)


def test_votes_judge_too_and_a_model_of_sides_has_no_subtypes(
    maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, skill in (("flat", 0.3), ("sides", 0.8)):
        write_run(tmp_path / name, skill)
        table = pd.read_csv(tmp_path / name / "predictions-test.csv")
        table["majority_atypical"] = np.arange(160) % 3 == 0
        table.to_csv(tmp_path / name / "predictions-test.csv", index=False)
        measures = evaluate(read_predictions(tmp_path / name), resamples=100)
        write_json(tmp_path / name / "metrics.json", measures)
    (tmp_path / "sides" / "config.yaml").write_text(yaml.safe_dump({"loss": {"of": "sides"}}))
    approaches = [
        {"name": n, "about": "", "command": "", "reference": n == "flat", "runs": {"table1": [n]}}
        for n in ("flat", "sides")
    ]
    page, figures = board(maker, tmp_path, approaches, monkeypatch)
    told = figures["table1"]["sides"]
    tables = {n: read_predictions(tmp_path / n) for n in ("flat", "sides")}
    expected = compare(tables, "majority_atypical", resamples=100)["differences"][0]["measures"]
    assert told["differences"]["binary AUC, majority"] == maker.rounded(expected["binary.auc"], 6)
    assert "mean AUC" not in told["measures"]
    assert page.count("| **sides** |") == 2  # against expert 1, against the majority


def test_what_a_run_is_made_of_is_part_of_its_cost(
    maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"flat": {}, "hybrid": {"kind": "hybrid", "network": "elsewhere/flat"}}
    names["tuned"] = {}
    names["students"] = {"target": {"teacher": "elsewhere/flat/predictions-oof.csv"}}
    for name, config in names.items():
        write_run(tmp_path / name, 0.3)
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(config))
    approaches = [
        {"name": n, "about": "", "command": "", "reference": n == "flat", "runs": {"table1": [n]}}
        | ({"study": "search"} if n == "tuned" else {})
        for n in names
    ]
    (tmp_path / "search").mkdir()
    session = {"seconds": 1800, "cpu_seconds": 5400}
    write_json(tmp_path / "search" / "tune.json", {"session": session})
    page, _ = board(maker, tmp_path, approaches, monkeypatch)
    assert "| flat | `flat` | 0.50 M | 2.00 | 2 | 4.00 | Intel Xeon | – |" in page
    assert "| hybrid | `hybrid` | 1.00 M | 4.00 | 2 | 8.00 | Intel Xeon | – |" in page
    assert "| tuned | `tuned` | 0.50 M | 2.50 | 2 | 5.50 | Intel Xeon | – |" in page
    assert "| students | `students` | 0.50 M | 4.00 | 2 | 8.00 | Intel Xeon | – |" in page
    shutil.rmtree(tmp_path / "flat")
    with pytest.raises(SystemExit, match="expected the run elsewhere/flat"):
        maker.main()


def test_the_approaches_of_the_page_are_what_the_package_runs(maker: ModuleType) -> None:
    """Presets and settings of the commands exist."""
    import shlex

    from atypia.core.config import load_any_config

    approaches = yaml.safe_load(maker.APPROACHES.read_text("utf-8"))
    assert approaches[0]["reference"]
    assert len({a["name"] for a in approaches}) == len(approaches)
    names = [n for a in approaches for part in a["runs"].values() for n in part]
    assert len(set(names)) == len(names)
    for approach in approaches:
        assert set(approach["runs"]) == set(maker.SPLITS)
        untold = {s for s, runs in approach["runs"].items() if not runs}
        assert approach.get("repeat") or untold == set(approach.get("without", {}))
        words = shlex.split(approach["command"].format(cohort="C", split="table1", runs="R"))
        if "--preset" in words and words[1] == "train" and "&&" not in words:
            preset = words[words.index("--preset") + 1]
            load_any_config(preset, [w for w in words if "=" in w])


def test_subtypes_are_decided_by_the_frequencies_of_the_training_part(
    maker: ModuleType, tmp_path: Path
) -> None:
    for name, skill in (("flat", 0.3), ("other", 0.8)):
        write_run(tmp_path / name, skill)
        oof = json.loads((tmp_path / name / "metrics-oof.json").read_text())
        for i, subtype in enumerate(SUBTYPES):
            oof["per_class"][subtype]["n"] = i + 1
        write_json(tmp_path / name / "metrics-oof.json", oof)
    entries = [maker.runs.Entry({"name": name}, tmp_path / name) for name in ("flat", "other")]
    maker.differences.decide_alike(entries, entries[:1], 20)
    found = entries[1].alike["0.5"]["value"]
    table = read_predictions(tmp_path / "other")
    chosen = (table.probabilities / (np.arange(1, 9) / 36) ** 0.5).argmax(1)
    assert found == pytest.approx(balanced_accuracy_score(np.arange(160) % 8, chosen))
    assert found != pytest.approx(entries[1].alike["0"]["value"])
