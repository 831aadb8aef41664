"""What figures without a subtype teach, and whose figures they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from atypia import pipeline
from atypia.core.config import UnlabelledConfig, load_config
from atypia.core.errors import InputError
from atypia.core.files import read_json
from atypia.data.cohort import Cohort
from atypia.data.splits import make_splits
from atypia.models.network import make_network
from atypia.training import fit as fit_module
from atypia.training.distributed import ComputePlace, World
from atypia.training.fit import fit
from atypia.training.member_tasks import MemberTask, member_tasks
from atypia.training.patch_store import PatchStore, open_store
from atypia.training.run_folder import CHOSEN, with_chosen_label
from atypia.training.unlabelled import consistency, pseudo_labels

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("undrawn")

P = torch.tensor([[0.1, 0.1, 0.1, 0.1, 0.3, 0.1, 0.1, 0.1], [0.0, 0.9, 0, 0, 0.1, 0, 0, 0]])
UNKNOWN = torch.tensor([math.nan, math.nan])
FEW = ("target.labelled_patients=0.5", "unlabelled.weight=1", "optim.ema=0.5")


def test_without_votes_the_teacher_is_believed() -> None:
    torch.testing.assert_close(pseudo_labels(P, UNKNOWN, UnlabelledConfig()), P)


def test_votes_share_the_mass_between_the_sides_and_the_teacher_within_them() -> None:
    targets = pseudo_labels(P, torch.tensor([1.0, 1 / 3]), UnlabelledConfig())
    torch.testing.assert_close(targets[0], torch.tensor([0.25, 0.25, 0.25, 0.25, 0, 0, 0, 0]))
    torch.testing.assert_close(targets[1], torch.tensor([0, 1 / 3, 0, 0, 2 / 3, 0, 0, 0]))


def test_only_the_sure_answers_count_and_as_labels() -> None:
    hard = pseudo_labels(P, UNKNOWN, UnlabelledConfig(threshold=0.8))
    torch.testing.assert_close(hard, torch.eye(8)[[1, 1]] * torch.tensor([[0.0], [1.0]]))
    # A vote can make an answer sure, or unsure.
    voted = pseudo_labels(P, torch.tensor([0.0, 0.5]), UnlabelledConfig(threshold=0.5))
    torch.testing.assert_close(voted, torch.eye(8)[[4, 1]])


def test_the_term_is_a_cross_entropy_of_the_first_rater() -> None:
    logits = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(logits[:, :8], P)
    torch.testing.assert_close(consistency(logits, P), expected)
    unsure = P * torch.tensor([[0.0], [1.0]])
    half = torch.nn.functional.cross_entropy(logits[1:, :8], P[1:]) / 2
    torch.testing.assert_close(consistency(logits, unsure), half)


class Setting:
    """A member that has labels of a half of its training patients."""

    def __init__(self, folder: Path, tiny: tuple[str, ...], *more: str) -> None:
        self.config = load_config("quick", [*tiny, *FEW, *more])
        self.cohort = Cohort.open(folder)
        splits = make_splits(
            *(with_chosen_label(self.cohort, "expert1"), self.cohort.sha256),
            kind="holdout",
            label=CHOSEN,
            seed=0,
            inner_folds=2,
        )
        self.outer = splits.outer[0]
        self.task = member_tasks(self.cohort, self.outer, 0, self.config)[0]
        _, spec, _ = make_network(self.config.model, self.config.input, initial_weights=False)
        self.store = open_store(self.cohort, spec, self.config.augment, folder / "unused.npy")

    def fit(
        self, folder: Path, store: PatchStore | None = None, task: MemberTask | None = None
    ) -> str:
        folder.mkdir(exist_ok=True)
        place = ComputePlace(torch.device("cpu"), torch.float32, World())
        fit(task or self.task, self.config, store or self.store, place, folder)
        return str(read_json(folder / "done.json")["sha256"])


@pytest.fixture
def setting(cohort_folder: Path, tiny: tuple[str, ...]) -> Setting:
    return Setting(cohort_folder, tiny)


def test_figures_of_test_and_validation_patients_are_never_seen(
    setting: Setting, tmp_path: Path
) -> None:
    patients = setting.cohort.manifest["patient_id"]
    own, _ = setting.outer.member(0)
    rows = setting.task.unlabelled_rows
    assert len(rows)
    assert set(patients.iloc[rows]) <= set(own)
    assert not set(patients.iloc[rows]) & {*setting.outer.test, *setting.outer.inner[0]}
    assert (setting.task.labels[rows] == -1).all()

    done = setting.fit(tmp_path / "a")
    others = ~np.isin(patients.to_numpy(dtype=str), own)
    pixels = setting.store.pixels.copy()
    pixels[others] = 77
    assert setting.fit(tmp_path / "b", PatchStore(pixels, setting.store.mpp)) == done
    pixels = setting.store.pixels.copy()
    pixels[rows] = 77  # while those of its own patients do count
    assert setting.fit(tmp_path / "c", PatchStore(pixels, setting.store.mpp)) != done


def test_the_history_tells_of_the_term(setting: Setting, tmp_path: Path) -> None:
    setting.fit(tmp_path / "a")
    history = pd.read_csv(tmp_path / "a" / "history.csv")
    assert (history["unlabelled_confident"] == 1).all()
    assert history["unlabelled_loss"].between(0.1, 5).all()


@pytest.mark.parametrize("threshold", [0.0, 0.2])
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_killed_training_goes_on_to_the_same_weights(
    cohort_folder: Path,
    tiny: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threshold: float,
    ema: float,
) -> None:
    setting = Setting(
        *(cohort_folder, tiny, f"unlabelled.threshold={threshold}", f"optim.ema={ema}"),
        "augment.style=0.5",
    )
    whole = setting.fit(tmp_path / "whole")
    original = fit_module.save_checkpoint

    def killing(*args: Any) -> None:
        original(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "save_checkpoint", killing)
        with pytest.raises(KeyboardInterrupt):
            setting.fit(tmp_path / "killed")
    assert setting.fit(tmp_path / "killed") == whole
    histories = [pd.read_csv(tmp_path / n / "history.csv") for n in ("whole", "killed")]
    clocks = ["seconds", "wait_fraction", "augment_fraction"]
    pd.testing.assert_frame_equal(*(h.drop(columns=clocks) for h in histories))


def test_small_batches_of_memory_learn_the_same(
    cohort_folder: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """Accumulated gradients are those of the whole batch, for a network without batch norm."""
    calm = ("model.drop_path=0", "model.dropout=0")
    weights = []
    for name, settings in (("a", ()), ("b", ("optim.micro_batch=5",))):
        setting = Setting(cohort_folder, tiny, *calm, *settings)
        setting.fit(tmp_path / name)
        weights.append(pd.read_csv(tmp_path / name / "history.csv"))
    for column in ("unlabelled_loss", "train_loss", "valid_loss"):
        np.testing.assert_allclose(weights[0][column], weights[1][column], rtol=1e-3)


def test_the_weight_rises_to_its_value(setting: Setting) -> None:
    from atypia.models.transforms import Augmenter
    from atypia.training.unlabelled import Unlabelled

    _, spec, _ = make_network(setting.config.model, setting.config.input, initial_weights=False)
    place = ComputePlace(torch.device("cpu"), torch.float32, World())
    augmenter = Augmenter(setting.config.augment, spec, 0)
    others = Unlabelled(setting.task, setting.config, setting.store, augmenter, place)
    weights = [others.weight(t) for t in (0, 0.1, 0.2, 0.25, 0.5, 1)]
    assert weights == sorted(weights)
    assert weights[0] == pytest.approx(math.exp(-5))
    assert weights[3:] == [1, 1, 1]


def test_views_are_of_one_figure_and_differ(setting: Setting) -> None:
    """The plain view has the colours of the figure; the changed one has others."""
    from atypia.models.transforms import Augmenter
    from atypia.training.unlabelled import Unlabelled

    config = setting.config.model_copy(
        update={
            "augment": setting.config.augment.model_copy(
                update={"flip": False, "rotate": False, "noise": 0, "scale": 0, "shift_um": 0}
            )
        }
    )
    _, spec, _ = make_network(config.model, config.input, initial_weights=False)
    pixels = np.arange(len(setting.store), dtype=np.uint8)[:, None, None, None]
    flat = PatchStore(np.broadcast_to(pixels, setting.store.pixels.shape).copy(), 0.25)
    place = ComputePlace(torch.device("cpu"), torch.float32, World())
    others = Unlabelled(setting.task, config, flat, Augmenter(config.augment, spec, 0), place)
    mean, std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))
    seen = []
    for plain, changed, _ in others.epoch(0, 3, spec.size_px):
        levels = ((plain * std + mean) * 255).round().flatten(1)
        assert (levels == levels[:, :1]).all()
        seen += levels[:, 0].int().tolist()
        assert (changed != plain).flatten(1).any(dim=1).all()
    assert set(seen) <= set((setting.task.unlabelled_rows % 256).tolist())
    assert len(set(seen)) == min(len(seen), len(setting.task.unlabelled_rows))


def test_asking_for_unlabelled_figures_where_there_are_none_is_refused(
    cohort_folder: Path, tiny: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match=r"unlabelled\.weight: expected figures without a subtype"):
        Setting(cohort_folder, tiny, "target.labelled_patients=1")


def test_a_run_with_few_labels_is_a_run(
    cohort_folder: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """Domains drawn alike, votes of the others, and their figures twice: all at once."""
    settings = ["target.others=atypical", "loss.atypical=0.5", "optim.domain_balance=0.5"]
    config = load_config("quick", [*tiny, *FEW, *settings, "ensemble.trained=1"])
    metrics = pipeline.train(cohort_folder, tmp_path / "run", config)
    assert metrics is not None
    assert metrics["n"] > 0
    assert (tmp_path / "run" / "report.html").is_file()
