"""Maps point where a network's evidence is known to be, and turn with the image."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
import timm
import torch
from spots import (
    MPP,
    SIZE,
    SPEC,
    TARGET,
    ensemble_of,
    inside,
    red_network,
    spotted,
    tiny_transformer,
    tissue,
    trained,
)

from atypia.core.config import InputConfig, InputSpec, ModelConfig
from atypia.core.errors import InputError, MissingExtraError
from atypia.explain import ANY_ATYPICAL, METHODS, attribution, explain, shown
from atypia.explain.cam import _recorded
from atypia.explain.target import log_odds, target_probability
from atypia.models import lite
from atypia.models.network import Network, assemble, make_network
from atypia.models.token_pooling import ClassTokenAndPatchMean

if TYPE_CHECKING:
    from atypia.classifiers.ensemble import Ensemble


def targets(n: int, target: int = TARGET) -> np.ndarray:
    return np.full(n, target, dtype=np.int64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stages", ["one", "shared", "separate"])
def test_the_map_is_where_the_evidence_is(method: str, stages: str) -> None:
    patches, corners = spotted(6)
    found = explain(ensemble_of([red_network(stages)]), patches, MPP, targets(6), method)
    assert found.maps.shape == patches.shape[:3]
    assert inside(found.maps, corners).all()
    # What speaks for one subtype speaks against another.
    other = explain(ensemble_of([red_network(stages)]), patches, MPP, targets(6, 6), method)
    assert inside(-other.maps, corners).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_transformer_that_has_learned_spots_points_at_them(
    method: str, transformer: Ensemble
) -> None:
    patches, corners = spotted(24, seed=5)
    assert (transformer.predict_proba(patches, MPP).argmax(1) == TARGET).mean() > 0.9
    found = explain(transformer, patches, MPP, targets(24), method)
    assert inside(found.maps, corners, margin=3).mean() > 0.7


def test_a_convnext_that_normalises_its_places_points_at_spots() -> None:
    torch.manual_seed(0)
    backbone = timm.create_model("convnext_atto", num_classes=0, ls_init_value=0.5)
    ensemble = ensemble_of([trained(backbone, 320, steps=60)])
    patches, corners = spotted(24, seed=5)
    assert (ensemble.predict_proba(patches, MPP).argmax(1) == TARGET).mean() > 0.9
    found = explain(ensemble, patches, MPP, targets(24))
    assert np.abs(found.maps).max() > 1e-4  # more than rounding
    assert inside(found.maps, corners, margin=3).mean() > 0.7


@pytest.fixture(scope="module")
def transformer() -> Ensemble:
    return ensemble_of([trained(tiny_transformer(), 32, steps=120)])


def members(kind: str) -> tuple[Network, InputSpec]:
    """A network with random weights, and what it sees."""
    torch.manual_seed(3)
    size = InputConfig(field_of_view_um=16.0, size_px=64)
    spec = SPEC.model_copy(update={"size_px": 64})
    if kind == "lite":
        config = ModelConfig(backbone="tf_efficientnet_lite0", pretrained=False)
        network = assemble([lite.Lite(config.backbone)], 1280, config)
    elif kind == "tokens":
        trunk = tiny_transformer()
        trunk.set_input_size(64)
        trunk.global_pool = ""
        network = Network(ClassTokenAndPatchMean(trunk), 64, 0.0)
    else:
        name, reduction, stages = {
            "reduced": ("tf_efficientnet_lite0", 16, "one"),
            "convnext": ("convnext_atto", None, "one"),
            "staged": ("convnext_atto", None, "shared"),
            "vit": ("vit_tiny_patch16_224", None, "one"),
            "resnet": ("resnet10t", None, "one"),
        }[kind]
        config = ModelConfig(backbone=name, pretrained=False, reduction=reduction, stages=stages)
        network = make_network(config, size, initial_weights=False)[0]
    for parameter in network.head.parameters():
        torch.nn.init.normal_(parameter)
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):  # of a fresh ConvNeXt nearly 0: what is left is rounding
            torch.nn.init.constant_(parameter, 0.5)
    return network.eval(), spec


@pytest.mark.parametrize(
    "kind", ["lite", "reduced", "convnext", "staged", "vit", "tokens", "resnet"]
)
def test_every_backbone_has_a_map_that_turns_with_the_image(kind: str) -> None:
    network, spec = members(kind)
    ensemble = ensemble_of([network], spec)
    patches, _ = spotted(2)
    found = explain(ensemble, patches, MPP, targets(2))
    assert np.isfinite(found.maps).all()
    assert (np.abs(found.maps).max((1, 2)) > 0).all()
    turned = np.ascontiguousarray(np.rot90(patches, 1, (1, 2))[:, :, ::-1])
    expected = np.rot90(found.maps, 1, (1, 2))[:, :, ::-1]
    again = explain(ensemble, turned, MPP, targets(2)).maps
    np.testing.assert_allclose(again, expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_turns_with_the_image(method: str, transformer: Ensemble) -> None:
    patches, _ = spotted(2, seed=9)
    found = explain(transformer, patches, MPP, targets(2), method).maps
    turned = np.ascontiguousarray(np.rot90(patches, 1, (1, 2)))
    again = explain(transformer, turned, MPP, targets(2), method).maps
    expected = np.rot90(found, 1, (1, 2))
    np.testing.assert_allclose(again, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("steps", "tolerance"), [(attribution.STEPS, 0.15), (64, 0.02)])
def test_integrated_gradients_share_out_all_of_the_difference(
    steps: int, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, "STEPS", steps)
    patches, _ = spotted(4, seed=2)
    found = explain(ensemble_of([red_network()]), patches, MPP, targets(4), "integrated")
    difference = found.scores - found.flat_scores
    assert (np.abs(difference) > 0.2).all()
    np.testing.assert_allclose(found.totals, difference, rtol=tolerance)


def test_nothing_is_flat_and_of_the_median_colour() -> None:
    patches, _ = spotted(2)
    images = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 127.5 - 1
    flat = attribution.nothing(images)
    assert flat.shape == images.shape
    assert (flat == flat[:, :, :1, :1]).all()
    np.testing.assert_allclose(
        flat[:, :, 0, 0].numpy(), np.median(patches, axis=(1, 2)) / 127.5 - 1, atol=0.01
    )


def test_places_of_a_pooled_layer_sum_to_its_part_of_the_score() -> None:
    patches, _ = spotted(3)
    found = explain(ensemble_of([red_network()]), patches, MPP, targets(3), "gradcam")
    # Seven other subtypes have the score 0, and the gradient of the log-odds is that of the score.
    score = found.scores + np.log(7)
    np.testing.assert_allclose(found.totals, score, rtol=0.1)


def test_members_are_averaged_with_the_weights_of_the_join() -> None:
    patches, _ = spotted(2)
    one, other = red_network(), red_network("shared")
    maps = [explain(ensemble_of([m]), patches, MPP, targets(2)).maps for m in (one, other)]
    both = ensemble_of([one, other])
    np.testing.assert_allclose(
        explain(both, patches, MPP, targets(2)).maps, np.mean(maps, axis=0), rtol=1e-4, atol=1e-7
    )
    both.join = type(both.join)(kind="weighted", weights=(3.0, 1.0))
    np.testing.assert_allclose(
        explain(both, patches, MPP, targets(2)).maps,
        0.75 * maps[0] + 0.25 * maps[1],
        rtol=1e-4,
        atol=1e-7,
    )


def test_the_map_lies_where_the_field_of_view_lies_in_the_patch() -> None:
    # A patch twice as wide as the field of view, and not square.
    patches, corners = spotted(3)
    wide = np.pad(patches, ((0, 0), (16, 16), (20, 20), (0, 0)), constant_values=150)
    found = explain(ensemble_of([red_network()]), wide, MPP, targets(3)).maps
    assert found.shape == (3, 64, 72)
    assert inside(found, corners + np.array([16, 20])).all()
    outside = found.copy()
    outside[:, 15:49, 19:53] = 0
    assert (outside == 0).all()


def test_log_odds_of_a_subtype_and_of_atypical() -> None:
    scores = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    p = scores.softmax(1).double()
    asked = torch.tensor([0, 3, 7, ANY_ATYPICAL, 4])
    expected = [p[i, t] if t < 8 else p[i, :4].sum() for i, t in enumerate(asked)]
    expected = torch.stack(expected)
    torch.testing.assert_close(
        log_odds(scores, asked).double(), torch.log(expected / (1 - expected)), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(log_odds(scores + 3, asked), log_odds(scores, asked))
    np.testing.assert_allclose(target_probability(p.numpy(), asked.numpy()), expected.numpy())


def test_what_is_shown_is_scaled_for_the_eye() -> None:
    patches, corners = spotted(2)
    ensemble = ensemble_of([red_network()])
    heat = shown(explain(ensemble, patches, MPP, targets(2)).maps, MPP)
    assert heat.shape == (2, SIZE, SIZE)
    assert heat.dtype == np.float32
    assert np.abs(heat).max() == 1
    assert inside(heat, corners, margin=3).all()
    signed = shown(np.stack([-np.ones((8, 8)), np.zeros((8, 8))]).astype(np.float32), MPP)
    assert (signed[0] == -1).all()
    assert (signed[1] == 0).all()


def test_answers_that_others_ask_for_meanwhile_are_not_taken_for_ours() -> None:
    network = red_network()
    images = torch.zeros(1, 3, SIZE, SIZE)
    with _recorded([[network.backbone.find]]) as recorded:
        other = threading.Thread(target=network, args=(images,))
        other.start()
        other.join()
        assert recorded == [[]]
        network(images)
        assert len(recorded[0]) == 1
    network(images)
    assert len(recorded[0]) == 1


def test_explaining_leaves_the_network_as_it_was() -> None:
    network = red_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ensemble = ensemble_of([network])
    answers = ensemble.predict_proba(tissue(2), MPP)
    for method in METHODS:
        explain(ensemble, tissue(2), MPP, targets(2), method)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    np.testing.assert_array_equal(ensemble.predict_proba(tissue(2), MPP), answers)


def test_bad_input_is_told() -> None:
    ensemble = ensemble_of([red_network()])
    with pytest.raises(InputError, match="expected one of"):
        explain(ensemble, tissue(1), MPP, targets(1), "magic")
    with pytest.raises(InputError, match="at least 12 µm"):
        explain(ensemble, tissue(1), 0.1, targets(1))
    network = red_network()
    del network.backbone.feature_info
    with pytest.raises(InputError, match="occlusion and integrated"):
        explain(ensemble_of([network]), tissue(1), MPP, targets(1))


def test_a_missing_captum_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum", None)
    ensemble = ensemble_of([red_network()])
    explain(ensemble, tissue(1), MPP, targets(1), "gradcam")
    with pytest.raises(MissingExtraError, match=r"atypia\[explain\]"):
        explain(ensemble, tissue(1), MPP, targets(1), "occlusion")
