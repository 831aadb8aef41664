"""The linear probe: its features, its layer, and what it leaves."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from atypia import pipeline
from atypia.classifiers.ensemble import Ensemble, load_network, predict_network
from atypia.core.config import load_config
from atypia.core.files import read_json
from atypia.data.cohort import Cohort
from atypia.evaluation.predictions import read_predictions
from atypia.models.network import make_network
from atypia.training import probe
from atypia.training.distributed import ComputePlace, World
from atypia.training.features import Features, cohort_features
from atypia.training.member_tasks import MemberTask
from atypia.training.patch_store import open_store
from atypia.training.probe import Probe, fit_probe
from atypia.training.targets import Targets

if TYPE_CHECKING:
    from atypia.core.config import TrainConfig

pytestmark = pytest.mark.usefixtures("undrawn")

PLACE = ComputePlace(torch.device("cpu"), torch.float32, World())
SETTINGS = (
    "model.backbone=test_convnext",
    "model.pretrained=false",
    "input.size_px=32",
    "ensemble.members=2",
    "resamples=100",
    "runtime.threads=1",
)


def config(*settings: str) -> TrainConfig:
    plain = ("target.second_rater=null", "target.second_rater_mass=0", "target.smoothing=0")
    return load_config("probe", [*SETTINGS, *plain, *settings])


def member(n_views: int = 1, *settings: str) -> tuple[MemberTask, Probe]:
    """120 patients' figures whose features tell the subtype, in part."""
    rng = np.random.default_rng(0)
    labels = rng.integers(8, size=240)
    values = rng.normal(size=(240, n_views, 12)).astype(np.float32)
    values[:, :, :8] += 2 * np.eye(8)[labels][:, None]
    values = values * rng.uniform(0.1, 5, 12).astype(np.float32) + 3
    targets = Targets(np.eye(8, dtype=np.float32)[labels][:, None], (labels < 4).astype(np.float32))
    train, valid = np.arange(160), np.arange(160, 240)
    task = MemberTask("member 0", train, valid, targets, labels, 1)
    network, _, _ = make_network(config(*settings).model, config().input)
    patients = np.array([f"P{i // 2:03d}" for i in range(240)])
    return task, Probe(network, "random", Features(values, "hash"), patients)


def fitted(task: MemberTask, own: Probe, folder: Path, *settings: str) -> torch.nn.Module:
    chosen = config(*settings)
    # The head of the test has 12 inputs instead of the backbone's.
    fit_probe(task, chosen, own, PLACE, folder)
    from safetensors.torch import load_file

    tensors = load_file(folder / "member.safetensors")
    head = torch.nn.Linear(12, 8)
    own_layer = {k: v for k, v in tensors.items() if k.startswith("head.")}
    head.load_state_dict({k.removeprefix("head."): v for k, v in own_layer.items()})
    return head


@pytest.mark.parametrize("n_views", [1, 8])
def test_the_layer_is_that_of_scikit_learn(
    n_views: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "PENALTIES", (0.03,))
    task, own = member(n_views)
    head = fitted(task, own, tmp_path)
    x = own.features.values[:160].reshape(160 * n_views, 12)
    mean, scale = x.mean(0), x.std(0)
    reference = LogisticRegression(C=1 / (0.03 * len(x)), tol=1e-8, max_iter=5000)
    reference.fit((x - mean) / scale, np.repeat(task.labels[:160], n_views))
    asked = own.features.values[160:, 0]
    expected = reference.predict_proba((asked - mean) / scale)
    given = own.answers(head, np.arange(160, 240), tta=False)
    np.testing.assert_allclose(given, expected, atol=2e-4)


def test_the_penalty_is_chosen_without_the_validation_patients(tmp_path: Path) -> None:
    task, own = member()
    fitted(task, own, tmp_path / "a")
    shuffled = task.labels.copy()
    shuffled[160:] = (shuffled[160:] + 3) % 8
    targets = Targets(np.eye(8, dtype=np.float32)[shuffled][:, None], task.targets.atypical)
    fitted(replace(task, labels=shuffled, targets=targets), own, tmp_path / "b")
    assert read_json(tmp_path / "a" / "done.json") == read_json(tmp_path / "b" / "done.json")
    record = read_json(tmp_path / "a" / "done.json")["probe"]
    assert record["penalty"] == float(min(record["losses"], key=record["losses"].get))


def test_features_larger_than_memory_give_the_same_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, own = member(8)
    whole = fitted(task, own, tmp_path / "a")
    monkeypatch.setattr(probe, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(probe, "_CHUNK", 64)
    parts = fitted(task, own, tmp_path / "b")
    torch.testing.assert_close(parts.weight, whole.weight, atol=1e-3, rtol=1e-3)


def test_features_are_computed_once_for_a_cohort_and_again_if_damaged(
    cohort_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(cohort_folder, tmp_path / "cohort")
    cohort = Cohort.open(folder)
    torch.manual_seed(0)
    network, spec, _ = make_network(config().model, config().input)
    store = open_store(cohort, spec, None, tmp_path / "cache.npy")
    calls: list[int] = []

    def features() -> Features:
        return cohort_features(
            cohort, store, network, spec, PLACE, tmp_path, on_step=lambda *_: calls.append(1)
        )

    first = features()
    n_calls = len(calls)
    assert n_calls
    assert first.values.shape == (len(cohort), 8, network.head.in_features)
    assert isinstance(first.values, np.memmap)
    assert not first.values.flags.writeable
    again = features()
    assert len(calls) == n_calls
    np.testing.assert_array_equal(again.values, first.values)
    (file,) = (folder / "features").glob("*.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 255
    file.write_bytes(content)
    assert features().sha256 == first.sha256
    assert len(calls) == 2 * n_calls
    with torch.no_grad():
        next(network.backbone.parameters()).add_(1)
    assert features().sha256 != first.sha256  # other weights, other features
    assert len(list((folder / "features").glob("*.npy"))) == 2
    assert Cohort.open(folder, verify=True).sha256 == cohort.sha256


@pytest.mark.parametrize("stages", ["one", "shared"])
def test_a_run_answers_as_its_saved_networks_do(
    stages: str, cohort_folder: Path, tmp_path: Path
) -> None:
    cohort = Cohort.open(shutil.copytree(cohort_folder, tmp_path / "cohort"))
    own = load_config("probe", [*SETTINGS, f"model.stages={stages}", "ensemble.calibration=none"])
    metrics = pipeline.train(cohort.path, tmp_path / "run", own)
    assert metrics is not None
    done = read_json(tmp_path / "run" / "fold-0" / "done.json")
    assert done["initial_weights"] == "random"

    # Out of fold, from the cache, it is what the member says of the pixels.
    spec = Ensemble.load(tmp_path / "run").spec
    store = open_store(cohort, spec, own.augment, tmp_path / "cache.npy")
    table = read_predictions(tmp_path / "run" / "predictions-oof.csv")
    row_of = {patch: i for i, patch in enumerate(cohort.manifest["patch_id"])}
    for fold in ("0", "1"):
        mine = table.take(table.folds == fold)
        file = tmp_path / "run" / f"fold-{fold}" / "member.safetensors"
        answers = predict_network(
            load_network(own.model, spec, file),
            store.pixels,
            store.mpp,
            spec,
            device=PLACE.device,
            tta=True,
            rows=np.array([row_of[patch] for patch in mine.patch_ids]),
        )
        np.testing.assert_allclose(mine.probabilities, answers, atol=1e-5)

    # The members of the bundle share the backbone in memory and answer as they do apart.
    ensemble = Ensemble.load(tmp_path / "run")
    assert ensemble.members[0].backbone is ensemble.members[1].backbone
    given = ensemble.predict_proba(store.pixels[:5], store.mpp)
    ensemble.members = [member.on(copied(member.backbone)) for member in ensemble.members]
    ensemble.to(PLACE.device)
    np.testing.assert_allclose(
        given, ensemble.predict_proba(store.pixels[:5], store.mpp), atol=1e-6
    )


def copied(module: torch.nn.Module) -> torch.nn.Module:
    import copy

    return copy.deepcopy(module)
