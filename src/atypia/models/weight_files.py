"""Weights out of safetensors, PyTorch and ONNX files, under the names of timm's layers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors.torch import load_file

from atypia.core.errors import InputError, MissingExtraError, Problem, first_few

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.models.encoders import Encoder


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read the named tensors of a ``.safetensors`` or ``.pt``/``.pth`` file.

    Raises:
        InputError: The file holds anything else; what it holds is not run.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors raise many kinds
        raise InputError(
            f"{file}: expected a .safetensors file or a .pt file with tensors only, but it cannot "
            f"be read as such: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise InputError(f"{file}: expected named tensors but found none.")
    return tensors


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a saved network.

    Raises:
        InputError: Not a sound file, or weights that are no finite numbers.
    """
    tensors = read_tensors(file)
    wrong = [n for n, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if wrong:
        what = f"expected finite weights but {first_few(wrong)} hold NaN or infinities."
        raise InputError(Problem(f"{what} Train or export the model again.", str(file)))
    return tensors


_RENAMED: Final = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
)
_QKV: Final = re.compile(r"(?P<block>.*)\.attention\.attention\.(?:query|key|value)\.(?P<kind>\w+)")


def from_dinov2(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename tensors; query, key and value go into the one layer that timm has for them.

    A name that is not known stays as it is and is reported where a network is filled.
    """
    renamed = {_rename(name): tensor for name, tensor in tensors.items()}
    joined = {}
    for name, tensor in renamed.items():
        part = _QKV.fullmatch(name)
        if part is None:
            joined[name] = tensor
            continue
        block, kind = part["block"], part["kind"]
        three = [f"{block}.attention.attention.{p}.{kind}" for p in ("query", "key", "value")]
        if all(p in renamed for p in three):  # else the missing tensor is reported on filling
            joined[f"{block}.attn.qkv.{kind}"] = torch.cat([renamed[p] for p in three])
    return joined


def _rename(name: str) -> str:
    for pattern, new in _RENAMED:
        name = re.sub(pattern, new, name)
    return name


_OF_CAPTIONS: Final = ("attn_pool_caption.", "ln_caption.", "proj_contrast")


def renamed(encoder: Encoder, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the tensors of an encoder's file the names of its module.

    What describes no image is left out: a text half, captions, a mask token. Other tensors that
    the module does not have keep their names and are reported where it is filled.
    """
    if encoder.names == "dinov2":
        tensors = from_dinov2(tensors)
    elif encoder.names == "conch":
        own = {n.removeprefix("visual."): t for n, t in tensors.items() if n.startswith("visual.")}
        tensors = {n: t for n, t in own.items() if not n.startswith(_OF_CAPTIONS)}
    elif encoder.names == "timm" and encoder.embedding == "class_token_and_patch_mean":
        tensors = {f"trunk.{n}": t for n, t in tensors.items()}
    return {n: t for n, t in tensors.items() if not n.endswith("mask_token")}


def read_dinov2(file: Path) -> dict[str, torch.Tensor]:
    """Read a DINOv2 encoder from an ONNX graph that PyTorch wrote with constant folding.

    The encoder is a ``Dinov2Model`` of transformers, named ``backbone``; what else the graph does
    is left out. Returns tensors by timm's names, ``pos_embed`` (1, 1 + n x n, D) on its grid.

    Raises:
        MissingExtraError: The extra ``weights-vit`` is not installed.
        InputError: Not such a graph.
    """
    graph, constants = _open(file)
    named = constants | _linear_weights(graph, constants)
    encoder = {
        name.removeprefix("backbone."): tensor
        for name, tensor in named.items()
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
    """Matrices of linear layers, (outputs, inputs), under the names of their biases.

    An exporter keeps the names of biases and norms but gives up those of the matrices: a linear
    layer becomes a nameless, transposed constant of a MatMul. The bias added to its output names
    the layer.
    """
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
