"""The guard: scores become a status, heads survive saving and export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atypia.classifiers.bundle import read_header
from atypia.classifiers.ensemble import Ensemble
from atypia.classifiers.loading import load_ensemble
from atypia.classifiers.model_guard import ModelGuard
from atypia.core.errors import InputError
from atypia.core.labels import ANSWERED, SUBTYPES
from atypia.data.look_alikes import FIGURE, NEAR, NUCLEUS, guard_examples
from atypia.data.synthetic import SCANNERS, Patient, render
from atypia.models.guard_head import GuardHead, features_and_seen
from atypia.models.lite import Lite, middle
from atypia.training.guard_fit import fit_guard
from tests.untrained import untrained_ensemble

GUARD = ModelGuard(slope=2.0, intercept=-1.0, least_p_mitosis=0.2, farthest=3.0)


def drawn(n: int, side: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Patches (n, side, side, 3) and the patient of each."""
    rng = np.random.default_rng(3)
    patients = [Patient.draw(SCANNERS[i % len(SCANNERS)], rng) for i in range(6)]
    made = [render(SUBTYPES[i % 8], patients[i % 6], rng, side, 0.25) for i in range(n)]
    return np.stack([np.asarray(m) for m in made]), np.array([f"P{i % 6}" for i in range(n)])


@pytest.fixture(scope="module")
def guarded() -> Ensemble:
    patches, patients = drawn(24)
    ensemble = untrained_ensemble()
    return fit_guard(ensemble, patches, 0.25, patients, patients > "P2", seed=1, seen="drawn")


def test_scores_become_probabilities_and_a_status() -> None:
    scores = np.array([[0.5, 1.0], [5.0, 1.0], [-1.0, 1.0], [5.0, 3.1], [-1.0, 9.0]])
    expected = 1 / (1 + np.exp(1 - 2 * scores[:, 0]))
    np.testing.assert_allclose(GUARD.p_mitosis(scores), expected, rtol=1e-6)
    assert GUARD.status(scores).tolist() == [
        ANSWERED, ANSWERED, "not_a_mitosis", "unlike_training", "not_a_mitosis",
    ]  # fmt: skip


def test_a_score_that_is_no_number_is_not_answered() -> None:
    assert (GUARD.status(np.array([[np.nan, 1.0], [5.0, np.nan]])) != ANSWERED).all()


def test_limits_reject_the_shares_that_they_name() -> None:
    scores = np.random.default_rng(0).normal(size=(4000, 2))
    guard = GUARD.with_limits(scores, (0.01, 0.02))
    status = guard.status(scores)
    assert (status == "not_a_mitosis").mean() == pytest.approx(0.01, abs=0.002)
    assert (status == "unlike_training").mean() == pytest.approx(0.02, abs=0.002)
    assert guard.slope == GUARD.slope


def test_examples_are_of_both_classes_and_off_centre_by_no_more_than_a_detector_is() -> None:
    patches, _ = drawn(8)
    patches[:, 62:66, 62:66] = (0, 255, 0)  # marks the centre of each figure
    examples = guard_examples(patches, 0.25, 18.0, seed=0)
    green = (examples.crops == (0, 255, 0)).all(axis=-1)
    at = {kind: green[examples.kinds == kind] for kind in (FIGURE, NEAR, NUCLEUS)}
    assert at[FIGURE][:, 34:38, 34:38].all()
    middle_px = np.hypot(*(np.indices((72, 72)) - 35.5)) * 0.25
    assert (np.where(at[NEAR], middle_px, np.inf).min(axis=(1, 2)) <= 3.5).all()
    assert not at[NUCLEUS][:, middle_px < 7].any()


def test_other_known_figures_are_no_examples_of_what_is_none() -> None:
    patches, _ = drawn(4)
    blot = np.clip(patches.astype(int) - 0, 0, 255).astype(np.uint8)
    blot[:, 64:72, 100:108] = (60, 20, 90)  # the darkest off-centre spot, 10 µm to the right
    found = guard_examples(blot, 0.25, 18.0, 0)
    known = guard_examples(blot, 0.25, 18.0, 0, [np.array([[68, 104]])] * 4)
    dark = [
        (examples.crops[examples.kinds == NUCLEUS][:, 34:38, 34:38] == (60, 20, 90)).all((1, 2, 3))
        for examples in (found, known)
    ]
    assert dark[0].any()
    assert not dark[1].any()


def test_the_middle_of_a_map_is_a_weighted_mean() -> None:
    flat = torch.full((1, 2, 5, 5), 3.0)
    torch.testing.assert_close(middle(flat), torch.full((1, 2), 3.0))
    spot = torch.zeros(1, 1, 5, 5)
    spot[0, 0, 2, 2] = 1
    corner = torch.zeros(1, 1, 5, 5)
    corner[0, 0, 0, 0] = 1
    assert middle(spot) > 0.2
    assert middle(corner) < 0.001


def test_a_guard_looks_at_the_middle_without_changing_the_features() -> None:
    network = Lite("tf_efficientnet_lite0", 16).eval()
    images = torch.rand(2, 3, 80, 80)
    with torch.inference_mode():
        features, seen = network.with_middle(images)
        torch.testing.assert_close(network(images), features)
    assert seen.shape == (2, 112 + 40 + 80 + 112)


def test_distance_is_that_of_mahalanobis(guarded: Ensemble) -> None:
    head: GuardHead = guarded.heads[0]
    x = torch.randn(50, len(head.mean))
    z = (x - head.mean) / head.scale
    # Its square is the quadratic form of the inverse of the covariance that whitening stands for.
    inverse = head.whitening @ head.whitening.T
    off = z - head.centre @ torch.linalg.inv(head.whitening)
    expected = ((off @ inverse * off).sum(1) / len(head.mean)).sqrt()
    with torch.inference_mode():
        torch.testing.assert_close(head(x)[:, 1], expected, rtol=1e-3, atol=1e-4)


def test_a_fitted_guard_separates_what_it_was_fitted_on(guarded: Ensemble) -> None:
    patches, _ = drawn(24)
    answers = guarded.answer(patches, 0.25)
    assert answers.has_head
    assert (answers.status == ANSWERED).mean() > 0.7
    examples = guard_examples(patches, 0.25, 18.0, seed=5)
    p = guarded.answer(examples.crops, 0.25).p_mitosis
    assert p is not None
    assert p[examples.is_figure].mean() > p[~examples.is_figure].mean() + 0.1


def test_fitting_is_repeatable(guarded: Ensemble) -> None:
    patches, patients = drawn(24)
    again = fit_guard(untrained_ensemble(), patches, 0.25, patients, patients > "P2", seed=1)
    a, b = guarded.postprocessing.guard, again.postprocessing.guard
    assert a is not None
    assert b is not None
    assert a.least_p_mitosis == pytest.approx(b.least_p_mitosis, rel=1e-3)
    assert a.farthest == pytest.approx(b.farthest, rel=1e-3)


def test_a_bundle_keeps_the_guard(guarded: Ensemble, tmp_path: Path) -> None:
    guarded.save(tmp_path / "model")
    header = read_header(tmp_path / "model")
    assert header.guard is not None
    assert header.guard.seen == "drawn"
    loaded = load_ensemble(tmp_path / "model")
    patches, _ = drawn(8)
    before, after = guarded.answer(patches, 0.25), loaded.answer(patches, 0.25)
    np.testing.assert_allclose(before.p_mitosis, after.p_mitosis, atol=1e-5)
    assert (before.status == after.status).all()


def test_damaged_heads_are_found(guarded: Ensemble, tmp_path: Path) -> None:
    guarded.save(tmp_path / "model")
    (tmp_path / "model" / "member-guard.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="member-guard"):
        load_ensemble(tmp_path / "model")


def test_a_model_without_heads_answers_by_pixels(tmp_path: Path) -> None:
    untrained_ensemble().save(tmp_path / "model")
    patches, _ = drawn(3)
    patches[0] = 245
    answers = load_ensemble(tmp_path / "model").answer(patches, 0.25)
    assert answers.status is not None
    assert answers.status.tolist() == ["no_tissue", ANSWERED, ANSWERED]
    assert answers.p_mitosis is not None
    assert np.isnan(answers.p_mitosis).all()


def test_pixels_come_before_heads(guarded: Ensemble) -> None:
    always = replace(guarded.postprocessing, guard=GUARD.model_copy(update={"least_p_mitosis": 1}))
    answers = replace(guarded, postprocessing=always).answer(
        np.full((1, 80, 80, 3), 245, np.uint8), 0.25
    )
    assert answers.status is not None
    assert answers.status.tolist() == ["no_tissue"]


def test_an_export_gives_the_same_status(guarded: Ensemble, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from atypia.pipeline.export import export

    guarded.save(tmp_path / "model")
    export(tmp_path / "model", tmp_path / "onnx")
    patches, _ = drawn(9)
    torch_, onnx = (
        guarded.answer(patches, 0.25),
        load_ensemble(tmp_path / "onnx").answer(patches, 0.25),
    )
    np.testing.assert_allclose(torch_.p_mitosis, onnx.p_mitosis, atol=1e-4)
    assert (torch_.status == onnx.status).all()


def test_features_and_seen_are_one_for_a_backbone_without_maps(guarded: Ensemble) -> None:
    with torch.inference_mode():
        features, seen = features_and_seen(guarded.members[0], torch.rand(2, 3, 48, 48))
    assert seen is features
