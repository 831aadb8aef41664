"""Weights of a vision transformer out of an ONNX graph, under timm's names.

An exporter keeps the names of biases and norms but gives up those of the matrices: a linear layer
becomes a nameless, transposed constant of a MatMul. The bias added to its output tells whose it
is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from atypia.core.errors import InputError, MissingExtraError
from atypia.models.dinov2_names import from_dinov2

if TYPE_CHECKING:
    from pathlib import Path


def read_dinov2(file: Path) -> dict[str, torch.Tensor]:
    """Read a DINOv2 encoder that was exported from PyTorch with constant folding.

    Args:
        file: ONNX graph whose encoder is a ``Dinov2Model`` of transformers, named ``backbone``;
            what else the graph does is left out.

    Returns:
        Tensors by timm's names, ``pos_embed`` (1, 1 + n x n, D) on the grid of the graph.

    Raises:
        MissingExtraError: The extra ``weights-vit`` is not installed.
        InputError: Not such a graph.
    """
    graph, constants = _open(file)
    encoder = {
        name.removeprefix("backbone."): tensor
        for name, tensor in constants.items()
        if name.startswith("backbone.")
    }
    encoder |= {
        name.removeprefix("backbone."): tensor
        for name, tensor in _linear_weights(graph, constants).items()
        if name.startswith("backbone.")
    }
    nameless = [t for n, t in constants.items() if n.startswith("onnx::") and t.ndim == 3]
    # The position of the class token stands apart, since only the others are resampled.
    positions = sorted((t for t in nameless if t.shape[0] == 1), key=lambda t: t.shape[1])
    if "embeddings.cls_token" not in encoder or [t.shape[1] == 1 for t in positions] != [1, 0]:
        raise InputError(
            f"{file}: expected the ONNX graph of a DINOv2 encoder named 'backbone', with the "
            f"positions of the class token and of the patches, but got {len(encoder)} tensors of "
            f"such a name and {len(positions)} of positions."
        )
    return from_dinov2(encoder) | {"pos_embed": torch.cat(positions, dim=1)}


def _open(file: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Graph of an ONNX file, and its constants by name."""
    try:
        import onnx
        from onnx import numpy_helper
    except ModuleNotFoundError:
        raise MissingExtraError("onnx", "weights-vit", f"Reading weights from {file}") from None
    try:
        graph = onnx.load_model(str(file)).graph
    except Exception as error:  # protobuf's and onnx's own, none documented
        raise InputError(
            f"{file}: expected an ONNX file but it cannot be read as such: "
            f"{type(error).__name__}: {error}"
        ) from None
    constants = {
        item.name: torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in graph.initializer
    }
    return graph, constants


def _linear_weights(graph: Any, constants: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Matrices of linear layers, (outputs, inputs), under the names of their biases."""
    products = {
        node.output[0]: constants[node.input[1]]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in constants
    }
    weights = {}
    for node in graph.node:
        if node.op_type == "Add":
            product = next((i for i in node.input if i in products), None)
            bias = next((i for i in node.input if i.endswith(".bias")), None)
            if product is not None and bias is not None:
                weights[f"{bias.removesuffix('bias')}weight"] = products[product].T.contiguous()
    return weights
