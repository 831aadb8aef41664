"""Write an ensemble as one ONNX graph: members, rotations and flips, join, temperature."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from atypia.classifiers.model_guard import ModelGuard
from atypia.classifiers.onnx_files import (
    EXTRA,
    GUARD_OUTPUT,
    METADATA,
    OUTPUT,
    GraphHeader,
    GraphInput,
)
from atypia.classifiers.onnx_int8 import errors_only
from atypia.core.errors import InputError, MissingExtraError
from atypia.core.files import sha256_file, write_bytes
from atypia.core.labels import N_SUBTYPES
from atypia.models.guard_head import features_and_seen
from atypia.models.transforms import normalise

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.classifiers.aggregation import Aggregation
    from atypia.classifiers.ensemble import Ensemble
    from atypia.core.config import InputSpec
    from atypia.models.network import Network

_OPSET = 20
_LARGEST_BYTES = 2**31 - 2**20  # of a protobuf message, and room for the nodes
# Below what float32 holds, a softmax has given 0; see atypia.classifiers.calibration.
_TINY = float(torch.finfo(torch.float32).tiny)


def graph_inputs(ensemble: Ensemble) -> list[GraphInput]:
    """Name the inputs of an ensemble's graph: one for each kind of field that a member sees."""
    distinct: list[InputSpec] = list(dict.fromkeys(ensemble.specs))
    return [GraphInput(name=f"field_{i}", spec=spec) for i, spec in enumerate(distinct)]


def graph_header(ensemble: Ensemble, source: dict[str, Any]) -> GraphHeader:
    """Describe an ensemble's graph; `source` names the bundle and the quality."""
    return GraphHeader(
        inputs=graph_inputs(ensemble),
        members=len(ensemble.members),
        tta=ensemble.tta,
        join=ensemble.join,
        **ensemble.postprocessing.to_header(),
        guard=_guard(ensemble),
        source={**source, "provenance": dict(ensemble.provenance)},
    )


def _guard(ensemble: Ensemble) -> ModelGuard | None:
    guard = ensemble.postprocessing.guard
    return ModelGuard(**{k: getattr(guard, k) for k in ModelGuard.model_fields}) if guard else None


class EnsembleGraph(nn.Module):
    """What an ensemble does once the field of view is sampled, as one module."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.members = nn.ModuleList(ensemble.members).eval()
        self.heads = nn.ModuleList(ensemble.heads).eval()
        self.specs = [entry.spec for entry in graph_inputs(ensemble)]
        self.sees = [self.specs.index(spec) for spec in ensemble.specs]
        self.tta = ensemble.tta
        self.join = ensemble.join
        self.temperature = ensemble.postprocessing.calibration.temperature

    def forward(self, *fields: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Answer on fields (N, 3, S, S) in 0..1, one tensor per spec.

        Probabilities (N, 8); and from the guard, where there is one, score and distance (N, 2).
        """
        views = [normalise(images, spec) for images, spec in zip(fields, self.specs, strict=True)]
        if self.tta:
            # One batch of all views instead of a copy of the network for each.
            views = [torch.cat(_dihedral(images)) for images in views]  # (8 N, 3, S, S)
        members = [cast("Network", member) for member in self.members]
        seen = [features_and_seen(m, views[i]) for m, i in zip(members, self.sees, strict=True)]
        scores = [
            m.scores(f).float().softmax(dim=1) for m, (f, _) in zip(members, seen, strict=True)
        ]
        answers = (self._calibrated(join(self._over_views(torch.stack(scores)), self.join)),)
        if not len(self.heads):
            return answers
        guarded = [head(s) for head, (_, s) in zip(self.heads, seen, strict=False)]
        return *answers, self._over_views(torch.stack(guarded)).mean(dim=0)

    def _over_views(self, given: torch.Tensor) -> torch.Tensor:
        return given.view(len(given), 8, -1, given.shape[2]).mean(dim=1) if self.tta else given

    def _calibrated(self, joined: torch.Tensor) -> torch.Tensor:
        if self.temperature == 1:
            return joined / joined.sum(dim=1, keepdim=True)
        # Not clamp_min: quantisation takes a Clip for the network's own.
        joined = torch.maximum(joined, torch.tensor(_TINY, device=joined.device))
        return (joined.log() / self.temperature).softmax(dim=1)


def join(predicted: torch.Tensor, how: Aggregation) -> torch.Tensor:
    """Aggregate the probabilities (K, N, 8) of members; rows sum to 1.

    The same as :class:`atypia.classifiers.aggregation.Aggregation`, in torch.
    """
    # Sums over an axis, not of two tensors: quantisation would round those to 8 bits.
    mean = predicted.mean(dim=0)
    if how.weights is not None:
        weights = torch.tensor(how.weights, dtype=predicted.dtype, device=predicted.device)
        mean = (predicted * (weights / weights.sum())[:, None, None]).sum(dim=0)
    if how.kind == "median":
        n = len(predicted)
        middle = predicted.sort(dim=0).values[(n - 1) // 2 : n // 2 + 1].mean(dim=0)
        total = middle.sum(dim=1, keepdim=True)
        tiny = torch.tensor(_TINY, device=predicted.device)
        return torch.where(total > 0, middle / torch.maximum(total, tiny), mean)
    if how.kind == "majority":
        classes = torch.arange(N_SUBTYPES, device=predicted.device)
        votes = (predicted.argmax(dim=2, keepdim=True) == classes).to(predicted.dtype)
        return torch.cat([votes, mean[None]]).mean(dim=0)
    return mean


def write_graph(ensemble: Ensemble, file: Path, description: str) -> str:
    """Write an ensemble, which is on the CPU, as an ONNX file, atomically; SHA-256 of the file.

    The batch size stays open; weights are inside. `description` is JSON, for the graph's own
    metadata.

    Raises:
        InputError: The weights are too large for one ONNX file (2 GB).
        MissingExtraError: The extra ``onnx`` is not installed.
        AtypiaError: The file cannot be written.
    """
    for package in ("onnx", "onnxscript"):  # torch's exporter imports them
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, EXTRA, "Writing an ONNX graph")
    graph = EnsembleGraph(ensemble)
    size = sum(p.numel() * p.element_size() for p in graph.parameters())
    if size > _LARGEST_BYTES:
        raise InputError(
            f"expected weights below 2 GB, the most that one ONNX file holds, but got "
            f"{size / 1e9:.1f} GB. Export an ensemble of fewer or smaller members."
        )
    inputs = graph_inputs(ensemble)
    # Two of each: a batch of one would be taken for a fixed size.
    example = tuple(torch.rand(2, 3, e.spec.size_px, e.spec.size_px) for e in inputs)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), errors_only(logging.getLogger("torch.onnx")):
        warnings.simplefilter("ignore")  # of the exporter about its own future
        program = torch.onnx.export(
            graph,
            example,
            input_names=[entry.name for entry in inputs],
            output_names=[OUTPUT, GUARD_OUTPUT][: 2 if ensemble.heads else 1],
            opset_version=_OPSET,
            dynamic_shapes=(tuple({0: batch} for _ in inputs),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = cast("Any", program).model_proto
    for part in (*model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]  # where on whose disk each line of code lies
    model.producer_name = "atypia"
    model.metadata_props.add(key=METADATA, value=description)
    write_bytes(file, model.SerializeToString())
    return sha256_file(file)


def _dihedral(images: torch.Tensor) -> list[torch.Tensor]:
    """Turn and flip as :func:`atypia.models.transforms.dihedral`, by operators that ONNX has."""
    return [
        turned.flip(axes) if axes else turned
        for turned in (images, images.transpose(-2, -1))
        for axes in ((), (-1,), (-2,), (-2, -1))
    ]
