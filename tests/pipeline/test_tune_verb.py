"""A search as a person meets it: the folder, how it goes on, what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from atypia import cli, pipeline
from atypia.core.config import config_from_tree, load_config
from atypia.core.errors import AtypiaError, InputError
from atypia.core.files import read_json
from atypia.data.cohort import Cohort
from atypia.data.splits import Splits
from atypia.training.search_space import Measure
from atypia.training.study_folder import only_worker

SPACE = """
optim.learning_rate: {low: 1e-4, high: 1e-1, log: true}
augment.flip: [true, false]
"""
SHORT = ("optim.epochs=1", "optim.batches_per_epoch=1", "optim.warmup=0")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("spaces") / "space.yaml"
    file.write_text(SPACE)
    return file


@pytest.fixture(scope="module")
def settings(tiny: tuple[str, ...]) -> tuple[str, ...]:
    return (*tiny, *SHORT)


@pytest.fixture(scope="module")
def study(
    cohort_folder: Path,
    space: Path,
    settings: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("studies") / "mine"
    config = load_config("quick", settings)
    told = pipeline.tune(
        cohort_folder, out, config, space, folds=1, trials=4, command="atypia tune"
    )
    assert told == read_json(out / "tune.json")
    return out


def test_a_study_leaves_all_that_one_wants_to_know(study: Path, cohort_folder: Path) -> None:
    trials = pd.read_csv(study / "trials.csv")
    assert trials["trial"].tolist() == [0, 1, 2, 3]
    assert set(trials["state"]) == {"complete"}
    assert (trials["share_done"] == 1).all()
    # It begins with the preset itself, so that there is something to be better than.
    assert trials.loc[0, ["optim.learning_rate", "augment.flip"]].tolist() == [0.001, True]
    told = read_json(study / "tune.json")
    assert (told["status"], told["done"], told["folds"]) == ("finished", {"complete": 4}, 1)
    assert told["cohort"]["sha256"] == Cohort.open(cohort_folder).sha256
    assert told["preset"] == {"trial": 0, "value": trials["value"][0]}
    best = trials.loc[trials["value"].idxmin()]
    assert told["best"]["trial"] == best["trial"]
    assert told["best"]["value"] == best["value"]
    assert {"optuna", "SQLAlchemy", "torch"} <= set(told["versions"])
    found = config_from_tree(yaml.safe_load((study / "best.yaml").read_text()), "best.yaml")
    assert found.optim.learning_rate == best["optim.learning_rate"]
    assert found.augment.flip == best["augment.flip"]
    began = config_from_tree(yaml.safe_load((study / "config.yaml").read_text()), "config.yaml")
    assert found.target == began.target
    page = (study / "study.html").read_text("utf-8")
    for part in ("optim.learning_rate", "4 complete", "No test patient", "<svg"):
        assert part in page
    assert (study / "history.svg").read_text().startswith("<svg")
    assert (study / "tune.log").is_file()


def test_the_best_configuration_is_a_preset_of_the_same_split(
    study: Path, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", cohort_folder, "--out", tmp_path / "run", "--preset", study / "best.yaml"]
    monkeypatch.setattr(sys, "argv", ["atypia", *map(str, command)])
    cli.main()
    own, of_run = (read_json(f / "splits.json") for f in (study, tmp_path / "run"))
    assert of_run == own
    out_of_fold = read_json(tmp_path / "run" / "metrics-oof.json")
    assert out_of_fold["overall"]["log_loss"]["value"] > 0


def test_a_study_goes_on_with_what_it_began_with(
    study: Path, cohort_folder: Path, tmp_path: Path, settings: tuple[str, ...], space: Path
) -> None:
    again = tmp_path / "mine"
    shutil.copytree(study, again)
    before = pd.read_csv(again / "trials.csv")
    told = pipeline.tune(cohort_folder, again, None, again / "search.yaml", trials=5, resume=True)
    assert (told["done"], told["folds"]) == ({"complete": 5}, 1)
    pd.testing.assert_frame_equal(pd.read_csv(again / "trials.csv")[:4], before)
    with pytest.raises(InputError, match="already holds something"):
        pipeline.tune(cohort_folder, again, load_config("quick", settings), space)
    with pytest.raises(InputError, match="another measure"):
        pipeline.tune(cohort_folder, again, None, space, measure="mean_auc", resume=True)
    with pytest.raises(InputError, match="another number of folds"):
        pipeline.tune(cohort_folder, again, None, space, folds=2, resume=True)
    changed = load_config("quick", [*settings, "loss.kind=focal"])
    with pytest.raises(InputError, match="another configuration"):
        pipeline.tune(cohort_folder, again, changed, space, resume=True)
    other = tmp_path / "other.yaml"
    other.write_text("augment.flip: [true, false]")
    with pytest.raises(InputError, match="another search space"):
        pipeline.tune(cohort_folder, again, None, other, resume=True)
    assert len(pd.read_csv(again / "trials.csv")) == 5


def test_another_cohort_is_refused(
    study: Path, cohort_folder: Path, tmp_path: Path, space: Path
) -> None:
    again, changed = tmp_path / "mine", tmp_path / "cohort"
    shutil.copytree(study, again)
    shutil.copytree(cohort_folder, changed)
    manifest = Cohort.open(cohort_folder).manifest
    Cohort.write(changed, "other", manifest.assign(scanner="another"), {})
    with pytest.raises(InputError, match="expected splits of the cohort"):
        pipeline.tune(changed, again, None, space, resume=True)
    (again / "splits.json").unlink()  # the data base knows, too
    with pytest.raises(InputError, match="another cohort"):
        pipeline.tune(changed, again, None, space, resume=True)


def test_a_search_is_nested_in_one_outer_split(
    cohort_folder: Path, tmp_path: Path, settings: tuple[str, ...], space: Path
) -> None:
    config = load_config("quick", [*settings, "split.kind=cv", "split.folds=3"])
    with pytest.raises(InputError, match="--outer: expected 0 to 2"):
        pipeline.tune(cohort_folder, tmp_path / "none", config, space)
    with pytest.raises(InputError, match="--outer: expected 0 to 2 but got 3"):
        pipeline.tune(cohort_folder, tmp_path / "none", config, space, outer=3)
    assert not (tmp_path / "none").exists()
    out = tmp_path / "second"
    pipeline.tune(cohort_folder, out, config, space, outer=1, trials=1, folds=1)
    kept = read_json(out / "splits.json")["outer"]
    # The other test parts have taught; a run with the best configuration must not test on them.
    best = load_config(str(out / "best.yaml"))
    assert best.split.kind == str((out / "splits.json").resolve())
    cohort = Cohort.open(cohort_folder)
    (outer,) = Splits.read(Path(best.split.kind), cohort.manifest, cohort.sha256).outer
    assert list(outer.test) == kept[0]["test"]
    told = pipeline.tune(cohort_folder, out, None, space, trials=1, resume=True)
    assert told["status"] == "finished"


def test_wrong_options_and_networks_are_told_before_the_first_trial(
    cohort_folder: Path, tmp_path: Path, settings: tuple[str, ...], space: Path
) -> None:
    config, out = load_config("quick", settings), tmp_path / "none"
    with pytest.raises(InputError) as caught:
        pipeline.tune(cohort_folder, out, config, space, folds=3, trials=0)
    assert len(caught.value.problems) == 2
    bad = tmp_path / "bad.yaml"
    bad.write_text("model.backbone: [test_convnext, no_such_net]\nmodel.reduction: [null, 8]\n")
    with pytest.raises(InputError) as caught:
        pipeline.tune(cohort_folder, out, config, bad)
    assert {p.column for p in caught.value.problems} == {"model.backbone", "model.reduction"}
    assert not out.exists()


@pytest.mark.parametrize(
    ("settings_of", "measure", "warning"),
    [
        ("optim.select=best", "log_loss", "optim.select=best: the inner folds that measure"),
        ("optim.early_stopping=1", "log_loss", "optim.early_stopping=1: the inner folds"),
        ("loss.of=sides", "mean_auc", "--measure mean_auc is of the eight subtypes"),
        ("loss.of=sides", "binary_auc", None),
        ("optim.select=last", "log_loss", None),
    ],
)
def test_values_that_flatter_or_mean_nothing_are_warned_of(
    settings_of: str,
    measure: Measure,
    warning: str | None,
    cohort_folder: Path,
    tmp_path: Path,
    settings: tuple[str, ...],
    space: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = load_config("quick", [*settings, settings_of])
    pipeline.tune(
        cohort_folder, tmp_path / "study", config, space, measure=measure, folds=1, trials=1
    )
    told = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert [warning in message for message in told if warning] == [True] * (warning is not None)
    assert warning is not None or not told


def test_sqlite_is_for_one_worker(
    study: Path, cohort_folder: Path, tmp_path: Path, space: Path
) -> None:
    again = tmp_path / "mine"
    shutil.copytree(study, again)
    with only_worker(again), pytest.raises(InputError, match="another worker is at this study"):
        pipeline.tune(cohort_folder, again, None, space, trials=5, resume=True)


def test_a_search_that_completes_nothing_fails(
    cohort_folder: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("optim.learning_rate: {low: 1e29, high: 1e30}")
    config = load_config("quick", [*settings, "optim.batches_per_epoch=3"])
    with pytest.raises(AtypiaError, match=r"none of 2 trials .* not finite"):
        pipeline.tune(cohort_folder, tmp_path / "s", config, file, folds=1, trials=2)
    notes = pd.read_csv(tmp_path / "s" / "trials.csv")
    assert set(notes["state"]) == {"failed"}
    assert notes["note"].str.contains("not finite").all()
    assert not (tmp_path / "s" / "best.yaml").exists()
    assert "no trial is complete" in (tmp_path / "s" / "study.html").read_text("utf-8")


def test_time_may_end_before_the_trials(
    study: Path, cohort_folder: Path, tmp_path: Path, space: Path
) -> None:
    again = tmp_path / "mine"
    shutil.copytree(study, again)
    told = pipeline.tune(cohort_folder, again, None, space, trials=9, hours=0, resume=True)
    assert (told["status"], told["done"]) == ("stopped", {"complete": 4})


def test_the_command_line_shows_what_came_out(
    study: Path,
    cohort_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    again = tmp_path / "mine"
    shutil.copytree(study, again)
    command = ["tune", cohort_folder, "--out", again, "--resume", "--trials", "4"]
    monkeypatch.setattr(sys, "argv", ["atypia", *map(str, command)])
    monkeypatch.setenv("COLUMNS", "200")
    cli.main()
    printed = capsys.readouterr().out
    best = read_json(study / "tune.json")["best"]
    for part in ("4 complete", f"{best['value']:.5f}", "as it began", "best.yaml"):
        assert part in printed
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--storage", "postgresql://me:secret@host/db"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "secret" not in capsys.readouterr().err
    assert not [f for f in again.rglob("*") if f.is_file() and b"secret" in f.read_bytes()]


@pytest.mark.slow
def test_a_killed_search_ends_like_an_undisturbed_one(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...], space: Path
) -> None:
    def start(out: Path, *more: str) -> subprocess.Popen[bytes]:
        command = ["tune", str(cohort_folder), "--out", str(out), "--trials", "4", *more]
        return subprocess.Popen([sys.executable, "-m", "atypia", *command])

    begin = ("--search", str(space), *tiny, "optim.epochs=4")
    assert start(tmp_path / "whole", *begin).wait() == 0
    doomed = start(tmp_path / "killed", *begin)
    wanted = tmp_path / "killed" / "trials" / "2" / "fold-1" / "checkpoint.pt"
    deadline = time.monotonic() + 300
    while not wanted.exists():  # in the middle of a trial, with a fold done
        assert doomed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    assert start(tmp_path / "killed", "--resume").wait() == 0
    log = (tmp_path / "killed" / "tune.log").read_text()
    assert "goes on after epoch" in log
    whole, killed = (
        pd.read_csv(tmp_path / name / "trials.csv").drop(columns=["trial", "seconds", "started"])
        for name in ("whole", "killed")
    )
    pd.testing.assert_frame_equal(killed, whole, check_exact=True)
    assert json.loads((tmp_path / "killed" / "tune.json").read_text())["status"] == "finished"
