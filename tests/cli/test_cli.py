"""The command line as a person meets it: words, files and exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atypia import cli
from atypia._version import __version__
from atypia.classifiers.bundle import write_card
from atypia.data.cohort import Cohort
from atypia.data.synthetic import make_synthetic_cohort


def atypia(
    *arguments: str | Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Run a verb in this process; exit code and everything printed."""
    monkeypatch.setattr(sys, "argv", ["atypia", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    return lambda *arguments: atypia(*arguments, monkeypatch=monkeypatch, capsys=capsys)


def test_version_and_help(run) -> None:  # type: ignore[no-untyped-def]
    assert run("--version") == (0, f"atypia {__version__}\n")
    code, text = run("--help")
    assert code == 0
    for verb in ("demo", "prepare", "download", "train", "evaluate", "report", "compare", "doctor"):
        assert verb in text


def test_wrong_words_exit_with_2_and_no_trace(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for arguments in (
        ("trian",),
        ("train",),
        ("train", tmp_path, "--out", tmp_path / "x", "optim.epoch=3"),
        ("train", tmp_path, "--out", tmp_path / "x"),
        ("prepare", tmp_path / "none", "--out", tmp_path / "y"),
        ("prepare", tmp_path, "--out", tmp_path / "y", "--mpp", "0"),
        ("download", "imagenet", "--out", tmp_path / "z"),
        ("evaluate", tmp_path / "none.csv", "--out", tmp_path / "e"),
        ("distill", tmp_path, "--out", tmp_path / "d"),
        ("predict", tmp_path, "--model", tmp_path, "--out", tmp_path / "p.csv"),
    ):
        code, text = run(*arguments)
        assert code == 2, (arguments, text)
        assert "Error" in text
        assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


def test_prepare_prints_the_counts(run, cohort_folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, text = run("prepare", cohort_folder / "manifest.csv", "--out", tmp_path / "c")
    assert code == 0, text
    assert "Metaphase" in text
    assert "24 patients" in text


def test_evaluate_report_and_compare(
    run, run_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    table = run_folder / "predictions-test.csv"
    code, text = run("evaluate", table, "--out", tmp_path / "e", "--resamples", "100")
    assert code == 0, text
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert f"{metrics['overall']['mean_auc']['value']:.3f}" in text
    code, text = run("report", run_folder, "--cohort", cohort_folder)
    assert code == 0, text
    code, text = run(
        "compare", run_folder, table, "--resamples", "100", "--out", tmp_path / "c.json"
    )
    assert code == 0, text
    assert "mean_auc" in text
    assert json.loads((tmp_path / "c.json").read_text())


def test_people_of_one_id_are_told_apart_if_this_is_said(
    run, run_folder: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    for name, seed in (("a", 1), ("b", 2)):
        cohort = make_synthetic_cohort(tmp_path / name, patients=8, patches=16, seed=seed)
        Cohort.write(cohort.path, name, cohort.manifest, {})
    both = (tmp_path / "a", tmp_path / "b")
    code, text = run("merge", *both, "--out", tmp_path / "both")
    assert code == 2
    assert "--same-raters" in text
    raters = ("--out", tmp_path / "both", "--distinct-raters")
    code, text = run("merge", *both, *raters)
    assert code == 2
    assert "--distinct-ids" in text
    code, text = run("merge", *both, *raters, "--distinct-ids")
    assert code == 0, text
    assert "16 patients" in text
    table = run_folder / "predictions-oof.csv"
    evaluate = ("evaluate", table, "--out", tmp_path / "e", "--resamples", "100", "--trained-on")
    assert run(*evaluate, run_folder / "model")[0] == 2
    assert run(*evaluate, run_folder / "model", "--distinct-ids")[0] == 0
    assert run(*evaluate, "released")[0] == 0
    code, text = run("mil", both[0], "--out", tmp_path / "m", "--target", "x", "--distinct-ids")
    assert code == 2
    assert "expected --model with them" in text


def test_predict_writes_the_table(
    run, run_folder: Path, cohort_folder: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    code, text = run(
        "predict",
        cohort_folder / "patches",
        "--model",
        run_folder,
        "--out",
        tmp_path / "p.csv",
        "--mpp",
        "0.25",
    )
    assert code == 0, text
    assert "240 figures" in text


def test_predict_prints_the_answers_on_a_few_images(
    run, run_folder: Path, cohort_folder: Path
) -> None:  # type: ignore[no-untyped-def]
    images = sorted((cohort_folder / "patches").rglob("*.png"))
    options = ("--model", run_folder, "--mpp", "0.25")
    code, text = run("predict", images[0], *options, "--min-confidence", "1")
    assert code == 0, text
    assert images[0].stem in text
    assert "don't know (" in text
    assert text.count("0.") >= 9  # each subtype's probability
    code, text = run("predict", *images[:3], *options)
    assert code == 0, text
    assert all(image.stem in text for image in images[:3])
    code, text = run("predict", cohort_folder, "--model", run_folder)
    assert code == 2
    assert "--out" in text


def test_predict_names_the_qualities_of_a_model(run, run_folder: Path, cohort_folder: Path) -> None:  # type: ignore[no-untyped-def]
    image = next((cohort_folder / "patches").rglob("*.png"))
    code, text = run("predict", image, "--mpp", "0.25", "--model", run_folder, "--quality", "fast")
    assert code == 2
    assert "['best']" in text


def test_doctor_shows_a_model_and_its_card(run, run_folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(run_folder / "model", tmp_path / "model")
    code, text = run("doctor", "--model", tmp_path / "model")
    assert code == 0, text
    assert "2 x test_convnext on 18 µm" in text
    assert "no model card" in text
    write_card(tmp_path / "model", "# Card of this model")
    assert "Card of this model" in run("doctor", "--model", tmp_path / "model")[1]
    (tmp_path / "model" / "member-0.safetensors").write_bytes(b"")
    code, text = run("doctor", "--model", tmp_path / "model")
    assert code == 2
    assert "member-0.safetensors" in text
    code, text = run("doctor", "--model", run_folder / "nothing")
    assert code == 2


def test_doctor_examines(run) -> None:  # type: ignore[no-untyped-def]
    code, text = run("doctor")
    assert code == 0
    assert "torch" in text
    assert "tf_efficientnet_lite0" in text


def test_a_fault_of_ours_exits_with_1_and_says_so(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("atypia.pipeline.doctor", lambda _: 1 / 0)
    code, text = run("doctor")
    assert code == 1
    assert "ZeroDivisionError" in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_the_demo_runs_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "atypia", "demo", "--out", str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "report.html" in done.stdout
    assert (
        json.loads((out / "run" / "metrics.json").read_text())["overall"]["mean_auc"]["value"] > 0.7
    )
    assert (out / "predictions.csv").is_file()
