"""The bundle: the same answers from any batch, any copy; nothing from a damaged one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from atypia.config import InputConfig, InputSpec, ModelConfig
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.ensemble import Decision, Ensemble, decide, predict_network
from atypia.errors import InputError
from atypia.evaluation.predictions import read_predictions
from atypia.models.network import make_network


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    torch.manual_seed(0)
    model = ModelConfig(backbone="test_convnext", pretrained=False)
    size = InputConfig(field_of_view_um=18, size_px=32)
    decision = Decision(prior=[1 / 8] * 8, power=0.5)
    made = [make_network(model, size) for _ in range(2)]
    for network, _, _ in made:
        torch.nn.init.normal_(network.head.weight, std=1.0)  # answers that differ
    return Ensemble(
        [network.eval() for network, _, _ in made], made[0][1], model, True, decision, 0.4
    )


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 80, 80, 3), dtype=np.uint8)


def test_rows_sum_to_one_and_do_not_depend_on_the_batch(
    ensemble: Ensemble, patches: np.ndarray
) -> None:
    whole = ensemble.predict_proba(patches, 0.25)
    assert whole.shape == (23, 8)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-6)
    assert whole.std() > 0.05
    for size in (1, 7):
        np.testing.assert_allclose(ensemble.predict_proba(patches, 0.25, size), whole, atol=1e-5)
    np.testing.assert_allclose(ensemble.predict_proba(patches[::-1], 0.25)[::-1], whole, atol=1e-5)


def test_test_time_averaging_makes_turned_patches_equal(
    ensemble: Ensemble, patches: np.ndarray
) -> None:
    turned = np.ascontiguousarray(np.rot90(patches, axes=(1, 2)))
    np.testing.assert_allclose(
        ensemble.predict_proba(turned, 0.25), ensemble.predict_proba(patches, 0.25), atol=1e-4
    )


def test_the_ensemble_is_the_mean_of_its_members(ensemble: Ensemble, patches: np.ndarray) -> None:
    members = [
        predict_network(m, patches, 0.25, ensemble.spec, device=torch.device("cpu"), tta=True)
        for m in ensemble.members
    ]
    np.testing.assert_allclose(
        ensemble.predict_proba(patches, 0.25), np.mean(members, axis=0), atol=1e-6
    )


def test_a_saved_bundle_answers_the_same(
    ensemble: Ensemble, patches: np.ndarray, tmp_path: Path
) -> None:
    ensemble.save(tmp_path / "model")
    again = Ensemble.load(tmp_path / "model")
    np.testing.assert_array_equal(
        again.predict_proba(patches, 0.25), ensemble.predict_proba(patches, 0.25)
    )
    assert again.threshold == 0.4
    assert again.spec == ensemble.spec
    assert {p.suffix for p in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize("fault", ["flip a byte", "remove a member", "other classes", "no json"])
def test_a_damaged_bundle_is_refused(ensemble: Ensemble, tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "model"
    ensemble.save(folder)
    member = folder / "member-1.safetensors"
    if fault == "flip a byte":
        content = bytearray(member.read_bytes())
        content[-1] ^= 1
        member.write_bytes(content)
    elif fault == "remove a member":
        member.unlink()
    elif fault == "other classes":
        header = json.loads((folder / "model.json").read_text())
        header["classes"].reverse()
        (folder / "model.json").write_text(json.dumps(header))
    else:
        (folder / "model.json").unlink()
    with pytest.raises(InputError):
        Ensemble.load(folder)


def test_patches_smaller_than_the_field_are_refused(ensemble: Ensemble) -> None:
    small = np.zeros((1, 64, 64, 3), np.uint8)
    with pytest.raises(InputError, match="field of view"):
        ensemble.predict_proba(small, 0.25)
    with pytest.raises(InputError, match="uint8"):
        ensemble.predict_proba(small.astype(np.float32), 0.5)


def test_training_and_prediction_see_the_same_pixels(run_folder: Path, cohort_folder: Path) -> None:
    """The out-of-fold answers, from the store's margins, are those of the member on the file."""
    oof = read_predictions(run_folder / "predictions-oof.csv")
    cohort = Cohort.open(cohort_folder)
    paths = dict(zip(cohort.manifest["patch_id"], cohort.image_paths(), strict=True))
    model = Ensemble.load(run_folder)
    rows = [i for i in range(len(oof)) if oof.folds[i] == "1"][:20]
    pixels = np.stack([read_patch(paths[oof.patch_ids[i]]) for i in rows])
    answers = predict_network(
        model.members[1], pixels, 0.25, model.spec, device=torch.device("cpu")
    )
    np.testing.assert_allclose(answers, oof.probabilities[rows], atol=1e-5)


def test_a_bundle_can_be_moved(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder / "model", tmp_path / "elsewhere")
    assert isinstance(Ensemble.load(tmp_path / "elsewhere").spec, InputSpec)


def test_decisions_between_the_most_probable_and_the_most_supported() -> None:
    probabilities = np.array([[0.3, 0.6, 0.1, 0, 0, 0, 0, 0]])
    prior = np.array([0.1, 0.7, 0.04, 0.04, 0.03, 0.03, 0.03, 0.03])
    assert decide(probabilities, prior, 0)[0] == 1
    assert decide(probabilities, prior, 0.5)[0] == 0
    # With power 1 the expected balanced accuracy is the largest of all rules.
    rng = np.random.default_rng(0)
    truth = rng.choice(8, p=prior, size=20_000)
    evidence = rng.normal(size=(20_000, 8)) + 1.5 * np.eye(8)[truth]
    posterior = np.exp(1.5 * evidence) * prior
    posterior /= posterior.sum(axis=1, keepdims=True)
    reached = [
        np.mean([(decide(posterior, prior, power)[truth == c] == c).mean() for c in range(8)])
        for power in (0, 0.5, 1)
    ]
    assert reached == sorted(reached)
