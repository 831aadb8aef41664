"""Runs of the rules, the hybrid and the stack: what they leave, and what they refuse."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atypia import cli, pipeline
from atypia.classifiers.loading import load_ensemble
from atypia.core.config import load_any_config, load_config
from atypia.core.errors import InputError, LeakError
from atypia.core.files import read_json, write_json
from atypia.core.labels import N_ATYPICAL, PROBABILITY_COLUMNS
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.data.patient_names import veiled_cases
from atypia.data.splits import published_roles
from atypia.evaluation.predictions import read_predictions
from atypia.training.base_predictions import BasePredictions, splits_of
from atypia.training.rules_fitter import shaped_on

pytestmark = pytest.mark.usefixtures("undrawn")

FEW = ("resamples=100",)


@pytest.fixture(scope="module")
def network(
    cohort_folder: Path, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of three members: with fewer there are no folds within folds."""
    out = tmp_path_factory.mktemp("joined") / "network"
    config = load_config("quick", (*tiny, "ensemble.members=3"))
    pipeline.train(cohort_folder, out, config)
    return out


@pytest.fixture(scope="module")
def ruled(cohort_folder: Path, network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the rules on the network's split."""
    out = tmp_path_factory.mktemp("joined") / "rules"
    config = load_any_config("rules", [*FEW, f"split.kind={network / 'splits.json'}"])
    pipeline.train(cohort_folder, out, config, command="atypia train")
    return out


@pytest.fixture(scope="module")
def joined(cohort_folder: Path, network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("joined") / "hybrid"
    pipeline.train(cohort_folder, out, load_any_config("hybrid", [*FEW, f"network={network}"]))
    return out


@pytest.fixture(scope="module")
def stacked(
    cohort_folder: Path, network: Path, ruled: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("joined") / "stack"
    config = load_any_config("stack", [*FEW, f"runs=[{network},{ruled}]"])
    pipeline.train(cohort_folder, out, config)
    return out


def probabilities(file: Path) -> pd.DataFrame:
    return pd.read_csv(file).set_index("patch_id")[list(PROBABILITY_COLUMNS)].sort_index()


@pytest.mark.parametrize("name", ["ruled", "joined", "stacked"])
def test_a_run_leaves_what_a_training_leaves(
    name: str, network: Path, request: pytest.FixtureRequest, cohort_folder: Path
) -> None:
    out: Path = request.getfixturevalue(name)
    wanted = ("config.yaml", "run.json", "splits.json", "metrics.json", "metrics-oof.json",
              "predictions-oof.csv", "predictions-test.csv", "report.html", "train.log",
              "model/model.json")  # fmt: skip
    assert all((out / file).is_file() for file in wanted)
    assert read_json(out / "run.json")["status"] == "finished"
    for file in ("predictions-oof.csv", "predictions-test.csv"):
        assert list(probabilities(out / file).index) == list(probabilities(network / file).index)
        read_predictions(out / file)
    learned = sorted(Cohort.open(cohort_folder).manifest.set_index("patch_id").loc[
        probabilities(out / "predictions-oof.csv").index, "patient_id"].unique())  # fmt: skip
    named = read_json(out / "model" / "model.json")["provenance"]["patients"]
    assert named == veiled_cases(learned)
    # The model in the folder gives the test predictions.
    cohort, told = Cohort.open(cohort_folder), probabilities(out / "predictions-test.csv")
    paths = dict(zip(cohort.manifest["patch_id"], cohort.image_paths(), strict=True))
    patches = np.stack([read_patch(paths[patch]) for patch in told.index[:12]])
    answers = load_ensemble(out).predict_proba(patches, float(cohort.manifest["mpp"].iloc[0]))
    np.testing.assert_allclose(answers, told.to_numpy()[:12], atol=2e-5)


def test_the_rules_know_something_of_figures_they_were_never_shown(ruled: Path) -> None:
    metrics = read_json(ruled / "metrics.json")
    assert metrics["overall"]["mean_auc"]["value"] > 0.75
    assert read_json(ruled / "metrics-oof.json")["optimistic"] is False
    assert "optimistic" not in metrics
    table = pd.read_csv(ruled / "predictions-test.csv")
    assert table["reason"].str.len().min() > 0
    measures = pd.read_csv(ruled / "measures.csv")
    assert len(measures) == 240
    assert measures["area_um2"].notna().mean() > 0.9


def test_the_patients_whom_the_rules_were_made_with_are_known_in_every_cohort() -> None:
    assert shaped_on(["A", "MIDOG21_002"])
    assert shaped_on(["MIDOG++_2"])  # the same case under another name
    tested = [p for p, role in published_roles("table1").items() if role == "test"]
    assert len(tested) == 40
    assert not shaped_on([*tested, "A"])


def test_a_hybrid_shows_the_trade_between_sensitivity_and_specificity(joined: Path) -> None:
    trade = pd.read_csv(joined / "trade.csv")
    assert set(trade["model"]) == {"network", "rules", "hybrid"}
    assert set(trade["part"]) == {"out of fold", "test"}
    assert {"atypical", "mean of subtypes"} <= set(trade["question"])
    row = trade[(trade["model"] == "hybrid") & (trade["question"] == "atypical")]
    one = row[row["part"] == "test"].iloc[0]
    against = read_json(joined / "metrics.json")["binary"]["against"]["expert1"]
    at = against["at_operating_point"]
    assert one["sensitivity"] == pytest.approx(at["sensitivity"]["value"], abs=1e-5)
    assert one["specificity"] == pytest.approx(at["specificity"]["value"], abs=1e-5)
    assert "# Sensitivity against specificity" in (joined / "trade.md").read_text()
    table = pd.read_csv(joined / "predictions-test.csv")
    assert table["reason"].str.startswith("Network: ").all()
    assert table["reason"].str.contains("Shape: ").all()


def test_a_hybrid_of_another_network_is_refused(joined: Path, tmp_path: Path) -> None:
    shutil.copytree(joined / "model", tmp_path / "model")
    file = tmp_path / "model" / "network" / "model.json"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(InputError, match="Copy the bundle again"):
        load_ensemble(tmp_path)
    with pytest.raises(InputError, match="--quality"):
        load_ensemble(joined, "fast")


def test_facts_of_the_fit_are_on_record(joined: Path, stacked: Path) -> None:
    (facts,) = read_json(joined / "run.json")["models"]
    assert facts["choice"][0]["log_loss"] <= facts["choice"][-1]["log_loss"]
    assert facts["parameters"] > 0
    (facts,) = read_json(stacked / "run.json")["models"]
    assert facts["parameters"] == 8 * 16 + 8
    assert len(facts["models_sha256"]) == 2


def test_the_mean_of_runs_is_the_mean_of_their_tables_whatever_their_order(
    network: Path, ruled: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    settings = ["join=mean", "answer.calibration=none", "answer.conformal_alpha=null", *FEW]
    config = load_any_config("stack", [*settings, f"runs=[{ruled},{network}]"])
    pipeline.train(cohort_folder, tmp_path / "mean", config)
    for file in ("predictions-oof.csv", "predictions-test.csv"):
        said = [probabilities(run / file) for run in (network, ruled)]
        made = probabilities(tmp_path / "mean" / file)
        np.testing.assert_allclose(made, np.mean(said, axis=0), atol=1e-5)


def test_runs_that_vote_call_a_figure_atypical_where_most_do_or_a_tie_by_their_mean(
    network: Path, ruled: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    settings = ["answer.prior_power=0", "answer.calibration=none", "answer.conformal_alpha=null"]
    config = load_any_config(
        "stack", ["join=majority", *settings, *FEW, f"runs=[{network},{ruled}]"]
    )
    pipeline.train(cohort_folder, tmp_path / "votes", config)
    said = [probabilities(run / "predictions-test.csv") for run in (network, ruled)]
    votes = sum(np.eye(8)[p.to_numpy().argmax(axis=1)] for p in said)
    made = probabilities(tmp_path / "votes" / "predictions-test.csv")
    np.testing.assert_allclose(made, (votes + np.mean(said, axis=0)) / 3, atol=1e-5)
    (facts,) = read_json(tmp_path / "votes" / "run.json")["models"]
    assert facts["threshold_atypical"] == 0.5
    table = pd.read_csv(tmp_path / "votes" / "predictions-test.csv").set_index("patch_id")
    called = table.loc[made.index, "predicted_atypical"].to_numpy()
    n, mean = votes[:, :N_ATYPICAL].sum(axis=1), np.mean(said, axis=0)[:, :N_ATYPICAL].sum(axis=1)
    assert {0, 1} <= set(n)  # on one mind, and of two
    np.testing.assert_array_equal(called, (n == 2) | ((n == 1) & (mean > 0.5)))


def test_a_run_folder_named_rules_is_not_the_model_in_the_package(
    ruled: Path, cohort_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ruled.parent)
    cohort, source = Cohort.open(cohort_folder), Path(ruled.name)
    assert str(source) == "rules"
    (base,) = BasePredictions.of_run(source, cohort, splits_of("runs", source, cohort))
    assert base.bundle == ruled / "model"


def test_runs_that_do_not_fit_are_refused(
    network: Path, ruled: Path, run_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    def refused(
        preset: str, *settings: str, match: str, kind: type[Exception] = InputError
    ) -> None:
        with pytest.raises(kind, match=match):
            pipeline.train(cohort_folder, tmp_path / "out", load_any_config(preset, settings))
        assert not (tmp_path / "out").exists()

    refused("hybrid", match="network=RUN")
    refused("hybrid", f"network={tmp_path}", match="expected a run but")
    refused("hybrid", f"network={run_folder}", match="at least 3 folds")
    refused("stack", match="two or more finished runs")
    refused("stack", f"runs=[{network}]", match="but got 1")
    other = tmp_path / "other"
    shutil.copytree(ruled, other)
    splits = read_json(other / "splits.json")
    (outer,) = splits["outer"]
    outer["test"], outer["inner"][0] = outer["inner"][0], outer["test"]
    write_json(other / "splits.json", splits)
    refused("stack", f"runs=[{network},{other}]", match="learned from", kind=LeakError)
    running = tmp_path / "running"
    shutil.copytree(ruled, running)
    file = running / "run.json"
    file.write_text(file.read_text().replace('"finished"', '"running"'))
    refused("stack", f"runs=[{network},{running}]", match="the status of .* is 'running'")


def test_a_stopped_run_is_done_once_more(
    stacked: Path, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "again"
    shutil.copytree(stacked, out)
    for file in ("predictions-test.csv", "metrics.json"):
        (out / file).unlink()
    monkeypatch.setattr(
        "sys.argv", ["atypia", "train", str(cohort_folder), "--out", str(out), "--resume"]
    )
    cli.main()
    for file in ("predictions-test.csv", "metrics.json"):
        assert (out / file).read_bytes() == (stacked / file).read_bytes()
