"""The bundle: the same answers from any batch, any copy; nothing from a damaged one."""

from __future__ import annotations

import json
import math
import resource
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from atypia.classifiers import bundle
from atypia.classifiers.calibration import Calibration
from atypia.classifiers.conformal import ConformalSets
from atypia.classifiers.decision import Decision, decide
from atypia.classifiers.ensemble import (
    Ensemble,
    add_quality,
    load_network,
    predict_network,
    save_network,
)
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.config import InputConfig, InputSpec, ModelConfig
from atypia.core.errors import AtypiaError, InputError
from atypia.core.files import sha256_file, stamped, write_json
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.evaluation.predictions import read_predictions
from atypia.models import lite
from atypia.models.network import Network, make_network


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
        [network.eval() for network, _, _ in made],
        made[0][1],
        model,
        True,
        Postprocessing(decision, threshold=0.4),
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


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_an_answer_depends_on_its_patch_alone(
    ensemble: Ensemble, patches: np.ndarray, data: st.DataObject
) -> None:
    whole = ensemble.predict_proba(patches, 0.25)
    rows = data.draw(st.lists(st.integers(0, len(patches) - 1), min_size=1, max_size=9))
    size = data.draw(st.integers(1, 9))
    np.testing.assert_allclose(
        ensemble.predict_proba(patches[rows], 0.25, size), whole[rows], atol=1e-5
    )


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


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the weights of the first member as somebody would who gives a hash, too."""
    file = folder / "member-0.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    rehashed(folder, file)


def rehashed(folder: Path, file: Path) -> None:
    header = json.loads((folder / "model.json").read_text())
    header["members"][0]["sha256"] = sha256_file(file)
    write_json(folder / "model.json", stamped(header))


@pytest.mark.parametrize(
    ("value", "what"), [(math.nan, "NaN or infinities"), (-math.inf, "NaN or infinities")]
)
def test_weights_that_are_no_numbers_are_refused(
    ensemble: Ensemble, tmp_path: Path, value: float, what: str
) -> None:
    ensemble.save(tmp_path)
    rewritten(tmp_path, lambda tensors: tensors["head.bias"].__setitem__(3, value))
    with pytest.raises(InputError, match=rf"member-0\.safetensors: .*head\.bias.*{what}"):
        Ensemble.load(tmp_path)


def test_weights_of_another_network_are_refused(ensemble: Ensemble, tmp_path: Path) -> None:
    ensemble.save(tmp_path)
    rewritten(tmp_path, lambda tensors: tensors.pop("head.bias"))
    with pytest.raises(InputError, match=r"member-0\.safetensors: .*head\.bias"):
        Ensemble.load(tmp_path)


def test_answers_that_are_no_numbers_are_no_answers(
    ensemble: Ensemble, patches: np.ndarray
) -> None:
    member = deepcopy(ensemble.members[0])
    member.head.bias.data[0] = math.nan
    broken = Ensemble([member], ensemble.spec, ensemble.model, tta=False)
    with pytest.raises(AtypiaError, match="NaN"):
        broken.predict_proba(patches, 0.25)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff" * 8,  # a header of 16 exabytes
        (2**40).to_bytes(8, "little") + b"{}",
        (8).to_bytes(8, "little") + b"[[[[[[[[",
        b"overlapping",
    ],
)
def test_a_damaged_file_of_weights_is_a_sentence(
    ensemble: Ensemble, tmp_path: Path, damage: bytes
) -> None:
    if damage == b"overlapping":
        entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        header = json.dumps({"a": entry, "b": entry}).encode()
        damage = len(header).to_bytes(8, "little") + header + bytes(8)
    ensemble.save(tmp_path)
    file = tmp_path / "member-0.safetensors"
    file.write_bytes(damage)
    rehashed(tmp_path, file)
    with pytest.raises(InputError, match=r"member-0\.safetensors.*cannot be read"):
        Ensemble.load(tmp_path)


@pytest.mark.parametrize("name", ["vit_giant_patch14_reg4_dinov2", "convnext_xxlarge"])
def test_a_giant_network_is_refused_before_it_is_made(
    ensemble: Ensemble, tmp_path: Path, name: str
) -> None:
    """A small file in front of a name that would take gigabytes."""
    ensemble.save(tmp_path)
    header = json.loads((tmp_path / "model.json").read_text())
    header["network"]["backbone"] = name
    header["input"]["size_px"] = 224
    write_json(tmp_path / "model.json", stamped(header))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="million parameters"):
        Ensemble.load(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1.5e6  # kB


def small_fast(seed: int = 1, size_px: int = 48, field: float = 14) -> Ensemble:
    """One network of another input and without averaging, as the quality fast is."""
    torch.manual_seed(seed)
    model = ModelConfig(backbone="test_resnet", pretrained=False)
    network, spec, _ = make_network(model, InputConfig(field_of_view_um=field, size_px=size_px))
    nn.init.normal_(network.head.weight, std=1.0)
    prior = np.arange(1, 9) / 36
    sets = ConformalSets(0.1, tuple(np.linspace(0.6, 0.95, 8)), (30,) * 8)
    return Ensemble(
        [network.eval()],
        spec,
        model,
        False,
        Postprocessing(Decision(prior=prior.tolist(), power=0.25), 0.3, Calibration(1.7), sets),
        {"cohort": "c", "history": [{"loss": 0.5, "none": None}]},
    )


def test_a_bundle_with_two_qualities(
    ensemble: Ensemble, patches: np.ndarray, tmp_path: Path
) -> None:
    fast = small_fast()
    ensemble.save(tmp_path)
    add_quality(tmp_path, small_fast(seed=9))
    add_quality(tmp_path, fast)  # takes the place of the first
    best, again = Ensemble.load(tmp_path), Ensemble.load(tmp_path, "fast")
    np.testing.assert_array_equal(
        best.predict_proba(patches, 0.25), ensemble.predict_proba(patches, 0.25)
    )
    np.testing.assert_array_equal(
        again.predict_proba(patches, 0.25), fast.predict_proba(patches, 0.25)
    )
    assert best.postprocessing == ensemble.postprocessing
    for name in ("spec", "model", "tta", "postprocessing"):
        assert getattr(again, name) == getattr(fast, name), name
    assert again.provenance["fast"] == fast.provenance


def test_a_quality_that_is_not_there_is_refused_by_name(ensemble: Ensemble, tmp_path: Path) -> None:
    ensemble.save(tmp_path)
    with pytest.raises(InputError, match=r"\['best'\].*'fast'"):
        Ensemble.load(tmp_path, "fast")


def test_probabilities_are_calibrated_after_the_mean(
    ensemble: Ensemble, patches: np.ndarray
) -> None:
    plain = ensemble.predict_proba(patches, 0.25).astype(float)
    fitted = Postprocessing(calibration=Calibration(2.0))
    modest = replace(ensemble, postprocessing=fitted).predict_proba(patches, 0.25)
    expected = np.sqrt(plain) / np.sqrt(plain).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(modest, expected, atol=1e-6)


def test_members_of_different_kind(ensemble: Ensemble, patches: np.ndarray, tmp_path: Path) -> None:
    other = small_fast(field=19)
    mixed = replace(
        ensemble,
        members=[*ensemble.members, *other.members],
        specs=[ensemble.spec, ensemble.spec, other.spec],
        models=[ensemble.model, ensemble.model, other.model],
        tta=False,
    )
    assert mixed.field_of_view_um == 19
    answers = [
        predict_network(m, patches, 0.25, spec, device=torch.device("cpu"))
        for m, spec in zip(mixed.members, mixed.specs, strict=True)
    ]
    expected = np.mean(answers, axis=0)
    np.testing.assert_allclose(mixed.predict_proba(patches, 0.25), expected, atol=1e-6)
    mixed.save(tmp_path)
    entries = bundle.read_header(tmp_path).members
    assert [e.network is None for e in entries] == [True, True, False]
    again = Ensemble.load(tmp_path)
    np.testing.assert_allclose(again.predict_proba(patches, 0.25), expected, atol=1e-6)
    with pytest.raises(InputError, match="specs"):
        replace(mixed, specs=mixed.specs[:2])


def test_half_the_size_gives_nearly_the_same_answers(
    ensemble: Ensemble, patches: np.ndarray, tmp_path: Path
) -> None:
    ensemble.save(tmp_path / "full")
    ensemble.save(tmp_path / "half", half=True)
    full, half = (
        sum(f.stat().st_size for f in (tmp_path / name).glob("*.safetensors"))
        for name in ("full", "half")
    )
    assert half < 0.6 * full
    again = Ensemble.load(tmp_path / "half")
    assert {p.dtype for m in again.members for p in m.parameters()} == {torch.float32}
    np.testing.assert_allclose(
        again.predict_proba(patches, 0.25), ensemble.predict_proba(patches, 0.25), atol=0.02
    )


def test_a_weight_beyond_16_bits_is_not_lost_in_silence(tmp_path: Path) -> None:
    network = Network(nn.Flatten(), 4, 0)
    with torch.no_grad():
        network.head.weight[0, 0] = 1e5
    with pytest.raises(AtypiaError, match=r"head\.weight"):
        save_network(network, tmp_path / "m.safetensors", half=True)
    assert not (tmp_path / "m.safetensors").exists()


def test_the_shipped_family_is_loaded_without_timm_and_answers_alike(
    patches: np.ndarray, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = ModelConfig(backbone="tf_efficientnet_lite0", pretrained=False)
    network, spec, _ = make_network(model, InputConfig(field_of_view_um=18, size_px=32))
    nn.init.normal_(network.head.weight, std=1.0)
    save_network(network, tmp_path / "m.safetensors")
    loaded = load_network(model, spec, tmp_path / "m.safetensors")
    assert isinstance(loaded.backbone, lite.Lite)
    expected = predict_network(network, patches[:3], 0.25, spec, device=torch.device("cpu"))
    made = Ensemble([loaded], spec, model, False)
    np.testing.assert_allclose(made.predict_proba(patches[:3], 0.25), expected, atol=1e-5)


def test_a_bundle_of_the_first_version_is_read(ensemble: Ensemble, tmp_path: Path) -> None:
    """As Atypia 0.1.0 wrote it."""
    ensemble.save(tmp_path)
    header = json.loads((tmp_path / "model.json").read_text())
    first = {
        "format": 1,
        "created_with": "atypia 0.1.0",
        "classes": header["classes"],
        "input": header["input"],
        "network": header["network"] | {"weights": None},
        "members": [{k: m[k] for k in ("file", "sha256")} for m in header["members"]],
        "tta": True,
        "calibration": {"kind": "none"},
        "decision": header["decision"],
        "thresholds": {"atypical": 0.4},
        "provenance": {"cohort": "c"},
        "intended_use": "Research use. Not a medical device.",
    }
    (tmp_path / "model.json").write_text(json.dumps(first))
    again = Ensemble.load(tmp_path)
    assert again.postprocessing == ensemble.postprocessing
    assert list(bundle.read_header(tmp_path).qualities) == ["best"]


@pytest.mark.parametrize("entry", ["calibration", "conformal"])
def test_a_wrong_calibration_names_the_file(ensemble: Ensemble, tmp_path: Path, entry: str) -> None:
    ensemble.save(tmp_path)
    header = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(stamped(header | {entry: {"kind": "magic"}})))
    with pytest.raises(InputError, match=r"model\.json.*magic"):
        Ensemble.load(tmp_path)


def test_what_a_small_patch_lacks_is_mirrored() -> None:
    ensemble = small_fast(size_px=80, field=18)
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (3, 60, 60, 3), dtype=np.uint8)  # 15 of 18 µm
    mirrored = np.pad(small, ((0, 0), (10, 10), (10, 10), (0, 0)), mode="symmetric")
    np.testing.assert_allclose(
        ensemble.predict_proba(small, 0.25), ensemble.predict_proba(mirrored, 0.25), atol=1e-5
    )


def test_patches_much_smaller_than_the_field_are_refused(ensemble: Ensemble) -> None:
    small = np.zeros((1, 53, 53, 3), np.uint8)
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
