"""The warm-up without labels: its loss, what it sees, and what a restart makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from atypia import pipeline
from atypia.core.config import load_config
from atypia.core.errors import TrainingError
from atypia.core.files import read_json, sha256_file
from atypia.core.progress import silent
from atypia.data.cohort import Cohort
from atypia.data.splits import make_splits
from atypia.models.network import make_network
from atypia.models.weight_files import read_tensors
from atypia.training import self_supervised
from atypia.training.distributed import ComputePlace, World
from atypia.training.member_tasks import MemberTask, member_tasks
from atypia.training.patch_store import PatchStore, open_store
from atypia.training.run_folder import CHOSEN, with_chosen_label
from atypia.training.self_supervised import TERMS, vicreg, warm_up

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.core.config import OptimConfig
    from atypia.models.network import Network

pytestmark = pytest.mark.usefixtures("undrawn")

WARM = ("optim.self_supervised_epochs=3", "model.backbone=test_efficientnet")


def test_vicreg_is_the_loss_of_its_authors() -> None:
    """Against their formulas in NumPy, entry by entry."""
    random = np.random.default_rng(0)
    views = 0.6 * random.standard_normal((2, 10, 5))
    invariance = ((views[0] - views[1]) ** 2).sum() / 50
    variance, covariance = 0.0, 0.0
    for view in views:
        for i in range(5):
            deviation = np.sqrt(((view[:, i] - view[:, i].mean()) ** 2).sum() / 9 + 1e-4)
            variance += max(0, 1 - deviation) / 5 / 2
            for j in range(5):
                if i != j:
                    covariance += np.cov(view[:, i], view[:, j])[0, 1] ** 2 / 5
    expected = [25 * invariance, 25 * variance, covariance]
    got = vicreg(*torch.from_numpy(views).float())
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5)
    assert list(TERMS) == ["invariance", "variance", "covariance"]


def test_the_same_answer_for_every_image_is_the_costliest() -> None:
    collapsed = vicreg(torch.ones(8, 4), torch.ones(8, 4))
    np.testing.assert_allclose(collapsed.numpy(), [0, 25 * 0.99, 0], atol=1e-5)
    different = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    np.testing.assert_allclose(vicreg(different, different).numpy(), [0, 0, 0], atol=1e-5)


class Setting:
    """A member of a cohort in which a part of the training patients has no label."""

    def __init__(self, folder: Path, tiny: tuple[str, ...], *more: str) -> None:
        self.config = load_config("quick", [*tiny, *WARM, *more])
        cohort = Cohort.open(folder)
        splits = make_splits(
            *(with_chosen_label(cohort, "expert1"), cohort.sha256),
            kind="holdout",
            label=CHOSEN,
            seed=0,
            inner_folds=2,
        )
        task = member_tasks(cohort, splits.outer[0], 0, self.config)[0]
        self.task = MemberTask(
            *("member 0", task.train_rows[4:], task.valid_rows, task.targets, task.labels),
            seed=5,
            silent_rows=task.train_rows[:4],
        )
        _, spec, _ = make_network(self.config.model, self.config.input, initial_weights=False)
        self.store = open_store(cohort, spec, self.config.augment, folder / "unused.npy")

    def warm(self, folder: Path, store: PatchStore | None = None, seed: int = 0) -> dict[str, Any]:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(seed)
        network, spec, _ = make_network(self.config.model, self.config.input)
        place = ComputePlace(torch.device("cpu"), torch.float32, World())
        record = warm_up(
            *(network, self.task, self.config, spec, store or self.store, place, folder, silent)
        )
        return record["self_supervised"]  # type: ignore[no-any-return]


@pytest.fixture
def setting(cohort_folder: Path, tiny: tuple[str, ...]) -> Setting:
    return Setting(cohort_folder, tiny)


def test_the_warm_up_learns_and_leaves_weights_and_a_record(
    setting: Setting, tmp_path: Path
) -> None:
    record = setting.warm(tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "self-supervised.csv",
        "self-supervised.json",
        "self-supervised.safetensors",
    ]
    assert record == {
        "epochs": 3,
        "figures": len(setting.task.train_rows) + 4,
        "sha256": sha256_file(tmp_path / "a" / "self-supervised.safetensors"),
    }
    history = pd.read_csv(tmp_path / "a" / "self-supervised.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(history["loss"], history[list(TERMS)].sum(axis=1))
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert setting.warm(tmp_path / "b") == record  # the same seed, the same bytes
    object.__setattr__(setting.task, "seed", 6)
    assert setting.warm(tmp_path / "c")["sha256"] != record["sha256"]


def test_only_crops_of_training_patients_are_seen(setting: Setting, tmp_path: Path) -> None:
    record = setting.warm(tmp_path / "a")
    seen = np.zeros(len(setting.store), bool)
    seen[setting.task.train_rows] = seen[setting.task.silent_rows] = True
    assert not seen[setting.task.valid_rows].any()
    pixels = setting.store.pixels.copy()
    pixels[~seen] = 77
    assert setting.warm(tmp_path / "b", PatchStore(pixels, setting.store.mpp)) == record
    for i, row in enumerate((setting.task.train_rows[0], setting.task.silent_rows[0])):
        pixels = setting.store.pixels.copy()
        pixels[row] = 77  # a labelled crop counts, and one without a label
        changed = setting.warm(tmp_path / f"c{i}", PatchStore(pixels, setting.store.mpp))
        assert changed["sha256"] != record["sha256"]


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_stopped_warm_up_goes_on_to_the_same_weights(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    record = setting.warm(tmp_path / "whole")
    saves = 0
    original = self_supervised.save_checkpoint

    def killing(*args: Any) -> None:
        nonlocal saves
        original(*args)
        saves += 1
        if saves == killed_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(self_supervised, "save_checkpoint", killing)
        with pytest.raises(KeyboardInterrupt):
            setting.warm(tmp_path / "killed")
    # What the network starts from then is of no account: it is in the checkpoint.
    assert setting.warm(tmp_path / "killed", seed=1) == record
    assert not list((tmp_path / "killed").glob("*.pt"))
    histories = [pd.read_csv(tmp_path / n / "self-supervised.csv") for n in ("whole", "killed")]
    pd.testing.assert_frame_equal(*(h.drop(columns="seconds") for h in histories))


def test_finished_weights_are_taken_not_learned_again(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = setting.warm(tmp_path / "a")
    (tmp_path / "a" / "self-supervised.pt").write_bytes(b"left by a kill")
    with monkeypatch.context() as patch:
        patch.setattr(self_supervised, "_learn", None)
        assert setting.warm(tmp_path / "a") == record
    assert not list((tmp_path / "a").glob("*.pt"))
    (tmp_path / "a" / "self-supervised.safetensors").write_bytes(b"damaged")
    assert setting.warm(tmp_path / "a") == record  # damaged, it is done again


def test_a_loss_that_is_not_finite_stops_the_warm_up(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_supervised, "vicreg", lambda a, b: (a - b).mean() * torch.nan)
    with pytest.raises(TrainingError, match=r"member 0, without labels: .* epoch 1, batch 1"):
        setting.warm(tmp_path / "a")
    assert not list((tmp_path / "a").iterdir())


def test_a_run_starts_from_its_warm_up_and_resumes(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from atypia.training import fit as fit_module

    config = load_config("quick", [*tiny, *WARM, "optim.ema=0.9", "ensemble.trained=1"])
    pipeline.train(cohort_folder, tmp_path / "whole", config)
    original = fit_module.save_checkpoint

    def killing(*args: Any) -> None:
        original(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "save_checkpoint", killing)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(cohort_folder, tmp_path / "killed", config)
    pipeline.train(cohort_folder, tmp_path / "killed", None, resume=True)
    records = [read_json(tmp_path / n / "fold-0" / "done.json") for n in ("whole", "killed")]
    assert records[0] == records[1]
    assert records[0]["self_supervised"]["epochs"] == 3
    assert records[0]["initial_weights"] == "random, then 3 epochs without labels (VICReg)"
    assert not list((tmp_path / "killed").rglob("*.pt"))
    told = read_json(tmp_path / "whole" / "model" / "model.json")["provenance"]
    assert told["initial_weights"] == records[0]["initial_weights"]


def test_the_training_starts_where_the_warm_up_ended(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from atypia.training import fit as fit_module

    def first_average(network: Network, _: OptimConfig) -> None:
        warmed = read_tensors(tmp_path / "run" / "fold-0" / "self-supervised.safetensors")
        for name, tensor in network.backbone.state_dict().items():
            assert torch.equal(tensor, warmed[name]), name
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_module, "make_average", first_average)
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(cohort_folder, tmp_path / "run", load_config("quick", [*tiny, *WARM]))
