"""A whole training: what it leaves, what it survives, what it refuses."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from atypia import pipeline
from atypia.biomarker import model_errors
from atypia.classifiers.bundle import read_header
from atypia.classifiers.ensemble import Ensemble, predict_network
from atypia.core.config import load_config
from atypia.core.errors import AtypiaError, InputError, LeakError, TrainingError
from atypia.core.files import read_json, sha256_file
from atypia.data.cohort import Cohort
from atypia.data.splits import stratify
from atypia.data.synthetic import make_synthetic_cohort
from atypia.evaluation.predictions import read_predictions
from atypia.training import fit as fit_module
from atypia.training.patch_store import open_store

pytestmark = pytest.mark.usefixtures("undrawn")


def weights(run: Path) -> dict[str, str]:
    return {
        str(p.relative_to(run)): sha256_file(p) for p in sorted(run.rglob("member*.safetensors"))
    }


def test_a_run_leaves_everything_that_the_design_names(run_folder: Path) -> None:
    names = {p.name for p in run_folder.iterdir()}
    assert names >= {
        "config.yaml",
        "run.json",
        "splits.json",
        "fold-0",
        "fold-1",
        "model",
        "predictions-oof.csv",
        "predictions-test.csv",
        "metrics.json",
        "metrics-oof.json",
        "report.html",
        "train.log",
    }
    assert not list(run_folder.rglob("*.pt"))  # checkpoints end with the training
    run = read_json(run_folder / "run.json")
    assert run["status"] == "finished"
    assert run["sessions"][0]["seconds"] > 0
    assert len(run["sessions"]) == 1
    # The report is written before the run ends, and still tells when it was made and how long.
    day = run["sessions"][0]["started"][:10]
    assert day in (run_folder / "report.html").read_text("utf-8").partition("<nav")[0]
    history = pd.read_csv(run_folder / "fold-0" / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert history[["train_loss", "valid_loss", "wait_fraction"]].notna().all(axis=None)


def test_patients_never_cross_a_boundary(run_folder: Path) -> None:
    test = set(read_predictions(run_folder).patients)
    oof = read_predictions(run_folder / "predictions-oof.csv")
    assert not test & set(oof.patients)
    outer = read_json(run_folder / "splits.json")["outer"][0]
    for fold in set(oof.folds):
        assert set(oof.patients[oof.folds == fold]) == set(outer["inner"][int(fold)])


def test_the_same_seed_gives_the_same_bytes_another_does_not(
    run_folder: Path, cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    pipeline.train(cohort_folder, tmp_path / "again", load_config("quick", tiny))
    assert weights(tmp_path / "again") == weights(run_folder)
    pipeline.train(cohort_folder, tmp_path / "other", load_config("quick", [*tiny, "seed=1"]))
    assert weights(tmp_path / "other") != weights(run_folder)


def command(cohort: Path, out: Path, tiny: tuple[str, ...], *more: str) -> list[str]:
    return [sys.executable, "-m", "atypia", "train", str(cohort), "--out", str(out), *tiny, *more]


LONGER = ("optim.epochs=6", "optim.head_epochs=1", "optim.ema=0.9", "model.drop_path=0.2")
EVERYTHING = (
    "input.size_px=40",
    "optim.progressive=[[0, 32], [0.5, 40]]",
    "target.per_rater=true",
    "loss.atypical=0.5",
    "augment.mixup=0.2",
    "augment.cutmix=0.5",
    "optim.self_supervised_epochs=1",
    "augment.style=0.5",
    "augment.stain=0.05",
    "augment.blur_um=0.25",
    "ensemble.calibration=temperature",
    "ensemble.conformal_alpha=0.2",
)
"""Whatever else draws random numbers or leaves something in the bundle."""


def test_a_killed_run_resumes_to_the_same_weights(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    """SIGKILL twice, in the middle of a member; the end is bit for bit the undisturbed one."""
    settings = (*tiny, *LONGER, *EVERYTHING)
    pipeline.train(cohort_folder, tmp_path / "whole", load_config("quick", settings))
    out = tmp_path / "killed"
    args = command(cohort_folder, out, settings)
    history = out / "fold-1" / "history.csv"
    for kill_after in ("fold-0/history.csv", "fold-1/history.csv"):
        process = subprocess.Popen(args, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while not (out / kill_after).is_file() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        args = command(cohort_folder, out, (), "--resume")
    assert history.is_file()
    assert len(pd.read_csv(history)) < 7  # it was in the middle
    subprocess.run(args, check=True, capture_output=True)
    assert weights(out) == weights(tmp_path / "whole")
    assert read_json(out / "model/model.json") == read_json(tmp_path / "whole/model/model.json")
    assert (out / "predictions-test.csv").read_bytes() == (
        tmp_path / "whole" / "predictions-test.csv"
    ).read_bytes()
    pd.testing.assert_frame_equal(
        pd.read_csv(history).drop(columns=["seconds", "wait_fraction", "augment_fraction"]),
        pd.read_csv(tmp_path / "whole/fold-1/history.csv").drop(
            columns=["seconds", "wait_fraction", "augment_fraction"]
        ),
    )


class Killed(BaseException):
    """Stands for SIGKILL at one chosen line."""


@pytest.mark.parametrize(
    ("after", "select"),
    [
        ("save_checkpoint", "last"),
        ("write_history", "best"),
        ("replace", "best"),
        ("write_json", "best"),
        ("write_json", "last"),
    ],
)
def test_a_kill_at_the_end_of_a_member_loses_nothing(
    cohort_folder: Path,
    tmp_path: Path,
    tiny: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    after: str,
    select: str,
) -> None:
    """Whichever of the last writes was done, the run resumes and the member is there."""
    config = load_config("quick", [*tiny, "optim.epochs=1", f"optim.select={select}"])

    def killed(original):  # type: ignore[no-untyped-def]
        def wrapper(*args, **kwargs):  # type: ignore[no-untyped-def]
            original(*args, **kwargs)
            if after != "replace" or "member" in str(args[-1]):
                raise Killed

        return wrapper

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        owner = Path if after == "replace" else fit_module
        patch.setattr(owner, after, killed(getattr(owner, after)))
        with pytest.raises(Killed):
            pipeline.train(cohort_folder, out, config)
    pipeline.train(cohort_folder, out, None, resume=True)
    assert read_json(out / "run.json")["status"] == "finished"
    assert len(pd.read_csv(out / "fold-0" / "history.csv")) == 1
    assert not list(out.rglob("*.pt"))


def test_weights_that_are_not_finite_are_never_saved(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of an epoch may spoil the weights after its loss was fine."""
    steps = 0
    original = torch.optim.AdamW.step

    def spoiling(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        nonlocal steps
        result = original(self, *args, **kwargs)
        steps += 1
        if steps == 6:  # the last of epoch 2
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(float("nan"))
        return result

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spoiling)
        with pytest.raises(TrainingError, match="end of epoch 2"):
            pipeline.train(cohort_folder, out, load_config("quick", tiny))
    pipeline.train(cohort_folder, out, None, resume=True)
    assert np.isfinite(read_predictions(out).probabilities).all()


def test_a_changed_member_file_is_refused(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    pipeline.train(cohort_folder, out, load_config("quick", tiny))
    with (out / "fold-0" / "member.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"x")
    with pytest.raises(TrainingError, match="but the file differs"):
        pipeline.train(cohort_folder, out, None, resume=True)


def test_a_finished_fold_is_not_trained_again(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("quick", tiny)
    out = tmp_path / "run"
    pipeline.train(cohort_folder, out, config)
    (out / "fold-1" / "done.json").unlink()
    before = (out / "fold-0" / "member.safetensors").stat().st_mtime_ns
    trained = []
    original = fit_module.fit
    monkeypatch.setattr(
        "atypia.training.crossval.fit",
        lambda task, *a, **k: (trained.append(task.name), original(task, *a, **k))[1],
    )
    pipeline.train(cohort_folder, out, None, resume=True)
    assert trained == ["member 1"]
    assert (out / "fold-0" / "member.safetensors").stat().st_mtime_ns == before


def test_two_processes_learn_what_one_does(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    """Without batch statistics and dropout, DDP over gloo gives the single process's weights."""
    settings = (
        *(*tiny, "model.drop_path=0", "model.dropout=0", "optim.optimizer=adam"),
        *("target.per_rater=true", "loss.atypical=0.5", "augment.style=0.5"),
    )
    pipeline.train(cohort_folder, tmp_path / "one", load_config("quick", settings))
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"),
            *("-m", "atypia", "train", str(cohort_folder), "--out", str(tmp_path / "two")),
            *settings,
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    one = load_file(tmp_path / "one" / "model" / "member-0.safetensors")
    two = load_file(tmp_path / "two" / "model" / "member-0.safetensors")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=2e-3, rtol=2e-2)
    a = read_predictions(tmp_path / "one").probabilities
    b = read_predictions(tmp_path / "two").probabilities
    np.testing.assert_allclose(a, b, atol=5e-3)
    assert read_json(tmp_path / "two" / "run.json")["machine"]["processes"] == 2


def test_cross_validation_tests_every_patient_once(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    out = tmp_path / "cv"
    settings = [*tiny, "split.kind=cv", "split.folds=2", "optim.epochs=1"]
    metrics = pipeline.train(cohort_folder, out, load_config("quick", settings))
    table = read_predictions(out)
    assert metrics is not None
    assert sorted(table.patch_ids) == sorted(Cohort.open(cohort_folder).manifest["patch_id"])
    assert (out / "outer-1" / "model" / "model.json").is_file()
    facts = read_json(out / "run.json")["models"]
    for number in range(2):  # each part is also judged by itself, at its own threshold
        own = read_json(out / f"outer-{number}" / "metrics.json")
        assert own["n"] == len(read_predictions(out / f"outer-{number}" / "predictions-test.csv"))
        point = own["binary"]["against"]["expert1"]["at_operating_point"]
        assert point["threshold"] == facts[number]["threshold_atypical"]


@pytest.fixture(scope="module")
def whole_run(
    cohort_folder: Path, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run without a test part, of a model with everything that only training needs."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    settings = [*tiny, *EVERYTHING, "split.kind=all", "optim.epochs=1", "runtime.precision=fp32"]
    metrics = pipeline.train(cohort_folder, out, load_config("quick", settings))
    assert metrics == read_json(out / "metrics.json")
    return out


def test_a_run_without_a_test_part_is_judged_out_of_fold(
    whole_run: Path, cohort_folder: Path
) -> None:
    assert not list(whole_run.rglob("predictions-test.csv"))
    metrics = read_json(whole_run / "metrics.json")
    out_of_fold = read_json(whole_run / "metrics-oof.json")
    assert metrics["part"] == "out of fold"
    assert {k: v for k, v in metrics.items() if k != "part"} == out_of_fold
    # The run stands for its out-of-fold table: every patch once, by a member that never saw it.
    table = read_predictions(whole_run)
    assert sorted(table.patch_ids) == sorted(Cohort.open(cohort_folder).manifest["patch_id"])
    assert metrics["n"] == len(table)
    inner = read_json(whole_run / "splits.json")["outer"][0]["inner"]
    for fold in set(table.folds):
        assert set(table.patients[table.folds == fold]) == set(inner[int(fold)])
    assert "whole" in (whole_run / "report.html").read_text("utf-8")
    assert read_json(whole_run / "run.json")["status"] == "finished"


def test_a_run_without_a_test_part_is_compared_and_resumed(
    whole_run: Path, cohort_folder: Path
) -> None:
    found = pipeline.compare([whole_run, whole_run / "predictions-oof.csv"], resamples=100)
    assert found["n"] == len(read_predictions(whole_run))
    differences = found["differences"][0]["measures"].values()
    assert {d["value"] for d in differences} <= {0, None}
    before = weights(whole_run)
    (whole_run / "report.html").unlink()
    pipeline.train(cohort_folder, whole_run, None, resume=True)
    assert (whole_run / "report.html").is_file()
    assert weights(whole_run) == before


def test_out_of_fold_answers_are_calibrated_like_the_models_own(
    whole_run: Path, cohort_folder: Path
) -> None:
    """Each row is what its member says, at the temperature that the bundle keeps."""
    ensemble, cohort = Ensemble.load(whole_run / "model"), Cohort.open(cohort_folder)
    assert ensemble.postprocessing.calibration.temperature != 1
    assert ensemble.conformal is not None
    assert ensemble.conformal.alpha == 0.2
    config = load_config(str(whole_run / "config.yaml"))
    store = open_store(cohort, ensemble.spec, config.augment, whole_run / "unused.npy")
    table = read_predictions(whole_run)
    row_of = {patch: i for i, patch in enumerate(cohort.manifest["patch_id"])}
    for fold, member in enumerate(ensemble.members):
        mine = table.folds == str(fold)
        raw = predict_network(
            *(member, store.pixels, store.mpp, ensemble.spec),
            device=torch.device("cpu"),
            rows=np.array([row_of[patch] for patch in table.patch_ids[mine]]),
        )
        np.testing.assert_allclose(
            ensemble.postprocessing.calibration.apply(raw), table.probabilities[mine], atol=1e-5
        )


def test_only_the_answering_raters_scores_are_kept(whole_run: Path) -> None:
    tensors = load_file(whole_run / "model" / "member-0.safetensors")
    assert tensors["head.weight"].shape[0] == tensors["head.bias"].shape[0] == 8


def test_each_domain_is_tested_by_a_model_that_has_not_seen_it(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    folder = tmp_path / "cohort"  # the same figures, the subtypes even over two domains
    shutil.copytree(cohort_folder, folder)
    manifest = Cohort.open(cohort_folder).manifest
    counts = pd.crosstab(manifest["patient_id"], manifest["label_expert1"])
    half = stratify(counts.to_numpy(), np.full(2, 1 / 2), np.random.default_rng(0))
    domain_of = dict(zip(counts.index, np.array(["A", "B"])[half], strict=True))
    manifest["domain"] = manifest["patient_id"].map(domain_of)
    Cohort.write(folder, "two domains", manifest, {})

    out = tmp_path / "run"
    settings = [*tiny, "split.kind=domains", "optim.epochs=1"]
    metrics = pipeline.train(folder, out, load_config("quick", settings))
    table = read_predictions(out)
    assert metrics is not None
    assert set(metrics["groups"]["domain"]) == {"A", "B"}
    assert sorted(table.patch_ids) == sorted(manifest["patch_id"])
    outer = read_json(out / "splits.json")["outer"]
    for number, domain in enumerate("AB"):
        assert set(table.domains[table.folds == str(number)]) == {domain}
        learned_from = {domain_of[p] for fold in outer[number]["inner"] for p in fold}
        assert learned_from == {"A", "B"} - {domain}


def test_nine_patients_give_a_model_without_error_model(
    tmp_path: Path, tiny: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    make_synthetic_cohort(tmp_path / "cohort", patients=9, patches=160, seed=1, size_px=80)
    config = load_config("quick", [*tiny, "split.kind=all", "optim.epochs=1"])
    with caplog.at_level(logging.WARNING, "atypia"):
        pipeline.train(tmp_path / "cohort", tmp_path / "run", config)
    assert "will have no error model, for biomarkers: expected" in caplog.text
    (entry,) = [entry["no_error_model"] for entry in read_json(tmp_path / "run/run.json")["models"]]
    assert "at least 10 patients" in entry
    assert "of 9 patients by 'expert1'" in entry
    assert "no error model" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert read_header(tmp_path / "run" / "model").errors is None
    with pytest.raises(InputError, match="at least 10 patients"):
        model_errors(tmp_path / "run")
    before = weights(tmp_path / "run")
    pipeline.train(tmp_path / "cohort", tmp_path / "run", None, resume=True)
    assert weights(tmp_path / "run") == before


def test_a_cohort_of_votes_alone_is_learned_and_judged_by_them(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    whole = Cohort.open(cohort_folder)
    others = [c for c in whole.manifest if c.startswith("label_") or c == "majority_atypical"]
    shutil.copytree(cohort_folder / "patches", tmp_path / "votes" / "patches")
    Cohort.write(tmp_path / "votes", "votes", whole.manifest.drop(columns=others), {})
    with pytest.raises(InputError, match=r"'expert1' gave votes.*loss\.of=sides"):
        pipeline.train(tmp_path / "votes", tmp_path / "no", load_config("quick", tiny))
    config = load_config("quick", [*tiny, "loss.of=sides", "optim.epochs=1"])
    metrics = pipeline.train(tmp_path / "votes", tmp_path / "run", config)
    assert metrics is not None
    assert metrics["overall"] == {}
    table = read_predictions(tmp_path / "run")
    votes = table.votes["atypical_expert1"]
    known = votes >= 0
    auc = roc_auc_score(votes[known], table.p_atypical[known])
    assert metrics["binary"]["against"]["expert1"]["auc"]["value"] == pytest.approx(auc)
    header = read_header(tmp_path / "run" / "model")
    assert header.errors is not None
    assert not header.errors["labels"][header.errors["label"]]["subtypes"]
    assert (tmp_path / "run" / "report.html").is_file()


def test_early_stopping_and_the_best_epoch(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    """With a rate that destroys, no epoch after the first few is better; the best one is kept."""
    settings = [
        *tiny,
        "optim.epochs=30",
        "optim.head_epochs=1",
        "optim.schedule=plateau",
        "optim.plateau_patience=2",
        "optim.early_stopping=3",
        "optim.select=best",
        "optim.learning_rate=0.05",
    ]
    pipeline.train(cohort_folder, tmp_path / "run", load_config("quick", settings))
    assert read_json(tmp_path / "run" / "metrics-oof.json")["optimistic"] is True
    history = pd.read_csv(tmp_path / "run" / "fold-0" / "history.csv")
    assert len(history) < 31
    best = history["valid_loss"].idxmin()
    assert len(history) - 1 - max(best, 0) >= 3
    # The kept weights reproduce the loss of that epoch, not of the last.
    oof = read_predictions(tmp_path / "run" / "predictions-oof.csv")
    assert set(oof.folds) == {"0", "1"}


def test_a_fold_that_may_end_a_training_makes_its_own_figures_optimistic(
    cohort_folder: Path, run_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    assert read_json(run_folder / "metrics-oof.json")["optimistic"] is False
    config = load_config("quick", [*tiny, "optim.early_stopping=1"])
    pipeline.train(cohort_folder, tmp_path / "run", config)
    assert read_json(tmp_path / "run" / "metrics-oof.json")["optimistic"] is True


def test_a_loss_that_is_not_finite_stops_with_the_checkpoint_good(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    original = fit_module.SubtypeLoss.forward

    def poisoned(self: torch.nn.Module, *args: torch.Tensor) -> object:
        nonlocal calls
        calls += 1  # three batches and the validation of epoch 1, then two batches
        return original(self, *args) * (float("nan") if calls == 6 else 1)  # type: ignore[arg-type]

    monkeypatch.setattr(fit_module.SubtypeLoss, "forward", poisoned)
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"not finite in epoch 2, batch 2"):
        pipeline.train(cohort_folder, out, load_config("quick", tiny))
    assert read_json(out / "run.json")["status"] == "failed"
    monkeypatch.undo()
    pipeline.train(cohort_folder, out, None, resume=True)
    assert read_json(out / "run.json")["status"] == "finished"
    assert len(read_json(out / "run.json")["sessions"]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_full_disk_stops_with_the_checkpoint_good(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = 0
    original = os.fsync

    def full(descriptor: int) -> None:
        nonlocal saves
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        saves += ".checkpoint.pt." in name
        if saves == 2:
            raise OSError(28, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "run"
    with pytest.raises(AtypiaError, match="No space left") as caught:
        pipeline.train(cohort_folder, out, load_config("quick", tiny))
    assert caught.value.exit_code == 1
    monkeypatch.undo()
    assert [p.name for p in (out / "fold-0").iterdir() if p.name.startswith(".")] == []
    pipeline.train(cohort_folder, out, None, resume=True)
    assert len(pd.read_csv(out / "fold-0" / "history.csv")) == 2


def test_a_damaged_checkpoint_is_told(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    (out / "fold-0").mkdir(parents=True)
    (out / "fold-0" / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt"):
        pipeline.train(cohort_folder, out, load_config("quick", tiny), resume=True)


def test_a_leak_in_splits_json_is_refused_by_name(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    pipeline.train(cohort_folder, out, load_config("quick", tiny))
    splits = read_json(out / "splits.json")
    leaked = splits["outer"][0]["test"][0]
    splits["outer"][0]["inner"][0].append(leaked)
    (out / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(LeakError, match=leaked):
        pipeline.train(cohort_folder, out, None, resume=True)


def test_a_run_is_not_overwritten_and_not_resumed_with_other_settings(
    run_folder: Path, cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match="--resume"):
        pipeline.train(cohort_folder, run_folder, load_config("quick", tiny))
    with pytest.raises(InputError, match="another configuration"):
        pipeline.train(
            cohort_folder, run_folder, load_config("quick", [*tiny, "seed=9"]), resume=True
        )
    with pytest.raises(InputError, match=r"no config\.yaml"):
        pipeline.train(cohort_folder, tmp_path / "nothing", None, resume=True)


def test_a_training_part_without_a_class_is_refused_before_any_work(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    manifest = Cohort.open(cohort_folder).manifest
    holders = manifest.loc[manifest["label_expert1"] == "nmf_ring", "patient_id"]
    roles = manifest[["patient_id"]].drop_duplicates()
    roles["role"] = np.where(roles["patient_id"].isin(holders), "test", "train")
    roles.to_csv(tmp_path / "split.csv", index=False)
    out = tmp_path / "run"
    config = load_config("quick", [*tiny, f"split.kind={tmp_path / 'split.csv'}"])
    with pytest.raises(InputError, match="nmf_ring"):
        pipeline.train(cohort_folder, out, config)
